//! Turns of connections that are put behind all others: about one in a millisecond, however many they are, so that they have
//! some of the processor's time among them and no more. Each pays for its own: who costs much has fewer. Who is alone with
//! it hardly notices.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Between two turns; the runtime's timers cannot tell less apart.
const TURN: Duration = Duration::from_millis(1);

/// No turn comes later than this: of more than a thousand connections some have theirs together.
const LATEST: Duration = Duration::from_secs(1);

thread_local! {
    /// How many wait for a turn on this thread, and the last turn that was taken.
    static WAITING: Cell<u32> = const { Cell::new(0) };
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The next turn after `last`, for someone whose own is not due before `due`; and what is the last one then. Who waits for what it
/// has cost holds up nobody else.
fn next(last: Option<Instant>, due: Option<Instant>, now: Instant) -> (Instant, Option<Instant>) {
    let next = (last.map_or(now, |last| last.max(now)) + TURN).min(now + LATEST);
    match due {
        Some(due) if due > next => (due.min(now + LATEST), last),
        _ => (next, Some(next)),
    }
}

/// A place behind others.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// When its next turn comes, whether it is counted among those who wait, and when its last turn ended.
    turn: Option<Pin<Box<Sleep>>>,
    is_counted: bool,
    had: Option<Instant>,
    /// By how much that has to be paid for.
    cost: Duration,
}

impl Behind {
    /// Ready when it is its turn, until [`Self::end_turn`].
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.turn.is_none() {
            self.count(true);
            // Each has its share of the time that all of them have.
            let cost = std::mem::take(&mut self.cost).saturating_mul(WAITING.get());
            let due = self.had.and_then(|had| had.checked_add(cost));
            let (turn, last) = next(LAST.get(), due, Instant::now());
            LAST.set(last);
            self.turn = Some(Box::pin(sleep_until(turn)));
        }
        let polled = self.turn.as_mut().map_or(Poll::Ready(()), |turn| turn.as_mut().poll(context));
        if polled.is_ready() {
            self.count(false);
        }
        polled
    }

    /// Whoever has a turn and says nothing must not have others pay for it.
    fn count(&mut self, is_counted: bool) {
        let waiting = WAITING.get();
        match (self.is_counted, is_counted) {
            (false, true) => WAITING.set(waiting + 1),
            (true, false) => WAITING.set(waiting.saturating_sub(1)),
            _ => {}
        }
        self.is_counted = is_counted;
    }

    /// It has had its turn.
    pub(super) fn end_turn(&mut self) {
        self.turn = None;
        self.had = Some(Instant::now());
    }

    /// What it has done will have to be paid for.
    pub(super) fn add_cost(&mut self, cost: Duration) {
        self.cost = self.cost.saturating_add(cost);
    }

    /// Whether it waits for a turn that has not come.
    pub(super) fn waits(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| !turn.is_elapsed())
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.count(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_each_other_and_who_is_dear_waits_for_itself() {
        const MILLI: Duration = Duration::from_millis(1);
        let start = Instant::now();
        let mut last = None;
        let mut take = |now: u32, due: Option<u32>| {
            let turn;
            (turn, last) = next(last, due.map(|due| start + MILLI * due), start + MILLI * now);
            (turn - start).as_millis()
        };
        assert_eq!([take(0, None), take(0, None), take(0, Some(1))], [1, 2, 3]);
        assert_eq!([take(1, Some(50)), take(1, None)], [50, 4], "nobody else pays for it");
        assert_eq!(take(100, Some(7)), 101, "nothing is saved up");
        assert_eq!([take(100, Some(5_000)), take(100, None)], [1_100, 102], "none is later than that");
        assert_eq!((0..2_000).map(|_| take(200, None)).max(), Some(1_200));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_dear_has_fewer_turns() {
        let begin = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for number in 0..4 {
            all.spawn(async move {
                let mut behind = Behind::default();
                let mut turns = 0;
                while begin.elapsed() < Duration::from_secs(1) {
                    std::future::poll_fn(|context| behind.poll(context)).await;
                    assert!(!behind.waits());
                    turns += 1;
                    behind.end_turn();
                    behind.add_cost(Duration::from_micros(if number == 0 { 8_000 } else { 1_000 }));
                }
                (number, turns)
            });
        }
        for (number, turns) in all.join_all().await {
            let expected = if number == 0 { 30..=33 } else { 240..=260 };
            assert!(expected.contains(&turns), "{number}: {turns}");
        }
        assert_eq!(WAITING.get(), 0);
    }
}
