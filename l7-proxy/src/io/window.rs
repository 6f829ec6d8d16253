//! What a stream of HTTP/2 may send, and what it costs when its client lets it go on by next to nothing.
//!
//! Whenever a window opens, a task wakes, and writes a frame: as dear for a byte as for thousands. TCP knows that as the silly
//! window syndrome (RFC 1122 §4.2.3.4), and CVE-2019-9511 ("data dribble") is to bring it about. No single window tells the
//! two apart from a client that is merely short of memory, or from what others have left of a connection's window: what
//! counts is how much an answer goes on by on average.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::SendStream;
use tokio::time::Instant;

use super::queue::{Queue, SMALL};

/// Bytes that are worth waking for.
const WORTH: usize = SMALL;

/// What a client that has behaved is forgiven at once, and what is remembered of one that has not.
const CREDIT: Duration = Duration::from_secs(1);
const MEMORY: Duration = Duration::from_secs(2);

/// Time by which each wake for too little is paid for: several times what it takes.
const PRICE: Duration = Duration::from_micros(64);

/// So many windows count as opened at most before something passes them.
const MOST_OPENED: u32 = 4_096;

/// What the streams of a connection have in common: how much passes their windows.
#[derive(Debug)]
pub struct Windows {
    /// Bytes that run out in a second.
    forgiven: u64,
    passed: Mutex<Passed>,
    /// Whether too little has ever passed.
    is_marked: AtomicBool,
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
        }
    }

    /// The client has opened so many windows.
    pub fn opened(&self, times: u32) {
        if times > 0 {
            let mut passed = self.lock();
            passed.opened = passed.opened.saturating_add(times).min(MOST_OPENED);
        }
    }

    /// Whether there is one for which nothing has passed yet; it is no longer.
    fn take_opened(&self) -> bool {
        let opened = &mut self.lock().opened;
        let has_any = *opened > 0;
        *opened = opened.saturating_sub(1);
        has_any
    }

    /// No more than so many bytes have passed a window between two times at which it was closed, which may be the client's fault.
    fn add(&self, bytes: usize, is_fault: bool, now: Instant) {
        let mut passed = self.lock();
        let least = before(now, CREDIT);
        let empty = passed.empty.unwrap_or(least);
        let empty = match bytes.checked_sub(WORTH) {
            Some(more) => before(empty, self.time(more)),
            None if !is_fault => return,
            None => {
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
    queue: Queue,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// It was never found closed.
    #[default]
    Open,
    /// Nobody can send.
    Closed,
    /// It was closed, and so many bytes have passed since; whether the client has opened it by so little.
    Opened(usize, bool),
}

impl Window {
    /// One of the windows that a client opens.
    #[must_use]
    pub fn of_client(windows: Arc<Windows>) -> Self {
        Self { windows: Some(windows), ..Self::default() }
    }

    /// How much of the next `piece` of bytes is to be sent now, by [`Self::part`], by someone who has `all` of them to send.
    ///
    /// # Errors
    /// When the stream is of no more use.
    pub fn poll_room(
        &mut self,
        send: &mut SendStream<Bytes>,
        piece: usize,
        all: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut room = send.capacity();
            if room < WORTH.min(all) {
                // There may be more than was asked for before.
                send.reserve_capacity(all);
                room = send.capacity();
            }
            let (part, is_little) = (piece.min(room), room < WORTH.min(all));
            // What is left of a buffer that was full grows when more of it has been taken.
            let waits = part < SMALL && self.queue.poll_room(is_little, context).is_pending();
            if room > 0 && !waits {
                self.passes(part, is_little);
                return Poll::Ready(Ok(part));
            }
            let polled = send.poll_capacity(context);
            if polled.is_pending() && room == 0 {
                self.close();
            }
            // That has changed, and is looked at again.
            match ready!(polled) {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
                }
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    /// These bytes, as they are to be sent: they are counted where they are few.
    pub fn part(&mut self, bytes: Bytes) -> Bytes {
        self.queue.part(bytes)
    }

    /// So many bytes pass now, which may be little for all there are.
    fn passes(&mut self, part: usize, is_little: bool) {
        let is_fault = || is_little && self.windows.as_ref().is_some_and(|windows| windows.take_opened());
        self.state = match self.state {
            State::Open => State::Open,
            State::Closed => State::Opened(part, is_fault()),
            State::Opened(bytes, was_fault) => {
                State::Opened(bytes.saturating_add(part), was_fault || is_fault())
            }
        };
    }

    fn close(&mut self) {
        if let (&State::Opened(bytes, is_fault), Some(windows)) = (&self.state, &self.windows) {
            windows.add(bytes, is_fault, Instant::now());
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
            bytes.by_ref().take(times as usize).for_each(|&bytes| {
                windows.add(bytes, bytes < WORTH && windows.take_opened(), now);
            });
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
                windows.add(bytes, true, now);
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
    }

    #[test]
    fn windows_that_were_opened_are_remembered_once_each() {
        let windows = Arc::new(Windows::new(1));
        let mut window = Window::of_client(Arc::clone(&windows));
        // How often too little has passed when it was closed after these parts, and how much is known to be opened.
        let wakes = |window: &mut Window, parts: &[(usize, bool)]| {
            parts.iter().for_each(|&(part, is_little)| window.passes(part, is_little));
            window.close();
            let passed = windows.lock();
            (passed.wakes, passed.opened)
        };
        windows.opened(2);
        assert_eq!(wakes(&mut window, &[(100, true)]), (0, 2), "it was never closed before");
        assert_eq!(wakes(&mut window, &[(100, true), (400, true)]), (1, 1), "one window for two parts");
        assert_eq!(wakes(&mut window, &[(100, false)]), (1, 1), "that was all there was");
        assert_eq!(wakes(&mut window, &[(100, false), (50, true)]), (2, 0));
        assert_eq!(wakes(&mut window, &[(100, true)]), (2, 0), "nobody opened it for that");
        assert_eq!(wakes(&mut window, &[]), (2, 0), "nothing has passed");
        windows.opened(u32::MAX);
        assert_eq!(windows.lock().opened, MOST_OPENED, "those of long ago are not all remembered");
    }
}
