//! Pieces of datagrams follow the first; errors reach whom the packet they quote is about.

use std::net::IpAddr;

use lb_common::abi::{Half, Mode};

use super::{Laws, Passage};
use crate::{
    entry::{Entry, entry},
    inspect::{self, Message, Net, Seen, Sums, Tuple, What},
    world::Service,
};

/// What the pieces of a datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Datagram {
    src: IpAddr,
    dst: IpAddr,
    ident: u32,
    protocol: u8,
}

impl Datagram {
    pub(super) fn of(net: &Net) -> Self {
        let ident = net.piece.expect("a piece").0;
        Self { src: net.src, dst: net.dst, ident, protocol: net.protocol }
    }
}

/// What the first piece became.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    service: Option<Service>,
    server: u16,
    /// Its 5-tuple, and its flow, if that is translated.
    translated: Option<(Tuple, Entry)>,
    /// When that was.
    clock: u32,
}

/// How long the first piece is remembered.
const PATIENCE: u32 = 60;

impl Laws {
    /// The first piece was sent on.
    pub(super) fn first(
        &mut self,
        passage: &Passage<'_>,
        net: &Net,
        seen: &Seen,
        service: Option<Service>,
        server: u16,
    ) {
        let is_direct = service.is_some_and(|s| matches!(s.mode, Mode::Dr | Mode::Ipip | Mode::Gue));
        let world = passage.world;
        let flow = || (seen.tuple(), entry(world, seen.tuple()).expect("its flow"));
        let translated = (!is_direct).then(flow);
        assert_eq!(inspect::network(passage.before), Some(*net));
        self.pieces.insert(Datagram::of(net), Fate { service, server, translated, clock: world.clock() });
    }

    /// What became of the first piece, if it came so lately that the others are still waited for.
    pub(super) fn fate(&self, passage: &Passage<'_>, net: &Net) -> Option<Fate> {
        let fate = self.pieces.get(&Datagram::of(net)).copied();
        fate.filter(|fate| passage.world.clock() - fate.clock <= PATIENCE)
    }

    /// Another piece was sent on.
    pub(super) fn later(&mut self, passage: &Passage<'_>, net: &Net, server: u16, out: u32) {
        let fate = self.fate(passage, net).expect("its first piece was sent on, and lately");
        let Some((tuple, flow)) = fate.translated else {
            let service = fate.service.expect("direct ways lead to VIPs");
            assert_eq!(server, fate.server, "pieces of one datagram on two servers");
            passage.to_a_server(server, out);
            passage.carried(&service, net, None, server);
            return;
        };
        let after = inspect::network(passage.after).expect("a piece");
        let header: &[_] = if net.src.is_ipv4() { &[8..9, 10..20] } else { &[7..8, 8..40] };
        let mut allowed: Vec<_> = header.iter().map(|r| net.l3 + r.start..net.l3 + r.end).collect();
        allowed.push(0..12);
        for (at, (old, new)) in passage.before.iter().zip(passage.after).enumerate() {
            let may = allowed.iter().any(|range| range.contains(&at));
            assert!(old == new || may, "byte {at} of a piece changed from {old:02x} to {new:02x}");
        }
        assert_eq!(inspect::header_sum(passage.before, net.l3), inspect::header_sum(passage.after, net.l3));
        assert_eq!((after.ttl, after.piece), (net.ttl - 1, net.piece));
        // The flow may have ended, and its record be another's of the same machines.
        let same = |now: &Entry| (now.client, now.at_server) == (flow.client, flow.at_server);
        if let Some(known) = entry(passage.world, tuple).filter(same) {
            assert_eq!((after.src, after.dst), (known.out().src.ip(), known.out().dst.ip()));
            match known.half {
                Half::Client => passage.to_a_server(server, out),
                Half::Server => passage.to_the_client(&known, out),
            }
        }
    }

