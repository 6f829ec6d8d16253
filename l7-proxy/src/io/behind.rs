//! Turns of connections that are put behind all others: there is one in a millisecond, however many they are, so that they
//! have some of the processor's time among them and no more. Who is alone with that hardly notices it.

use std::{
    cell::Cell,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// What a turn takes at least; the runtime's timers cannot tell less apart.
const TURN: Duration = Duration::from_millis(1);

/// No turn comes later than this: where there would be more, some come together.
const LATEST: Duration = Duration::from_secs(1);

thread_local! {
    static TURNS: Cell<Turns> = Cell::default();
}

/// Turns of a thread.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    /// The last that was taken.
    last: Option<Instant>,
}

impl Turns {
    /// Takes the next turn, for someone whose last one was worth so much.
    fn take(&mut self, now: Instant, cost: Duration) -> Instant {
        let last = self.last.map_or(now, |last| last.max(now));
        let turn = (last + cost.max(TURN)).min(now + LATEST);
        self.last = Some(turn);
        turn
    }
}

/// A place behind others.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// When its next turn comes.
    turn: Option<Pin<Box<Sleep>>>,
    /// By how much its last one has to be paid for.
    cost: Duration,
}

impl Behind {
    /// Ready when it is its turn, until [`Self::end_turn`].
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.turn.is_none() {
            let mut turns = TURNS.get();
            let turn = turns.take(Instant::now(), std::mem::take(&mut self.cost));
            TURNS.set(turns);
            self.turn = Some(Box::pin(sleep_until(turn)));
        }
        let Some(turn) = &mut self.turn else { return Poll::Pending };
        ready!(turn.as_mut().poll(context));
        Poll::Ready(())
    }

    /// It has had its turn.
    pub(super) fn end_turn(&mut self) {
        self.turn = None;
    }

    /// What it has done will have to be paid for.
    pub(super) fn add_cost(&mut self, cost: Duration) {
        self.cost += cost;
    }

    /// Whether it waits for a turn.
    pub(super) fn waits(&self) -> bool {
        self.turn.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_each_other_as_fast_as_they_are_paid_for() {
        const MILLI: Duration = Duration::from_millis(1);
        let start = Instant::now();
        let mut turns = Turns::default();
        let mut take = |now: u32, cost: u32| turns.take(start + MILLI * now, MILLI * cost) - start;
        assert_eq!([take(0, 0), take(0, 0), take(0, 1)], [MILLI, MILLI * 2, MILLI * 3]);
        assert_eq!([take(1, 5), take(1, 0)], [MILLI * 8, MILLI * 9], "by who asks, when it is asked");
        assert_eq!(take(100, 2), MILLI * 102, "nothing is saved up");
        assert_eq!([take(100, 5_000), take(100, 0)], [MILLI * 1_100; 2], "none is later than that");
        assert_eq!(take(200, 0), MILLI * 1_101);
    }
}
