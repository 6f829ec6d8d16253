//! Packets of `nat` and `snat` flows, from either side: one flow, one pair of 5-tuples, kept until it has ended.

use lb_common::{
    abi::{FlowStage, Half, Mode, ServerRef, server_flags},
    conntrack,
    wire::tcp::{FIN, RST},
};

use super::{Laws, Passage, direct, from, to};
use crate::{
    entry::{self, Entry, entry},
    inspect::{self, Tuple},
    world::{self, Service, World},
};

/// What frames have told of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    at_server: Tuple,
    /// Both sides have spoken, and the client after the server: nothing may take its place.
    established: bool,
    replied: bool,
    /// The world's epoch.
    epoch: u32,
    server: ServerRef,
}

impl Laws {
    /// A client's packet was sent on.
    pub(super) fn of_a_client(
        &mut self,
        passage: &Passage<'_>,
        service: &Service,
        seen: &inspect::Seen,
        index: u16,
    ) {
        let world = passage.world;
        let became = passage.translated(seen, Some(service));
        let server = world.tables.servers[&index];
        assert_eq!(world::words(became.dst.ip()), server.address);
        assert_eq!(became.dst.port(), service.port_at_server(seen.dst.port()));
        passage.leaves_from_a_port(service, seen, became, &server);
        let lives = passage.lives(seen);
        if lives {
            let known = passage.known.expect("it lives");
            assert_eq!(became, known.at_server, "a living flow was moved");
        } else {
            assert!(seen.opens(), "in the middle of no flow");
            assert!(server.flags & server_flags::ACCEPTS_NEW != 0, "a new flow to a server that takes none");
            self.begun(world, service);
        }
        let now = entry(world, seen.tuple()).expect("its flow");
        assert_eq!((now.half, now.at_server, now.server.index()), (Half::Client, became, index));
        assert_eq!(now.whereabouts, (seen.from, passage.ifindex), "answers will not find the client");
        assert_eq!(now.seen, world.tables.now);
        let back = entry(world, became.reversed()).expect("answers find their way");
        assert_eq!((back.half, back.number), (Half::Server, now.number), "two flows, one port");
        let kept = self.flows.get(&seen.tuple()).filter(|_| lives);
        let replied = kept.is_some_and(|kept| kept.replied);
        let ends = seen.flags & (FIN | RST) != 0;
        // All draughts of connections have the same numbers: whoever acknowledges has had the answer.
        let confirms = seen.protocol == 6 && seen.flags & 2 == 0;
        let established = kept.is_some_and(|kept| kept.established) || replied && confirms;
        self.flows.insert(
            seen.tuple(),
            Seen {
                at_server: became,
                established: established && !ends,
                replied: replied && !ends,
                epoch: world.epoch,
                server: now.server,
            },
        );
    }

    /// A client's packet could not begin the flow that it wanted to begin.
    pub(super) fn has_failed(&mut self, tuple: Tuple) {
        self.flows.remove(&tuple);
    }

    /// A connection that both sides have confirmed is in the table until it has ended.
    pub(super) fn is_kept(&self, passage: &Passage<'_>, tuple: Tuple) {
        let Some(seen) = self.flows.get(&tuple) else { return };
        let owner = passage.world.tables.servers[&seen.server.index()].generation;
        if seen.established && seen.epoch == passage.world.epoch && owner == seen.server.generation() {
            let known = passage.known.unwrap_or_else(|| panic!("{seen:?} was forgotten"));
            assert_eq!(known.at_server, seen.at_server, "an established flow was replaced");
        }
    }

    /// What a server answers reaches the client whose packet it answers, as if from the VIP.
    pub(super) fn reply(&mut self, passage: &Passage<'_>, seen: &inspect::Seen, server: u16, out: u32) {
        let known = passage.known.expect("only an answer in a flow goes on without a VIP");
        let vip = passage.world.service_at(known.client.dst, known.client.protocol);
        let became = passage.translated(seen, vip.as_ref());
        assert_eq!((known.half, became), (Half::Server, known.out()));
        assert_eq!(known.server.index(), server);
        passage.to_the_client(&known, out);
        let now = entry(passage.world, seen.tuple()).expect("its flow");
        assert_eq!((now.number, now.at_server), (known.number, known.at_server));
        let Some(flow) = self.flows.get_mut(&known.client) else { return };
        if flow.at_server == known.at_server {
            flow.replied = seen.flags & (FIN | RST) == 0;
            flow.established &= flow.replied;
        }
    }
}

