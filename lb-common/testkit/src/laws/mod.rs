//! What holds for every frame and every state of the tables. Stated in terms of frames before and after and
//! of [`inspect`], not of the code under test.
//!
//! | module | whose law |
//! |---|---|
//! | [`direct`] | packets to `dr`, `ipip` and `gue` VIPs |
//! | [`translated`] | packets of `nat` and `snat` flows, from either side |
//! | [`rare`] | pieces of datagrams, ICMP errors |
//! | [`answer`] | what the balancer answers itself |
//! | [`refusal`] | what is left alone, or dropped |

mod answer;
mod direct;
mod rare;
mod refusal;
mod translated;

use std::collections::HashMap;

use lb_common::{
    abi::{FlowTag, MacBytes, Mode, server_flags},
    family::{V4, V6},
    host::{Outcome, process},
    parse::{self, Kind, Packet, Parse, Unread},
    verdict::{DropReason, Hop, PassReason},
    wire::ethernet,
};

use crate::{
    dice::Dice,
    entry::{Entry, entry},
    inspect::{self, Net, Seen, Tuple, What},
    traffic::{Step, Traffic},
    world::{self, Key, Service, World},
};

/// The law of parsing: it finds what [`inspect::what`] finds, or says why it leaves the frame alone. Gives
/// what was found.
pub fn parse(frame: &[u8]) -> Option<What> {
    let what = inspect::what(frame);
    let found = parse::ethernet(frame).map_err(Unread::Pass).and_then(|link| match link.ethertype {
        ethernet::IPV4 => V4::parse::<true, _>(frame, link.l3).map(|p| (link, Key::V4(p.key), parts(&p))),
        ethernet::IPV6 => V6::parse::<true, _>(frame, link.l3).map(|p| (link, Key::V6(p.key), parts(&p))),
        _ => Err(PassReason::NotIp.into()),
    });
    match (found, what) {
        (Ok((link, key, parts)), Some(what)) => {
            let net = network(frame, &what);
            assert_eq!((link.to.bytes(), link.from.bytes(), link.l3), (net.to, net.from, net.l3));
            let (kind, tuple, flags) = match what {
                What::Whole(seen) => (Kind::Whole, seen.tuple(), seen.flags),
                What::First(_, seen) => (Kind::FirstFragment, seen.tuple(), seen.flags),
                What::Later(net) => (Kind::LaterFragment, without_ports(&net), 0),
                What::Message(message) => (Kind::Icmp, without_ports(&message.net), 0),
            };
            assert_eq!(key, Key::from(tuple));
            let ident = net.piece.map_or(0, |(ident, _)| ident);
            assert_eq!(parts, (kind, ident, net.l3, net.l4, net.end, net.ttl, flags));
            Some(what)
        }
        (Err(Unread::Pass(PassReason::GroupAddressed)), _) => {
            assert!(frame[0] & 1 == 1, "{:02x?} is one host's address", &frame[..6]);
            None
        }
        (Err(_), None) => None,
        (found, what) => panic!("parsed {found:?} where there is {what:?}"),
    }
}

/// The network layer of a frame that was understood.
fn network(frame: &[u8], what: &What) -> Net {
    match what {
        What::Whole(_) => inspect::network(frame).expect("the network layer of a packet"),
        What::First(net, _) | What::Later(net) => *net,
        What::Message(message) => message.net,
    }
}

fn without_ports(net: &Net) -> Tuple {
    Tuple { src: (net.src, 0).into(), dst: (net.dst, 0).into(), protocol: net.protocol }
}

fn parts<F: Parse>(packet: &Packet<F>) -> (Kind, u32, usize, usize, usize, u8, u8) {
    let end = packet.l3() + packet.length as usize;
    // An atomic fragment has an identification that nobody asks for.
    let ident =
        if matches!(packet.kind(), Kind::FirstFragment | Kind::LaterFragment) { packet.ident } else { 0 };
    (packet.kind(), ident, packet.l3(), packet.l4(), end, packet.ttl, packet.flags)
}

/// Watches over a world: what it remembers, it has seen in frames.
#[derive(Debug, Default)]
pub struct Laws {
    /// Client's 5-tuple → what is known of its translated flow.
    flows: HashMap<Tuple, translated::Seen>,
    /// What the first piece of a datagram became.
    pieces: HashMap<rare::Datagram, rare::Fate>,
    /// New flows of limited VIPs, by VIP and time.
    new: HashMap<(u16, u32), u32>,
}

/// One frame, before and after.
struct Passage<'a> {
    world: &'a World,
    before: &'a [u8],
    after: &'a [u8],
    /// The interface it came by.
    ifindex: u32,
    /// The translated flow that it, or what it quotes read backwards, belonged to before it came.
    known: Option<Entry>,
    /// The flow's tag that there was, and its client's.
    tags: [Option<FlowTag>; 2],
}

