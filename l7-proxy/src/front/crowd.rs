//! Who is connected to a worker: for those who want to see it, and to end some.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use tokio::sync::Notify;

use super::Entry;
use crate::{
    http::Client,
    server::{Ends, Live, now},
    spec::{ClientConnection, ConnectionFilter},
};

/// What becomes of a client's connection while it lasts.
#[derive(Debug, Default)]
pub struct Guest {
    /// The server that it is or was last with.
    server: Mutex<Option<Arc<Live>>>,
    /// When it got that, in milliseconds of [`now`]; 0 where it has none yet.
    since: AtomicU64,
    killed: AtomicBool,
    end: Notify,
}

impl Guest {
    /// It is with this server from now on.
    pub fn is_with(&self, server: &Arc<Live>) {
        self.since.store(now(), Relaxed);
        let mut known = lock(&self.server);
        if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, server)) {
            *known = Some(Arc::clone(server));
        }
    }

    /// Waits until somebody wants it to end; so may several.
    pub async fn killed(&self) {
        let end = self.end.notified();
        tokio::pin!(end);
        end.as_mut().enable();
        if !self.is_killed() {
            end.await;
        }
    }

    /// Whether somebody wants it to end. It then ends with a reset: what was to be said is not complete.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.killed.load(SeqCst)
    }

    /// Waits until somebody wants it to end, or the server that it is with is `halted`.
    pub async fn told(&self, halted: impl Future<Output = ()>) {
        tokio::select! {
            () = halted => {}
            () = self.killed() => {}
        }
    }

    fn kill(&self) {
        self.killed.store(true, SeqCst);
        self.end.notify_waiters();
    }
}

/// All clients of a worker.
#[derive(Debug, Default)]
pub struct Crowd {
    inside: Mutex<HashMap<u64, Inside>>,
    numbers: AtomicU64,
    /// Streams of HTTP/2 that are served: they are over after their connections.
    streams: AtomicUsize,
}

/// That a stream is served; until it is dropped.
#[derive(Debug)]
pub struct Served<'a>(&'a Crowd);

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

/// A client who is in.
#[derive(Debug)]
struct Inside {
    entry: Arc<Entry>,
    ends: Ends,
    came: u64,
    guest: Arc<Guest>,
}

/// That a client is in; until it is dropped.
#[derive(Debug)]
pub struct Stay<'a> {
    crowd: &'a Crowd,
    number: u64,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        lock(&self.crowd.inside).remove(&self.number);
    }
}

impl Crowd {
    /// Lets a client of a service in.
    pub fn enter(&self, entry: &Arc<Entry>, client: &Client) -> Stay<'_> {
        let number = self.numbers.fetch_add(1, SeqCst);
        let (entry, guest) = (Arc::clone(entry), Arc::clone(&client.guest));
        lock(&self.inside).insert(number, Inside { entry, ends: client.ends, came: now(), guest });
        Stay { crowd: self, number }
    }

    /// Counts a stream.
    pub fn serve(&self) -> Served<'_> {
        self.streams.fetch_add(1, Relaxed);
        Served(self)
    }

    /// Streams that are served.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.load(Relaxed)
    }

    /// Those that the sieve lets through.
    #[must_use]
    pub fn those(&self, sieve: &Sieve<'_>) -> Vec<ClientConnection> {
        lock(&self.inside).values().filter_map(|one| sieve.lets_through(one)).collect()
    }

    /// Ends those that the sieve lets through; gives how many.
    pub fn end(&self, sieve: &Sieve<'_>) -> u64 {
        let inside = lock(&self.inside);
        let all = inside.values().filter(|one| sieve.lets_through(one).is_some());
        all.map(|one| one.guest.kill()).count() as u64
    }
}

impl Inside {
    fn shown(&self) -> ClientConnection {
        let since = self.came.max(self.guest.since.load(Relaxed));
        ClientConnection {
            service: self.entry.service().name.clone(),
            client: self.ends.client,
            local: self.ends.local,
            server: lock(&self.guest.server).as_ref().map(|live| live.name().clone()),
            quiet_ms: now().saturating_sub(since),
        }
    }
}

/// A filter, ready to be asked about many: it may name a server of each of a thousand services.
#[derive(Debug)]
pub struct Sieve<'a> {
    filter: &'a ConnectionFilter,
    servers: Option<HashSet<(&'a str, &'a str)>>,
}

impl<'a> From<&'a ConnectionFilter> for Sieve<'a> {
    fn from(filter: &'a ConnectionFilter) -> Self {
        let pairs = |servers: &'a Vec<(String, String)>| {
            servers.iter().map(|(pool, server)| (&**pool, &**server)).collect()
        };
        Self { filter, servers: filter.servers.as_ref().map(pairs) }
    }
}

impl Sieve<'_> {
    /// What is shown of a client, if it is one of those. What is easily seen is looked at first.
    fn lets_through(&self, one: &Inside) -> Option<ClientConnection> {
        let Self { filter, servers } = self;
        let passes = filter.client.is_none_or(|network| network.contains(one.ends.client.ip()))
            && filter.service.as_ref().is_none_or(|service| *service == one.entry.service().name);
        let is_with = |server: &Option<(String, String)>| {
            let named = server.as_ref().map(|(pool, server)| (&**pool, &**server));
            servers.as_ref().is_none_or(|servers| named.is_some_and(|named| servers.contains(&named)))
        };
        passes.then(|| one.shown()).filter(|shown| is_with(&shown.server))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
