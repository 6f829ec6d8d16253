//! How a server's health is judged.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

/// One health check, complete: inheritance `[health]` → pool → VIP is already resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a probe does.
    pub check: Check,
    /// Time from the start of one probe to the start of the next.
    pub interval: Duration,
    /// The same while results speak for a change, but not enough of them; at most `interval`. `None` for `interval`.
    pub fast_interval: Option<Duration>,
    /// The same while the server is down. `None` for `interval`.
    pub down_interval: Option<Duration>,
    /// A probe without an answer fails after this long; at most `interval`.
    pub timeout: Duration,
    /// Consecutive successes that bring a server up; at least 1.
    pub rise: u32,
    /// Consecutive failures that take a server down; at least 1.
    pub fall: u32,
    /// Port to probe; `None` means the port that is served (for several ports: the first one written).
    pub port: Option<u16>,
    /// Address to probe; `None` means the server's own.
    pub address: Option<IpAddr>,
}

impl Default for HealthCheck {
    /// What holds where nothing is written.
    fn default() -> Self {
        let two_seconds = Duration::from_secs(2);
        Self {
            check: Check::Tcp,
            interval: two_seconds,
            fast_interval: None,
            down_interval: None,
            timeout: two_seconds,
            rise: 2,
            fall: 3,
            port: None,
            address: None,
        }
    }
}

impl HealthCheck {
    /// How long a server may be ill before it counts as down, in the worst case: it falls ill right after a probe.
    /// A probe's own time is not in it.
    #[must_use]
    pub fn time_to_fall(&self) -> Duration {
        self.interval + self.fast_interval.unwrap_or(self.interval) * (self.fall - 1)
    }
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// Connect, then close.
    Tcp,
    /// Connect and shake hands over TLS, then close.
    Tls {
        /// Name to ask for (SNI) and to find in a certificate that is verified; `None` for none, and the address.
        host: Option<String>,
        /// Which certificates will do.
        trust: Trust,
    },
    /// One request over HTTP/1.1.
    Http(HttpCheck),
    /// `PING`, and whether the server is the one that takes writes.
    Redis(RedisCheck),
    /// The greeting of MySQL or MariaDB, and a login if there is a user.
    Mysql {
        /// Who logs in, without a password; `None` reads the greeting only.
        user: Option<String>,
    },
    /// A conversation over TCP, step by step.
    Script(Vec<Step>),
    /// A datagram.
    Udp {
        /// What is sent; may be empty.
        send: Vec<u8>,
        /// What an answer must contain; `None` wants no answer, only that the port is not reported closed.
        reply: Option<Vec<u8>>,
    },
    /// An ICMP echo request.
    Icmp,
    /// No probe: the server counts as up.
    None,
}

impl Check {
    /// What it is called in a configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls { .. } => "tls",
            Self::Http(HttpCheck { tls: None, .. }) => "http",
            Self::Http(_) => "https",
            Self::Redis(_) => "redis",
            Self::Mysql { .. } => "mysql",
            Self::Script(_) => "script",
            Self::Udp { .. } => "udp",
            Self::Icmp => "icmp",
            Self::None => "none",
        }
    }
}

/// Which certificates of a server will do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Any: it is asked whether the server is well, not who it is.
    Anyone,
    /// Those that this host's own programs trust.
    Host,
    /// Those signed by a certificate in this PEM file. A relative path starts at the configuration file's folder.
    File(PathBuf),
}

/// A check over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// `None` over plain TCP.
    pub tls: Option<Trust>,
    /// Request method.
    pub method: String,
    /// Request target, starting with `/`.
    pub path: String,
    /// `Host` header, and the name for TLS; `None` for the address and port.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Statuses that mean healthy.
    pub expect: StatusRanges,
    /// Text that must stand in the first 64 KiB of the answer.
    pub body: Option<String>,
}

impl Default for HttpCheck {
    /// `GET /`, and any answer but an error will do.
    fn default() -> Self {
        Self {
            tls: None,
            method: "GET".into(),
            path: "/".into(),
            host: None,
            headers: Vec::new(),
            expect: StatusRanges(vec![(200, 399)]),
            body: None,
        }
    }
}

/// A check of Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisCheck {
    /// For `AUTH`.
    pub password: Option<Password>,
    /// Whether only a master will do.
    pub master: bool,
}

/// A password, or where it stands. Never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Password {
    /// In the configuration.
    Text(String),
    /// The first line of a file, read for each probe. A relative path starts at the configuration file's folder.
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// One step of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Say this.
    Send(Vec<u8>),
    /// Wait for this, anywhere in what comes.
    Expect(Vec<u8>),
    /// Wait for this at the very beginning of what comes next.
    Begins(Vec<u8>),
}

/// Inclusive ranges of HTTP statuses, e.g. `200`, `"200-299,401"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatusRanges(pub Vec<(u16, u16)>);

impl StatusRanges {
    /// Whether a status lies in one of the ranges.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&status))
    }
}

impl fmt::Display for StatusRanges {
    /// As an operator writes them: `200-299,401`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &(first, last)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}