    /// An error was sent on.
    pub(super) fn message(
        &mut self,
        passage: &Passage<'_>,
        message: &Message,
        service: Option<Service>,
        server: u16,
        out: u32,
    ) {
        let about = message.about.expect("only errors about packets of flows are sent on");
        let client = about.tuple.reversed();
        match service.map(|service| (service, service.mode)) {
            Some((_, Mode::Local)) => panic!("an error about a local VIP was sent on"),
            Some((service, Mode::Dr | Mode::Ipip | Mode::Gue)) => {
                passage.to_a_server(server, out);
                self.went_direct(passage, &service, client, 0, server);
                passage.carried(&service, &message.net, None, server);
            }
            _ => {
                let known = passage.known.expect("an error about a flow");
                assert!(message.net.ttl >= 2);
                assert_eq!(known.server.index(), server);
                let own = known.out().reversed();
                passage.quote_translated(message, own);
                match known.half {
                    Half::Client => passage.to_a_server(server, out),
                    Half::Server => passage.to_the_client(&known, out),
                }
                let after = inspect::network(passage.after).expect("a message");
                // Who gets it sees only whom it knows: with `snat` the balancer.
                let snat = known.at_server.src.ip() != known.client.src.ip();
                let reporter = if snat { own.dst.ip() } else { message.net.src };
                assert_eq!((after.src, after.dst), (reporter, own.src.ip()));
            }
        }
    }
}

impl Passage<'_> {
    /// The quoted packet is `own` now: what its receiver once sent. Nothing else has changed, and all checksums
    /// are as right as they were.
    fn quote_translated(&self, message: &Message, own: Tuple) {
        let Some(What::Message(after)) = inspect::what(self.after) else { panic!("a message stays one") };
        let (old, new) = (message.about.expect("a quote"), after.about.expect("a quote stays one"));
        assert_eq!((new.tuple, new.l3, new.l4), (own, old.l3, old.l4));
        assert_eq!(
            (after.net.ttl, after.kind, after.net.end),
            (message.net.ttl - 1, message.kind, message.net.end)
        );
        let net = &message.net;
        let (outer, inner) =
            if net.src.is_ipv4() { ([8..9, 10..20], 10..20) } else { ([7..8, 8..40], 8..40) };
        let sum = if own.protocol == 17 { 6 } else { 16 };
        let mut allowed: Vec<_> = outer.iter().map(|r| net.l3 + r.start..net.l3 + r.end).collect();
        allowed.push(old.l3 + inner.start..old.l3 + inner.end);
        allowed.extend([0..12, net.l4 + 2..net.l4 + 4, old.l4..old.l4 + 4, old.l4 + sum..old.l4 + sum + 2]);
        for (at, (old, new)) in self.before.iter().zip(self.after).enumerate() {
            let may = allowed.iter().any(|range| range.contains(&at));
            assert!(old == new || may, "byte {at} of a message changed from {old:02x} to {new:02x}");
        }
        assert_eq!(
            inspect::header_sum(self.before, net.l3),
            inspect::header_sum(self.after, net.l3),
            "outer"
        );
        assert_eq!(
            inspect::header_sum(self.before, old.l3),
            inspect::header_sum(self.after, old.l3),
            "quoted"
        );
        // What is quoted beyond the end of its packet is no part of it.
        if old.l4 + 18 <= net.end || net.end >= self.before.len() {
            assert_eq!(
                inspect::message_sum(self.before, message),
                inspect::message_sum(self.after, &after),
                "ICMP"
            );
        }
        if self.before.len() >= old.l4 + sum + 2 {
            assert_eq!(
                self.quoted_sum(self.before, message),
                self.quoted_sum(self.after, &after),
                "quoted transport"
            );
        }
    }

    /// What the checksum of the quoted packet would come to if what is missing were zeros.
    fn quoted_sum(&self, frame: &[u8], message: &Message) -> Option<u16> {
        let about = message.about.expect("a quote");
        let seen = Seen {
            to: message.net.to,
            from: message.net.from,
            src: about.tuple.src,
            dst: about.tuple.dst,
            protocol: about.tuple.protocol,
            flags: 0,
            ttl: 0,
            l3: about.l3,
            l4: about.l4,
            end: frame.len(),
        };
        let Sums { transport, .. } = inspect::sums(frame, &seen);
        transport
    }
}
