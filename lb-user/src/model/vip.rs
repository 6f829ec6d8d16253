//! Virtual services.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, time::Duration};

use lb_common::quic::lb::Encoding;

use super::{HealthCheck, Ports};

/// A virtual service: an address with ports, and what happens to its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Unique name.
    pub name: String,
    /// Address clients connect to; of the same family as the servers for `snat`, `nat` and `dr`.
    pub address: IpAddr,
    /// Ports clients connect to.
    pub ports: Ports,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How traffic reaches the servers.
    pub mode: Mode,
    /// Name of an existing pool; `None` only where the VIP answers by itself (a redirect).
    pub pool: Option<String>,
    /// Port on the servers; `None` keeps the port the client used.
    pub server_port: Option<u16>,
    /// Which clients stay with which server.
    pub persistence: Persistence,
    /// The check for this VIP's servers.
    pub health: HealthCheck,
    /// TLS towards clients; modes `http` and `tcp` only.
    pub tls: Option<Tls>,
    /// Answer with a redirect instead of a server; mode `http` only.
    pub redirect: Option<Redirect>,
    /// Networks (address, prefix length) whose forwarded headers count; mode `http` only.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// Idle times; modes `http` and `tcp` only.
    pub timeouts: Timeouts,
    /// Status → file with the answer; mode `http` only.
    pub error_pages: BTreeMap<u16, PathBuf>,
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
    /// In l7-proxy, as HTTP.
    Http,
    /// In l7-proxy, as a TCP relay.
    Tcp,
}

impl Mode {
    /// Whether the kernel program forwards this mode (and not l7-proxy).
    #[must_use]
    pub fn is_layer4(self) -> bool {
        matches!(self, Self::Snat | Self::Nat | Self::Dr)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snat => "snat",
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Http => "http",
            Self::Tcp => "tcp",
        })
    }
}

/// Which clients stay with which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Every new flow is balanced anew.
    None,
    /// All flows of one client address go to one server.
    SourceIp,
    /// All flows of all clients go to one server until it fails; no fail-back.
    LastSuccessful,
    /// A cookie set by the proxy names the server; mode `http` only.
    Cookie {
        /// Cookie name.
        name: String,
    },
}

impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::SourceIp => "source-ip",
            Self::LastSuccessful => "last-successful",
            Self::Cookie { .. } => "cookie",
        })
    }
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM files, each a certificate chain with its key; at least one. Relative paths start at the
    /// configuration file's folder.
    pub certificates: Vec<PathBuf>,
}

/// An answer that sends the client elsewhere; host, path and query are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Scheme to go to.
    pub scheme: Scheme,
}

/// Scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// Idle times of a proxied VIP; `None` leaves the proxy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Keep-alive towards the client.
    pub client_idle: Option<Duration>,
    /// Keep-alive towards servers.
    pub server_idle: Option<Duration>,
    /// WebSocket and other upgraded connections.
    pub tunnel: Option<Duration>,
}
