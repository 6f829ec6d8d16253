//! Clients of a web site in the background: requests at a steady rate, and WebSockets that stay; in HTTP/1.1 and HTTP/2,
//! with TLS and without, over connections that are kept and over new ones.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{netns::Netns, streams::Outcome, wait};

mod requests;
pub mod secure;
mod sockets;

/// What has no answer after this time has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a web site is, and who it is known to be.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its VIP without TLS.
    pub plain: SocketAddr,
    /// Its VIP with TLS, for HTTP/1.1 and HTTP/2; without one all WebSockets are plain, and nobody may make requests.
    pub secure: Option<SocketAddr>,
    /// Its name.
    pub name: String,
    /// The certificates that are good for it, PEM.
    pub trusted: Vec<String>,
}

/// What visitors do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Requests in a second, a multiple of 100: of ten, two over a plain connection of their own, one over one with TLS of its
    /// own, two over HTTP/1.1 connections with TLS that are kept, and five over HTTP/2, five at a time.
    pub requests: usize,
    /// WebSockets, a multiple of five: of five, one is plain, two are over TLS, two share an HTTP/2 connection (RFC 8441).
    pub sockets: usize,
    /// What WebSockets ask for: `/socket`, and send a message five times a second, or `/log`, and read
    /// (see [`crate::http::Web::start`]).
    pub path: &'static str,
}

/// A WebSocket's life so far.
#[derive(Clone, Debug, Default)]
pub struct Socket {
    /// How it goes: `plain`, `TLS` or `HTTP/2`.
    pub way: &'static str,
    /// Messages that came back, or lines that came.
    pub frames: usize,
    /// How long each line was under way.
    pub delays: Vec<Duration>,
    /// Why it broke, if it did.
    pub cut: Option<String>,
}

/// Visitors at work; they leave on drop.
#[derive(Debug)]
pub struct Visitors {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    site: Site,
    stop: AtomicBool,
    outcomes: Mutex<Vec<Outcome>>,
    sockets: Mutex<Vec<Socket>>,
    certificates: Mutex<BTreeSet<Vec<u8>>>,
    /// Requests that were told that they were not looked at, and were made again (RFC 9113 §6.8).
    again: AtomicUsize,
}

impl Visitors {
    /// Has them come from a namespace, and waits until each WebSocket is open and a request has been answered.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &Netns, site: &Site, plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            site: site.clone(),
            stop: AtomicBool::new(false),
            outcomes: Mutex::default(),
            sockets: Mutex::new(vec![Socket::default(); plan.sockets]),
            certificates: Mutex::default(),
            again: AtomicUsize::new(0),
        });
        let of_thread = Arc::clone(&shared);
        let thread = ns.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("an event loop").block_on(async {
                let mut all = JoinSet::new();
                requests::start(&of_thread, plan.requests, &mut all);
                for group in 0..plan.sockets / 5 {
                    all.spawn(sockets::five(Arc::clone(&of_thread), group, plan.path));
                }
                while let Some(ended) = all.join_next().await {
                    ended.expect("a visitor does not panic");
                }
            });
        });
        let visitors = Self { shared, thread: Some(thread) };
        visitors.wait_for_frames(1);
        wait::until_true(PATIENCE, "the first answer", || {
            plan.requests == 0 || !lock(&visitors.shared.outcomes).is_empty()
        });
        visitors
    }

    /// What became of requests so far, in the order they were sent.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut outcomes = lock(&self.shared.outcomes).clone();
        outcomes.sort_by_key(|outcome| outcome.sent);
        outcomes
    }

    /// All WebSockets as they are now.
    #[must_use]
    pub fn sockets(&self) -> Vec<Socket> {
        lock(&self.shared.sockets).clone()
    }

    /// How many different certificates were shown.
    #[must_use]
    pub fn certificates(&self) -> usize {
        lock(&self.shared.certificates).len()
    }

    /// How many requests were made again because the site said that it had not looked at them.
    #[must_use]
    pub fn made_again(&self) -> usize {
        self.shared.again.load(Relaxed)
    }

    /// Waits until every WebSocket that is not cut has had `more` further frames.
    ///
    /// # Panics
    /// When one has not: it neither lives nor breaks.
    #[track_caller]
    pub fn wait_for_frames(&self, more: usize) {
        let before: Vec<_> = lock(&self.shared.sockets).iter().map(|socket| socket.frames).collect();
        wait::until(PATIENCE * 2, "every WebSocket to go on or break", || {
            let sockets = lock(&self.shared.sockets);
            let late = sockets.iter().zip(&before);
            let late = late.filter(|(socket, before)| socket.cut.is_none() && socket.frames < *before + more);
            let late: Vec<_> = late.map(|(socket, _)| socket.way).collect();
            if late.is_empty() { Ok(()) } else { Err(format!("{} stand still: {late:?}", late.len())) }
        });
    }

    /// Insists that no request has failed and that no WebSocket was cut.
    ///
    /// # Panics
    /// When one did or was.
    #[track_caller]
    pub fn unharmed_after(&self, what: &str) {
        let outcomes = self.outcomes();
        let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.answer.as_ref().err()).collect();
        let (count, all) = (failed.len(), outcomes.len());
        assert!(failed.is_empty(), "{count} of {all} requests failed by the end of {what}: {:?}", failed[0]);
        for socket in self.sockets() {
            let Socket { way, frames, cut, .. } = socket;
            assert!(
                cut.is_none(),
                "a WebSocket ({way}) was cut by the end of {what}, after {frames} frames: {cut:?}"
            );
        }
    }

    /// Has them leave; nobody is left when this returns.
    pub fn leave(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn note(&self, sent: Instant, way: &str, answer: Result<String, String>) {
        let answer = answer.map_err(|why| format!("{way}: {why}"));
        lock(&self.outcomes).push(Outcome { sent, done: Instant::now(), answer });
    }

    fn with_socket(&self, index: usize, change: impl FnOnce(&mut Socket)) {
        change(&mut lock(&self.sockets)[index]);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
