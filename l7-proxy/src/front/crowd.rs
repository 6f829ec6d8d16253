//! Who is connected to a worker: for those who want to see it, and to end some.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
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

    /// Waits until somebody wants it to end.
    pub async fn ended(&self) {
        self.end.notified().await;
    }
}

/// All clients of a worker.
#[derive(Debug, Default)]
pub struct Crowd {
    inside: Mutex<HashMap<u64, Inside>>,
    numbers: AtomicU64,
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

    /// Those that the filter lets through.
    #[must_use]
    pub fn those(&self, filter: &ConnectionFilter) -> Vec<ClientConnection> {
        lock(&self.inside).values().map(Inside::shown).filter(|shown| lets_through(filter, shown)).collect()
    }

    /// Ends those that the filter lets through; gives how many.
    pub fn end(&self, filter: &ConnectionFilter) -> u64 {
        let inside = lock(&self.inside);
        let all = inside.values().filter(|one| lets_through(filter, &one.shown()));
        // A permit stays for one that does not wait just now.
        all.map(|one| one.guest.end.notify_one()).count() as u64
    }
}

impl Inside {
    fn shown(&self) -> ClientConnection {
        let service = self.entry.service();
        let live = lock(&self.guest.server).clone();
        let name = live.and_then(|live| {
            service.pools().into_iter().find_map(|pool| {
                let server = pool.servers.iter().find(|server| Arc::ptr_eq(&server.live, &live))?;
                Some((pool.name.clone(), server.name.clone()))
            })
        });
        let since = self.came.max(self.guest.since.load(Relaxed));
        ClientConnection {
            service: service.name.clone(),
            client: self.ends.client,
            local: self.ends.local,
            server: name,
            quiet_ms: now().saturating_sub(since),
        }
    }
}

fn lets_through(filter: &ConnectionFilter, one: &ClientConnection) -> bool {
    filter.service.as_ref().is_none_or(|service| *service == one.service)
        && filter.client.is_none_or(|network| network.contains(one.client.ip()))
        && filter
            .servers
            .as_ref()
            .is_none_or(|servers| one.server.as_ref().is_some_and(|server| servers.contains(server)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
