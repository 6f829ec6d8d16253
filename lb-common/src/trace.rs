//! Watching decisions: which packets those who watch want to see, and what they are told about each.
//!
//! The kernel asks [`wants`] at the end of a packet's way and, if so, lets [`describe`] fill a record of the ring
//! buffer; the host describes by the same code what it would do with a packet.

use crate::{
    abi::{Half, Server, TraceEnds, TraceFilter, TraceRecord, protocol, server_flags},
    family::Family,
    hash,
    pipeline::{Work, facts},
    verdict::{Change, DropReason, Event, Forward, PassReason, REASON_COUNT, Verdict},
};

/// The ending of a packet that goes on to a server or to a client; those with a reason have its index.
pub const FORWARDED: u32 = REASON_COUNT;

/// What a packet's way ended in. Wide, as it lies in a map and is written by the kernel program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// What the driver is told: an XDP action; the host has none.
    pub action: u32,
    /// [`TraceRecord::ending`].
    pub ending: u32,
    /// [`Change`], if it is forwarded.
    pub change: u32,
    /// [`Half`], if it is forwarded.
    pub half: u32,
    /// Whether its headers could be read, so that the workspace is about this packet.
    pub read: u32,
}

impl End {
    /// It does not go on, for a reason with this index, or was made into the answer to itself.
    #[inline(always)]
    #[must_use]
    pub const fn here(action: u32, reason: u32) -> Self {
        Self { action, ending: reason, change: 0, half: 0, read: 1 }
    }

    /// Its headers could not be read.
    #[inline(always)]
    #[must_use]
    pub const fn unread(action: u32, reason: PassReason) -> Self {
        Self { read: 0, ..Self::here(action, reason.index()) }
    }

    /// It goes on.
    #[inline(always)]
    #[must_use]
    pub const fn forwarded(action: u32, forward: &Forward) -> Self {
        let (change, half) = (forward.change as u32, forward.half as u32);
        Self { action, ending: FORWARDED, change, half, read: 1 }
    }

    /// What a verdict comes to; `None` as long as another stage decides.
    #[must_use]
    pub const fn of(verdict: &Verdict) -> Option<Self> {
        match verdict {
            Verdict::Pass(reason) => Some(Self::here(0, reason.index())),
            Verdict::Drop(reason) => Some(Self::here(0, reason.index())),
            Verdict::Answer(event) => Some(Self::here(0, event.index())),
            Verdict::Forward(forward) => Some(Self::forwarded(0, forward)),
            Verdict::Later(_) => None,
        }
    }
}

/// What becomes of a packet, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Left to the host.
    Pass(PassReason),
    /// Dropped.
    Drop(DropReason),
    /// Made into the answer to itself.
    Answer(Event),
    /// Sent on.
    Forward,
}

impl Fate {
    /// What an ending means; `None` for a number that is none.
    #[must_use]
    pub fn of(ending: u32) -> Option<Self> {
        let pass = PassReason::ALL.iter().map(|reason| (reason.index(), Self::Pass(*reason)));
        let drop = DropReason::ALL.iter().map(|reason| (reason.index(), Self::Drop(*reason)));
        let answer = Event::ALL.iter().map(|event| (event.index(), Self::Answer(*event)));
        let mut all = pass.chain(drop).chain(answer).chain([(FORWARDED, Self::Forward)]);
        all.find(|(index, _)| *index == ending).map(|(_, fate)| fate)
    }

