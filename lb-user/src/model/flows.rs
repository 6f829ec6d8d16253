//! What is remembered of flows.

use std::time::Duration;

use lb_common::abi::{DEFAULT_FLOW_TAGS, DEFAULT_FLOWS};

/// Sizes and limits of the tables that hold flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTables {
    /// Translated flows (`snat`, `nat`) that there is room for, for each address family.
    pub translated: u32,
    /// Flow tags that there is room for: flows of `dr`, `ipip` and `gue`, and clients that persist.
    pub tags: u32,
    /// SYNs in a second and on a processor that flow tags are made for; 0 for any number. Beyond it is a flood, and
    /// connections are noted once they are established.
    pub syn_limit: u32,
    /// How long the flows of ring slots are noted before the slots move to other servers.
    pub learn: Duration,
}

impl Default for FlowTables {
    /// Ten times the SYNs of a busy site; three seconds, in which all but idle connections are heard of.
    fn default() -> Self {
        Self {
            translated: DEFAULT_FLOWS as u32,
            tags: DEFAULT_FLOW_TAGS as u32,
            syn_limit: 200_000,
            learn: Duration::from_secs(3),
        }
    }
}
