//! How a server's health is judged.

use std::{fmt, time::Duration};

/// One health check, complete: inheritance `[health]` → pool → VIP is already resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a probe does.
    pub check: Check,
    /// Time from the start of one probe to the start of the next.
    pub interval: Duration,
    /// A probe without an answer fails after this long; at most `interval`.
    pub timeout: Duration,
    /// Consecutive successes that bring a server up; at least 1.
    pub rise: u32,
    /// Consecutive failures that take a server down; at least 1.
    pub fall: u32,
    /// Port to probe; `None` means the port that is served (for several ports: the first one written).
    pub port: Option<u16>,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Connect, then close.
    Tcp,
    /// `GET path` over HTTP/1.1; healthy when the status is among `expect`.
    Http {
        /// Request target, starting with `/`.
        path: String,
        /// Statuses that mean healthy.
        expect: StatusRanges,
    },
    /// No probe: the server counts as up.
    None,
}

/// Inclusive ranges of HTTP statuses, e.g. `200`, `"200-299,401"`.
#[derive(Clone, Debug, PartialEq, Eq)]
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
