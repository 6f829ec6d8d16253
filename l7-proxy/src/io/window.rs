//! What a stream of HTTP/2 may send, and what it costs when its client lets it go on by next to nothing.
//!
//! Whenever a window opens, a task wakes, and writes a frame: as dear for a byte as for thousands. TCP knows that as the silly
//! window syndrome (RFC 1122 §4.2.3.4), and CVE-2019-9511 ("data dribble") is to bring it about. No single window tells the
//! two apart from a client that is merely short of memory, or from what others have left of a connection's window: what
//! counts is how much an answer goes on by on average.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::SendStream;
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::Instant,
};

/// Bytes that are worth waking for.
const WORTH: usize = 1_024;

/// What a client that has behaved is forgiven at once, and what is remembered of one that has not.
const CREDIT: Duration = Duration::from_secs(1);
const MEMORY: Duration = Duration::from_secs(2);

/// Time by which each wake for too little is paid for: several times what it takes.
const PRICE: Duration = Duration::from_micros(64);

/// So many windows count as opened at most before something passes them.
const MOST_OPENED: u32 = 1_024;

/// What the streams of a connection have in common: how much passes their windows, and whether anything leaves at all.
#[derive(Debug)]
pub struct Windows {
    /// Bytes that run out in a second.
    forgiven: u64,
    passed: Mutex<Passed>,
    /// Whether too little has ever passed.
    is_marked: AtomicBool,
    /// Whether what was sent last still waits for the client to take it.
    is_stuck: AtomicBool,
    unstuck: Arc<Notify>,
}

/// A bucket that fills with bytes that were too few, and runs out by itself.
#[derive(Debug, Default)]
struct Passed {
    /// When the bucket will be empty, or has been; it never had anything in it otherwise.
    empty: Option<Instant>,
    /// Whether it was too much, and has not been nothing since.
    is_too_much: bool,
    /// How often the client has opened windows for which nothing has passed yet that was too little. Who opens them widely and
    /// takes what comes slowly has done nothing for it to come by little.
    opened: u32,
    /// Wakes that were not paid for.
    wakes: u32,
}

impl Windows {
    /// Next to nothing may pass windows so many times in a second.
    #[must_use]
    pub fn new(times: u32) -> Self {
        Self {
            forgiven: u64::from(times.max(1)) * WORTH as u64,
            passed: Mutex::default(),
            is_marked: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            unstuck: Arc::default(),
        }
    }

    /// The client has opened so many windows.
    pub fn opened(&self, times: u32) {
        if times > 0 {
            let mut passed = self.lock();
            passed.opened = passed.opened.saturating_add(times).min(MOST_OPENED);
        }
    }

    /// No more than so many bytes have passed a window between two times at which it was closed.
    fn add(&self, bytes: usize, now: Instant) {
        let mut passed = self.lock();
        let least = before(now, CREDIT);
        let empty = passed.empty.unwrap_or(least);
        let empty = match bytes.checked_sub(WORTH) {
            Some(more) => before(empty, self.time(more)),
            None if passed.opened == 0 => return,
            None => {
                passed.opened -= 1;
                passed.wakes = passed.wakes.saturating_add(1);
                self.is_marked.store(true, Relaxed);
                empty + self.time(WORTH - bytes)
            }
        };
        passed.empty = Some(empty.clamp(least, now + MEMORY));
    }

