//! What only VIPs and pools of proxied modes have: settings that are handed on to l7-proxy as they are.

use std::net::SocketAddr;

use l7_spec::{
    HashBy, Headers, Limits, Mode, Outliers, ProcessLimits, ProxyProtocolIn, ProxyProtocolVersion, Queue,
    Retries, Route, ServerProtocol, ServerTls, SniRoute, Source, Span,
};

use super::{Algorithm, HealthCheck};

/// The process that serves proxied VIPs. `None` leaves what is usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Threads that serve, 1 to 1024; as many as there are processors unless given.
    pub workers: Option<usize>,
    /// What the whole process may use.
    pub limits: ProcessLimits,
    /// Where `/health`, `/metrics` and `/status` are told over HTTP; no VIP is there.
    pub admin: Option<SocketAddr>,
    /// Makes the values of cookies by which servers are found again.
    pub cookie_key: Option<String>,
    /// How long `/health` says that it is about to end, while everything is still served.
    pub grace: Span,
    /// How long open connections may last after that.
    pub drain: Option<Span>,
}

/// A pool that a VIP leads to beside its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Further {
    /// Name of an existing pool.
    pub pool: String,
    /// The check for this VIP's servers in it.
    pub health: HealthCheck,
}

/// What only VIPs of modes `http` and `tcp` have. `None` leaves the proxy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxiedVip {
    /// Header lines that are added, changed and removed; mode `http` only.
    pub headers: Option<Headers>,
    /// What it may be asked for.
    pub limits: Option<Limits>,
    /// What requests have in common that go to one server, for algorithm `maglev`; mode `http` only.
    pub hash_by: Option<HashBy>,
    /// HTTP/2 without TLS, by prior knowledge; mode `http` only.
    pub h2c: Option<bool>,
    /// PROXY protocol that clients speak first.
    pub proxy_protocol: Option<ProxyProtocolIn>,
    /// The source address of connections to servers. The client's own takes ways back: [`crate::ways_back`].
    pub source: Option<Source>,
    /// Requests that go elsewhere than to the VIP's own pool: to pools of this configuration; mode `http` only.
    pub routes: Vec<Route>,
    /// Connections that go elsewhere, by the name in the TLS greeting; mode `tcp` without TLS only.
    pub sni_routes: Vec<SniRoute>,
    /// Where requests and connections go while their pool has no server: a pool of this configuration.
    pub fallback_pool: Option<String>,
    /// All pools that are named in these, but for the VIP's own: each once, in the order they are first named.
    pub further: Vec<Further>,
}

/// What only VIPs of modes `http` and `tcp` make use of in a pool. `None` leaves the proxy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxiedPool {
    /// What the servers speak, where it is not the VIP's mode: `http` behind a VIP of mode `tcp` is balanced per request.
    pub mode: Option<Mode>,
    /// How a server is chosen, where it is not as the VIP says.
    pub algorithm: Option<Algorithm>,
    /// Which HTTP the servers speak.
    pub protocol: Option<ServerProtocol>,
    /// TLS towards the servers.
    pub tls: Option<ServerTls>,
    /// PROXY protocol towards the servers.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// What is tried again.
    pub retries: Option<Retries>,
    /// Requests that wait for a server that has reached its maximum.
    pub queue: Option<Queue>,
    /// How long a server that comes up takes until it gets its whole share.
    pub slow_start: Option<Span>,
    /// When a server that fails requests gets none for a while.
    pub outliers: Option<Outliers>,
}
