//! What is known of a server while the process runs: shared by all workers, kept over reloads.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU8, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    Connection,
    links::{Leave, Link},
};
use crate::spec::{Outliers, ServerState};

/// Idle connections that each worker keeps to a server at most, and as many of HTTP/2: with `source = "client"` each client
/// has its own.
const IDLE_KEPT: usize = 256;

/// A server as one service sees it. All methods are given the time in milliseconds, see [`super::now`].
#[derive(Debug)]
pub struct Live {
    /// The names of its pool and its own.
    name: (String, String),
    /// Those whose place it has taken, while somebody is still with them.
    former: Mutex<Vec<Weak<Self>>>,
    /// Requests or connections under way.
    active: AtomicU32,
    /// How many there may be at once, for all who know this one by whatever specification; `u32::MAX` for any number.
    most: AtomicU32,
    state: AtomicU8,
    /// When it last came up; 0 where it has been up from the start.
    since: AtomicU64,
    /// Failures in a row, and how often it was paused for them.
    failures: AtomicU32,
    pauses: AtomicU32,
    paused_until: AtomicU64,
    /// How long answers take, in microseconds, the latest counting most.
    latency: AtomicU64,
    /// Requests or connections it got altogether.
    total: AtomicU64,
    /// Whether another has taken its place.
    retired: AtomicBool,
    workers: Box<[OfWorker]>,
}

