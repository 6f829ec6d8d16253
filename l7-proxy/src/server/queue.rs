//! Places at servers that take so much at a time, and who waits for one, in the order in which they came.
//!
//! A place that is given back goes over to who has waited longest among those who could use it: to nobody who comes meanwhile, for
//! it is never free. Some have to be served by one server, whatever room others have: they stand in a line of their own, and
//! nobody waits behind them for another.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Poll, Waker},
};

use super::{Live, choose::Tier, now};
use crate::spec::ServerState;

/// A request or connection that is under way; it counts until it is dropped.
#[derive(Debug)]
pub struct Slot {
    live: Arc<Live>,
    /// What has to be known of it where others may wait for it.
    seat: Option<Seat>,
}

/// A place at a server that takes so much at a time.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// Who waits.
    pub(super) queue: Arc<Queue>,
    /// Which of the pool's servers.
    pub(super) server: usize,
    /// How much it takes.
    pub(super) most: u32,
    /// Whether somebody may be served by it who does not have to be.
    pub(super) is_for_any: bool,
    /// Whether it is for when there is no other.
    pub(super) is_backup: bool,
}

impl Slot {
    /// A place at this server, if it has one left.
    pub(super) fn take(live: &Arc<Live>, seat: Option<Seat>) -> Option<Self> {
        live.enter(seat.as_ref().map(|seat| seat.most)).then(|| Self { live: Arc::clone(live), seat })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(seat) = self.seat.take() else { return self.live.leave() };
        let queue = Arc::clone(&seat.queue);
        if queue.length() > 0 && queue.hand_on(&self.live, &seat) {
            return;
        }
        self.live.leave();
        // Who came since then, or could not be sure to be let in here, is to look.
        if queue.length() > 0 {
            queue.have_looked(seat.server);
        }
    }
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    length: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the one server that has to serve them, if there is one, and the order in which they came.
    waiting: BTreeMap<(Option<usize>, u64), Waiting>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    /// Which servers will do.
    tier: Tier,
    told: Option<Told>,
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
    fn length(&self) -> usize {
        self.length.load(SeqCst)
    }

    /// A turn behind everybody who waits, unless these are `most` or more: for a place at the `only` server that will do, or at any
    /// of a tier. A place may have become free just before, and nobody tells of that.
    pub(super) fn join(&self, (only, tier): (Option<usize>, Tier), most: usize) -> Option<Turn<'_>> {
        let mut inner = self.lock();
        if inner.waiting.len() >= most {
            return None;
        }
        let key = (only, inner.next);
        inner.next += 1;
        inner.waiting.insert(key, Waiting { waker: Waker::noop().clone(), tier, told: None });
        self.length.store(inner.waiting.len(), SeqCst);
        Some(Turn { queue: self, key })
    }

    /// Gives a place to who has waited longest and can use it; whether there is anybody.
    fn hand_on(&self, live: &Arc<Live>, seat: &Seat) -> bool {
        let state = live.state();
        if !matches!(state, ServerState::Up | ServerState::Drain) || live.active() > seat.most {
            return false;
        }
        let (is_for_any, is_paused) = (seat.is_for_any && state == ServerState::Up, live.is_paused(now()));
        let wants = |tier: Tier| is_for_any && tier.has(seat.server, seat.is_backup, is_paused);
        let told = || Told::Given(seat.server, Slot { live: Arc::clone(live), seat: Some(seat.clone()) });
        let is_taken = self.lock().tell(seat.server, wants, told);
        if is_taken {
            live.count();
        }
        is_taken
    }

    /// Has who has waited longest for this server, or for any, look for a place.
    fn have_looked(&self, server: usize) {
        self.lock().tell(server, |_| true, || Told::Look);
    }
}

impl Inner {
    /// Tells the first of those who wait for this server, or for any and want it, and were told nothing yet.
    fn tell(&mut self, server: usize, wants: impl Fn(Tier) -> bool, told: impl FnOnce() -> Told) -> bool {
        let line = |only: Option<usize>| self.waiting.range((only, 0)..=(only, u64::MAX));
        let own = line(Some(server)).find(|(_, waiting)| waiting.told.is_none());
        let any = line(None).find(|(_, waiting)| waiting.told.is_none() && wants(waiting.tier));
        let first = [own, any].into_iter().flatten().map(|(&key, _)| key).min_by_key(|&(_, number)| number);
        let Some(waiting) = first.and_then(|key| self.waiting.get_mut(&key)) else { return false };
        waiting.told = Some(told());
        waiting.waker.wake_by_ref();
        true
    }
}

