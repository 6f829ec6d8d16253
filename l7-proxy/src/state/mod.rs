//! What is known of a service while the process runs: counters, who is connected, who is with which server.
//! It is kept when the specification is read again.

mod clients;
mod counters;
mod sticky;

use std::{net::IpAddr, sync::Arc};

pub use clients::{Clients, Connected};
pub use counters::{By, Counters, Histogram, Refusal};
pub use sticky::Sticky;

use crate::spec::{Limits, Persistence};

/// What is known of a service.
#[derive(Debug)]
pub struct State {
    counters: Box<[Counters]>,
    /// Who is connected and how much they ask for.
    pub clients: Clients,
    /// Who is with which server.
    pub sticky: Sticky,
}

impl State {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            counters: (0..workers).map(|_| Counters::default()).collect(),
            clients: Clients::default(),
            sticky: Sticky::default(),
        }
    }

    /// The counters that `worker` adds to; nobody else does.
    #[must_use]
    pub fn counters(&self, worker: usize) -> &Counters {
        &self.counters[worker % self.counters.len()]
    }

    /// The counters of all workers.
    #[must_use]
    pub fn all_counters(&self) -> &[Counters] {
        &self.counters
    }

    /// Takes a place for a connection of `client`, if the limits leave one.
    ///
    /// # Errors
    /// Which limit does not.
    pub fn connect(self: &Arc<Self>, client: IpAddr, limits: &Limits) -> Result<Connected, Refusal> {
        Connected::take(self, client, limits)
    }

    /// The server of `servers` that a client is with, by what is remembered.
    #[must_use]
    pub fn server_of(
        &self,
        persistence: Option<&Persistence>,
        pool: &str,
        client: IpAddr,
        now: u64,
    ) -> Option<String> {
        match persistence? {
            Persistence::Cookie(_) => None,
            Persistence::SourceIp { timeout, .. } => self.sticky.find(pool, client, timeout.get(), now),
            Persistence::LastSuccessful => self.sticky.last(pool),
        }
    }

    /// A client got an answer, or a connection, of this server.
    pub fn served(
        &self,
        persistence: Option<&Persistence>,
        pool: &str,
        client: IpAddr,
        server: &str,
        now: u64,
    ) {
        match persistence {
            Some(Persistence::SourceIp { timeout, entries }) => {
                self.sticky.put(pool, client, server, timeout.get(), *entries, now);
            }
            Some(Persistence::LastSuccessful) => self.sticky.set_last(pool, server),
            Some(Persistence::Cookie(_)) | None => {}
        }
    }
}
