//! Virtual services.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, time::Duration};

use lb_common::quic::lb::Encoding;

use super::{HealthCheck, Ports, ProxiedVip};

/// A virtual service: an address with ports, and what happens to its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Unique name.
    pub name: String,
    /// Address clients connect to; of the same family as the servers for `snat`, `nat` and `dr`. Through a tunnel
    /// servers of either family are reached.
    pub address: IpAddr,
    /// Ports clients connect to.
    pub ports: Ports,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How traffic reaches the servers.
    pub mode: Mode,
    /// Name of an existing pool; `None` only where the VIP answers by itself (a redirect), or leads to others only (routes).
    pub pool: Option<String>,
    /// Port on servers that have none of their own; `None` keeps the port the client used.
    pub server_port: Option<u16>,
    /// How the server of a new flow is chosen.
    pub algorithm: Algorithm,
    /// Which clients stay with which server.
    pub persistence: Persistence,
    /// What becomes of new flows while no server takes them.
    pub empty: Empty,
    /// New flows that are taken in a second; `None` for any number.
    pub max_new_flows: Option<u32>,
    /// Largest TCP segment that either end may announce, 536 to 9000; `None` leaves announcements alone.
    pub mss: Option<u16>,
    /// Whether flows are remembered. Only UDP through `dr` and tunnels can do without.
    pub flow_state: bool,
    /// UDP port where servers take packets out of GUE; of use to mode `gue` only.
    pub gue_port: u16,
    /// The check for this VIP's servers in its own pool.
    pub health: HealthCheck,
    /// TLS towards clients; modes `http` and `tcp` only.
    pub tls: Option<Tls>,
    /// Answer with a redirect instead of a server; mode `http` only.
    pub redirect: Option<l7_spec::Redirect>,
    /// Networks (address, prefix length) whose forwarded headers count; mode `http` only.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// Times after which it gives up; modes `http` and `tcp` only.
    pub timeouts: l7_spec::Timeouts,
    /// Status → file with the answer; mode `http` only.
    pub error_pages: BTreeMap<u16, PathBuf>,
    /// What else only modes `http` and `tcp` have.
    pub proxied: ProxiedVip,
    /// How the servers make QUIC connection IDs, by the number of the configuration (0 to 6); UDP only. Where
    /// it is not empty, every server of the pool has a `quic_id` that fits.
    pub quic: BTreeMap<u8, Encoding>,
}

/// Transport protocol of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

/// Where servers take packets out of GUE unless told otherwise (the port registered for it).
pub const GUE_PORT: u16 = 6_080;

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// How traffic of a VIP reaches its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the kernel; source and destination rewritten, replies come back through the balancer.
    Snat,
    /// In the kernel; destination rewritten, the balancer is the servers' gateway.
    Nat,
    /// In the kernel; only the destination MAC changes, servers answer the client directly.
    Dr,
    /// In the kernel; packets travel to the server within another IP packet, and it answers the client directly.
    Ipip,
    /// In the kernel; the same within UDP (GUE variant 1).
    Gue,
    /// In l7-proxy, as HTTP.
    Http,
    /// In l7-proxy, as a TCP relay.
    Tcp,
}

impl Mode {
    /// Whether the kernel program forwards this mode (and not l7-proxy).
    #[must_use]
    pub fn is_layer4(self) -> bool {
        matches!(self, Self::Snat | Self::Nat | Self::Dr | Self::Ipip | Self::Gue)
    }

    /// Whether flows are translated: their answers come back through the balancer.
    #[must_use]
    pub fn translates(self) -> bool {
        matches!(self, Self::Snat | Self::Nat)
    }

    /// Whether packets travel to the server within others.
    #[must_use]
    pub fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snat => "snat",
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Http => "http",
            Self::Tcp => "tcp",
        })
    }
}

/// How the server of a new flow is chosen among those that take some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// By the flow's addresses and ports: every balancer with the same configuration chooses alike.
    Maglev,
    /// One after the other, as often as their weights say.
    RoundRobin,
    /// The one of two with fewer connections for its weight.
    LeastConnections,
    /// Of two at random the one that answers sooner; modes `http` and `tcp` only.
    PowerOfTwo,
    /// By the client's address: all flows of a client go to one server.
    Source,
    /// The first in the order of the file.
    First,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maglev => "maglev",
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-conn",
            Self::PowerOfTwo => "power-of-two",
            Self::Source => "source",
            Self::First => "first",
        })
    }
}

/// What becomes of new flows while no server takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// Dropped: clients try again.
    Drop,
    /// Refused: clients learn at once.
    Reject,
    /// Left to this host.
    Pass,
}

/// Which clients stay with which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Every new flow is balanced anew.
    None,
    /// All flows of one client address go to one server.
    SourceIp {
        /// A client without new flows for this long is chosen for anew; `None` for as long as it is remembered.
        timeout: Option<Duration>,
        /// How many clients are remembered for each pool; `None` for as many as is usual. Modes `http` and `tcp` only.
        entries: Option<u32>,
    },
    /// All flows of all clients go to one server until it fails; no fail-back.
    LastSuccessful,
    /// A cookie set by the proxy names the server; mode `http` only.
    Cookie(l7_spec::CookiePersistence),
}

impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::SourceIp { .. } => "source-ip",
            Self::LastSuccessful => "last-successful",
            Self::Cookie(_) => "cookie",
        })
    }
}

/// TLS towards clients. `None` leaves the proxy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM files, each a certificate chain with its key; at least one. Relative paths start at the
    /// configuration file's folder.
    pub certificates: Vec<PathBuf>,
    /// Whether a client that asks for a name no certificate has is refused.
    pub strict: Option<bool>,
    /// The oldest version that is spoken.
    pub minimum_version: Option<l7_spec::TlsVersion>,
    /// Application protocols, the preferred one first.
    pub alpn: Option<Vec<String>>,
    /// Certificates of clients.
    pub client_certificates: Option<l7_spec::ClientCertificates>,
    /// How long a handshake may take.
    pub handshake_timeout: Option<l7_spec::Span>,
    /// Whether a request for a host of another certificate than the connection's is refused.
    pub refuse_domain_fronting: Option<bool>,
}
