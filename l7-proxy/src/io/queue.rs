//! What lies in the h2 crate's queue of a stream. Only its bytes count there against the stream's buffer; but each part is a frame,
//! hundreds of bytes of memory for one byte, and a client that takes nothing can have a server send parts without end (each
//! empty ping of a WebSocket has a pong).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

/// Parts that have less are small.
pub(super) const SMALL: usize = 1_024;

/// Small parts of a stream that may lie there: as many bytes as its buffer has by default, if they were no longer small.
const MOST: usize = 64;

/// The first ones of a stream are not counted: most have no more.
const FREE: u8 = 4;

/// The small parts of a stream.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// How many were not counted.
    free: u8,
    counted: Option<Arc<Mutex<Counted>>>,
}

#[derive(Debug, Default)]
struct Counted {
    /// How many lie there.
    parts: usize,
    /// Who waits until there are no more than so many.
    waits: Option<(usize, Waker)>,
}

impl Queue {
    /// Ready when there is room for one more; or when there is no other at all.
    pub(super) fn poll_room(&self, is_alone: bool, context: &mut Context<'_>) -> Poll<()> {
        let Some(counted) = &self.counted else { return Poll::Ready(()) };
        let mut counted = lock(counted);
        let most = if is_alone { 1 } else { MOST };
        if counted.parts < most {
            return Poll::Ready(());
        }
        counted.waits = Some((most / 2, context.waker().clone()));
        Poll::Pending
    }

    /// A part that is to lie there; it counts until it is dropped.
    pub(super) fn part(&mut self, part: Bytes) -> Bytes {
        if part.len() >= SMALL {
            return part;
        }
        if self.free < FREE {
            self.free += 1;
            return part;
        }
        let counted = Arc::clone(self.counted.get_or_insert_default());
        lock(&counted).parts += 1;
        // It must not hold all of what it is a part of.
        Bytes::from_owner(Part { bytes: part[..].into(), counted })
    }
}

struct Part {
    bytes: Box<[u8]>,
    counted: Arc<Mutex<Counted>>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let waits = {
            let mut counted = lock(&self.counted);
            counted.parts -= 1;
            let parts = counted.parts;
            counted.waits.take_if(|(most, _)| parts <= *most)
        };
        if let Some((_, waker)) = waits {
            waker.wake();
        }
    }
}

fn lock(counted: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering::Relaxed},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn small_parts_are_bounded_until_they_are_taken() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let context = &mut Context::from_waker(&waker);
        let mut queue = Queue::default();
        let mut parts = Vec::new();
        while queue.poll_room(false, context).is_ready() && parts.len() < 1_000 {
            parts.push(queue.part(Bytes::from_static(b"small")));
            parts.push(queue.part(Bytes::from_static(&[b'x'; SMALL])));
        }
        assert_eq!(parts.len(), 2 * (64 + 4), "large ones do not count");
        assert!(parts.iter().step_by(2).all(|part| part == "small"));
        assert_eq!(woken.0.load(Relaxed), 0);
        // Somebody is woken once, by half of them.
        parts.drain(..2 * (4 + 31));
        assert_eq!(woken.0.load(Relaxed), 0);
        parts.drain(..2 * 33);
        assert_eq!((woken.0.load(Relaxed), parts.len()), (1, 0));
        // Nobody waits: nobody is woken.
        assert!(queue.poll_room(false, context).is_ready());
        drop(queue.part(Bytes::new()));
        assert_eq!(woken.0.load(Relaxed), 1);
        // Where there must be no other.
        let other = queue.part(Bytes::new());
        assert!(queue.poll_room(false, context).is_ready());
        assert!(queue.poll_room(true, context).is_pending());
        drop(queue);
        drop(other);
        assert_eq!(woken.0.load(Relaxed), 2);
    }
}
