//! Packets to `dr`, `ipip` and `gue` VIPs: which server has them, and what arrives there.

use lb_common::{
    abi::{Mode, Selection, TagStage, server_flags, vip_flags},
    decap::Outcome,
    wire::tcp::{FIN, RST},
};

use super::{Laws, Passage};
use crate::{
    inspect::{self, Net, Seen, Sums, Tuple, What},
    tunnel::{self, Rules},
    world::{self, Service},
};

impl Laws {
    /// A known flow stays where it is as long as it may; all others go where the ring says.
    pub(super) fn went_direct(
        &mut self,
        passage: &Passage<'_>,
        service: &Service,
        tuple: Tuple,
        flags: u8,
        server: u16,
    ) {
        let world = passage.world;
        let slot = world.slot(service, tuple);
        if service.flags & vip_flags::NO_FLOW_STATE != 0 {
            assert_eq!(server, slot.server().index(), "without state, the ring alone decides");
            return;
        }
        let begins = flags & 0x17 == 2;
        let by_turns = service.selection != Selection::Ring;
        let is_datagram = tuple.protocol == 17;
        // A slot without a server names the entry that is never filled.
        let state = |index: u16| world.tables.servers.get(&index).map_or(0, |entry| entry.flags);
        let wanted = |anew| if anew { server_flags::ACCEPTS_NEW } else { server_flags::KEEPS_FLOWS };
        let [flow, client] = passage.tags;
        // A connection that begins where clients persist goes where the client is, whatever the 5-tuple was before.
        let flow = flow.filter(|tag| {
            let over = begins && (tag.stage() == TagStage::Closed || service.by_source());
            state(tag.server()) & wanted(begins) != 0 && !over
        });
        let may_begin = begins || by_turns && is_datagram;
        let client = client.filter(|tag| {
            let away = service.persistence != 0 && tag.age(world.tables.now) > service.persistence.into();
            state(tag.server()) & wanted(may_begin) != 0 && !(may_begin && away)
        });
        let own = slot.server().index();
        // A settled slot says that nobody need be asked: then the tag agrees with it, or the packet is a special one.
        if let Some(tag) = flow.or(client) {
            assert_eq!(server, tag.server(), "a known flow was moved");
            assert!(slot.tagged() || server == own || passage.known.is_none());
        } else if may_begin {
            assert!(state(server) & server_flags::ACCEPTS_NEW != 0, "a new flow to a server that takes none");
            if !by_turns && state(own) & server_flags::ACCEPTS_NEW != 0 {
                assert_eq!(server, own, "a new flow goes where the ring says");
            }
            self.begun(world, service);
        } else {
            assert_eq!(server, own, "an unknown flow goes where the ring says");
        }
        let closes = flags & (FIN | RST) != 0;
        if slot.tagged() && !closes {
            match world.tag(service, tuple) {
                Some(tag) => assert_eq!(tag.server(), server, "what is remembered is where it went"),
                None => {
                    assert!(!world.has_room_for_a_tag(tuple), "a tagged slot learns its flows");
                    let known = world.client_tag(service, tuple).is_some();
                    let accepts = state(own) & server_flags::ACCEPTS_NEW != 0;
                    let alone = may_begin && by_turns && !known && accepts;
                    assert!(!alone || server == own, "nobody will know where its next packet is to go");
                }
            }
        }
    }
}

