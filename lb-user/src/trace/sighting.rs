//! What was seen of one packet, as programs read it: a line of `lbctl trace -o json`. Field names and meanings are
//! part of the interface.

use std::net::IpAddr;

use lb_common::{
    abi::{RING_SIZE, Slot, TraceEnds, TraceRecord, protocol},
    hash,
    pipeline::facts,
    trace::Fate,
    verdict::Change,
    wire::tcp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Names;

/// One packet, and what was decided about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sighting {
    /// When: seconds since 1970-01-01 UTC …
    pub time: u64,
    /// … and nanoseconds.
    pub nanoseconds: u32,
    /// The interface it came in by.
    pub interface: String,
    /// `pass`, `drop`, `forward` or `answer`.
    pub verdict: String,
    /// Why, or with what it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The packet; `None` for a frame that could not be read as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<Packet>,
    /// The VIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// The slot of the VIP's ring, if the ring was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotSeen>,
    /// What the flow tags said, if they were asked: `hit` or `miss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
    /// Whether the flow tables have the flow.
    #[serde(default)]
    pub in_table: bool,
    /// Whether it was entered there, or in the flow tags, because of this packet.
    #[serde(default)]
    pub entered: bool,
    /// Whether it is a server's packet, on its way to the client.
    #[serde(default)]
    pub reply: bool,
    /// The server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What was done to it: `link` (new MAC addresses only), `translate`, `translate-addresses` (a piece without
    /// ports), `tunnel` or `translate-quote` (an ICMP error).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// Addresses as it leaves; in a tunnel the outer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Ends>,
    /// The interface it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<String>,
    /// Length of the frame that `bytes` begin.
    pub frame_length: u32,
    /// The first bytes of the frame as it leaves, or as it was passed or dropped, in hexadecimal; if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
}

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packet {
    /// `tcp`, `udp`, `icmp`, or a number.
    pub protocol: String,
    /// From where to where. Of an ICMP error that goes the way of the flow it is about, those of that flow.
    #[serde(flatten)]
    pub ends: Ends,
    /// TCP flags in the letters of tcpdump, e.g. `S.` for SYN and ACK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// What it is if it is not a whole packet of its protocol: `first-fragment`, `fragment` or `icmp-about-it`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Length of the frame.
    pub length: u32,
}

/// Addresses and ports; port 0 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ends {
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port.
    pub destination_port: u16,
}

/// A slot of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotSeen {
    /// Its number.
    pub number: u32,
    /// Whether flows of it may be with other servers than its own.
    pub tagged: bool,
    /// Its server.
    pub server: Option<String>,
}

