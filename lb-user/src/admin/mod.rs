//! The admin interface: HTTP/1.1 with JSON over a Unix socket, for `lbctl` and scripts of this host.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | the [`Snapshot`], with counters as fresh as possible |
//! | `POST /v1/server` with a [`ServerRequest`] | the servers it was for, once the kernel knows: a list of [`ServerChange`] |
//! | `POST /v1/vip` with a [`VipRequest`] | the VIPs it was for, once the kernel knows: a list of [`VipChange`] |
//! | `POST /v1/reload` | what the configuration file brought, once it is applied: [`Reloaded`]; with `?dry_run=true` what it would bring; with `?confirm=SECONDS` it has to be confirmed |
//! | `POST /v1/edit` with an [`Edit`] | the same, once the file says so and is in use; `dry_run` and `confirm` as for `reload`, and `stage=true` writes it without using it |
//! | `POST /v1/discard` | what was changed in the file and is not in use, once the file is as in use |
//! | `POST /v1/confirm` | the same, once what was to be confirmed is |
//! | `POST /v1/rollback?number=N` | the same, once what was kept under the number is in the file and in use |
//! | `GET /v1/connections` | the connections that are open: [`crate::connections::Listed`]; with `vip`, `server`, `client` (a network) and `limit` |
//! | `POST /v1/connections/end` | with one of the same or `all=true`, but for `limit`: ends them, [`crate::connections::Ended`] |
//! | `GET /v1/maps` | what the kernel program's maps contain: [`maps::Maps`] |
//! | `GET /metrics` | [`crate::metrics`] |
//! | `GET /v1/history` | the configurations that are kept: a list of [`Entry`] |
//! | `GET /v1/trace?filter=…` | what becomes of packets, a [`crate::trace::Line`] of JSON for each, as they come; see [`eyes`] |
//! | `GET /v1/why?source=…&destination=…` | what would become of a packet, a [`crate::trace::Why`] |
//!
//! Anything else is answered with a matching status and [`error`]'s shape. Only root, or the user lb-user
//! runs as, gets an answer.
//!
//! This room holds no state of the balancer. It asks the reconcile loop for a fresh picture through a
//! [`StatusRequest`] and makes do with the last published one when that takes too long. What is to change goes to the loop,
//! or to who reads the configuration, as a [`Command`] or [`ReloadRequest`].

pub mod api;
pub mod audit;
pub mod crowd;
pub mod error;
pub mod eyes;
pub mod flows;
pub mod maps;
pub mod query;
pub mod server;
pub mod socket;
pub mod steer;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

pub use self::{
    audit::Audit,
    server::serve,
    socket::Socket,
    steer::{OfFile, ServerChange, ServerRequest, VipChange, VipRequest, Weight},
};
use crate::{
    connections::Connections,
    model::Config,
    reload::{
        changes::Change,
        edit::Edit,
        history::{Entry, History},
    },
    snapshot::Snapshot,
    trace::Eyes,
};

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

/// What a configuration file brought that was read again, or would bring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file.
    pub file: String,
    /// VIPs in it.
    pub vips: usize,
    /// What is odd about it, and what of it takes effect at the next start only.
    pub warnings: Vec<String>,
    /// What is different from what was in use.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// Whether it is in use now.
    #[serde(default)]
    pub applied: bool,
    /// The number under which it is kept.
    #[serde(default)]
    pub number: Option<u32>,
    /// Seconds within which it has to be confirmed.
    #[serde(default)]
    pub confirm_within: Option<u64>,
}

/// What is to be done about the configuration file.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Read it again and use it.
    Apply,
    /// Say what that would change.
    Try,
    /// Use it, and go back to what was in use before unless it is confirmed in time.
    Commit(Duration),
    /// It was good.
    Confirm,
    /// Write the text that was kept under a number into the file, and use that.
    GoBack(u32),
    /// Change the file, and use it.
    Edit(Edit, How),
    /// Put the file back as it is in use.
    Discard,
}

/// What is to be done with a file that is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Say what would be different.
    Try,
    /// Write it, to be used when a reload is asked for.
    Stage,
    /// Write and use it.
    Apply,
    /// The same, and go back to what was in use before unless it is confirmed in time.
    Commit(Duration),
}

/// A wish for the reconcile loop. It is answered when the kernel has been told.
#[derive(Debug)]
pub enum Command {
    /// A server's state or weight.
    Server(ServerRequest, oneshot::Sender<Result<Vec<ServerChange>, String>>),
    /// Whether a VIP takes new flows.
    Vip(VipRequest, oneshot::Sender<Result<Vec<VipChange>, String>>),
    /// Another configuration, that can be used.
    Configure(Box<Config>, oneshot::Sender<Result<(), String>>),
}

