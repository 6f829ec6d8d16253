//! What becomes of a packet, and the name of every reason.
//!
//! A reason has one name: in code, in the counter, in `lbctl status` and in metrics. Its index is part of
//! the map ABI: append, never reorder.

use crate::abi::{Half, Mac, ServerRef};

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident from $first:literal { $($(#[$doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
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
        /// No server of the VIP takes new flows, and the VIP leaves them to the host then.
        EmptyPool = "empty-pool",
        /// The program for this kind of packet is not there.
        NoStage = "no-stage",
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
        /// The VIP has had its new flows for this second.
        NewFlowLimit = "new-flow-limit",
        /// Too large for the way to the server, and its sender cannot be told.
        TooBig = "too-big",
        /// Of a flow whose server is halted, and nothing that could be answered with a reset.
        Halted = "halted",
        /// It would begin a flow while a next program copies them: a moment later it may.
        Held = "held",
    }
}

reasons! {
    /// What happened beside a packet's own fate, or how it was answered.
    Event from 32 {
        /// An echo request to a VIP was answered.
        EchoAnswered = "echo-answered",
        /// A client was told that its packet is too large for the tunnel.
        TooBigSent = "too-big-sent",
        /// A reset was sent: the server is halted, or the VIP has no server and refuses.
        ResetSent = "reset-sent",
        /// A client was told that nobody listens: the VIP has no server and refuses.
        UnreachableSent = "unreachable-sent",
        /// A SYN was not noted in the flow tags: more came than the limit.
        SynFlood = "syn-flood",
        /// A flow that had not come to be established gave way to a new one.
        FlowEvicted = "flow-evicted",
        /// A flow tag gave way to a new one, although its flow may live.
        TagEvicted = "tag-evicted",
        /// A packet's own server differed from that of its slot: the flow tags knew.
        TagHit = "tag-hit",
        /// A packet of a tagged slot was of an unknown flow.
        TagMiss = "tag-miss",
    }
}

/// Size of the `REASONS` map.
pub const REASON_COUNT: u32 = 48;

const _: () = assert!(PassReason::ALL.len() <= 16 && DropReason::ALL.len() <= 16 && Event::ALL.len() <= 16);

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The host gets it as it came.
    Pass(PassReason),
    /// It ends here.
    Drop(DropReason),
    /// It goes on to a server or back to a client.
    Forward(Forward),
    /// It was made into the answer to itself, and goes back.
    Answer(Event),
    /// Another stage decides.
    Later(Stage),
}

/// The parts of the program that most packets never see. In the kernel each is a program of its own, entered
/// by a tail call: so each is verified by itself, and the way of an ordinary packet stays short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Behind IPv6 extension headers: parsed there, then decided.
    Walk = 0,
    /// The first packet of a flow that is to be translated.
    Open = 1,
    /// ICMP: echo requests and errors.
    Icmp = 2,
    /// A piece of a datagram.
    Fragment = 3,
    /// Answered by the balancer itself, see [`Reply`].
    Answer = 4,
    /// A SYN whose MSS is to be lowered, then decided.
    Mss = 5,
    /// A QUIC packet whose connection id may name the server.
    Quic = 6,
    /// The flow tags are to be asked, or told.
    Remember = 7,
    /// An IPv6 packet: read and decided there, as IPv4 packets are before any stage.
    Six = 8,
    /// Decided: those who watch are told. Never a verdict; where all others end while somebody watches.
    Report = 9,
}

/// Stages there are; each has a program for IPv4 and one for IPv6.
pub const STAGE_COUNT: u32 = 16;

/// How the balancer itself answers a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Reply {
    /// Too large for the tunnel (RFC 1191, RFC 8201).
    #[default]
    TooBig = 0,
    /// A TCP reset (RFC 9293 §3.10.7).
    Reset = 1,
    /// Nobody there: ICMP port unreachable.
    Unreachable = 2,
    /// The answer to an echo request.
    Echo = 3,
}

/// How a packet goes on; where, says the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// What is done to it.
    pub change: Change,
    /// The server, for the counters.
    pub server: ServerRef,
    /// Whether it comes from the client or from the server.
    pub half: Half,
    /// Whether it starts a flow.
    pub new: bool,
}

/// What is done to a packet that goes on. Wide, as [`Half`] is: see `parse` on narrow fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Change {
    /// Only the link layer is new.
    Link = 0,
    /// It leaves with the 5-tuple of its flow, which the workspace holds.
    Translate = 1,
    /// The same for a piece without ports: it leaves with the addresses of the flow.
    TranslateAddresses = 2,
    /// It is put into the tunnel that the workspace describes.
    Encapsulate = 3,
    /// It quotes a packet of a flow, and both are brought to the other side's view.
    TranslateQuote = 4,
}

/// A next hop: both MAC addresses of the outgoing frame and the interface it leaves by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        let event = Event::ALL.iter().map(|event| (event.label(), event.index()));
        let all: Vec<_> = pass.chain(drop).chain(event).collect();
        assert!(all.iter().all(|&(_, index)| index < REASON_COUNT));
        let labels: HashSet<_> = all.iter().map(|(label, _)| label).collect();
        let indices: HashSet<_> = all.iter().map(|(_, index)| index).collect();
        assert_eq!((labels.len(), indices.len()), (all.len(), all.len()));
    }
}
