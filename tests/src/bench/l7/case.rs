//! What is measured of a proxy, and what it may cost.

use std::fmt;

use super::abuse::Abuse;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// A request over HTTP/1.1 and its answer of 1 KiB.
    H1Small,
    /// The same with 64 KiB.
    H1Large,
    /// A request over HTTP/1.1 within TLS and its answer of 1 KiB.
    TlsH1,
    /// A request over HTTP/2 within TLS and its answer of 1 KiB, ten at a time on each connection.
    TlsH2,
    /// A TLS connection for one request.
    TlsNew,
    /// A message through one of a thousand WebSockets, and back.
    WebSocket,
    /// What one request in a hundred takes at least, at 60 % of the rate at which nothing more goes through.
    P99,
    /// A TLS connection that has had a request and waits for the next.
    Idle,
    /// How much longer one request in a hundred takes at least while others abuse the proxy, at 30 % of the rate at which
    /// nothing more goes through.
    Abused(Abuse),
    /// What all who abuse it have the proxy hold.
    AbuseHeld,
}

/// How a case is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Requests as fast as they go: the proxy's time for each.
    Requests,
    /// Requests at a rate: how long they take.
    Latency,
    /// Messages through WebSockets: the proxy's time for each.
    Sockets,
    /// Connections that are held: the proxy's memory for each.
    Held,
    /// Requests at a rate, without and with abuse.
    Abused,
    /// Abuse of all kinds: the proxy's memory for it.
    AbuseHeld,
}

/// What a case may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// So many times what HAProxy takes.
    Times(f64),
    /// So much, in the case's unit.
    AtMost(f64),
}

impl Case {
    /// All, in the order of a round.
    pub const ALL: [Self; 15] = [
        Self::H1Small,
        Self::H1Large,
        Self::TlsH1,
        Self::TlsH2,
        Self::TlsNew,
        Self::WebSocket,
        Self::P99,
        Self::Idle,
        Self::Abused(Abuse::Slow),
        Self::Abused(Abuse::Resets),
        Self::Abused(Abuse::Bombs),
        Self::Abused(Abuse::Windows),
        Self::Abused(Abuse::Sips),
        Self::Abused(Abuse::Bodies),
        Self::AbuseHeld,
    ];

    /// Name in tables and options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::H1Small => "h1-1k",
            Self::H1Large => "h1-64k",
            Self::TlsH1 => "tls-h1-1k",
            Self::TlsH2 => "tls-h2-1k",
            Self::TlsNew => "tls-new",
            Self::WebSocket => "websocket",
            Self::P99 => "p99",
            Self::Idle => "idle",
            Self::Abused(Abuse::Slow) => "abuse-slow",
            Self::Abused(Abuse::Resets) => "abuse-resets",
            Self::Abused(Abuse::Bombs) => "abuse-bombs",
            Self::Abused(Abuse::Windows) => "abuse-windows",
            Self::Abused(Abuse::Sips) => "abuse-sips",
            Self::Abused(Abuse::Bodies) => "abuse-bodies",
            Self::AbuseHeld => "abuse-held",
        }
    }

    /// What is counted, and by what.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self.way() {
            Way::Requests if self == Self::TlsNew => "CPU µs/connection",
            Way::Requests => "CPU µs/request",
            Way::Sockets => "CPU µs/message",
            Way::Latency => "µs",
            Way::Held => "bytes/connection",
            Way::Abused => "x p99 without",
            Way::AbuseHeld => "MiB",
        }
    }

    /// What it may cost. Of WebSockets every message must come back, or nothing is measured at all.
    #[must_use]
    pub fn goal(self) -> Option<Goal> {
        match self {
            Self::H1Small | Self::H1Large | Self::TlsH1 | Self::P99 => Some(Goal::Times(1.0)),
            Self::TlsH2 => Some(Goal::Times(1.1)),
            Self::TlsNew => Some(Goal::Times(0.8)),
            Self::Idle => Some(Goal::AtMost(25_000.0)),
            Self::Abused(_) => Some(Goal::AtMost(2.0)),
            Self::AbuseHeld => Some(Goal::AtMost(128.0)),
            Self::WebSocket => None,
        }
    }

    /// How it is measured.
    #[must_use]
    pub fn way(self) -> Way {
        match self {
            Self::H1Small | Self::H1Large | Self::TlsH1 | Self::TlsH2 | Self::TlsNew => Way::Requests,
            Self::WebSocket => Way::Sockets,
            Self::P99 => Way::Latency,
            Self::Idle => Way::Held,
            Self::Abused(_) => Way::Abused,
            Self::AbuseHeld => Way::AbuseHeld,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
