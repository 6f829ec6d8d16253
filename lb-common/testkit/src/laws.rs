//! What holds for every frame and every state of the tables. Stated in terms of frames before and after and
//! of [`inspect`], not of the code under test.

use std::collections::HashMap;

use lb_common::{
    abi::{Half, MacBytes, Mode, server_flags},
    conntrack,
    family::{V4, V6},
    host::{Outcome, process},
    parse::{self, Packet, Parse},
    verdict::{DropReason, Hop, PassReason},
    wire::ethernet,
};

use crate::{
    dice::Dice,
    entry::{Entry, entry},
    inspect::{self, Seen, Tuple},
    traffic::{Step, Traffic},
    world::{self, Key, Service, World},
};

/// The law of parsing: it finds what [`inspect::read`] finds, or says why it leaves the frame alone. Gives
/// what was found.
pub fn parse(frame: &[u8]) -> Option<Seen> {
    let seen = inspect::read(frame);
    let found = parse::ethernet(frame).and_then(|link| match link.ethertype {
        ethernet::IPV4 => V4::parse(frame, link.l3).map(|p| (link, Key::V4(p.key), offsets(&p))),
        ethernet::IPV6 => V6::parse(frame, link.l3).map(|p| (link, Key::V6(p.key), offsets(&p))),
        _ => Err(PassReason::NotIp),
    });
    match (found, seen) {
        (Ok((link, key, rest)), Some(seen)) => {
            assert_eq!((link.to.bytes(), link.from.bytes(), link.l3), (seen.to, seen.from, seen.l3));
            assert_eq!(key, Key::from(seen.tuple()));
            assert_eq!(rest, (seen.l3, seen.l4, seen.ttl, seen.flags, seen.opens()));
            Some(seen)
        }
        (Err(PassReason::GroupAddressed), _) => {
            assert!(frame[0] & 1 == 1, "{:02x?} is one host's address", &frame[..6]);
            None
        }
        (Err(_), None) => None,
        (found, seen) => panic!("parsed {found:?} where there is {seen:?}"),
    }
}

fn offsets<F: Parse>(packet: &Packet<F>) -> (usize, usize, u8, u8, bool) {
    (packet.l3(), packet.l4(), packet.ttl, packet.flags, packet.opens())
}

/// Watches over a world: what it remembers, it has seen in frames.
#[derive(Debug, Default)]
pub struct Laws {
    /// Client's 5-tuple → 5-tuple at the server, as last seen.
    flows: HashMap<Tuple, Tuple>,
}

/// One frame, before and after.
struct Passage<'a> {
    before: &'a [u8],
    after: &'a [u8],
    seen: Seen,
    /// The entry for it before it came, if its flow still lived.
    known: Option<Entry>,
    /// Whether the other half had been evicted.
    alone: bool,
    ifindex: u32,
}

impl Laws {
    /// Sends a frame through `world` and checks everything; gives what became of it and its bytes.
    pub fn frame(&mut self, world: &mut World, ifindex: u32, before: &[u8]) -> (Outcome, Vec<u8>) {
        let seen = parse(before);
        let found = seen.and_then(|seen| entry(world, seen.tuple()));
        let known = found.filter(|known| seen.is_some_and(|seen| lives(world, known, &seen)));
        let alone = known.is_some_and(|known| entry(world, known.out.reversed()).is_none());
        let mut after = before.to_vec();
        let outcome = process(&mut after, ifindex, &mut world.tables);
        let Outcome::Forward { ifindex: out, server } = outcome else {
            assert_eq!(before, after, "{outcome:?} must leave the frame as it was");
            assert_ne!(outcome, Outcome::Drop(DropReason::RewriteFailed));
            not_forwarded(world, ifindex, outcome, seen, found, known);
            return (outcome, after);
        };
        let seen = seen.expect("what is sent on was understood");
        let passage = Passage { before, after: &after, seen, known, alone, ifindex };
        assert_eq!(before.len(), after.len());
        match world.service_at(seen.dst, seen.protocol) {
            Some(service) => {
                assert_eq!(world.service_of_server(server), service, "a server of another VIP");
                passage.to_a_server(world, server, out);
                match service.mode {
                    Mode::Local => panic!("a local VIP's packet was sent on"),
                    Mode::Dr => assert_eq!(before[12..], after[12..], "dr changes nothing but the MACs"),
                    Mode::Nat | Mode::Snat => {
                        let at_server = passage.of_a_client(world, &service, server);
                        self.stays(&passage, at_server);
                        self.flows.insert(seen.tuple(), at_server);
                    }
                }
            }
            None => self.reply(world, &passage, out),
        }
        (outcome, after)
    }

