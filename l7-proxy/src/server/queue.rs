//! Places at servers that take so much at a time, and who waits for one, in the order in which they came.
//!
//! A place that is given back goes over to who has waited longest among those who could use it: to nobody who comes meanwhile, for
//! it is never free. Some have to be served by one server, whatever room others have: they stand in a line of their own, and
//! nobody waits behind them for another.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Poll, Waker},
};

use super::{Live, Server, choose::Tier, now};
use crate::spec::ServerState;

/// A request or connection that is under way; it counts until it is dropped.
#[derive(Debug)]
pub struct Slot {
    live: Arc<Live>,
    /// Who waits for a place, and which server it is of those that whoever has this one knows.
    queue: Arc<Queue>,
    index: usize,
}

impl Slot {
    /// A place at this server, if it has one left.
    pub(super) fn take(server: &Server, queue: &Arc<Queue>, index: usize) -> Option<Self> {
        let is_in = server.live.enter();
        is_in.then(|| Self { live: Arc::clone(&server.live), queue: Arc::clone(queue), index })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Nobody waits where there is always room.
        if self.live.most() == u32::MAX {
            return self.live.leave();
        }
        if self.queue.length() > 0 && self.queue.hand_on(&self.live, self.index) {
            return;
        }
        self.live.leave();
        // Who came since then, or could not be sure to be let in here, is to look.
        if self.queue.length() > 0 {
            self.queue.have_looked(Some(line_of(&self.live)));
        }
    }
}

/// All that wait. Before and after a change of the configuration they are the same ones; each knows the servers as they were when
/// it came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    length: AtomicUsize,
}

/// Who waits for one server alone stands in that one's line, who does not in none.
type Line = Option<usize>;

/// The line of a server: no two that are in use have the same.
fn line_of(live: &Arc<Live>) -> usize {
    Arc::as_ptr(live).addr()
}

#[derive(Debug, Default)]
struct Inner {
    /// By line, and the order in which they came.
    waiting: BTreeMap<(Line, u64), Waiting>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    servers: Arc<[Server]>,
    tier: Tier,
    told: Option<Told>,
}

impl Waiting {
    /// Which of its servers this is, if it may have the place there that is given back.
    fn wants(&self, line: Line, live: &Arc<Live>, hint: usize, now: u64) -> Option<usize> {
        let is_it = |server: &Server| Arc::ptr_eq(&server.live, live);
        let index = match self.servers.get(hint).filter(|server| is_it(server)) {
            Some(_) => hint,
            None => self.servers.iter().position(is_it)?,
        };
        let server = &self.servers[index];
        // The place itself still counts.
        let has_room = live.active() <= live.most();
        let state = live.state();
        let fits = match line {
            Some(_) => matches!(state, ServerState::Up | ServerState::Drain),
            None => self.tier.has(index, server, now),
        };
        (self.told.is_none() && has_room && fits).then_some(index)
    }
}

#[derive(Debug)]
enum Told {
    /// This place at this server is theirs.
    Given(usize, Slot),
    /// There may be one.
    Look,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(super) fn length(&self) -> usize {
        self.length.load(SeqCst)
    }

    /// A turn behind everybody who waits, unless these are `most` or more: for a place at the `only` one of the servers that will do,
    /// or at any of a tier. A place may have become free just before, and nobody tells of that.
    pub(super) fn join(
        &self,
        servers: &Arc<[Server]>,
        (only, tier): (Option<usize>, Tier),
        most: usize,
    ) -> Option<Turn<'_>> {
        let mut inner = self.lock();
        if inner.waiting.len() >= most {
            return None;
        }
        let key = (line(servers, only), inner.next);
        inner.next += 1;
        let servers = Arc::clone(servers);
        inner.waiting.insert(key, Waiting { waker: Waker::noop().clone(), servers, tier, told: None });
        self.length.store(inner.waiting.len(), SeqCst);
        Some(Turn { queue: self, key })
    }

    /// Gives a place to who has waited longest and can use it; whether there is anybody.
    fn hand_on(self: &Arc<Self>, live: &Arc<Live>, hint: usize) -> bool {
        let now = now();
        let wants = |line: Line, waiting: &Waiting| waiting.wants(line, live, hint, now);
        let told =
            |index| Told::Given(index, Slot { live: Arc::clone(live), queue: Arc::clone(self), index });
        let is_taken = self.lock().tell(Some(line_of(live)), wants, told);
        if is_taken {
            live.count();
        }
        is_taken
    }

    /// Has who has waited longest in this line, or in none, look for a place.
    fn have_looked(&self, line: Line) {
        let wants = |_, waiting: &Waiting| waiting.told.is_none().then_some(());
        self.lock().tell(line, wants, |()| Told::Look);
    }
}

fn line(servers: &[Server], only: Option<usize>) -> Line {
    only.map(|index| line_of(&servers[index].live))
}