/// What one worker has of a server.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OfWorker {
    /// Connections that wait for a next request, the latest last.
    idle: Mutex<Vec<Connection>>,
    /// Connections of HTTP/2.
    links: Mutex<Vec<Link>>,
    /// Tells those under way that the server was halted.
    halted: Notify,
    /// Answers by the first digit of their status.
    answers: [AtomicU64; 6],
    /// Connections that could not be made, and answers that failed.
    failures: [AtomicU64; 2],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// A server of a pool, of which nothing is known but its `state`.
    #[must_use]
    pub fn new(pool: &str, name: &str, state: ServerState, workers: usize) -> Self {
        Self {
            name: (pool.to_owned(), name.to_owned()),
            former: Mutex::default(),
            active: AtomicU32::new(0),
            most: AtomicU32::new(u32::MAX),
            state: AtomicU8::new(state as u8),
            since: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            pauses: AtomicU32::new(0),
            paused_until: AtomicU64::new(0),
            latency: AtomicU64::new(0),
            total: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            workers: (0..workers).map(|_| OfWorker::default()).collect(),
        }
    }

    /// The names of its pool and its own.
    #[must_use]
    pub fn name(&self) -> &(String, String) {
        &self.name
    }

    /// Whether it may be used.
    #[must_use]
    pub fn state(&self) -> ServerState {
        const STATES: [ServerState; 4] =
            [ServerState::Up, ServerState::Down, ServerState::Drain, ServerState::Halt];
        STATES[usize::from(self.state.load(Relaxed)) % STATES.len()]
    }

    /// Says whether it may be used from now on.
    pub fn set_state(&self, state: ServerState, now: u64) {
        let before = self.state.swap(state as u8, Relaxed);
        if before != state as u8 && state == ServerState::Up {
            self.since.store(now, Relaxed);
            self.failures.store(0, Relaxed);
            self.pauses.store(0, Relaxed);
            self.paused_until.store(0, Relaxed);
        }
        if matches!(state, ServerState::Down | ServerState::Halt) {
            self.drop_idle();
        }
        if before != state as u8 && state == ServerState::Halt {
            self.workers.iter().for_each(|worker| worker.halted.notify_waiters());
            let former: Vec<_> = lock(&self.former).iter().filter_map(Weak::upgrade).collect();
            former.iter().for_each(|former| former.set_state(state, now));
        }
    }

    /// It is what `former` was, at the same place but reached in another way: who halts it means those who are with that one
    /// too.
    pub fn follows(&self, former: &Arc<Self>, now: u64) {
        if self.state() == ServerState::Halt {
            former.set_state(ServerState::Halt, now);
        }
        let mut all = lock(&self.former);
        all.extend(lock(&former.former).drain(..));
        all.push(Arc::downgrade(former));
        all.retain(|one| one.strong_count() > 0);
    }

    /// Tells those under way on a worker that the server was halted.
    #[must_use]
    pub fn halted(&self, worker: usize) -> &Notify {
        &self.of(worker).halted
    }

    /// Waits on a worker until the server is halted, from the moment of this call on.
    pub fn until_halted(&self, worker: usize) -> impl Future<Output = ()> {
        // In this order nothing is missed.
        let told = self.halted(worker).notified();
        let is_halted = self.state() == ServerState::Halt;
        async move {
            if !is_halted {
                told.await;
            }
        }
    }

    fn of(&self, worker: usize) -> &OfWorker {
        &self.workers[worker % self.workers.len()]
    }

    /// Requests or connections under way.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Requests or connections it got so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Says how many may be under way at once from now on.
    pub fn set_most(&self, most: Option<u32>) {
        self.most.store(most.unwrap_or(u32::MAX), Relaxed);
    }

    /// How many may be under way at once; `u32::MAX` for any number.
    pub(super) fn most(&self) -> u32 {
        self.most.load(Relaxed)
    }

    /// One more is under way, if there may be one; whether there is.
    pub(super) fn enter(&self) -> bool {
        let most = self.most();
        let more = |active: u32| (active < most).then_some(active + 1);
        let is_in = self.active.fetch_update(SeqCst, Relaxed, more).is_ok();
        if is_in {
            self.count();
        }
        is_in
    }

    /// One more got a place.
    pub(super) fn count(&self) {
        self.total.fetch_add(1, Relaxed);
    }

    /// One less is under way.
    pub(super) fn leave(&self) {
        self.active.fetch_sub(1, SeqCst);
    }

    /// Whether it gets nothing for having failed.
    #[must_use]
    pub fn is_paused(&self, now: u64) -> bool {
        self.paused_until.load(Relaxed) > now
    }

    /// Which part of its share it gets, 0 to 256, while it comes up slowly.
    #[must_use]
    pub fn warmth(&self, slow_start: Duration, now: u64) -> u64 {
        let since = self.since.load(Relaxed);
        let whole = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX).max(1);
        if since == 0 { 256 } else { (now.saturating_sub(since) * 256 / whole).clamp(16, 256) }
    }

    /// How long answers take, in microseconds; 0 where none came yet.
    #[must_use]
    pub fn latency(&self) -> u64 {
        self.latency.load(Relaxed)
    }

    /// An answer came after so many microseconds.
    pub fn answered(&self, microseconds: u64) {
        // Workers may overwrite each other's: an average bears that.
        let before = self.latency.load(Relaxed);
        let next = if before == 0 { microseconds } else { (before * 7 + microseconds) / 8 };
        self.latency.store(next.max(1), Relaxed);
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.pauses.store(0, Relaxed);
        }
    }

    /// A request failed. Says whether the server is paused for it.
    pub fn failed(&self, outliers: &Outliers, now: u64) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        if failures < outliers.failures.max(1) {
            return false;
        }
        self.failures.store(0, Relaxed);
        let times = self.pauses.fetch_add(1, Relaxed).min(9) + 1;
        let pause = u64::try_from(outliers.pause.get().as_millis()).unwrap_or(u64::MAX);
        self.paused_until.store(now.saturating_add(pause.saturating_mul(u64::from(times))), Relaxed);
        true
    }

    /// An answer with this status was passed on by `worker`.
    pub fn count_answer(&self, worker: usize, status: u16) {
        self.of(worker).answers[usize::from(status / 100).min(5)].fetch_add(1, Relaxed);
    }

    /// No connection could be made by `worker`.
    pub fn count_unreached(&self, worker: usize) {
        self.of(worker).failures[0].fetch_add(1, Relaxed);
    }

    /// An answer to `worker` failed or broke off.
    pub fn count_broken(&self, worker: usize) {
        self.of(worker).failures[1].fetch_add(1, Relaxed);
    }

    /// Answers by the first digit of their status, over all workers.
    #[must_use]
    pub fn answers(&self) -> [u64; 6] {
        let sum = |class: usize| self.workers.iter().map(|worker| worker.answers[class].load(Relaxed)).sum();
        std::array::from_fn(sum)
    }

    /// Connections that could not be made, and answers that failed or broke off.
    #[must_use]
    pub fn failures(&self) -> [u64; 2] {
        let sum = |kind: usize| self.workers.iter().map(|worker| worker.failures[kind].load(Relaxed)).sum();
        std::array::from_fn(sum)
    }

    /// Takes the connection that was put back last and that `suits`; those that have ended go. Where `careful`,
    /// one that the server may be about to end is not taken: what is sent over it could not be sent again.
    #[must_use]
    pub fn take_idle(
        &self,
        worker: usize,
        careful: bool,
        suits: impl Fn(&Connection) -> bool,
    ) -> Option<Connection> {
        let mut idle = lock(&self.of(worker).idle);
        while let Some(at) = idle.iter().rposition(&suits) {
            if careful && !idle[at].is_sure() {
                return None;
            }
            let connection = idle.remove(at);
            if connection.is_fresh() && connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for a next request.
    pub fn put_idle(&self, worker: usize, mut connection: Connection) {
        if matches!(self.state(), ServerState::Down | ServerState::Halt) {
            return;
        }
        connection.idle_since = super::now();
        connection.used = connection.used.saturating_add(1);
        connection.forget_memory();
        let mut idle = lock(&self.of(worker).idle);
        if !self.retired.load(SeqCst) {
            if idle.len() >= IDLE_KEPT {
                idle.remove(0);
            }
            idle.push(connection);
        }
    }

    /// A connection of HTTP/2 that `suits` and takes one more request.
    pub(super) fn take_link(&self, worker: usize, suits: impl Fn(&Link) -> bool) -> Option<Leave> {
        let mut links = lock(&self.of(worker).links);
        links.retain_mut(|link| link.goes_on(u64::MAX));
        links.iter_mut().filter(|link| suits(link)).find_map(Link::request)
    }

    /// Keeps a connection of HTTP/2 for further requests.
    pub(super) fn put_link(&self, worker: usize, link: Link) {
        let mut links = lock(&self.of(worker).links);
        if !self.retired.load(SeqCst) {
            if links.len() >= IDLE_KEPT
                && let Some(least) = (0..links.len()).min_by_key(|&at| links[at].last_use())
            {
                // What is under way over it goes on.
                links.swap_remove(least);
            }
            links.push(link);
        }
    }

    /// A connection of HTTP/2 gets no further request; those under way go on.
    pub fn leave_link(&self, worker: usize, number: u64) {
        lock(&self.of(worker).links).retain(|link| link.number != number);
    }

    /// Ends connections that servers have ended, or that have waited for longer than `most` milliseconds.
    pub fn sweep_idle(&self, worker: usize, most: u64) {
        lock(&self.of(worker).links).retain_mut(|link| link.goes_on(most));
        let mut idle = lock(&self.of(worker).idle);
        idle.retain(|connection| {
            connection.is_open() && connection.idle_for() < most && connection.is_fresh()
        });
    }

    /// Connections that wait, over all workers, and those of HTTP/2.
    #[must_use]
    pub fn idle(&self) -> usize {
        // One after the other, here as everywhere: who held both could wait for who holds them the other way round.
        let count = |worker: &OfWorker| {
            let idle = lock(&worker.idle).len();
            idle + lock(&worker.links).len()
        };
        self.workers.iter().map(count).sum()
    }

    /// Nobody will ask for its connections any more, however long those last who know it: none is kept from now on.
    pub fn retire(&self) {
        self.retired.store(true, SeqCst);
        self.drop_idle();
    }

    /// Ends connections that wait for a next request, of one worker or all, and how many.
    pub fn make_room(&self, worker: Option<usize>) -> usize {
        let of = |worker: &OfWorker| {
            // Those in use would not end. They end outside of the lock.
            let unused: Vec<_> = lock(&worker.links).extract_if(.., |link| !link.last_use().0).collect();
            let idle = std::mem::take(&mut *lock(&worker.idle));
            unused.len() + idle.len()
        };
        match worker {
            Some(worker) => of(self.of(worker)),
            None => self.workers.iter().map(of).sum(),
        }
    }

    fn drop_idle(&self) {
        for worker in &self.workers {
            lock(&worker.idle).clear();
            lock(&worker.links).clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{io::Stream, spec::Span};

    #[test]
    fn places_are_counted_until_they_are_given_back() {
        let live = Arc::new(Live::new("p", "s", ServerState::Up, 1));
        live.set_most(Some(2));
        assert!(live.enter() && live.enter());
        assert!(!live.enter());
        assert_eq!(live.active(), 2, "a place that was not to be had is not taken");
        live.leave();
        live.leave();
        assert_eq!((live.active(), live.total()), (0, 2));
    }

    #[test]
    fn a_server_that_fails_in_a_row_is_paused_for_longer_each_time() {
        let live = Live::new("p", "s", ServerState::Up, 1);
        let outliers = Outliers { failures: 2, pause: Span::from_secs(1), statuses: false };
        assert!(!live.failed(&outliers, 0));
        live.answered(10);
        assert!(!live.failed(&outliers, 0), "not in a row");
        assert!(live.failed(&outliers, 0));
        assert!(live.is_paused(999) && !live.is_paused(1_000));
        assert!(!live.failed(&outliers, 1_000) && live.failed(&outliers, 1_000));
        assert!(live.is_paused(2_999) && !live.is_paused(3_000));
        live.set_state(ServerState::Down, 0);
        live.set_state(ServerState::Up, 1_500);
        assert!(!live.is_paused(1_500), "a check that succeeds ends it");
    }

    #[tokio::test]
    async fn of_too_many_connections_that_wait_the_oldest_goes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let live = Live::new("p", "s", ServerState::Up, 1);
        // They stay open.
        let mut accepted = Vec::new();
        let source = |number| (number == 0).then(|| server.ip());
        for number in 0..=IDLE_KEPT {
            let stream = tokio::net::TcpStream::connect(server).await.unwrap();
            accepted.push(listener.accept().await.unwrap());
            live.put_idle(0, Connection::new(Stream::Plain(stream), server, source(number)));
        }
        assert_eq!(live.idle(), IDLE_KEPT);
        assert!(live.take_idle(0, false, |connection| connection.source.is_some()).is_none());
        assert!(live.take_idle(0, false, |connection| connection.source.is_none()).is_some());
    }

    #[test]
    fn a_server_that_comes_up_gets_its_share_by_and_by() {
        let live = Live::new("p", "s", ServerState::Up, 1);
        assert_eq!(live.warmth(Duration::from_secs(10), 5), 256);
        live.set_state(ServerState::Down, 1);
        live.set_state(ServerState::Up, 1_000);
        assert_eq!(live.warmth(Duration::from_secs(10), 1_000), 16);
        assert_eq!(live.warmth(Duration::from_secs(10), 6_000), 128);
        assert_eq!(live.warmth(Duration::from_secs(10), 60_000), 256);
    }
}