/// A wish about the configuration file; refused with everything that is wrong with it.
#[derive(Debug)]
pub struct ReloadRequest(pub Wish, pub oneshot::Sender<Result<Reloaded, String>>);

/// The admin interface's view of the balancer.
#[derive(Clone, Debug)]
pub struct Handle {
    last: watch::Receiver<Arc<Snapshot>>,
    requests: mpsc::Sender<StatusRequest>,
    commands: mpsc::Sender<Command>,
    reloads: mpsc::Sender<ReloadRequest>,
    eyes: Option<Eyes>,
    connections: Option<Connections>,
    history: Option<History>,
    audit: Option<Audit>,
}

/// What reaches others through a [`Handle`].
#[derive(Debug)]
pub struct Requests {
    /// For the reconcile loop: fresh pictures.
    pub status: mpsc::Receiver<StatusRequest>,
    /// For the reconcile loop.
    pub commands: mpsc::Receiver<Command>,
    /// For who reads the configuration.
    pub reloads: mpsc::Receiver<ReloadRequest>,
}

impl Handle {
    /// A handle that falls back to `last`, and the requests that others are to answer.
    #[must_use]
    pub fn new(last: watch::Receiver<Arc<Snapshot>>) -> (Self, Requests) {
        let (requests, status) = mpsc::channel(WAITING);
        let (command_requests, commands) = mpsc::channel(WAITING);
        let (reload_requests, reloads) = mpsc::channel(WAITING);
        let (commands_to, reloads_to) = (command_requests, reload_requests);
        let handle = Self {
            last,
            requests,
            commands: commands_to,
            reloads: reloads_to,
            eyes: None,
            connections: None,
            history: None,
            audit: None,
        };
        (handle, Requests { status, commands, reloads })
    }

    /// The same, with which packets can be looked into.
    #[must_use]
    pub fn with_eyes(self, eyes: Eyes) -> Self {
        Self { eyes: Some(eyes), ..self }
    }

    /// The same, with the connections of VIPs.
    #[must_use]
    pub fn with_connections(self, connections: Connections) -> Self {
        Self { connections: Some(connections), ..self }
    }

    /// The same, with a log of all changes.
    #[must_use]
    pub fn with_audit(self, audit: Audit) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// The same, with the configurations that were in use.
    #[must_use]
    pub fn with_history(self, history: History) -> Self {
        Self { history: Some(history), ..self }
    }

    /// Changes a server's state or weight; gives the servers that the request was for.
    ///
    /// # Errors
    /// When there is no such server; or the loop is gone.
    pub async fn set_server(&self, request: ServerRequest) -> Result<Vec<ServerChange>, String> {
        let (answer, outcome) = oneshot::channel();
        ask(&self.commands, Command::Server(request, answer), outcome).await
    }

    /// Enables or disables a VIP; gives the VIPs that the request was for.
    ///
    /// # Errors
    /// When there is no such VIP; or the loop is gone.
    pub async fn set_vip(&self, request: VipRequest) -> Result<Vec<VipChange>, String> {
        let (answer, outcome) = oneshot::channel();
        ask(&self.commands, Command::Vip(request, answer), outcome).await
    }

    /// Applies a configuration.
    ///
    /// # Errors
    /// When it does not fit into the kernel's tables; or the loop is gone.
    pub async fn configure(&self, config: Config) -> Result<(), String> {
        let (answer, outcome) = oneshot::channel();
        ask(&self.commands, Command::Configure(Box::new(config), answer), outcome).await
    }

    /// Has something done about the configuration file.
    ///
    /// # Errors
    /// Everything that is wrong with it; nothing was changed then.
    pub async fn reload(&self, wish: Wish) -> Result<Reloaded, String> {
        let (answer, outcome) = oneshot::channel();
        ask(&self.reloads, ReloadRequest(wish, answer), outcome).await
    }

    /// The configurations that were in use, the oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Entry> {
        self.history.as_ref().map(History::entries).unwrap_or_default()
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

/// Sends a wish and waits for the answer.
async fn ask<W, T>(
    to: &mpsc::Sender<W>,
    wish: W,
    answer: oneshot::Receiver<Result<T, String>>,
) -> Result<T, String> {
    let gone = || "lb-user is stopping".to_owned();
    to.send(wish).await.map_err(|_| gone())?;
    answer.await.unwrap_or_else(|_| Err(gone()))
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
        let loop_ = async { requests.status.recv().await.unwrap().answer(snapshot(2)) };
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
