//! How everything is, as told by the proxy.

use serde::{Deserialize, Serialize};

use crate::{Mode, ServerState};

/// How everything is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `serving`, `grace` or `draining`.
    pub phase: String,
    /// Services in the order of the specification.
    pub services: Vec<ServiceStatus>,
}

impl Status {
    /// Whether it accepts nothing new: it was told to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase == "draining"
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name.
    pub name: String,
    /// What is spoken.
    pub mode: Mode,
    /// Connections of clients at the moment.
    pub connections: u32,
    /// Connections of clients so far.
    pub accepted: u64,
    /// Requests so far.
    pub requests: u64,
    /// Bytes from clients so far: heads and bodies, without TLS.
    pub received: u64,
    /// Bytes to clients so far.
    pub sent: u64,
    /// Pools it leads to.
    pub pools: Vec<PoolStatus>,
    /// Certificates that are shown.
    pub certificates: Vec<CertificateStatus>,
}

/// A pool of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// A server of a pool, as one service sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Name.
    pub name: String,
    /// Whether it may be used.
    pub state: ServerState,
    /// Whether it gets nothing for a while, for having failed.
    pub paused: bool,
    /// Share.
    pub weight: u16,
    /// Requests or connections under way.
    pub active: u32,
    /// Connections that wait for a next request.
    pub idle: usize,
    /// Requests or connections it got so far.
    pub total: u64,
    /// How long its answers took lately, in microseconds; 0 where none came.
    pub latency_us: u64,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The file.
    pub file: String,
    /// Names it is for.
    pub names: Vec<String>,
    /// Seconds since 1970 at which it expires.
    pub expires: i64,
}