/// A turn in the queue; dropped, it is over.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    queue: &'a Queue,
    key: (Option<usize>, u64),
}

impl Turn<'_> {
    /// Stands in another line from now on, where it has its place by when it came.
    pub(super) fn stand(&mut self, (only, tier): (Option<usize>, Tier)) {
        let mut inner = self.queue.lock();
        if let Some(waiting) = inner.waiting.remove(&self.key) {
            self.key.0 = only;
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
        let told = inner.waiting.remove(&self.key).and_then(|waiting| waiting.told);
        self.queue.length.store(inner.waiting.len(), SeqCst);
        drop(inner);
        // What was for them is for the next. A place is given on by being dropped, which takes the lock.
        match told {
            Some(Told::Given(..)) => drop(told),
            Some(Told::Look) => self.queue.have_looked(self.key.0.unwrap_or(usize::MAX)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Context};

    use super::*;

    /// Servers that take one at a time, and who waits for them.
    struct Servers {
        queue: Arc<Queue>,
        lives: Vec<Arc<Live>>,
    }

    impl Servers {
        fn new(count: usize) -> Self {
            let live = |number| Arc::new(Live::new("p", &format!("s{number}"), ServerState::Up, 1));
            Self { queue: Arc::default(), lives: (0..count).map(live).collect() }
        }

        fn take(&self, server: usize) -> Option<Slot> {
            let seat =
                Seat { queue: Arc::clone(&self.queue), server, most: 1, is_for_any: true, is_backup: false };
            Slot::take(&self.lives[server], Some(seat))
        }

        fn join(&self, only: Option<usize>, tried: u64) -> Turn<'_> {
            self.queue.join((only, tier(tried)), 9).unwrap()
        }
    }

    fn tier(tried: u64) -> Tier {
        Tier { backup: false, leaves_out: Some(tried) }
    }

    /// What a turn is told now: a place at a server; to look; nothing.
    fn told(turn: &Turn<'_>) -> Option<Option<Slot>> {
        match pin!(turn.called()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place.map(|(_, slot)| slot)),
            Poll::Pending => None,
        }
    }

    #[test]
    fn places_go_over_to_who_came_first() {
        let servers = Servers::new(1);
        let mut place = servers.take(0).unwrap();
        let turns: Vec<_> = (0..3).map(|_| servers.join(None, 0)).collect();
        assert!(servers.queue.join((None, tier(0)), 3).is_none(), "it is full");
        for (number, turn) in (0..).zip(turns) {
            assert!(told(&turn).is_none(), "{number}");
            drop(place);
            assert!(servers.take(0).is_none(), "nobody gets in between");
            place = told(&turn).unwrap().unwrap();
        }
        assert_eq!((servers.queue.length(), servers.lives[0].active(), servers.lives[0].total()), (0, 1, 4));
        drop(place);
        assert_eq!(servers.lives[0].active(), 0);
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
        assert_eq!(servers.lives[0].active(), 0);
    }

    #[test]
    fn nobody_is_sent_to_a_server_that_may_not_have_them() {
        let servers = Servers::new(1);
        for state in [ServerState::Down, ServerState::Halt, ServerState::Drain] {
            let place = servers.take(0).unwrap();
            let turns = [servers.join(None, 0), servers.join(None, 0)];
            servers.lives[0].set_state(state, now());
            drop(place);
            assert_eq!(servers.lives[0].active(), 0);
            assert!(told(&turns[0]).unwrap().is_none() && told(&turns[1]).is_none(), "the first looks");
            servers.lives[0].set_state(ServerState::Up, now());
        }
        // Those who are with it go on to be served while it drains.
        let place = servers.take(0).unwrap();
        let own = servers.join(Some(0), 0);
        servers.lives[0].set_state(ServerState::Drain, now());
        drop(place);
        assert!(told(&own).unwrap().is_some());
    }
}