    /// How long so many bytes take to run out.
    fn time(&self, bytes: usize) -> Duration {
        Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.forgiven)
    }

    /// What the client has to pay for since it was asked last, if it lets too little pass too often; or did, and has not been better
    /// for a second.
    #[must_use]
    pub fn price(&self) -> Option<Duration> {
        // Most never have anything to pay for.
        if self.is_marked.load(Relaxed) { self.price_at(Instant::now) } else { None }
    }

    fn price_at(&self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        let mut passed = self.lock();
        let empty = passed.empty?;
        let now = now();
        // Who just keeps within it, once put behind others, is no better for that.
        passed.is_too_much = empty > if passed.is_too_much { before(now, CREDIT) } else { now };
        let wakes = std::mem::take(&mut passed.wakes);
        passed.is_too_much.then(|| PRICE * wakes)
    }

    /// Whether what was sent last still waits for the client to take it.
    pub fn set_stuck(&self, is_stuck: bool) {
        if self.is_stuck.load(Relaxed) == is_stuck {
            return;
        }
        self.is_stuck.store(is_stuck, Relaxed);
        if !is_stuck {
            self.unstuck.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A point in time that lies before another, or that one where there is none (Linux has none only before it was booted).
fn before(time: Instant, by: Duration) -> Instant {
    time.checked_sub(by).unwrap_or(time)
}

/// The window that the other side of a stream gives us.
#[derive(Debug, Default)]
pub struct Window {
    /// What it has in common with others, if it is a client's.
    windows: Option<Arc<Windows>>,
    state: State,
    /// Waits for the client to take what was sent before.
    unstuck: Option<Pin<Box<OwnedNotified>>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// It was never found closed.
    #[default]
    Open,
    /// Nobody can send.
    Closed,
    /// It was closed, and so many bytes have passed since.
    Opened(usize),
}

impl Window {
    /// One of the windows that a client opens.
    #[must_use]
    pub fn of_client(windows: Arc<Windows>) -> Self {
        Self { windows: Some(windows), ..Self::default() }
    }

    /// How many bytes of the next `piece` are to be sent now by someone who has `all` of them to send. Less than is worth it waits
    /// while the client takes nothing: each part is a frame, which takes hundreds of bytes of memory for one.
    ///
    /// # Errors
    /// When the stream is of no more use.
    pub fn poll_part(
        &mut self,
        send: &mut SendStream<Bytes>,
        piece: usize,
        all: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut room = send.capacity();
        if room == 0 {
            send.reserve_capacity(all);
            let polled = send.poll_capacity(context);
            if polled.is_pending() {
                self.close();
            }
            room = match ready!(polled) {
                Some(Ok(granted)) => granted,
                Some(Err(error)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
                }
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let part = piece.min(room);
        if part < WORTH {
            ready!(self.poll_unstuck(context));
        }
        self.state = match self.state {
            State::Open => State::Open,
            State::Closed => State::Opened(part),
            State::Opened(bytes) => State::Opened(bytes.saturating_add(part)),
        };
        Poll::Ready(Ok(part))
    }

    fn poll_unstuck(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(windows) = self.windows.as_ref().filter(|windows| windows.is_stuck.load(Relaxed)) {
            let wait = || Box::pin(Arc::clone(&windows.unstuck).notified_owned());
            ready!(self.unstuck.get_or_insert_with(wait).as_mut().poll(context));
            self.unstuck = None;
        }
        self.unstuck = None;
        Poll::Ready(())
    }

    fn close(&mut self) {
        if let (State::Opened(bytes), Some(windows)) = (&self.state, &self.windows) {
            windows.add(*bytes, Instant::now());
        }
        self.state = State::Closed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// After how many milliseconds it is too much, when so many times in each these bytes pass in turn, and windows are opened
    /// `opened` times.
    fn too_much(times: u32, opened: u32, bytes: &[usize]) -> Option<u32> {
        let begin = Instant::now();
        let windows = Windows::new(1_000);
        let mut bytes = bytes.iter().cycle();
        (0..10_000).find(|&milli| {
            let now = begin + MILLI * milli;
            windows.opened(opened);
            bytes.by_ref().take(times as usize).for_each(|&bytes| windows.add(bytes, now));
            windows.price_at(|| now).is_some()
        })
    }

    #[test]
    fn the_average_is_what_counts() {
        assert_eq!(too_much(1, 1, &[1]), None, "so many are forgiven");
        assert_eq!(too_much(2, 2, &[0]), Some(999), "a second's worth at once");
        assert_eq!(too_much(10, 10, &[512]), Some(249));
        assert_eq!(too_much(10, 10, &[1_000]), None);
        assert_eq!(too_much(10, 10, &[5_000, 1, 1, 1]), None, "what is left of what others took");
        assert_eq!(too_much(10, 1, &[1]), None, "the client has not opened them for that");
    }

    #[test]
    fn neither_good_nor_bad_is_remembered_for_ever() {
        let mut now = Instant::now();
        let windows = Windows::new(100);
        let add = |times: u32, bytes, now| {
            for _ in 0..times {
                windows.opened(1);
                windows.add(bytes, now);
            }
        };
        assert_eq!(windows.price_at(|| now), None);
        add(1, usize::MAX, now);
        add(1_000, 1 << 30, now);
        add(100, 0, now);
        assert_eq!(windows.price_at(|| now), None, "a second's worth");
        add(1, 0, now);
        assert_eq!(windows.price_at(|| now), Some(PRICE), "each is paid for, but those that were forgiven");
        add(1_000_000, 0, now);
        assert_eq!(windows.price_at(|| now), Some(PRICE * 1_000_000));
        now += MEMORY + CREDIT - MILLI;
        assert_eq!(
            windows.price_at(|| now),
            Some(Duration::ZERO),
            "it has been better for less than a second"
        );
        now += MILLI;
        assert_eq!(windows.price_at(|| now), None);
        // Windows that were opened long ago are not all remembered.
        windows.opened(u32::MAX);
        (0..MOST_OPENED + 1_000).for_each(|_| windows.add(0, now));
        assert_eq!(windows.price_at(|| now), Some(PRICE * MOST_OPENED));
    }

    #[test]
    fn little_waits_while_nothing_is_taken() {
        let windows = Arc::new(Windows::new(100));
        let mut window = Window::of_client(Arc::clone(&windows));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut poll = || window.poll_unstuck(&mut context);
        assert!(poll().is_ready());
        windows.set_stuck(true);
        assert!(poll().is_pending() && poll().is_pending());
        windows.set_stuck(false);
        assert!(poll().is_ready());
        windows.set_stuck(true);
        assert!(poll().is_pending());
        // It is taken, and stuck again before anybody has looked.
        windows.set_stuck(false);
        windows.set_stuck(true);
        assert!(poll().is_pending());
        windows.set_stuck(false);
        assert!(poll().is_ready());
    }
}