    /// `pass`, `drop`, `answer` or `forward`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Drop(_) => "drop",
            Self::Answer(_) => "answer",
            Self::Forward => "forward",
        }
    }

    /// Why, or how it was answered; of what is sent on nothing.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Pass(reason) => Some(reason.label()),
            Self::Drop(reason) => Some(reason.label()),
            Self::Answer(event) => Some(event.label()),
            Self::Forward => None,
        }
    }

    /// Bits of [`TraceFilter::endings`] for all fates with this word, or this reason; 0 if there are none.
    #[must_use]
    pub fn bits(word_or_reason: &str) -> u64 {
        let all = (0..=FORWARDED).filter_map(|ending| Some((ending, Self::of(ending)?)));
        let named =
            all.filter(|(_, fate)| fate.word() == word_or_reason || fate.reason() == Some(word_or_reason));
        named.fold(0, |bits, (ending, _)| bits | 1 << ending)
    }
}

/// Whether a packet is wanted. `server` is its server's entry, or an empty one; `chance` any number, which decides about
/// packets that have no flow.
#[inline(always)]
#[must_use]
pub fn wants<F: Family>(
    filter: &TraceFilter,
    end: &End,
    work: &Work<F>,
    server: &Server,
    chance: u32,
) -> bool {
    if filter.endings >> (end.ending & 63) & 1 == 0 {
        return false;
    }
    if end.read == 0 {
        let any = filter.family == 0 && filter.port == 0 && filter.protocol == 0 && filter.vip == 0;
        return any && sampled(filter, chance);
    }
    let key = &work.packet.key;
    let wanted_protocol =
        if filter.protocol == protocol::ICMP { F::ICMP as u32 } else { filter.protocol as u32 };
    if filter.protocol != 0 && wanted_protocol != key.protocol
        || filter.vip != 0 && filter.vip != work.facts.vip
    {
        return false;
    }
    let known = work.facts.flags & facts::IN_TABLE != 0;
    let flow = &work.flow;
    if filter.port != 0 {
        let here = key.sport == filter.port || key.dport == filter.port;
        let there = flow.client_port == filter.port
            || flow.vip_port == filter.port
            || flow.server_port == filter.port;
        if !(here || known && there) {
            return false;
        }
    }
    if filter.family != 0 {
        let own = (filter.family == 6) == (F::ICMP == protocol::ICMPV6);
        let is = |address| own && matches(filter, F::to_words(address));
        let there = known && is(flow.client);
        let server_family = if server.flags & server_flags::IPV6 != 0 { 6 } else { 4 };
        let at_server =
            work.facts.server != 0 && filter.family == server_family && matches(filter, server.address);
        if !(is(key.src) || is(key.dst) || there || at_server) {
            return false;
        }
    }
    // Both directions of a translated flow, or neither.
    let client = if known { flow.key() } else { *key };
    filter.sample <= 1 || sampled(filter, hash::flow::<F>(&client))
}

#[inline(always)]
fn sampled(filter: &TraceFilter, number: u32) -> bool {
    filter.sample <= 1 || number.is_multiple_of(filter.sample)
}

#[inline(always)]
fn matches(filter: &TraceFilter, address: [u32; 4]) -> bool {
    let differs = |word: usize| (address[word] ^ filter.address[word]) & filter.mask[word];
    differs(0) | differs(1) | differs(2) | differs(3) == 0
}