impl Sighting {
    /// What a record says. `time` is when, in nanoseconds since 1970-01-01 UTC; `bytes`: whether the frame's are wanted.
    #[must_use]
    pub fn new(record: &TraceRecord, time: u64, names: &Names, bytes: bool) -> Self {
        let fate = Fate::of(record.ending.into());
        let flag = |bit| record.facts & bit != 0;
        let change = change(record);
        let left = matches!(fate, Some(Fate::Forward)).then_some(change);
        let slot = Slot(record.slot);
        let server = |index: u16| (index != 0).then(|| names.server_name(index));
        let asked = record.hash != 0 || record.slot != 0;
        let frame = &record.bytes[..usize::from(record.captured).min(record.bytes.len())];
        Self {
            time: time / 1_000_000_000,
            nanoseconds: (time % 1_000_000_000) as u32,
            interface: names.interface(record.ifindex),
            verdict: fate.map_or("unknown", Fate::word).into(),
            reason: fate.and_then(Fate::reason).map(Into::into),
            packet: (record.family != 0).then(|| packet(record)),
            vip: (record.vip != 0).then(|| names.vip(record.vip)),
            slot: asked.then(|| SlotSeen {
                number: hash::scale(record.hash, RING_SIZE as u32),
                tagged: slot.tagged(),
                server: server(slot.server().index()),
            }),
            tags: flag(facts::ASKED).then(|| if flag(facts::KNOWN) { "hit" } else { "miss" }.into()),
            in_table: flag(facts::IN_TABLE),
            entered: flag(facts::ENTERED),
            reply: flag(facts::REPLY),
            server: server(record.server),
            change: left.map(Into::into),
            leaves: (record.left != TraceEnds::default()).then(|| ends(record.left_family, &record.left)),
            out: (record.out != 0).then(|| names.interface(record.out)),
            frame_length: record.left_length,
            bytes: bytes.then(|| frame.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    /// The frame's bytes, if they were asked for.
    #[must_use]
    pub fn frame(&self) -> Option<Vec<u8>> {
        let pairs = self.bytes.as_ref()?.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
    }
}

fn change(record: &TraceRecord) -> &'static str {
    const NAMES: [(Change, &str); 5] = [
        (Change::Link, "link"),
        (Change::Translate, "translate"),
        (Change::TranslateAddresses, "translate-addresses"),
        (Change::Encapsulate, "tunnel"),
        (Change::TranslateQuote, "translate-quote"),
    ];
    let found = NAMES.iter().find(|(change, _)| *change as u32 == u32::from(record.change));
    found.map_or("unknown", |(_, name)| name)
}

fn packet(record: &TraceRecord) -> Packet {
    let is_tcp = record.protocol == protocol::TCP;
    let is_icmp = matches!(record.protocol, protocol::ICMP | protocol::ICMPV6);
    let kind = match record.kind {
        1 => Some("first-fragment"),
        2 => Some("fragment"),
        3 if !is_icmp => Some("icmp-about-it"),
        _ => None,
    };
    Packet {
        protocol: match record.protocol {
            protocol::TCP => "tcp".into(),
            protocol::UDP => "udp".into(),
            protocol::ICMP | protocol::ICMPV6 => "icmp".into(),
            other => other.to_string(),
        },
        ends: ends(record.family, &record.came),
        flags: (is_tcp && record.kind < 2).then(|| letters(record.tcp_flags)),
        kind: kind.map(Into::into),
        length: record.length,
    }
}

/// TCP flags as tcpdump writes them.
fn letters(flags: u8) -> String {
    const LETTERS: [(u8, char); 5] =
        [(tcp::SYN, 'S'), (tcp::FIN, 'F'), (tcp::RST, 'R'), (1 << 3, 'P'), (tcp::ACK, '.')];
    LETTERS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| letter).collect()
}

fn ends(family: u8, ends: &TraceEnds) -> Ends {
    let address = |words: [u32; 4]| {
        let bytes: [u8; 16] = std::array::from_fn(|byte| words[byte / 4].to_ne_bytes()[byte % 4]);
        match family {
            6 => IpAddr::from(bytes),
            _ => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
        }
    };
    Ends {
        source: address(ends.src),
        source_port: ends.sport,
        destination: address(ends.dst),
        destination_port: ends.dport,
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        abi::ServerRef,
        family::{words4, words6},
        trace::FORWARDED,
        verdict::{DropReason, PassReason},
    };

    use super::*;

    fn names() -> Names {
        Names::for_test((1, "web"), (2, "s2"), &[(3, "eth0"), (4, "eth1")])
    }

    fn record() -> TraceRecord {
        TraceRecord {
            came: TraceEnds {
                src: words4([10, 0, 0, 9]),
                dst: words4([192, 0, 2, 1]),
                sport: 40_000,
                dport: 80,
            },
            left: TraceEnds {
                src: words4([10, 1, 0, 1]),
                dst: words4([10, 1, 0, 2]),
                sport: 20_000,
                dport: 8_080,
            },
            ifindex: 3,
            out: 4,
            hash: 1 << 31,
            slot: Slot::new(ServerRef::new(2, 1), true).0,
            facts: facts::IN_TABLE | facts::ENTERED,
            length: 74,
            left_length: 74,
            vip: 1,
            server: 2,
            captured: 2,
            family: 4,
            protocol: protocol::TCP,
            tcp_flags: tcp::SYN,
            ending: FORWARDED as u8,
            change: Change::Translate as u8,
            left_family: 4,
            bytes: [0xa5; lb_common::abi::TRACE_BYTES],
            ..TraceRecord::default()
        }
    }

    #[test]
    fn a_record_in_words() {
        let seen = Sighting::new(&record(), 5_000_000_007, &names(), true);
        assert_eq!((seen.time, seen.nanoseconds), (5, 7));
        assert_eq!((seen.interface.as_str(), seen.out.as_deref()), ("eth0", Some("eth1")));
        assert_eq!((seen.verdict.as_str(), seen.reason.as_deref()), ("forward", None));
        assert_eq!((seen.vip.as_deref(), seen.server.as_deref()), (Some("web"), Some("s2")));
        let slot = seen.slot.as_ref().unwrap();
        assert_eq!((slot.number, slot.tagged, slot.server.as_deref()), (32_768, true, Some("s2")));
        assert_eq!(seen.change.as_deref(), Some("translate"));
        assert_eq!(seen.leaves.unwrap().destination, IpAddr::from([10, 1, 0, 2]));
        assert_eq!(seen.frame(), Some(vec![0xa5, 0xa5]));
        let packet = seen.packet.unwrap();
        assert_eq!((packet.protocol.as_str(), packet.flags.as_deref()), ("tcp", Some("S")));
        assert_eq!((packet.ends.source_port, packet.ends.destination_port), (40_000, 80));
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let unread =
            TraceRecord { ifindex: 9, ending: PassReason::NotIp.index() as u8, ..TraceRecord::default() };
        let seen = Sighting::new(&unread, 0, &names(), false);
        let json = serde_json::to_value(&seen).unwrap();
        assert_eq!(json["interface"], "#9");
        assert_eq!((json["verdict"].as_str(), json["reason"].as_str()), (Some("pass"), Some("not-ip")));
        for absent in ["packet", "vip", "slot", "tags", "server", "change", "leaves", "out", "bytes"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
        assert_eq!(serde_json::from_value::<Sighting>(json).unwrap(), seen);
    }

    #[test]
    fn a_dropped_packet_leaves_nowhere() {
        let (left, out) = (TraceEnds::default(), 0);
        let dropped = TraceRecord { ending: DropReason::NoServer.index() as u8, left, out, ..record() };
        let seen = Sighting::new(&dropped, 0, &names(), false);
        assert_eq!((seen.verdict.as_str(), seen.reason.as_deref()), ("drop", Some("no-server")));
        assert_eq!((seen.change, seen.leaves, seen.out), (None, None, None));
    }

    #[test]
    fn an_icmp_error_that_goes_the_way_of_its_flow() {
        let about = Sighting::new(&TraceRecord { kind: 3, ..record() }, 0, &names(), false).packet.unwrap();
        assert_eq!((about.kind.as_deref(), about.flags), (Some("icmp-about-it"), None));
        let six = TraceEnds { src: words6([1; 16]), ..TraceEnds::default() };
        let six = TraceRecord { family: 6, came: six, protocol: 58, kind: 3, ..record() };
        let packet = Sighting::new(&six, 0, &names(), false).packet.unwrap();
        assert_eq!((packet.protocol.as_str(), packet.kind), ("icmp", None));
        assert_eq!(packet.ends.source, IpAddr::from([1; 16]));
    }
}