    /// A flow stays where it was, unless it begins anew.
    fn stays(&self, passage: &Passage<'_>, at_server: Tuple) {
        let before = self.flows.get(&passage.seen.tuple());
        if !passage.seen.opens() {
            assert_eq!(before, Some(&at_server), "a flow changed its server or its ports midway");
        }
    }

    /// What a server answers reaches the client whose packet it answers, as if from the VIP.
    fn reply(&mut self, world: &World, passage: &Passage<'_>, out: u32) {
        let known = passage.known.expect("only an answer in a flow goes on without a VIP");
        let became = passage.translated();
        assert_eq!((known.half, became), (Half::Server, known.out));
        assert!(world.service_at(became.src, became.protocol).is_some(), "{became:?} is not from a VIP");
        let (.., client_mac, client_ifindex) = known.shared;
        let came_to = inspect::read(passage.after).expect("still a packet");
        let from = if out == passage.ifindex { passage.seen.to } else { world::mac_of_interface(out) };
        assert_eq!((out, came_to.to, came_to.from), (client_ifindex, client_mac, from));
        // Within a tick, a flow that has been replaced is not found out.
        if changes(world, &known, &passage.seen) {
            let (client, at_server) = (became.reversed(), passage.seen.tuple().reversed());
            if passage.alone {
                // Should there be two halves of servers that lead to this client, the first to answer has it.
                self.flows.insert(client, at_server);
            }
            assert_eq!(self.flows.get(&client), Some(&at_server), "an answer of another flow");
            passage.halves_agree(world, became);
        }
    }
}

/// Whether a packet changes the entry it is found by: its state, or its time.
fn changes(world: &World, known: &Entry, seen: &Seen) -> bool {
    let (state, time, ..) = known.shared;
    conntrack::advance(state, known.half, seen.flags) != state || time != world.tables.now
}

/// Whether the other half belongs to the same flow, or is gone and can be put back, or nobody will look.
fn lives(world: &World, known: &Entry, seen: &Seen) -> bool {
    let twin = entry(world, known.out.reversed());
    twin.is_none_or(|twin| twin.out == seen.tuple().reversed()) || !changes(world, known, seen)
}

/// A frame may only be left alone, or dropped, where that is right.
fn not_forwarded(
    world: &World,
    ifindex: u32,
    outcome: Outcome,
    seen: Option<Seen>,
    found: Option<Entry>,
    known: Option<Entry>,
) {
    let Some(seen) = seen else {
        assert!(matches!(outcome, Outcome::Pass(_)), "{outcome:?} for what is no packet");
        return;
    };
    let ours = seen.to == world::mac_of_interface(ifindex);
    let is_server_half = |entry: Entry| entry.half == Half::Server;
    match (world.service_at(seen.dst, seen.protocol).map(|service| service.mode), outcome) {
        (Some(Mode::Local), outcome) => assert_eq!(outcome, Outcome::Pass(PassReason::LocalVip)),
        (Some(Mode::Dr), Outcome::Drop(reason)) => {
            assert!(matches!(reason, DropReason::NoServer | DropReason::NoNextHop), "{reason:?}");
        }
        (Some(_), Outcome::Pass(PassReason::OtherHost)) => assert!(!ours, "it was for us"),
        (Some(_), Outcome::Pass(reason)) => assert!(ours && reason == PassReason::NoFlow && !seen.opens()),
        (Some(_), _) => {}
        // Whose last hop it is ends before anybody asks whether the flow still lives.
        (None, Outcome::Drop(_)) => {
            assert!(found.is_some_and(is_server_half), "{outcome:?} for what is no VIP's");
        }
        (None, outcome) => {
            assert_eq!(outcome, Outcome::Pass(PassReason::NotVip));
            assert!(!(ours && known.is_some_and(is_server_half)), "an answer was not sent on");
        }
    }
}

