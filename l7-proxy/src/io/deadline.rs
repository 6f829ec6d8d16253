//! One timer per connection, whose end is moved without touching the runtime's timer wheel.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A point in time that may be moved as often as bytes come. The runtime's timer is only set when it fires too
/// early, or must fire earlier than it would.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Sets the end.
    pub fn set(&mut self, after: Duration) {
        self.set_at(Instant::now() + after);
    }

    /// Sets the end.
    pub fn set_at(&mut self, at: Instant) {
        self.at = Some(at);
    }

    /// Nothing is waited for.
    pub fn clear(&mut self) {
        self.at = None;
    }

    /// Ready when the end has come; never while none is set. The end is then no longer set.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= at {
                self.at = None;
                self.timer = None;
                return Poll::Ready(());
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