impl Passage<'_> {
    /// The source of a client's packet at the server.
    fn leaves_from_a_port(
        &self,
        service: &Service,
        seen: &inspect::Seen,
        became: Tuple,
        server: &lb_common::abi::Server,
    ) {
        let settings = self.world.tables.settings;
        let is_ours = became.src.port().wrapping_sub(settings.snat_first) < settings.snat_count;
        let old = self.known.is_some_and(|known| known.at_server == became);
        if service.mode == Mode::Snat {
            assert_eq!(world::words(became.src.ip()), server.source);
            let is_vip =
                self.world.services.iter().any(|s| s.at == became.src && s.protocol == became.protocol);
            assert!(old || is_ours && !is_vip, "from {}", became.src);
        } else {
            assert_eq!(became.src.ip(), seen.src.ip());
            assert!(old || is_ours || became.src.port() == seen.src.port());
        }
    }

    /// Whether the packet belongs to a flow that goes on.
    pub(super) fn lives(&self, seen: &inspect::Seen) -> bool {
        self.known.is_some_and(|known| {
            let server = self.world.tables.servers[&known.server.index()];
            // A datagram goes on as long as its server keeps flows, and so does a connection whatever SYNs come.
            let connects = seen.protocol == 6 && known.state & conntrack::CONFIRMED == 0;
            let wanted = if connects { server_flags::ACCEPTS_NEW } else { server_flags::KEEPS_FLOWS };
            let stale = server.flags & wanted == 0 || conntrack::is_over(known.state);
            known.half == Half::Client
                && server.generation == known.server.generation()
                && !(seen.opens() && stale)
        })
    }

    /// Out by the interface that the client's packets come in by, to where they come from.
    pub(super) fn to_the_client(&self, known: &Entry, out: u32) {
        let sender = if out == self.ifindex { to(self.before) } else { world::mac_of_interface(out) };
        assert_eq!((to(self.after), out), known.whereabouts);
        assert_eq!(from(self.after), sender);
    }

    /// Only the fields of a translation have changed, and the checksums are as right, or wrong, as they
    /// were. Gives the new 5-tuple.
    pub(super) fn translated(&self, seen: &inspect::Seen, service: Option<&Service>) -> Tuple {
        use inspect::What;
        let Some(What::Whole(after) | What::First(_, after)) = inspect::what(self.after) else {
            panic!("a packet with ports stays one")
        };
        let header: &[_] = if seen.src.is_ipv4() { &[8..9, 10..20] } else { &[7..8, 8..40] };
        let checksum = seen.checksum_at();
        let mut allowed: Vec<_> = header.iter().map(|r| seen.l3 + r.start..seen.l3 + r.end).collect();
        allowed.extend([0..12, seen.l4..seen.l4 + 4, checksum..checksum + 2]);
        let lowers = service.filter(|service| service.mss != 0 && seen.flags & 2 != 0);
        let before = match lowers {
            Some(service) => direct::lowered(self.before, seen, service.mss),
            None => self.before.to_vec(),
        };
        assert_eq!(before.len(), self.after.len());
        for (at, (old, new)) in before.iter().zip(self.after).enumerate() {
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

/// The flow tables of both families hold together: every flow is found from either side and nothing else is.
///
/// # Panics
/// If they do not.
pub(super) fn tables(world: &World) {
    let flows = entry::entries(world);
    for flow in &flows {
        assert_ne!(flow.stage, FlowStage::Entering, "{flow:?} was never finished");
        assert_eq!(conntrack::stage(flow.state), flow.stage, "{flow:?}");
        for tuple in [flow.client, flow.at_server.reversed()] {
            let found = entry(world, tuple).expect("it is there");
            assert_eq!(found.number, flow.number, "two flows with {tuple:?}");
        }
    }
    let replies = [&world.tables.v4.replies, &world.tables.v6.replies]
        .map(|lines| lines.iter().flatten().filter(|way| way.get() != 0).count());
    assert_eq!(replies.iter().sum::<usize>(), flows.len(), "answers to nobody's flow");
}
