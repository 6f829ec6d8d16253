//! Who waits for a place at a pool's servers, in the order in which they came.
//!
//! A place that becomes free is offered to who has waited longest. Who cannot use it, for it is at another server than the one
//! that has to serve, leaves it to the next, and keeps its own turn.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, Waker},
};

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// How many there are, for who only wants to know whether there are any.
    length: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: BTreeMap<u64, Waker>,
    next: u64,
    /// Who is offered a place at the moment.
    offered: Option<u64>,
    /// Places that have become free since that began.
    more: u32,
}

/// A turn in the queue. Dropped, it is over.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    queue: &'a Queue,
    number: u64,
    /// Whether what was offered was taken.
    is_used: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(super) fn length(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// Whether a place is being offered, which nobody is to take who comes now.
    pub(super) fn is_moving(&self) -> bool {
        self.length() > 0 && self.lock().offered.is_some()
    }

    /// A turn behind everybody who waits, unless these are `most` or more; and whether a place is being offered, which this turn is
    /// asked about as well. Otherwise, one may have become free just before.
    pub(super) fn join(&self, most: usize) -> Option<(Turn<'_>, bool)> {
        let mut inner = self.lock();
        if inner.waiting.len() >= most {
            return None;
        }
        let number = inner.next;
        inner.next += 1;
        inner.waiting.insert(number, Waker::noop().clone());
        self.length.store(inner.waiting.len(), Relaxed);
        Some((Turn { queue: self, number, is_used: false }, inner.offered.is_some()))
    }

    /// A place has become free.
    pub(super) fn offer(&self) {
        // Who comes just now looks for a place once it is in the queue.
        if self.length() == 0 {
            return;
        }
        let mut inner = self.lock();
        if inner.offered.is_some() {
            inner.more += 1;
        } else {
            inner.offer_from(0);
        }
    }
}

impl Inner {
    /// Offers a place to the first from this turn on; where there is none, the next place to the first of all.
    fn offer_from(&mut self, number: u64) {
        let found = self.waiting.range(number..).next().or_else(|| {
            self.more = self.more.checked_sub(1)?;
            self.waiting.first_key_value()
        });
        self.offered = found.map(|(&number, _)| number);
        if let Some((_, waker)) = found {
            waker.wake_by_ref();
        } else {
            self.more = 0;
        }
    }

    /// A place was taken: the next one, if there is any, is for the first of all.
    fn go_on(&mut self) {
        self.offered = None;
        if self.more > 0 {
            self.more -= 1;
            self.offer_from(0);
        }
    }
}

impl Turn<'_> {
    /// Waits until a place is offered.
    pub(super) async fn offered(&self) {
        poll_fn(|context| {
            let mut inner = self.queue.lock();
            if inner.offered == Some(self.number) {
                return Poll::Ready(());
            }
            if let Some(waker) = inner.waiting.get_mut(&self.number) {
                waker.clone_from(context.waker());
            }
            Poll::Pending
        })
        .await;
    }

    /// None of the places that are free will do: they are left to the next.
    pub(super) fn pass(&self) {
        let mut inner = self.queue.lock();
        if inner.offered == Some(self.number) {
            inner.offer_from(self.number + 1);
        }
    }

    /// A place was taken.
    pub(super) fn used(mut self) {
        self.is_used = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inner = self.queue.lock();
        inner.waiting.remove(&self.number);
        self.queue.length.store(inner.waiting.len(), Relaxed);
        if inner.offered == Some(self.number) {
            if self.is_used { inner.go_on() } else { inner.offer_from(self.number + 1) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Context};

    use super::*;

    fn is_offered(turn: &Turn<'_>) -> bool {
        pin!(turn.offered()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn queue(turns: usize) -> (&'static Queue, Vec<Turn<'static>>) {
        let queue: &Queue = Box::leak(Box::default());
        (queue, (0..turns).map(|_| queue.join(turns).unwrap().0).collect())
    }

    #[test]
    fn places_go_to_who_came_first() {
        let (queue, turns) = queue(3);
        assert!(queue.join(3).is_none(), "it is full");
        // Two at once, and one more later.
        queue.offer();
        queue.offer();
        for (number, turn) in (0..).zip(turns) {
            if number == 2 {
                assert!(!queue.is_moving() && !is_offered(&turn));
                queue.offer();
            }
            assert!(queue.is_moving() && is_offered(&turn), "{number}");
            turn.used();
        }
        assert!(!queue.is_moving());
        assert_eq!(queue.length(), 0);
        queue.offer();
        assert!(!queue.is_moving(), "nobody waits");
    }

    #[test]
    fn who_cannot_use_a_place_leaves_it_to_the_next_and_keeps_its_turn() {
        let (queue, turns) = queue(3);
        queue.offer();
        turns[0].pass();
        assert!(is_offered(&turns[1]) && !is_offered(&turns[0]));
        // One more becomes free meanwhile, and is for the first again, whatever comes of this one.
        queue.offer();
        turns[1].pass();
        turns[2].pass();
        assert!(is_offered(&turns[0]));
        (0..3).for_each(|turn| turns[turn].pass());
        assert!(!queue.is_moving(), "nobody wants it");
        turns[1].pass();
        assert!(!queue.is_moving(), "nothing was offered");
    }

    #[test]
    fn who_leaves_leaves_what_was_offered_to_the_next() {
        let (queue, mut turns) = queue(3);
        queue.offer();
        drop(turns.remove(0));
        assert!(is_offered(&turns[0]));
        drop(turns.remove(1));
        assert!(is_offered(&turns[0]), "that one was behind");
        drop(turns);
        assert!(!queue.is_moving());
    }

    #[test]
    fn who_comes_while_a_place_is_offered_is_told() {
        let (queue, turns) = queue(1);
        assert!(!queue.join(9).unwrap().1);
        queue.offer();
        let (last, is_moving) = queue.join(9).unwrap();
        assert!(is_moving);
        turns[0].pass();
        assert!(is_offered(&last));
    }
}
