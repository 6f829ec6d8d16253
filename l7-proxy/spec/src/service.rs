//! Services: what is listened for, and what becomes of it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{
    Headers, Limits, Network, Persistence, ProxyProtocolIn, Redirect, Route, SniRoute, Timeouts, Tls,
};

/// Something clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// Addresses and ports.
    pub listen: Vec<SocketAddr>,
    /// Whether nobody is let in: those who are in stay, but nothing is listened to.
    #[serde(default)]
    pub closed: bool,
    /// What clients speak.
    pub mode: Mode,
    /// Where requests and connections go that no route sends elsewhere. Without it, what no route matches is
    /// answered with 404 (mode `tcp`: the connection is closed).
    #[serde(default)]
    pub pool: Option<String>,
    /// Where they go instead while `pool`, or the pool of their route, has no server that can be used. Without
    /// it: 503.
    #[serde(default)]
    pub fallback_pool: Option<String>,
    /// Port on servers that have none of their own; the port the client connected to unless given.
    #[serde(default)]
    pub server_port: Option<u16>,
    /// TLS towards clients; plain unless given.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Whether clients without TLS may speak HTTP/2 by prior knowledge (h2c).
    #[serde(default)]
    pub h2c: bool,
    /// PROXY protocol that clients speak first; none unless given.
    #[serde(default)]
    pub proxy_protocol_in: Option<ProxyProtocolIn>,
    /// The source address of connections to servers.
    #[serde(default)]
    pub source: Source,
    /// How a server is chosen.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// What `source` is to `algorithm` for `maglev`: what requests have in common that go to one server.
    #[serde(default)]
    pub hash_by: HashBy,
    /// Which clients stay with which server; none unless given.
    #[serde(default)]
    pub persistence: Option<Persistence>,
    /// Every request is answered with this; mode `http` only.
    #[serde(default)]
    pub redirect: Option<Redirect>,
    /// Requests that go elsewhere; mode `http` only.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Connections that go elsewhere; mode `tcp` without `tls` only.
    #[serde(default)]
    pub sni_routes: Vec<SniRoute>,
    /// Header lines that are added, changed and removed.
    #[serde(default)]
    pub headers: Headers,
    /// Networks of proxies before us: what they say about their clients (`X-Forwarded-*`, `Forwarded`) is kept.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Files with the answers we give ourselves, by status: whole HTTP answers, as HAProxy's `errorfile`. The
    /// status line in the file is what is sent, so a 503 may be answered with 200.
    #[serde(default)]
    pub error_pages: BTreeMap<u16, PathBuf>,
    /// Times after which it gives up.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What it may be asked for.
    #[serde(default)]
    pub limits: Limits,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// HTTP, balanced per request.
    Http,
    /// Anything over TCP, balanced per connection.
    Tcp,
}

/// The source address of connections to servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Whatever the host's routes say.
    #[default]
    Auto,
    /// The address that the client connected to.
    Vip,
    /// The client's own (transparent): servers must send their answers through this host, which must take them for its
    /// own. It takes CAP_NET_ADMIN or CAP_NET_RAW, unless `lb-user` makes the sockets.
    Client,
    /// This address of the host.
    Address(IpAddr),
}

/// How a server is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// One after the other, as often as their weights say.
    #[default]
    RoundRobin,
    /// The one with the fewest requests (mode `tcp`: connections) under way for its weight.
    LeastConn,
    /// Of two at random the one that answers sooner, by how long its answers took lately and how many it has
    /// under way.
    PowerOfTwo,
    /// By the client's address: all requests of a client go to one server.
    Source,
    /// The first in the order of the list that has not reached its maximum.
    First,
    /// By a hash of what `hash_by` names; a server that comes or goes moves few others' requests.
    Maglev,
}

/// What requests have in common that go to one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashBy {
    /// The client's address.
    #[default]
    Client,
    /// The value of this header line; the client's address where it is missing.
    Header(String),
    /// The value of this cookie; the client's address where it is missing.
    Cookie(String),
    /// Path and query.
    Uri,
}

impl Service {
    /// A service that only listens; everything else is as if it were not given.
    #[must_use]
    pub fn new(name: &str, listen: Vec<SocketAddr>, mode: Mode) -> Self {
        Self {
            name: name.to_owned(),
            listen,
            closed: false,
            mode,
            pool: None,
            fallback_pool: None,
            server_port: None,
            tls: None,
            h2c: false,
            proxy_protocol_in: None,
            source: Source::default(),
            algorithm: Algorithm::default(),
            hash_by: HashBy::default(),
            persistence: None,
            redirect: None,
            routes: Vec::new(),
            sni_routes: Vec::new(),
            headers: Headers::default(),
            trusted_proxies: Vec::new(),
            error_pages: BTreeMap::new(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}