impl Laws {
    /// Sends a frame through `world` and checks everything; gives what became of it and its bytes.
    pub fn frame(&mut self, world: &mut World, ifindex: u32, before: &[u8]) -> (Outcome, Vec<u8>) {
        let what = parse(before);
        let tuple = what.and_then(|what| flow_of(&what));
        let known = tuple.and_then(|tuple| entry(world, tuple));
        let service = tuple.and_then(|tuple| world.service_at(tuple.dst, tuple.protocol));
        let tags = tuple.zip(service).map_or([None; 2], |(tuple, service)| {
            [world.tag(&service, tuple), world.client_tag(&service, tuple)]
        });
        let mut after = before.to_vec();
        let outcome = process(&mut after, ifindex, &world.tables);
        let passage = Passage { world, before, after: &after, ifindex, known, tags };
        self.check(&passage, what, service, outcome);
        (outcome, after)
    }

    fn check(
        &mut self,
        passage: &Passage<'_>,
        what: Option<What>,
        service: Option<Service>,
        outcome: Outcome,
    ) {
        assert_ne!(outcome, Outcome::Drop(DropReason::RewriteFailed), "{what:?} {:02x?}", passage.before);
        assert_ne!(outcome, Outcome::Pass(PassReason::NoStage));
        let Some(what) = what else {
            assert!(matches!(outcome, Outcome::Pass(_)), "{outcome:?} for what is no packet");
            assert_eq!(passage.before, passage.after, "{outcome:?}");
            return;
        };
        let net = network(passage.before, &what);
        let ours = net.to == world::mac_of_interface(passage.ifindex);
        match (outcome, &what) {
            (Outcome::Pass(reason), _) => self.passed(passage, &what, service, reason, ours),
            (_, _) if !ours => panic!("{outcome:?} of a frame for another machine"),
            (Outcome::Drop(reason), _) => self.dropped(passage, &what, service, reason),
            (Outcome::Answer(event), _) => {
                if let What::Whole(seen) = what
                    && seen.opens()
                {
                    self.has_failed(seen.tuple());
                }
                passage.answered(&what, service, event);
            }
            (Outcome::Forward { ifindex: out, server }, What::Whole(seen)) => {
                self.whole(passage, &net, seen, service, server, out);
            }
            (Outcome::Forward { ifindex: out, server }, What::First(_, seen)) => {
                self.whole(passage, &net, seen, service, server, out);
                self.first(passage, &net, seen, service, server);
            }
            (Outcome::Forward { ifindex: out, server }, What::Later(_)) => {
                self.later(passage, &net, server, out)
            }
            (Outcome::Forward { ifindex: out, server }, What::Message(message)) => {
                self.message(passage, message, service, server, out);
            }
        }
    }

    /// A packet with ports that was sent on.
    fn whole(
        &mut self,
        passage: &Passage<'_>,
        net: &Net,
        seen: &Seen,
        service: Option<Service>,
        server: u16,
        out: u32,
    ) {
        let Some(service) = service else {
            return self.reply(passage, seen, server, out);
        };
        assert_eq!(passage.world.service_of_server(server), service, "a server of another VIP");
        passage.to_a_server(server, out);
        match service.mode {
            Mode::Local => panic!("a local VIP's packet was sent on"),
            Mode::Dr | Mode::Ipip | Mode::Gue => {
                self.went_direct(passage, &service, seen.tuple(), seen.flags, server);
                passage.carried(&service, net, Some(seen), server);
            }
            Mode::Nat | Mode::Snat => {
                self.is_kept(passage, seen.tuple());
                self.of_a_client(passage, &service, seen, server);
            }
        }
    }

    /// Counts a new flow; there may only be so many.
    fn begun(&mut self, world: &World, service: &Service) {
        if service.flags & lb_common::abi::vip_flags::LIMITED != 0 {
            let count = self.new.entry((service.id, world.clock())).or_default();
            *count += 1;
            assert!(*count <= service.limit, "{count} new flows in a tick");
        }
    }
}

/// The 5-tuple of the flow that a packet belongs to.
fn flow_of(what: &What) -> Option<Tuple> {
    match what {
        What::Whole(seen) | What::First(_, seen) => Some(seen.tuple()),
        What::Later(_) => None,
        What::Message(message) => message.about.map(|about| about.tuple.reversed()),
    }
}

impl Passage<'_> {
    /// It leaves as user space said that this server is reached, or else as the host would reach it.
    fn to_a_server(&self, server: u16, out: u32) {
        let server = self.world.tables.servers[&server];
        let hop = if server.flags & server_flags::HOP_KNOWN != 0 {
            Hop { to: server.next_hop, from: server.source_mac, ifindex: server.ifindex }
        } else {
            self.world.tables.routes[&server.address].0
        };
        assert_eq!((out, to(self.after), from(self.after)), (hop.ifindex, hop.to.bytes(), hop.from.bytes()));
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
    translated::tables(&world);
    for event in lb_common::verdict::Event::ALL {
        *tally.entry(event.label()).or_default() += world.tables.events(*event) as usize;
    }
}

/// The name of what became of a frame.
#[must_use]
pub fn label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass(reason) => reason.label(),
        Outcome::Drop(reason) => reason.label(),
        Outcome::Answer(event) => event.label(),
        Outcome::Forward { .. } => "forward",
    }
}
