//! What is counted of the admin interface, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hyper::StatusCode;

/// Over which way somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The socket on this host.
    Socket,
    /// TCP, with TLS.
    Tcp,
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Socket, Self::Tcp];

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Tcp => "tcp",
        }
    }
}

/// Classes of statuses, as labels have them.
pub const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

/// Counters; they only grow.
#[derive(Debug, Default)]
pub struct Counts {
    answers: [[AtomicU64; CLASSES.len()]; 2],
    connections: [AtomicU64; 2],
    logins: AtomicU64,
    handshakes: AtomicU64,
}

impl Counts {
    /// A request was answered.
    pub fn answered(&self, way: Way, status: StatusCode) {
        let class = match status.as_u16() {
            ..400 => 0,
            400..500 => 1,
            _ => 2,
        };
        self.answers[way as usize][class].fetch_add(1, Relaxed);
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS) {
            self.logins.fetch_add(1, Relaxed);
        }
    }

    /// A connection was taken.
    pub fn connected(&self, way: Way) {
        self.connections[way as usize].fetch_add(1, Relaxed);
    }

    /// A client and we did not come to an agreement about TLS.
    pub fn handshake_failed(&self) {
        self.handshakes.fetch_add(1, Relaxed);
    }

    /// Answers over a way, in the order of [`CLASSES`].
    #[must_use]
    pub fn answers(&self, way: Way) -> [u64; CLASSES.len()] {
        self.answers[way as usize].each_ref().map(|count| count.load(Relaxed))
    }

    /// Connections over a way.
    #[must_use]
    pub fn connections(&self, way: Way) -> u64 {
        self.connections[way as usize].load(Relaxed)
    }

    /// Requests without a good token.
    #[must_use]
    pub fn logins_refused(&self) -> u64 {
        self.logins.load(Relaxed)
    }

    /// Handshakes that failed.
    #[must_use]
    pub fn handshakes_failed(&self) -> u64 {
        self.handshakes.load(Relaxed)
    }
}
