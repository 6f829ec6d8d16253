//! One timer per connection, whose end is moved without touching the runtime's timer wheel.
//!
//! Thousands of clients that came together, and say nothing, would all end together: each end is an answer, a line of the log
//! and the end of a connection, and everybody else on the thread would wait for all of them. So ends have turns.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Ends that may come on a thread in each [`TURN`]: some tenths of its time.
const AT_ONCE: u32 = 8;

/// What the runtime's timers can tell apart.
const TURN: Duration = Duration::from_millis(1);

/// No end comes later than this for the sake of others: where more than that end, they end together after all.
const LATEST: Duration = Duration::from_secs(1);

thread_local! {
    static TURNS: Cell<Turns> = Cell::default();
}

/// Who of those whose end has come may end.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    /// The last turn of which some was taken, and how many took it.
    last: Option<Instant>,
    taken: u32,
}

impl Turns {
    /// Takes the next turn there is: it is `now`, or later.
    fn take(&mut self, now: Instant) -> Instant {
        let (turn, taken) = match self.last {
            Some(last) if last + TURN > now && self.taken < AT_ONCE => (last, self.taken),
            Some(last) if last + TURN > now + LATEST => (last, self.taken),
            Some(last) if last + TURN > now => (last + TURN, 0),
            _ => (now, 0),
        };
        *self = Self { last: Some(turn), taken: taken.saturating_add(1) };
        turn
    }
}

fn take_turn(now: Instant) -> Instant {
    let mut turns = TURNS.get();
    let turn = turns.take(now);
    TURNS.set(turns);
    turn
}

/// A point in time that may be moved as often as bytes come. The runtime's timer is only set when it fires too
/// early, or must fire earlier than it would.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The turn that was taken when the end had come, and when that was seen.
    turn: Option<Turn>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    at: Instant,
    seen: Instant,
}

impl Deadline {
    /// Sets the end.
    pub fn set(&mut self, after: Duration) {
        self.set_at(Instant::now() + after);
    }

    /// Sets the end.
    pub fn set_at(&mut self, at: Instant) {
        self.at = Some(at);
        // Whoever has come to an end and is only told so again keeps its turn.
        if self.turn.is_some_and(|turn| at > turn.seen) {
            self.turn = None;
        }
    }

    /// Nothing is waited for.
    pub fn clear(&mut self) {
        self.at = None;
    }

    /// Ready when the end has come, and what else ended then on this thread leaves it a turn; never while none is set. The
    /// end is then no longer set.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(end) = self.at else { return Poll::Pending };
        let mut at = self.turn.map_or(end, |turn| turn.at);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= at {
                let now = Instant::now();
                let turn = if self.turn.is_some() { now } else { take_turn(now) };
                if turn <= now {
                    *self = Self::default();
                    return Poll::Ready(());
                }
                self.turn = Some(Turn { at: turn, seen: now });
                at = turn;
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn turns_follow_each_other_and_begin_anew_after_a_pause() {
        let mut turns = Turns::default();
        let start = Instant::now();
        let mut take = |count, now| (0..count).map(|_| turns.take(now) - start).collect::<Vec<_>>();
        let of = |turn| vec![TURN * turn; AT_ONCE as usize];
        assert_eq!(take(AT_ONCE * 3, start), [of(0), of(1), of(2)].concat());
        assert_eq!(take(1, start + TURN), [TURN * 3], "nobody overtakes");
        assert_eq!(take(1, start + TURN * 5), [TURN * 5]);
    }

    #[test]
    fn nobody_waits_for_a_turn_longer_than_a_second() {
        let mut turns = Turns::default();
        let start = Instant::now();
        let last = (0..100_000).map(|_| turns.take(start)).max();
        assert_eq!(last, Some(start + LATEST));
        let later = start + TURN * 10;
        assert!((0..100_000).all(|_| turns.take(later) <= later + LATEST));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_again_that_its_end_has_come_keeps_its_turn() {
        // As connections do whose time is up while bytes still pass.
        let mut all: Vec<_> = (0..20).map(|_| Deadline::default()).collect();
        let end = Instant::now() + Duration::from_millis(10);
        let begin = Instant::now();
        while !all.is_empty() {
            let mut left = Vec::new();
            for mut deadline in all.drain(..) {
                deadline.set_at(end);
                if poll_fn(|context| Poll::Ready(deadline.poll(context))).await.is_pending() {
                    left.push(deadline);
                }
            }
            all = left;
            assert!(begin.elapsed() < Duration::from_millis(30), "{} never end", all.len());
            tokio::time::sleep(TURN).await;
        }
        let mut other = Deadline::default();
        other.set(Duration::from_millis(1));
        let begin = Instant::now();
        poll_fn(|context| other.poll(context)).await;
        assert!(begin.elapsed() <= Duration::from_millis(3), "others do not wait for them");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_given_more_time_while_it_waits_for_its_turn_has_it() {
        let mut all: Vec<_> = (0..AT_ONCE + 1).map(|_| Deadline::default()).collect();
        for deadline in &mut all {
            deadline.set(Duration::ZERO);
        }
        let mut pending = Vec::new();
        for mut deadline in all {
            if poll_fn(|context| Poll::Ready(deadline.poll(context))).await.is_pending() {
                pending.push(deadline);
            }
        }
        let [late] = &mut pending[..] else { panic!("{} wait", pending.len()) };
        late.set(Duration::from_millis(50));
        let begin = Instant::now();
        poll_fn(|context| late.poll(context)).await;
        assert!(begin.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_end_together_end_one_after_the_other() {
        let begin = Instant::now();
        let mut all: Vec<_> = (0..100)
            .map(|_| {
                let mut deadline = Deadline::default();
                deadline.set(Duration::from_millis(10));
                tokio::spawn(async move {
                    poll_fn(|context| deadline.poll(context)).await;
                    begin.elapsed()
                })
            })
            .collect();
        let mut ends = Vec::new();
        for one in all.drain(..) {
            ends.push(one.await.unwrap());
        }
        ends.sort();
        let together = ends.chunk_by(|a, b| b.saturating_sub(*a) < TURN).map(<[_]>::len).max();
        assert!(together <= Some(AT_ONCE as usize), "{ends:?}");
        assert!(ends[99] <= Duration::from_millis(30), "{ends:?}");
    }

    #[tokio::test]
    async fn it_ends_when_it_was_last_told_to() {
        let mut deadline = Deadline::default();
        let start = Instant::now();
        deadline.set_at(start + Duration::from_millis(5));
        assert!(poll_fn(|context| Poll::Ready(deadline.poll(context))).await.is_pending());
        deadline.set_at(start + Duration::from_millis(30));
        poll_fn(|context| deadline.poll(context)).await;
        assert!(start.elapsed() >= Duration::from_millis(30));
        deadline.set_at(start + Duration::from_secs(3_600));
        assert!(poll_fn(|context| Poll::Ready(deadline.poll(context))).await.is_pending());
        deadline.set_at(Instant::now());
        poll_fn(|context| deadline.poll(context)).await;
        assert!(poll_fn(|context| Poll::Ready(deadline.poll(context))).await.is_pending(), "it is over");
    }
}
