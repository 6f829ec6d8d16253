//! What becomes of a packet, and the name of every reason.
//!
//! A reason has one name: in code, in the counter, in `lbctl status` and in metrics. Its index is part of
//! the map ABI: append, never reorder.

use crate::abi::{Half, Mac};

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident from $first:literal { $($(#[$doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant),+
        }

        impl $name {
            /// Every reason, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name in counters, status and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label),+
                }
            }

            /// Its place in the `REASONS` map.
            #[inline(always)]
            #[must_use]
            pub const fn index(self) -> u32 {
                $first + self as u32
            }
        }
    };
}

reasons! {
    /// Why a frame was left to the host, untouched.
    PassReason from 0 {
        /// Not addressed to a VIP, nor a reply to a translated flow.
        NotVip = "not-vip",
        /// Neither IPv4 nor IPv6: ARP, LLDP, a third VLAN tag …
        NotIp = "not-ip",
        /// IP, but neither TCP nor UDP: ICMP, OSPF, VRRP …
        NotTcpUdp = "not-tcp-udp",
        /// To a group or broadcast address on the link.
        GroupAddressed = "group-addressed",
        /// A fragment: it has no ports, or the rest of its datagram has none.
        Fragment = "fragment",
        /// Ends before its headers do, or a length in it contradicts another.
        Malformed = "malformed",
        /// More IPv6 extension headers than are walked, or one that changes the destination on the way.
        ExtensionHeaders = "extension-headers",
        /// A VIP that l7-proxy serves.
        LocalVip = "local-vip",
        /// To a `nat` or `snat` VIP, but of no known flow and not the start of one; the host resets it.
        NoFlow = "no-flow",
        /// For a VIP, but sent to the MAC address of another machine.
        OtherHost = "other-host",
    }
}

reasons! {
    /// Why a packet to a VIP, or from a server, was dropped.
    DropReason from 16 {
        /// No server of the VIP takes new flows.
        NoServer = "no-server",
        /// It is not known which MAC address leads to the server or to the client.
        NoNextHop = "no-next-hop",
        /// Every port tried for the translation is taken.
        PortsExhausted = "ports-exhausted",
        /// The flow table refused an entry.
        FlowTableFull = "flow-table-full",
        /// Its time to live ends here.
        TtlExceeded = "ttl-exceeded",
        /// The rewritten bytes did not fit the frame; must never count.
        RewriteFailed = "rewrite-failed",
    }
}

/// Size of the `REASONS` map.
pub const REASON_COUNT: u32 = 32;

const _: () = assert!(PassReason::ALL.len() <= 16 && DropReason::ALL.len() <= 16);

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The host gets it as it came.
    Pass(PassReason),
    /// It ends here.
    Drop(DropReason),
    /// It goes on to a server or back to a client.
    Forward(Forward),
}

/// How a packet goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where it goes on the link.
    pub hop: Hop,
    /// Whether it leaves with the 5-tuple of its flow, which the workspace holds; not for `dr`.
    pub translated: bool,
    /// Id of the VIP, for the counters.
    pub vip: u16,
    /// Index of the server, for the counters.
    pub server: u16,
    /// Whether it comes from the client or from the server.
    pub half: Half,
    /// Whether it starts a flow.
    pub new: bool,
}

/// A next hop: both MAC addresses of the outgoing frame and the interface it leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Destination MAC.
    pub to: Mac,
    /// Source MAC.
    pub from: Mac,
    /// Interface index.
    pub ifindex: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_counter() {
        let pass = PassReason::ALL.iter().map(|reason| (reason.label(), reason.index()));
        let drop = DropReason::ALL.iter().map(|reason| (reason.label(), reason.index()));
        let all: Vec<_> = pass.chain(drop).collect();
        assert!(all.iter().all(|&(_, index)| index < REASON_COUNT));
        let labels: HashSet<_> = all.iter().map(|(label, _)| label).collect();
        let indices: HashSet<_> = all.iter().map(|(_, index)| index).collect();
        assert_eq!((labels.len(), indices.len()), (all.len(), all.len()));
    }
}
