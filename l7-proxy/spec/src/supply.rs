//! Sockets that may have the address of a client (`IP_TRANSPARENT`, ip(7)): the proxy may not make them, but it may use them.
//!
//! The kernel asks for privileges where the option is set, not where such a socket gets its address. So `lb-user` makes
//! them and the proxy asks for some over a Unix socket of their own ([`Channel`](crate::Channel)), which came with
//! [`Ask::Supply`](crate::Ask::Supply): the proxy asks, `lb-user` answers.

use serde::{Deserialize, Serialize};

/// What the proxy asks for: TCP sockets without an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketsWanted {
    /// Whether they are for IPv6.
    pub ipv6: bool,
    /// How many; [`MOST_FILES`](crate::MOST_FILES) at most.
    pub count: usize,
}

/// The answer; sockets come along, or else this is why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketsGiven {
    /// Why there are fewer than were asked for.
    pub problem: Option<String>,
}