impl Passage<'_> {
    /// It leaves as user space said that this server is reached, or else as the host would reach it.
    fn to_a_server(&self, world: &World, server: u16, out: u32) {
        let server = world.tables.servers[&server];
        let hop = if server.flags & server_flags::HOP_KNOWN != 0 {
            Hop { to: server.next_hop, from: server.source_mac, ifindex: server.ifindex }
        } else {
            world.tables.routes[&server.address].0
        };
        assert_eq!((out, to(self.after), from(self.after)), (hop.ifindex, hop.to.bytes(), hop.from.bytes()));
    }

    /// A client's packet after its translation; gives its 5-tuple at the server.
    fn of_a_client(&self, world: &World, service: &Service, index: u16) -> Tuple {
        let became = self.translated();
        let server = world.tables.servers[&index];
        assert_eq!(world::words(became.dst.ip()), server.address);
        assert_eq!(became.dst.port(), service.port_at_server());
        let settings = world.tables.settings;
        let is_ours = became.src.port().wrapping_sub(settings.snat_first) < settings.snat_count;
        if service.mode == Mode::Snat {
            assert_eq!(world::words(became.src.ip()), server.snat_source);
            assert!(
                is_ours && world.service_at(became.src, became.protocol).is_none(),
                "from {}",
                became.src
            );
        } else {
            assert_eq!(became.src.ip(), self.seen.src.ip());
            assert!(is_ours || became.src.port() == self.seen.src.port());
        }
        if let Some(known) = self.known.filter(|known| known.half == Half::Client) {
            let settled = server.flags & server_flags::ACCEPTS_NEW != 0;
            let lives = world.tables.servers[&known.server.index()].generation == known.server.generation();
            let over = conntrack::is_over(known.shared.0);
            if lives && (!self.seen.opens() || settled && !over && known.server.index() == index) {
                assert_eq!(became, known.out, "a living flow was moved");
            }
        }
        self.halves_agree(world, self.seen.tuple());
        if self.known.is_none_or(|known| changes(world, &known, &self.seen)) {
            let (.., mac, ifindex) = entry(world, self.seen.tuple()).expect("its entry").shared;
            assert_eq!((mac, ifindex), (self.seen.from, self.ifindex), "answers will not find the client");
        }
        let back = entry(world, became.reversed()).expect("answers find their way");
        assert_eq!(
            (back.half, back.out),
            (Half::Server, self.seen.tuple().reversed()),
            "two flows, one port"
        );
        became
    }

    /// Both halves of the client's flow are there and say the same.
    fn halves_agree(&self, world: &World, tuple: Tuple) {
        let client = if entry(world, tuple).is_some_and(|entry| entry.half == Half::Client) {
            tuple
        } else {
            tuple.reversed()
        };
        let half = entry(world, client).expect("the client's half");
        let twin = entry(world, half.out.reversed()).expect("the server's half");
        assert_eq!((half.server, half.shared), (twin.server, twin.shared));
        assert_eq!((half.half, twin.half), (Half::Client, Half::Server));
    }

    /// Only the fields of a translation have changed, and the checksums are as right, or wrong, as they
    /// were. Gives the new 5-tuple.
    fn translated(&self) -> Tuple {
        let after = inspect::read(self.after).expect("a whole packet stays one");
        let seen = &self.seen;
        let header: &[_] = if seen.src.is_ipv4() { &[8..9, 10..20] } else { &[7..8, 8..40] };
        let checksum = seen.checksum_at();
        let mut allowed: Vec<_> = header.iter().map(|r| seen.l3 + r.start..seen.l3 + r.end).collect();
        allowed.extend([0..12, seen.l4..seen.l4 + 4, checksum..checksum + 2]);
        for (at, (old, new)) in self.before.iter().zip(self.after).enumerate() {
            let may = allowed.iter().any(|range| range.contains(&at));
            assert!(old == new || may, "byte {at} changed from {old:02x} to {new:02x}");
        }
        assert_eq!(inspect::sums(self.before, seen), inspect::sums(self.after, &after), "checksums");
        assert!(seen.ttl >= 2);
        assert_eq!(after.ttl, seen.ttl - 1);
        assert_eq!((after.l4, after.end, after.flags), (seen.l4, seen.end, seen.flags));
        after.tuple()
    }
}

fn to(frame: &[u8]) -> MacBytes {
    frame[..6].try_into().expect("six bytes")
}

fn from(frame: &[u8]) -> MacBytes {
    frame[6..12].try_into().expect("six bytes")
}

/// Lets `choices` decide what comes, and checks all of it. Adds what became of each frame to `tally`.
pub fn hold(mut world: World, choices: &[u8], tally: &mut HashMap<&'static str, usize>) {
    let (mut laws, mut traffic, mut dice) = (Laws::default(), Traffic::default(), Dice::new(choices));
    while !dice.is_empty() {
        match traffic.next(&mut dice, &world) {
            Step::Change(change) => change.apply(&mut world),
            Step::Frame { ifindex, bytes } => {
                let (outcome, after) = laws.frame(&mut world, ifindex, &bytes);
                if let Outcome::Forward { ifindex, .. } = outcome {
                    traffic.sent(&after, ifindex);
                }
                *tally.entry(label(outcome)).or_default() += 1;
            }
        }
    }
}

/// The name of what became of a frame.
#[must_use]
pub fn label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass(reason) => reason.label(),
        Outcome::Drop(reason) => reason.label(),
        Outcome::Forward { .. } => "forward",
    }
}
