//! The admin interface: HTTP/1.1 with JSON over a Unix socket, for `lbctl` and scripts of this host.
//!
//! What can be asked is in one table, [`routes`], which `GET /openapi.json` tells in full ([`openapi`]). What is not there is
//! answered with a matching status and [`error`]'s shape. Only root, or the user lb-user runs as, gets an answer.
//!
//! Answers about what can be changed carry an `ETag`, and what is to be changed may say `If-Match` ([`version`]): whether
//! that holds is looked at by whoever makes the change, in the same breath. With `dry_run=true` the same is found out and
//! nothing is changed.
//!
//! This room holds no state of the balancer. It asks the reconcile loop for a fresh picture through a
//! [`StatusRequest`] and makes do with the last published one when that takes too long. What is to change goes to the loop,
//! or to who reads the configuration, as a [`Command`] or [`ReloadRequest`].

pub mod access;
pub mod api;
pub mod audit;
pub mod counts;
pub mod crowd;
pub mod error;
pub mod eyes;
pub mod flows;
pub mod guard;
pub mod maps;
pub mod openapi;
pub mod query;
pub mod remote;
pub mod role;
pub mod routes;
pub mod server;
pub mod socket;
pub mod steer;
pub mod token;
pub mod version;

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

pub use self::{
    access::Access,
    audit::Audit,
    counts::Counts,
    role::Role,
    server::serve,
    socket::Socket,
    steer::{OfFile, ServerChange, ServerRequest, VipChange, VipRequest, Weight},
    version::{Denial, Terms, Version},
};
use crate::{
    connections::Connections,
    l7, metrics,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// What is in use now: for `If-Match`, in quotes.
    #[serde(default)]
    pub etag: String,
}

/// What is to be done about the configuration file.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Read it again and use it.
    Apply,
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
    /// Write it, to be used when a reload is asked for.
    Stage,
    /// Write and use it.
    Apply,
    /// The same, and go back to what was in use before unless it is confirmed in time.
    Commit(Duration),
}

/// A wish for the reconcile loop. It is answered when the kernel has been told, unless it says otherwise.
#[derive(Debug)]
pub enum Command {
    /// A server's state or weight.
    Server(ServerRequest, Terms, Answer<Done<Vec<ServerChange>>>),
    /// Whether a VIP takes new flows.
    Vip(VipRequest, Terms, Answer<Done<Vec<VipChange>>>),
    /// Another configuration, that can be used; without an adoption only names stand for other addresses. It is answered
    /// as soon as it is in use.
    Configure(Arc<Config>, Option<Adoption>, Answer<Done<Told>>),
    /// What is in use, if that is what the terms name.
    InUse(Terms, Answer<Done<InUse>>),
}

/// Closed when the kernel has been told: it lets who replaces a ring wait for some ten milliseconds, in which others can do
/// something else.
pub type Told = oneshot::Receiver<()>;

/// Where an outcome is awaited.
pub type Answer<T> = oneshot::Sender<Result<T, Denial>>;

/// What was done, or would be, and what is in use now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// What.
    pub what: T,
    /// What is in use.
    pub version: Version,
}

/// The configuration in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Its text.
    pub text: Arc<str>,
}

/// A text that comes into use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// It.
    pub text: Arc<str>,
    /// What is different, in a line.
    pub what: String,
    /// If they hold.
    pub terms: Terms,
}

/// A wish about the configuration file; refused with everything that is wrong with it.
#[derive(Debug)]
pub struct ReloadRequest(pub Wish, pub Terms, pub Answer<Reloaded>);

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
    access: Option<Arc<Access>>,
    counts: Arc<Counts>,
    proxy: Option<l7::Handle>,
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
            access: None,
            counts: Arc::default(),
            proxy: None,
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

    /// The same, with what l7-proxy has counted.
    #[must_use]
    pub fn with_proxy(self, proxy: l7::Handle) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    /// Everything that is counted, as OpenMetrics.
    pub async fn metrics(&self) -> String {
        let text = metrics::render(&*self.status().await, &metrics::Process::this(), &self.counts);
        match &self.proxy {
            // Who is busy with a proxy that hangs must not keep the rest from being told.
            Some(proxy) => {
                metrics::with(&text, &timeout(PATIENCE, proxy.metrics()).await.unwrap_or_default())
            }
            None => text,
        }
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

    /// The same, with what protects the API over TCP.
    #[must_use]
    pub fn with_access(self, access: Option<Arc<Access>>) -> Self {
        Self { access, ..self }
    }

    /// Reads tokens and certificate again, if there are any; gives what is wrong with them.
    #[must_use]
    pub fn read_access_again(&self) -> Vec<String> {
        self.access.as_ref().map(|access| access.read_again()).unwrap_or_default()
    }

    /// What is counted of the interface.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Changes a server's state or weight; gives the servers that the request was for.
    ///
    /// # Errors
    /// When there is no such server, or the terms do not hold; or the loop is gone.
    pub async fn set_server(
        &self,
        request: ServerRequest,
        terms: Terms,
    ) -> Result<Done<Vec<ServerChange>>, Denial> {
        let (answer, outcome) = oneshot::channel();
        ask(&self.commands, Command::Server(request, terms, answer), outcome).await
    }

    /// Enables or disables a VIP; gives the VIPs that the request was for.
    ///
    /// # Errors
    /// When there is no such VIP, or the terms do not hold; or the loop is gone.
    pub async fn set_vip(&self, request: VipRequest, terms: Terms) -> Result<Done<Vec<VipChange>>, Denial> {
        let (answer, outcome) = oneshot::channel();
        ask(&self.commands, Command::Vip(request, terms, answer), outcome).await
    }

    /// Applies a configuration.
    ///
    /// # Errors
    /// When it does not fit into the kernel's tables, or the terms of its adoption do not hold; or the loop is gone.
    pub async fn configure(
        &self,
        config: Arc<Config>,
        adoption: Option<Adoption>,
    ) -> Result<Done<Told>, Denial> {
        let (answer, outcome) = oneshot::channel();
        ask(&self.commands, Command::Configure(config, adoption, answer), outcome).await
    }

    /// The configuration in use.
    ///
    /// # Errors
    /// When the terms do not hold; or the loop is gone.
    pub async fn in_use(&self, terms: Terms) -> Result<Done<InUse>, Denial> {
        let (answer, outcome) = oneshot::channel();
        ask(&self.commands, Command::InUse(terms, answer), outcome).await
    }

    /// Has something done about the configuration file.
    ///
    /// # Errors
    /// Everything that is wrong with it, or that the terms do not hold; nothing was changed then.
    pub async fn reload(&self, wish: Wish, terms: Terms) -> Result<Reloaded, Denial> {
        let (answer, outcome) = oneshot::channel();
        ask(&self.reloads, ReloadRequest(wish, terms, answer), outcome).await
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
    answer: oneshot::Receiver<Result<T, Denial>>,
) -> Result<T, Denial> {
    let gone = || Denial::from("lb-user is stopping");
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