impl Inner {
    /// Tells the first of those in this line, or in none, who wants it.
    fn tell<T>(
        &mut self,
        line: Line,
        wants: impl Fn(Line, &Waiting) -> Option<T>,
        told: impl FnOnce(T) -> Told,
    ) -> bool {
        let first = |line: Line| {
            let all = (Bound::Included((line, 0)), Bound::Included((line, u64::MAX)));
            self.waiting
                .range(all)
                .find_map(|(key, waiting)| wants(line, waiting).map(|wanted| (*key, wanted)))
        };
        let own = line.and_then(|line| first(Some(line)));
        let Some((key, wanted)) = [own, first(None)].into_iter().flatten().min_by_key(|(key, _)| key.1)
        else {
            return false;
        };
        let Some(waiting) = self.waiting.get_mut(&key) else { return false };
        waiting.told = Some(told(wanted));
        waiting.waker.wake_by_ref();
        true
    }
}

/// A turn in the queue; dropped, it is over.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    queue: &'a Queue,
    key: (Line, u64),
}

impl Turn<'_> {
    /// Stands in another line from now on, where it has its place by when it came.
    pub(super) fn stand(&mut self, (only, tier): (Option<usize>, Tier)) {
        let mut inner = self.queue.lock();
        if let Some(waiting) = inner.waiting.remove(&self.key) {
            self.key.0 = line(&waiting.servers, only);
            inner.waiting.insert(self.key, Waiting { tier, ..waiting });
        }
    }

    /// Waits until there is a place, or may be one.
    pub(super) async fn called(&self) -> Option<(usize, Slot)> {
        poll_fn(|context| {
            let mut inner = self.queue.lock();
            let Some(waiting) = inner.waiting.get_mut(&self.key) else { return Poll::Ready(None) };
            match waiting.told.take() {
                Some(Told::Given(server, slot)) => Poll::Ready(Some((server, slot))),
                Some(Told::Look) => Poll::Ready(None),
                None => {
                    waiting.waker.clone_from(context.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inner = self.queue.lock();
        let gone = inner.waiting.remove(&self.key);
        self.queue.length.store(inner.waiting.len(), SeqCst);
        drop(inner);
        // What was for them is for the next. A place is given on by being dropped, which takes the lock.
        match gone.and_then(|waiting| waiting.told) {
            Some(Told::Look) => self.queue.have_looked(self.key.0),
            told => drop(told),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Context};

    use super::*;
    use crate::{server::pool::testing::pool, spec::Algorithm};

    /// Servers that take one at a time, and who waits for them.
    struct Servers {
        queue: Arc<Queue>,
        servers: Arc<[Server]>,
    }

    impl Servers {
        fn new(count: usize) -> Self {
            let mut pool = pool(Algorithm::RoundRobin, &vec![100; count]);
            pool.change(|servers| servers.iter_mut().for_each(|server| server.most = Some(1)));
            Self { queue: Arc::default(), servers: pool.servers }
        }

        fn live(&self, server: usize) -> &Live {
            &self.servers[server].live
        }

        fn take(&self, server: usize) -> Option<Slot> {
            Slot::take(&self.servers[server], &self.queue, server)
        }

        fn join(&self, only: Option<usize>, tried: u64) -> Turn<'_> {
            self.queue.join(&self.servers, (only, tier(tried)), 9).unwrap()
        }
    }

    fn tier(tried: u64) -> Tier {
        Tier { backup: false, leaves_out: Some(tried) }
    }

    /// What a turn is told now: a place at a server; to look; nothing.
    fn given(turn: &Turn<'_>) -> Option<Option<(usize, Slot)>> {
        match pin!(turn.called()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    fn told(turn: &Turn<'_>) -> Option<Option<Slot>> {
        given(turn).map(|place| place.map(|(_, slot)| slot))
    }

    #[test]
    fn places_go_over_to_who_came_first() {
        let servers = Servers::new(1);
        let mut place = servers.take(0).unwrap();
        let turns: Vec<_> = (0..3).map(|_| servers.join(None, 0)).collect();
        assert!(servers.queue.join(&servers.servers, (None, tier(0)), 3).is_none(), "it is full");
        for (number, turn) in (0..).zip(turns) {
            assert!(told(&turn).is_none(), "{number}");
            drop(place);
            assert!(servers.take(0).is_none(), "nobody gets in between");
            place = told(&turn).unwrap().unwrap();
        }
        assert_eq!((servers.queue.length(), servers.live(0).active(), servers.live(0).total()), (0, 1, 4));
        drop(place);
        assert_eq!(servers.live(0).active(), 0);
        assert!(servers.take(0).is_some());
    }

    #[test]
    fn who_has_to_be_served_by_one_server_keeps_nobody_from_another() {
        let servers = Servers::new(2);
        let (first, second) = (servers.take(0).unwrap(), servers.take(1).unwrap());
        let own = servers.join(Some(0), 0);
        let other = servers.join(None, 0b10);
        let any = servers.join(None, 0);
        drop(second);
        assert!(told(&own).is_none() && told(&other).is_none());
        let second = told(&any).unwrap().unwrap();
        drop(any);
        drop(first);
        let first = told(&own).unwrap().unwrap();
        drop(own);
        assert!(told(&other).is_none(), "that one came later");
        drop(first);
        assert!(told(&other).unwrap().is_some());
        drop(second);
    }

    #[test]
    fn who_has_to_be_served_by_another_server_has_its_place_there() {
        let servers = Servers::new(2);
        let (first, second) = (servers.take(0).unwrap(), servers.take(1).unwrap());
        let mut own = servers.join(Some(0), 0);
        let mut retry = servers.join(None, 0b11);
        let any = servers.join(None, 0);
        // The first server is no more.
        own.stand((None, tier(0)));
        retry.stand((None, tier(0)));
        drop(second);
        let second = told(&own).unwrap().unwrap();
        assert!(told(&retry).is_none() && told(&any).is_none());
        drop(own);
        drop(second);
        assert!(told(&retry).unwrap().is_some() && told(&any).is_none());
        drop(first);
    }

    #[test]
    fn what_was_for_someone_who_leaves_is_for_the_next() {
        let servers = Servers::new(1);
        let place = servers.take(0).unwrap();
        let (first, second) = (servers.join(None, 0), servers.join(None, 0));
        drop(place);
        drop(first);
        let place = told(&second).unwrap().unwrap();
        drop(second);
        drop(place);
        assert_eq!(servers.live(0).active(), 0);
    }

    #[test]
    fn who_came_before_the_servers_changed_keeps_its_turn() {
        let before = Servers::new(2);
        let mut pool = pool(Algorithm::RoundRobin, &[100; 3]);
        pool.change(|servers| {
            servers.iter_mut().for_each(|server| server.most = Some(1));
            // The first is new, and the others are where they were not.
            servers[1].live = Arc::clone(&before.servers[0].live);
            servers[2].live = Arc::clone(&before.servers[1].live);
        });
        let after = Servers { queue: Arc::clone(&before.queue), servers: pool.servers };
        let place = before.take(0).unwrap();
        let (first, own) = (before.join(None, 0b10), before.join(Some(1), 0));
        let (last, new) = (after.join(None, 0), after.take(0).unwrap());
        drop(new);
        assert!(told(&first).is_none(), "it knows nothing of that server");
        let new = told(&last).unwrap().unwrap();
        drop(last);
        let last = after.join(None, 0);
        drop(place);
        let (server, place) = given(&first).unwrap().unwrap();
        assert_eq!(server, 0, "as it knows it");
        drop(first);
        drop(place);
        let (server, place) = given(&last).unwrap().unwrap();
        assert_eq!(server, 1);
        assert!(after.take(1).is_none() && told(&own).is_none());
        drop(after.take(2).unwrap());
        assert!(given(&own).unwrap().is_some_and(|(server, _)| server == 1));
        drop((place, new, own, last));
        assert_eq!([0, 1, 2].map(|server| after.live(server).active()), [0; 3]);
    }

    #[test]
    fn the_limit_that_holds_is_the_same_for_all() {
        let servers = Servers::new(1);
        servers.live(0).set_most(Some(2));
        let [one, other] = [0, 0].map(|server| servers.take(server).unwrap());
        let (first, second) = (servers.join(None, 0), servers.join(None, 0));
        servers.live(0).set_most(Some(1));
        drop(one);
        assert!(told(&first).unwrap().is_none(), "one is left, and that is all there may be: it looks");
        drop(other);
        let place = told(&first).unwrap().unwrap();
        assert!(told(&second).is_none());
        // Who waits has more room at once, and not only who comes.
        servers.live(0).set_most(Some(3));
        let new = servers.take(0).unwrap();
        drop(first);
        drop(place);
        assert!(told(&second).unwrap().is_some());
        drop(new);
    }

    #[test]
    fn nobody_is_sent_to_a_server_that_may_not_have_them() {
        let servers = Servers::new(1);
        for state in [ServerState::Down, ServerState::Halt, ServerState::Drain] {
            let place = servers.take(0).unwrap();
            let turns = [servers.join(None, 0), servers.join(None, 0)];
            servers.live(0).set_state(state, now());
            drop(place);
            assert_eq!(servers.live(0).active(), 0);
            assert!(told(&turns[0]).unwrap().is_none() && told(&turns[1]).is_none(), "the first looks");
            servers.live(0).set_state(ServerState::Up, now());
        }
        // Those who are with it go on to be served while it drains.
        let place = servers.take(0).unwrap();
        let own = servers.join(Some(0), 0);
        servers.live(0).set_state(ServerState::Drain, now());
        drop(place);
        assert!(told(&own).unwrap().is_some());
    }
}