/// Writes down what was decided and how it came about: all of a record but time, interface, session and bytes.
#[inline(always)]
pub fn describe<F: Family>(record: &mut TraceRecord, end: &End, work: &Work<F>) {
    record.ending = end.ending as u8;
    if end.read == 0 {
        return;
    }
    let family = if F::ICMP == protocol::ICMPV6 { 6 } else { 4 };
    let key = &work.packet.key;
    record.family = family;
    record.protocol = key.protocol as u8;
    record.tcp_flags = work.packet.flags;
    record.kind = work.packet.kind() as u8;
    record.length = work.packet.frame_length() as u32;
    record.came = TraceEnds {
        src: F::to_words(key.src),
        dst: F::to_words(key.dst),
        sport: key.sport,
        dport: key.dport,
    };
    record.hash = work.facts.hash;
    record.slot = work.facts.slot.0;
    record.vip = work.facts.vip;
    record.server = work.facts.server;
    record.facts = work.facts.flags;
    if end.ending != FORWARDED {
        return;
    }
    record.change = end.change as u8;
    record.out = work.hop.ifindex;
    record.left_family = family;
    if end.change == Change::Encapsulate as u32 {
        let tunnel = &work.tunnel;
        record.left_family = if tunnel.ipv6 { 6 } else { 4 };
        let sport = if tunnel.port != 0 { tunnel.source_port() } else { 0 };
        record.left = TraceEnds { src: tunnel.source, dst: tunnel.server, sport, dport: tunnel.port };
    } else if end.change != Change::Link as u32 {
        let half = if end.half == Half::Server as u32 { Half::Server } else { Half::Client };
        let left = work.flow.outgoing(half);
        record.left = TraceEnds {
            src: F::to_words(left.src),
            dst: F::to_words(left.dst),
            sport: left.sport,
            dport: left.dport,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, vec, vec::Vec};

    use super::*;
    use crate::{
        abi::{Flow, Mac, ServerRef, Slot},
        family::{V4, V6, words4, words6},
        parse::{Link, Parse as _},
        verdict::Hop,
    };

    const CLIENT: [u8; 4] = [10, 0, 0, 9];
    const VIP: [u8; 4] = [192, 0, 2, 1];
    const BALANCER: [u8; 4] = [10, 1, 0, 1];
    const SERVER: [u8; 4] = [10, 1, 0, 2];

    /// A SYN from the client to the VIP's port 80, forwarded by `snat`.
    fn work() -> Work<V4> {
        let mut frame = vec![0; 14];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol::TCP, 0, 0]);
        frame.extend(CLIENT);
        frame.extend(VIP);
        frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0]);
        let packet = V4::parse::<false, Vec<u8>>(&frame, 14).expect("a packet");
        let mut work = Work::new(Link::default(), packet, 3);
        work.flow = Flow {
            client: words4(CLIENT)[0],
            vip: words4(VIP)[0],
            source: words4(BALANCER)[0],
            server: words4(SERVER)[0],
            client_port: 40_000,
            vip_port: 80,
            source_port: 20_000,
            server_port: 8_080,
            protocol: protocol::TCP.into(),
            ..Flow::default()
        };
        work.hop = Hop { to: Mac::NONE, from: Mac::NONE, ifindex: 4 };
        (work.facts.vip, work.facts.server) = (7, 2);
        work
    }

    fn server() -> Server {
        Server { address: words4(SERVER), ..Server::default() }
    }

    const ANY: TraceFilter = TraceFilter {
        address: [0; 4],
        mask: [0; 4],
        endings: u64::MAX,
        session: 0,
        sample: 1,
        lost: 0,
        port: 0,
        vip: 0,
        family: 0,
        protocol: 0,
        pad: [0; 6],
    };

    fn forwarded(change: Change, half: Half) -> End {
        End::forwarded(3, &Forward { change, server: ServerRef::new(2, 1), half, new: false })
    }

    fn host(address: [u8; 4]) -> TraceFilter {
        TraceFilter { address: words4(address), mask: words4([255; 4]), family: 4, ..ANY }
    }

    #[test]
    fn every_condition_must_hold() {
        let (work, end) = (work(), forwarded(Change::Link, Half::Client));
        for (what, filter, wanted) in [
            ("none", ANY, true),
            ("the client", host(CLIENT), true),
            ("the VIP", host(VIP), true),
            ("the server", host(SERVER), true),
            ("somebody", host([10, 0, 0, 8]), false),
            ("a network", TraceFilter { mask: words4([255, 255, 255, 0]), ..host([10, 0, 0, 200]) }, true),
            ("an IPv6 address of the same words", TraceFilter { family: 6, ..host(CLIENT) }, false),
            ("the port", TraceFilter { port: 80, ..ANY }, true),
            ("the client's port", TraceFilter { port: 40_000, ..ANY }, true),
            ("another port", TraceFilter { port: 81, ..ANY }, false),
            ("a port of a flow that is not known", TraceFilter { port: 8_080, ..ANY }, false),
            ("the protocol", TraceFilter { protocol: protocol::TCP, ..ANY }, true),
            ("another protocol", TraceFilter { protocol: protocol::UDP, ..ANY }, false),
            ("the VIP's number", TraceFilter { vip: 7, ..ANY }, true),
            ("another VIP", TraceFilter { vip: 8, ..ANY }, false),
            ("what is sent on", TraceFilter { endings: Fate::bits("forward"), ..ANY }, true),
            ("what is dropped", TraceFilter { endings: Fate::bits("drop"), ..ANY }, false),
            ("two that hold", TraceFilter { port: 80, ..host(CLIENT) }, true),
            ("two of which one holds", TraceFilter { port: 81, ..host(CLIENT) }, false),
        ] {
            assert_eq!(wants(&filter, &end, &work, &server(), 0), wanted, "{what}");
        }
    }

    #[test]
    fn a_reply_is_of_its_client_and_port_too() {
        let mut work = work();
        let to_vip = work.packet.key;
        work.packet.key = work.flow.reply_key();
        let end = forwarded(Change::Translate, Half::Server);
        let conditions = [host(CLIENT), TraceFilter { port: 80, ..ANY }, TraceFilter { port: 40_000, ..ANY }];
        for filter in conditions {
            assert!(!wants(&filter, &end, &work, &server(), 0));
        }
        work.facts.flags = facts::IN_TABLE;
        for filter in conditions {
            assert!(wants(&filter, &end, &work, &server(), 0));
        }
        // Both directions of a flow are in the sample, or neither.
        let sampled =
            |work: &Work<V4>, sample| wants(&TraceFilter { sample, ..ANY }, &end, work, &server(), 0);
        for sample in 1..50 {
            let reply = sampled(&work, sample);
            let mut request = work;
            request.packet.key = to_vip;
            assert_eq!(sampled(&request, sample), reply, "1 in {sample}");
        }
    }

    #[test]
    fn a_sample_is_one_in_so_many_flows() {
        let mut work = work();
        let end = forwarded(Change::Link, Half::Client);
        let filter = TraceFilter { sample: 10, ..ANY };
        let count = (0..10_000).filter(|port| {
            work.packet.key.sport = *port;
            wants(&filter, &end, &work, &server(), 0)
        });
        let count = count.count();
        assert!((800..1_200).contains(&count), "{count} of 10,000");
    }

    #[test]
    fn of_what_could_not_be_read_only_the_ending_is_known() {
        let (work, end) = (work(), End::unread(2, PassReason::NotIp));
        let pass = TraceFilter { endings: Fate::bits("pass"), ..ANY };
        assert!(wants(&pass, &end, &work, &server(), 0));
        assert!(!wants(&TraceFilter { endings: Fate::bits("malformed"), ..ANY }, &end, &work, &server(), 0));
        for filter in [host(CLIENT), TraceFilter { vip: 7, ..ANY }, TraceFilter { port: 80, ..ANY }] {
            assert!(
                !wants(&filter, &end, &work, &server(), 0),
                "what the workspace holds is another packet's"
            );
        }
        let sample = TraceFilter { sample: 3, ..ANY };
        assert_eq!(
            [0, 1, 2, 3].map(|chance| wants(&sample, &end, &work, &server(), chance)),
            [true, false, false, true]
        );
        let mut record = TraceRecord::default();
        describe(&mut record, &end, &work);
        let only = TraceRecord { ending: PassReason::NotIp.index() as u8, ..TraceRecord::default() };
        assert_eq!(record, only);
    }

    #[test]
    fn a_server_of_the_other_family_is_found_by_its_own_address() {
        let (work, end) = (work(), forwarded(Change::Encapsulate, Half::Client));
        let far = Server { address: words6([9; 16]), flags: server_flags::IPV6, ..Server::default() };
        let filter = TraceFilter { address: words6([9; 16]), mask: [u32::MAX; 4], family: 6, ..ANY };
        assert!(wants(&filter, &end, &work, &far, 0));
        assert!(!wants(&filter, &end, &work, &Server { flags: 0, ..far }, 0));
    }

    #[test]
    fn a_record_says_what_came_and_what_leaves() {
        let mut work = work();
        (work.facts.hash, work.facts.slot) = (5, Slot::new(ServerRef::new(2, 1), true));
        let mut record = TraceRecord::default();
        describe(&mut record, &forwarded(Change::Translate, Half::Client), &work);
        assert_eq!((record.family, record.protocol, record.tcp_flags, record.kind), (4, protocol::TCP, 2, 0));
        assert_eq!((record.came.src, record.came.dport, record.length), (words4(CLIENT), 80, 54));
        let left = (record.left.src, record.left.sport, record.left.dst, record.left.dport);
        assert_eq!(left, (words4(BALANCER), 20_000, words4(SERVER), 8_080));
        assert_eq!((record.hash, Slot(record.slot).tagged(), record.vip, record.server), (5, true, 7, 2));
        assert_eq!((u32::from(record.ending), record.out, record.left_family), (FORWARDED, 4, 4));

        work.tunnel = crate::pipeline::Tunnel {
            source: words6([1; 16]),
            server: words6([2; 16]),
            port: 6_080,
            ipv6: true,
            ..Default::default()
        };
        describe(&mut record, &forwarded(Change::Encapsulate, Half::Client), &work);
        assert_eq!((record.left_family, record.left.dst, record.left.dport), (6, words6([2; 16]), 6_080));
        assert_eq!(record.left.sport, work.tunnel.source_port());

        let mut dropped = TraceRecord::default();
        describe(&mut dropped, &End::here(1, DropReason::NoServer.index()), &work);
        assert_eq!((dropped.out, dropped.left, dropped.change), (0, TraceEnds::default(), 0));
        assert_eq!(dropped.vip, 7);
    }

    #[test]
    fn icmp_means_that_of_the_packet() {
        let icmp = TraceFilter { protocol: protocol::ICMP, ..ANY };
        let end = End::here(2, PassReason::NotVip.index());
        let mut frame = vec![0; 14];
        frame.extend([0x60, 0, 0, 0, 0, 8, protocol::ICMPV6, 64]);
        frame.extend([1; 32]);
        frame.extend([128, 0, 0, 0, 0, 0, 0, 0]);
        let packet = V6::parse::<false, Vec<u8>>(&frame, 14).expect("an echo request");
        let six = Work::<V6>::new(Link::default(), packet, 3);
        assert!(wants(&icmp, &end, &six, &server(), 0));
        let mut four = work();
        four.packet.key.protocol = protocol::ICMPV6.into();
        assert!(!wants(&icmp, &end, &four, &server(), 0), "58 over IPv4 is something else");
    }

    #[test]
    fn every_ending_has_a_word_and_is_found_by_it() {
        let all: Vec<_> = (0..64).filter_map(|ending| Some((ending, Fate::of(ending)?))).collect();
        let reasons = PassReason::ALL.len() + DropReason::ALL.len() + Event::ALL.len();
        assert_eq!(all.len(), reasons + 1);
        for (ending, fate) in &all {
            assert_ne!(Fate::bits(fate.word()) >> ending & 1, 0);
            if let Some(reason) = fate.reason() {
                assert_eq!(Fate::bits(reason), 1 << ending, "{reason}");
            }
        }
        let words: HashSet<_> = all.iter().map(|(_, fate)| fate.word()).collect();
        assert_eq!(words, HashSet::from(["pass", "drop", "answer", "forward"]));
        assert_eq!(Fate::bits("nothing"), 0);
    }
}
