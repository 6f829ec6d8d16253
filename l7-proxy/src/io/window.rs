//! What a stream of HTTP/2 may send, and what it costs when its client lets it go on by next to nothing.
//!
//! Whenever a window opens, a task wakes, and writes a frame: as dear for a byte as for thousands. TCP knows that as the silly
//! window syndrome (RFC 1122 §4.2.3.4), and CVE-2019-9511 ("data dribble") is to bring it about. No single window tells the
//! two apart from a client that is merely short of memory, or from what others have left of a connection's window: what
//! counts is how much an answer goes on by on average.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::SendStream;
use tokio::time::Instant;

/// Bytes that are worth waking for.
const WORTH: u64 = 1_024;

/// What a client that has behaved is forgiven at once, and what is remembered of one that has not.
const CREDIT: Duration = Duration::from_secs(1);
const MEMORY: Duration = Duration::from_secs(2);

/// Time by which each wake is paid for: several times what it takes.
const PRICE: Duration = Duration::from_micros(64);

/// What passed the windows of a connection's streams: a bucket that fills with bytes that were too few, and runs out by itself.
#[derive(Debug)]
pub struct Dribble {
    /// Bytes that run out in a second.
    forgiven: u64,
    state: Mutex<Passed>,
}

#[derive(Debug, Default)]
struct Passed {
    /// When the bucket will be empty, or has been; it never had anything in it otherwise.
    empty: Option<Instant>,
    /// Whether it was too much, and has not been nothing since.
    is_too_much: bool,
    /// Wakes that were not paid for.
    wakes: u32,
}

impl Dribble {
    /// Next to nothing may pass windows so many times in a second.
    #[must_use]
    pub fn new(times: u32) -> Self {
        Self { forgiven: u64::from(times.max(1)) * WORTH, state: Mutex::default() }
    }

    /// No more than so many bytes have passed a window between two times at which it was closed.
    fn add(&self, bytes: usize, now: Instant) {
        let bytes = bytes as u64;
        let mut passed = self.lock();
        let least = before(now, CREDIT);
        let empty = passed.empty.unwrap_or(least);
        let empty = match bytes.checked_sub(WORTH) {
            Some(more) => before(empty, self.time(more)),
            None => empty + self.time(WORTH - bytes),
        };
        passed.empty = Some(empty.clamp(least, now + MEMORY));
        passed.wakes = passed.wakes.saturating_add(1);
    }

    /// How long so many bytes take to run out.
    fn time(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.forgiven)
    }

    /// What the client has to pay for since it was asked last, if it lets too little pass too often; or did, and has not been better
    /// for a second.
    #[must_use]
    pub fn price(&self) -> Option<Duration> {
        self.price_at(Instant::now)
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A point in time that lies before another, or as early as there is one.
fn before(time: Instant, by: Duration) -> Instant {
    time.checked_sub(by).unwrap_or(time)
}

/// The window that the other side of a stream gives us.
#[derive(Debug, Default)]
pub struct Window {
    /// Where it is written down when little passes.
    dribble: Option<Arc<Dribble>>,
    state: State,
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
    /// A window of a client whose streams have `dribble` in common.
    #[must_use]
    pub fn of_client(dribble: Arc<Dribble>) -> Self {
        Self { dribble: Some(dribble), state: State::Open }
    }

    /// How many bytes of the next `piece` are to be sent now by someone who has `all` of them to send.
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
        self.state = match self.state {
            State::Open => State::Open,
            State::Closed => State::Opened(part),
            State::Opened(bytes) => State::Opened(bytes.saturating_add(part)),
        };
        Poll::Ready(Ok(part))
    }

    fn close(&mut self) {
        if let (State::Opened(bytes), Some(dribble)) = (&self.state, &self.dribble) {
            dribble.add(*bytes, Instant::now());
        }
        self.state = State::Closed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// After how many milliseconds it is too much, when so many times in each these bytes pass in turn.
    fn too_much(times: u32, bytes: &[usize]) -> Option<u32> {
        let begin = Instant::now();
        let dribble = Dribble::new(1_000);
        let mut bytes = bytes.iter().cycle();
        (0..10_000).find(|&milli| {
            let now = begin + MILLI * milli;
            bytes.by_ref().take(times as usize).for_each(|&bytes| dribble.add(bytes, now));
            dribble.price_at(|| now).is_some()
        })
    }

    #[test]
    fn the_average_is_what_counts() {
        assert_eq!(too_much(1, &[1]), None, "so many are forgiven");
        assert_eq!(too_much(2, &[0]), Some(999), "a second's worth at once");
        assert_eq!(too_much(10, &[512]), Some(249));
        assert_eq!(too_much(10, &[1_000]), None);
        assert_eq!(too_much(10, &[5_000, 1, 1, 1]), None, "what is left of what others took");
    }

    #[test]
    fn neither_good_nor_bad_is_remembered_for_ever() {
        let mut now = Instant::now();
        let dribble = Dribble::new(100);
        assert!(dribble.price_at(|| now).is_none());
        dribble.add(usize::MAX, now);
        (0..1_000).for_each(|_| dribble.add(1 << 30, now));
        (0..100).for_each(|_| dribble.add(0, now));
        assert!(dribble.price_at(|| now).is_none(), "a second's worth");
        dribble.add(0, now);
        assert!(dribble.price_at(|| now).is_some());
        (0..1_000_000).for_each(|_| dribble.add(0, now));
        assert_eq!(dribble.price_at(|| now), Some(PRICE * 1_000_000));
        now += MEMORY + CREDIT - MILLI;
        assert_eq!(
            dribble.price_at(|| now),
            Some(Duration::ZERO),
            "it has been better for less than a second"
        );
        now += MILLI;
        assert_eq!(dribble.price_at(|| now), None);
    }
}
