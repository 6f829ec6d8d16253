//! The admin interface: HTTP/1.1 with JSON over a Unix socket, for `lbctl` and scripts of this host.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | the [`Snapshot`], with counters as fresh as possible |
//! | `GET /v1/trace?filter=…` | what becomes of packets, a [`crate::trace::Line`] of JSON for each, as they come; see [`eyes`] |
//! | `GET /v1/why?source=…&destination=…` | what would become of a packet, a [`crate::trace::Why`] |
//!
//! Anything else is answered with a matching status and [`error`]'s shape. Only root, or the user lb-user
//! runs as, gets an answer.
//!
//! This room holds no state of the balancer. It asks the reconcile loop for a fresh picture through a
//! [`StatusRequest`] and makes do with the last published one when that takes too long.

pub mod api;
pub mod error;
pub mod eyes;
pub mod query;
pub mod server;
pub mod socket;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

pub use self::{server::serve, socket::Socket};
use crate::{snapshot::Snapshot, trace::Eyes};

/// Where lb-user listens and lbctl connects unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb/admin.sock";

/// How long a request waits for fresh counters.
const PATIENCE: Duration = Duration::from_secs(1);

/// Requests that may wait for the reconcile loop at once; the rest get the last snapshot.
const WAITING: usize = 16;

/// A request to bring the counters up to date and hand over the result.
#[derive(Debug)]
pub struct StatusRequest(oneshot::Sender<Arc<Snapshot>>);

impl StatusRequest {
    /// Answers the request. Nothing happens if whoever asked has given up meanwhile.
    pub fn answer(self, snapshot: Arc<Snapshot>) {
        // The receiver is gone when the client had to wait too long.
        let _ = self.0.send(snapshot);
    }
}

/// The admin interface's view of the balancer.
#[derive(Clone, Debug)]
pub struct Handle {
    last: watch::Receiver<Arc<Snapshot>>,
    requests: mpsc::Sender<StatusRequest>,
    eyes: Option<Eyes>,
}

impl Handle {
    /// A handle that falls back to `last`, and the requests that the reconcile loop is to answer.
    #[must_use]
    pub fn new(last: watch::Receiver<Arc<Snapshot>>) -> (Self, mpsc::Receiver<StatusRequest>) {
        let (requests, inbox) = mpsc::channel(WAITING);
        (Self { last, requests, eyes: None }, inbox)
    }

    /// The same, with which packets can be looked into.
    #[must_use]
    pub fn with_eyes(self, eyes: Eyes) -> Self {
        Self { eyes: Some(eyes), ..self }
    }

    /// The state of the balancer: fresh if the reconcile loop answers within a second, else as it last
    /// published it ([`Snapshot::time`] tells when).
    pub async fn status(&self) -> Arc<Snapshot> {
        let (answer, fresh) = oneshot::channel();
        if self.requests.try_send(StatusRequest(answer)).is_ok()
            && let Ok(Ok(snapshot)) = timeout(PATIENCE, fresh).await
        {
            return snapshot;
        }
        Arc::clone(&self.last.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(time: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot { time, ..Snapshot::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_snapshot_is_preferred() {
        let (_publish, last) = watch::channel(snapshot(1));
        let (handle, mut requests) = Handle::new(last);
        let loop_ = async { requests.recv().await.unwrap().answer(snapshot(2)) };
        let (answer, ()) = tokio::join!(handle.status(), loop_);
        assert_eq!(answer.time, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_loop_delays_the_last_snapshot_by_a_second_at_most() {
        let (_publish, last) = watch::channel(snapshot(1));
        let (handle, requests) = Handle::new(last);
        let start = tokio::time::Instant::now();
        assert_eq!(handle.status().await.time, 1);
        assert!(start.elapsed() <= PATIENCE + Duration::from_millis(10));

        drop(requests);
        let start = tokio::time::Instant::now();
        assert_eq!(handle.status().await.time, 1);
        assert_eq!(start.elapsed(), Duration::ZERO, "a loop that is gone is not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_a_number_of_waiting_requests_the_last_snapshot_is_given_at_once() {
        let (_publish, last) = watch::channel(snapshot(1));
        let (handle, _requests) = Handle::new(last);
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let handle = handle.clone();
                tokio::spawn(async move { handle.status().await })
            })
            .collect();
        tokio::task::yield_now().await;
        let start = tokio::time::Instant::now();
        assert_eq!(handle.status().await.time, 1);
        assert_eq!(start.elapsed(), Duration::ZERO);
        for task in waiting {
            assert_eq!(task.await.unwrap().time, 1);
        }
    }
}
