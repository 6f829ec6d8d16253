//! What only VIPs and pools of proxied modes have: settings that are handed on to l7-proxy as they are.

use l7_spec::{
    HashBy, Headers, Limits, Outliers, ProxyProtocolIn, ProxyProtocolVersion, Queue, Retries, ServerProtocol,
    ServerTls, Source, Span,
};

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
    /// The source address of connections to servers; never the client's, which takes privileges.
    pub source: Option<Source>,
}

/// What only VIPs of modes `http` and `tcp` make use of in a pool. `None` leaves the proxy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxiedPool {
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