impl Passage<'_> {
    /// What arrives at the server is what the client sent: but for the MACs, and the MSS of a SYN if that was too
    /// large.
    pub(super) fn carried(&self, service: &Service, net: &Net, seen: Option<&Seen>, server: u16) {
        let mut arrived = match service.mode {
            Mode::Dr => self.after.to_vec(),
            _ => self.unwrapped(service, net, seen, server),
        };
        arrived[..12].copy_from_slice(&self.before[..12]);
        let mut expected = self.before.to_vec();
        if service.mode != Mode::Dr {
            let hops = net.l3 + if net.src.is_ipv4() { 8 } else { 7 };
            expected[hops] = expected[hops].min(254);
        }
        if let Some(seen) = seen.filter(|seen| service.mss != 0 && seen.flags & 2 != 0) {
            expected = lowered_as_right(&expected, &arrived, seen, service.mss);
        }
        assert_eq!(arrived, expected, "changed on the way to {service:?}");
    }

    /// What the server takes out of the tunnel.
    fn unwrapped(&self, service: &Service, net: &Net, seen: Option<&Seen>, server: u16) -> Vec<u8> {
        let entry = self.world.tables.servers[&server];
        let six = entry.flags & server_flags::IPV6 != 0;
        let whole = if six { 128 } else { 32 };
        let rules = Rules {
            at: vec![(world::ip(entry.address, six), whole)],
            from: vec![(world::ip(entry.source, six), whole)],
            to: vec![(net.dst, if net.dst.is_ipv4() { 32 } else { 128 })],
            gue_port: if service.mode == Mode::Gue { entry.port } else { 0 },
        };
        let (outcome, inner) = tunnel::take_out(self.after, &rules);
        assert_eq!(outcome, Outcome::Decapsulated, "{:02x?}", self.after);
        let (l3, before) = (net.l3, self.before);
        assert_eq!(self.after[l3] / 16, if six { 6 } else { 4 });
        assert_eq!(inspect::header_sum(self.after, l3), 0, "the outer header's checksum");
        let class = |frame: &[u8]| {
            if frame[l3] / 16 == 4 { frame[l3 + 1] } else { frame[l3] << 4 | frame[l3 + 1] >> 4 }
        };
        assert_eq!(class(self.after), class(before), "type of service");
        if six {
            assert_eq!(self.after[l3 + 7], 64, "the outer hop limit");
        } else {
            assert_eq!(self.after[l3 + 8], 64, "the outer time to live");
            let whole = net.src.is_ipv6() || before[l3 + 6] & 0x40 != 0;
            assert_eq!(self.after[l3 + 6] & 0x40 != 0, whole, "do not fragment");
        }
        if entry.mtu != 0 {
            let length = net.end - l3 + self.after.len() - before.len();
            assert!(length <= entry.mtu.into(), "{length} bytes through a tunnel for {}", entry.mtu);
        }
        // A checksum there need not be, but it must not be wrong.
        let intact = seen.is_some_and(|seen| {
            before.len() >= seen.end
                && inspect::sums(before, seen).transport.is_none_or(|sum| sum == 0)
                && inspect::sums(before, seen).header.is_none_or(|sum| sum == 0)
        });
        if let (true, true, Some(What::Whole(outer))) =
            (service.mode == Mode::Gue, intact, inspect::what(self.after))
        {
            assert!(matches!(inspect::sums(self.after, &outer), Sums { transport: None | Some(0), .. }));
            assert!(outer.src.port() >= 0xc000, "from a port of a service");
        }
        inner
    }
}

/// `before` with its MSS lowered, as far as it is found.
pub(super) fn lowered(before: &[u8], seen: &Seen, mss: u16) -> Vec<u8> {
    let mut expected = before.to_vec();
    let end = (seen.l4 + usize::from(before[seen.l4 + 12] >> 4) * 4).min(before.len());
    let (mut at, mut options) = (seen.l4 + 20, 0);
    while at + 4 <= end && options < 6 {
        options += 1;
        match before[at..at + 4] {
            [0, ..] => break,
            [1, ..] => at += 1,
            [2, 4, high, low] => {
                let lowered = u16::from_be_bytes([high, low]).min(mss);
                expected[at + 2..at + 4].copy_from_slice(&lowered.to_be_bytes());
                break;
            }
            [_, 0 | 1, ..] => break,
            [_, length, ..] => at += usize::from(length % 64),
            _ => unreachable!("four bytes"),
        }
    }
    expected
}

/// The same with the checksum of `after`, which must be as right.
pub(super) fn lowered_as_right(before: &[u8], after: &[u8], seen: &Seen, mss: u16) -> Vec<u8> {
    let mut expected = lowered(before, seen, mss);
    if expected != before {
        let sum = seen.checksum_at();
        expected[sum..sum + 2].copy_from_slice(&after[sum..sum + 2]);
        let (old, new) = (inspect::sums(before, seen), inspect::sums(&expected, seen));
        assert_eq!(old.transport, new.transport, "the checksum after the MSS was lowered");
    }
    expected
}
