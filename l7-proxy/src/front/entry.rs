//! A service as its listeners and connections hold it: what it is may change while they last.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Semaphore, watch};

use super::Crowd;
use crate::{log::Log, model::Service};

/// A service that may change and end.
#[derive(Debug)]
pub struct Entry {
    service: ArcSwap<Service>,
    closing: AtomicBool,
    told: watch::Sender<Closing>,
}

/// Whether connections are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closing {
    /// They are not.
    No,
    /// Where the protocol has a word for it, and else with their next answer: nobody finds a connection closed that they
    /// were just about to use.
    Gently,
    /// When they have done what they are at.
    Soon,
}

impl Entry {
    /// An entry for a service.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Self {
        Self {
            service: ArcSwap::new(service),
            closing: AtomicBool::new(false),
            told: watch::Sender::new(Closing::No),
        }
    }

    /// The service as it is now.
    #[must_use]
    pub fn service(&self) -> Guard<Arc<Service>> {
        self.service.load()
    }

    /// The service is another from now on: for new connections, and the next requests of those that are.
    pub fn set_service(&self, service: Arc<Service>) {
        self.service.store(service);
    }

    /// Connections are to end; those that are to do so soon are not told to be gentle any more.
    pub fn close(&self, how: Closing) {
        self.closing.store(true, Relaxed);
        self.told.send_modify(|told| *told = how.max(*told));
    }

    /// Whether connections are to end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Tells when connections are to end.
    #[must_use]
    pub fn closing(&self) -> watch::Receiver<Closing> {
        self.told.subscribe()
    }
}

/// Where clients of a service come in, on one worker.
#[derive(Clone, Debug)]
pub struct Door {
    /// The service.
    pub entry: Arc<Entry>,
    /// The worker.
    pub worker: usize,
    /// The log of requests.
    pub log: Arc<Log>,
    /// Connections of clients at once on this worker.
    pub most_connections: Arc<AtomicUsize>,
    /// Clients of this worker.
    pub crowd: Arc<Crowd>,
    /// Places for TLS handshakes that may take their time, on this worker.
    pub handshakes: Arc<Semaphore>,
}
