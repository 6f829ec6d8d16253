//! The PROXY protocol, by which a proxy before us tells who its client is.

use serde::{Deserialize, Serialize};

use super::Network;

/// The PROXY protocol (version 1 or 2) that clients of a service speak first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocolIn {
    /// Who may speak it. Connections from elsewhere are served as they are, without it: a header they send is
    /// then a malformed request.
    pub from: Vec<Network>,
    /// Whether connections from these networks must begin with it. Without it they may, which is only safe
    /// where nobody but the proxy can send from there.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

/// Which PROXY protocol is spoken to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocolVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}
