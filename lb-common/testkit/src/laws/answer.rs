//! What the balancer answers itself: to whom it is due, and byte by byte.

use lb_common::{
    abi::{Half, Mode, server_flags, vip_flags},
    verdict::Event,
};

use super::{Passage, from, to};
use crate::{
    inspect::{self, Message, Net, Seen, Sums, What},
    world::Service,
};

impl Passage<'_> {
    pub(super) fn answered(&self, what: &What, service: Option<Service>, event: Event) {
        let net = super::network(self.before, what);
        assert_eq!((to(self.after), from(self.after)), (net.from, net.to), "back to whom it came from");
        assert_eq!(self.after[12..net.l3], self.before[12..net.l3], "with the same tags");
        let after = inspect::network(self.after).expect("an answer is a packet");
        assert_eq!((after.src, after.dst, after.ttl), (net.dst, net.src, 64));
        match (event, what) {
            (Event::EchoAnswered, What::Message(message)) => self.echoed(message),
            (Event::ResetSent, What::Whole(seen)) => self.reset(seen, service),
            (Event::TooBigSent, _) => self.too_big(&net, service),
            (Event::UnreachableSent, What::Whole(_) | What::First(..)) => {
                let service = service.expect("a VIP");
                assert!(service.flags & vip_flags::EMPTY_REJECT != 0 && service.protocol == 17);
                assert!(!self.world.is_whole(&service));
                self.quotes(&net, if net.src.is_ipv4() { [3, 3] } else { [1, 4] }, [0; 4]);
            }
            (event, what) => panic!("{event:?} of {what:?}"),
        }
    }

    fn echoed(&self, message: &Message) {
        assert!(message.is_echo());
        let net = message.net;
        assert!(self.world.services.iter().any(|service| service.at.ip() == net.dst), "it is no VIP's");
        let mut expected = self.before[net.l4..].to_vec();
        expected[0] = if net.src.is_ipv4() { 0 } else { 129 };
        expected[2..4].copy_from_slice(&self.after[net.l4 + 2..net.l4 + 4]);
        assert_eq!(self.after[net.l4..], expected, "what was asked comes back");
        assert_eq!(inspect::header_sum(self.before, net.l3), inspect::header_sum(self.after, net.l3));
        let Some(What::Message(after)) = inspect::what(self.after) else { panic!("a message") };
        assert_eq!(inspect::message_sum(self.before, message), inspect::message_sum(self.after, &after));
    }

    /// RFC 9293 §3.10.7.1.
    fn reset(&self, seen: &Seen, service: Option<Service>) {
        assert!(seen.protocol == 6 && seen.flags & 4 == 0, "a reset is never answered");
        let halted = self.known.is_some_and(|known| {
            self.world.tables.servers[&known.server.index()].flags & server_flags::HALTED != 0
        });
        let refused = service.is_some_and(|service| {
            service.flags & vip_flags::EMPTY_REJECT != 0 && !self.world.is_whole(&service)
        });
        let of_a_server = service.is_none() && self.known.is_some_and(|known| known.half == Half::Server);
        assert!(halted && (service.is_some() || of_a_server) || refused, "a reset without a reason");
        let after = inspect::read(self.after).expect("a segment");
        assert_eq!(after.tuple(), seen.tuple().reversed());
        let long =
            |frame: &[u8], at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
        let (l4, flags) = (seen.l4, seen.flags);
        let data = seen.end - l4 - usize::from(self.before[l4 + 12] >> 4) * 4;
        let sent = data as u32 + u32::from(flags & 2 != 0) + u32::from(flags & 1 != 0);
        let expected = if flags & 0x10 != 0 {
            (0x04, long(self.before, l4 + 8), 0)
        } else {
            (0x14, 0, long(self.before, l4 + 4).wrapping_add(sent))
        };
        assert_eq!((after.flags, long(self.after, l4 + 4), long(self.after, l4 + 8)), expected);
        assert_eq!(self.after.len(), l4 + 20, "a bare header");
        assert_eq!(after.end, self.after.len());
        let header = inspect::header_sum(self.before, seen.l3);
        assert_eq!(inspect::header_sum(self.after, seen.l3), header);
        assert_eq!(inspect::sums(self.after, &after).transport, Some(0));
    }

    fn too_big(&self, net: &Net, service: Option<Service>) {
        // A later piece has no ports to find its VIP by; its address and protocol have one VIP with small tunnels.
        let is_its = |s: &&Service| s.at.ip() == net.dst && s.protocol == net.protocol && s.mtu != 0;
        let mut at_address = self.world.services.iter().filter(is_its);
        let service = service.or(at_address.next().copied()).expect("a VIP");
        let outer =
            if service.servers_four { 20 } else { 40 } + if service.mode == Mode::Gue { 8 } else { 0 };
        assert!(net.end - net.l3 + outer > service.mtu.into(), "it was not too big");
        let [high, low] = (service.mtu - outer as u16).to_be_bytes();
        self.quotes(net, if net.src.is_ipv4() { [3, 4] } else { [2, 0] }, [0, 0, high, low]);
    }

    /// An ICMP error that quotes the packet's IP header and 8 bytes more.
    fn quotes(&self, net: &Net, kind: [u8; 2], rest: [u8; 4]) {
        let Some(What::Message(after)) = inspect::what(self.after) else { panic!("a message") };
        assert_eq!(after.kind, Some(kind));
        let (l3, l4) = (net.l3, after.net.l4);
        assert_eq!(l4, l3 + if net.src.is_ipv4() { 20 } else { 40 });
        assert_eq!(self.after[l4 + 4..l4 + 8], rest);
        assert_eq!(self.after[l4 + 8..], self.before[l3..net.l4 + 8], "the quote");
        assert_eq!(after.net.end, self.after.len());
        let right = Sums { header: Some(0), transport: Some(0) };
        let found = Sums {
            header: Some(inspect::header_sum(self.after, l3)),
            transport: Some(inspect::message_sum(self.after, &after)),
        };
        assert_eq!(found, right);
    }
}
