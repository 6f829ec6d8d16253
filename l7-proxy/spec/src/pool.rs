//! Groups of servers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Algorithm, Mode, ProxyProtocolVersion, ServerTls, Span};

/// A group of servers that services lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// What the log and metrics call it; its name unless given.
    pub title: Option<String>,
    /// Servers; names are unique within the pool.
    pub servers: Vec<Server>,
    /// What its servers speak: the mode of the service that leads to it unless given. A `tcp` service that
    /// leads to an `http` pool is served per request; the other way round is refused.
    pub mode: Option<Mode>,
    /// Which HTTP the servers speak; mode `http` only.
    pub protocol: ServerProtocol,
    /// TLS towards the servers; plain unless given.
    pub tls: Option<ServerTls>,
    /// PROXY protocol towards the servers; none unless given.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// How the server is chosen; as the service says unless given.
    pub algorithm: Option<Algorithm>,
    /// What is tried again.
    pub retries: Retries,
    /// Requests that wait for a server that has reached its maximum.
    pub queue: Queue,
    /// How long a server that comes up takes until it gets its whole share; at once unless given.
    pub slow_start: Option<Span>,
    /// When a server that fails requests gets none for a while; never unless given.
    pub outliers: Option<Outliers>,
}

/// A machine behind services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Name, unique within its pool.
    pub name: String,
    /// Address.
    pub address: IpAddr,
    /// Port; the service's `server_port`, then the port that the client connected to, unless given.
    #[serde(default)]
    pub port: Option<u16>,
    /// Share relative to the pool's other servers; 0 takes nothing new.
    #[serde(default = "hundred")]
    pub weight: u16,
    /// Used only while no other server of the pool can be.
    #[serde(default)]
    pub backup: bool,
    /// Requests (mode `tcp`: connections) at once, over all workers; further ones wait in the pool's queue.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// Whether it may be used.
    #[serde(default)]
    pub state: ServerState,
}

impl Server {
    /// A server of which nothing else is given.
    #[must_use]
    pub fn new(name: &str, address: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            port: None,
            weight: hundred(),
            backup: false,
            max_connections: None,
            state: ServerState::default(),
        }
    }
}

fn hundred() -> u16 {
    100
}

/// Whether a server may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// It takes requests.
    #[default]
    Up,
    /// Its checks fail: nothing is sent to it, and clients who persist on it get another.
    Down,
    /// It takes requests of clients who persist on it, and what is open goes on; nothing new.
    Drain,
    /// As down, and what is open is ended.
    Halt,
}

/// Which HTTP servers speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: with TLS agreed upon within it (ALPN), without by prior knowledge. WebSockets are streams of it
    /// where the server offers that (RFC 8441), else go over HTTP/1.1.
    Http2,
}

/// What is tried again, without ever sending a request twice that may have been acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Other servers that are tried when a connection cannot be made.
    pub connect: u8,
    /// Whether a request whose connection ended before any of the answer came is sent once more: provably
    /// unsent ones always, others only where the connection had been used before, the method is idempotent
    /// (RFC 9110 §9.2.2), and it has no body.
    pub idempotent: bool,
}

impl Default for Retries {
    fn default() -> Self {
        Self { connect: 3, idempotent: true }
    }
}

/// Requests that wait for a server that has reached its maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// How many may wait, who came first being served first; further ones get 503 at once. How long is a
    /// service's `timeouts.queue`.
    pub length: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { length: 1_024 }
    }
}

/// When a server that fails requests gets none for a while. The last server of a pool that can be used is
/// never left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outliers {
    /// Failures in a row: no connection, no answer, a broken one. With `statuses`, those too.
    pub failures: u32,
    /// For how long it gets nothing, the first time; twice as long each time it fails again, up to ten times.
    pub pause: Span,
    /// Whether 500, 502, 503 and 504 of a server count as failures. Off by default: such an answer may be
    /// about one application of many behind a server.
    pub statuses: bool,
}

impl Default for Outliers {
    fn default() -> Self {
        Self { failures: 5, pause: Span::from_secs(10), statuses: false }
    }
}
