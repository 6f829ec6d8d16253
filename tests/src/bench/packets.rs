//! The frames of a case, and what distinguishes its flows.
//!
//! Every flow is four words, written into the frame before each run: the last 32 bits of the source, those of
//! the destination, both ports, and the identification of a fragment. Checksums are those of the frame
//! before that; nobody looks at them on the way, they are only adjusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{
    bench::{Course, Flow, HEAD, WORDS},
    wire::{checksum, tcp},
};
use lb_testkit::draft::Draft;

use super::{
    bed::{CLIENT_MAC, OWN_MAC, SERVER_MAC},
    case::{Kind, Mode, Service},
};
use crate::address::Family;

/// Port of all VIPs and servers.
pub const PORT: u16 = 80;

/// A place in every frame where nobody looks.
const NOWHERE: u32 = HEAD as u32 - 4;

/// Behind every transport header: enough for [`HEAD`].
const PAYLOAD: [u8; 100] = [0; 100];

/// An IPv6 fragment header: the protocol after it is filled in, the rest says "first, more follow".
const FIRST6: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 0];

/// The same for one that begins at byte 1,480.
const LATER6: [u8; 8] = [0, 0, 5, 0xc8, 0, 0, 0, 0];

const FRAGMENT_HEADER: u8 = 44;

/// IPv4's "more fragments".
const FIRST4: u16 = 0x2000;

/// IPv4's fragment offset of byte 1,480.
const LATER4: u16 = 185;

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A TCP segment with these flags, or a datagram.
    FromClient(u8),
    /// A SYN of a flow that nobody knows, from the same client.
    Stranger,
    /// As [`Self::FromClient`] from the server, to where the client's packets seem to come from.
    FromServer(u8),
    /// A TCP segment for the balancer itself.
    ToHost,
    /// The first fragment of a TCP segment.
    First,
    /// Another fragment of it.
    Later,
    /// An ICMP error about a TCP segment to a client.
    Error,
}

/// What a case measures.
#[must_use]
pub fn measured(kind: Kind) -> Packet {
    match kind {
        Kind::Established | Kind::Flooded | Kind::Udp => Packet::FromClient(tcp::ACK),
        Kind::Flood => Packet::Stranger,
        Kind::Reply => Packet::FromServer(tcp::ACK),
        Kind::Syn => Packet::FromClient(tcp::SYN),
        Kind::NotVip => Packet::ToHost,
        Kind::Fragment => Packet::Later,
        Kind::IcmpError => Packet::Error,
    }
}

/// A frame and where the words of its flow go.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The frame.
    pub frame: Vec<u8>,
    places: [u32; WORDS],
    recorded: [u32; WORDS],
}

impl Shape {
    /// The frame of a packet of a service.
    #[must_use]
    pub fn new(service: &Service, packet: Packet) -> Self {
        let family = service.client;
        let (client, vip) = (socket(client(family, 0)), socket(vip(family, 0)));
        let draft = |src, dst, flags| match service.udp {
            true => Draft::udp(src, dst),
            false => Draft::tcp(src, dst, flags),
        };
        let from = [CLIENT_MAC, SERVER_MAC][usize::from(matches!(packet, Packet::FromServer(_)))];
        let draft = match packet {
            Packet::FromClient(flags) => draft(client, vip, flags),
            Packet::Stranger => draft(client, vip, tcp::SYN),
            Packet::FromServer(flags) => {
                let to = if service.mode == Mode::Nat { client } else { socket(snat_source(family)) };
                draft(socket(server(family, 0)), to, flags)
            }
            Packet::ToHost => Draft::ack(client, socket(own(family))),
            Packet::First | Packet::Later => fragment(Draft::ack(client, vip), family, packet),
            Packet::Error => error(family, &Draft::ack(vip, client).payload(&PAYLOAD).bytes()),
        };
        let draft = if packet == Packet::Error { draft } else { draft.payload(&PAYLOAD) };
        let frame = draft.macs(OWN_MAC.bytes(), from.bytes()).bytes();
        assert!(frame.len() >= HEAD, "a frame of {} bytes", frame.len());
        Self { frame, places: places(family, packet), recorded: recorded(family) }
    }

    /// What the program that makes frames is told.
    #[must_use]
    pub fn course(&self, flows: u32) -> Course {
        let mut head = [0; HEAD / 8];
        for (word, bytes) in head.iter_mut().zip(self.frame.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Course {
            head,
            length: self.frame.len() as u32,
            flows,
            places: self.places,
            recorded: self.recorded,
            ..Course::default()
        }
    }
}

fn fragment(draft: Draft, family: Family, packet: Packet) -> Draft {
    let first = packet == Packet::First;
    match family {
        Family::V4 => draft.fragment(if first { FIRST4 } else { LATER4 }),
        Family::V6 => draft.extension(FRAGMENT_HEADER, if first { &FIRST6 } else { &LATER6 }),
    }
}

/// A router's word that `refused` is too large (RFC 792 and RFC 1191, RFC 4443).
fn error(family: Family, refused: &[u8]) -> Draft {
    const MTU: u16 = 1_400;
    let (number, kind, code) = match family {
        Family::V4 => (1, 3, 4),
        Family::V6 => (58, 2, 0),
    };
    let [high, low] = MTU.to_be_bytes();
    let mut message = vec![kind, code, 0, 0, 0, 0, high, low];
    message.extend(&refused[14..]);
    let sum = checksum::finish(checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_ne_bytes());
    Draft::other(socket(router(family)), socket(vip(family, 0)), number).payload(&message)
}

/// Where the words of a flow go: behind 14 bytes of Ethernet.
fn places(family: Family, packet: Packet) -> [u32; WORDS] {
    let [src, dst, ports] = plain(family);
    match (packet, family) {
        // The packet in question goes the other way: the client is its destination. It lies behind the IP
        // header and 8 bytes of ICMP.
        (Packet::Error, Family::V4) => [dst + 28, src + 28, ports + 28, NOWHERE],
        (Packet::Error, Family::V6) => [dst + 48, src + 48, ports + 48, NOWHERE],
        // Identification and fragment offset are one word; a later fragment has no ports.
        (Packet::First, Family::V4) => [src, dst, ports, 18],
        (Packet::Later, Family::V4) => [src, dst, NOWHERE, 18],
        (Packet::First, Family::V6) => [src, dst, ports + 8, 58],
        (Packet::Later, Family::V6) => [src, dst, NOWHERE, 58],
        _ => [src, dst, ports, NOWHERE],
    }
}

/// Last words of both addresses, and the ports.
fn plain(family: Family) -> [u32; 3] {
    match family {
        Family::V4 => [26, 30, 34],
        Family::V6 => [34, 50, 54],
    }
}

/// In the order of an answer: what has become of the destination is its source.
fn recorded(family: Family) -> [u32; WORDS] {
    let [src, dst, ports] = plain(family);
    [dst, src, ports, NOWHERE]
}

/// The flows of a service, in an order that memory cannot guess; as its clients' packets have them.
#[must_use]
pub fn flows(service: &Service) -> Vec<Flow> {
    let mut flows: Vec<Flow> = (0..service.flows).map(|number| flow(service, number)).collect();
    // Fisher and Yates, with SplitMix64 as the dice: the same order every time.
    let mut state = 1_u64;
    for last in (1..flows.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut dice = state;
        dice = (dice ^ (dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        dice = (dice ^ (dice >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        dice ^= dice >> 31;
        flows.swap(last, (dice % (last as u64 + 1)) as usize);
    }
    flows
}

fn flow(service: &Service, number: u32) -> Flow {
    // Sixteen connections from each client.
    let port = 10_000 + (number % 16) as u16 * 3_001;
    let vip = vip(service.client, number % service.vips);
    [last(client(service.client, number / 16)), last(vip), ports(port, PORT), number]
}

/// The words of flows as a kind of packet has them.
#[must_use]
pub fn words(service: &Service, packet: Packet, flows: &[Flow]) -> Vec<Flow> {
    let word = |&[src, dst, ports, number]: &Flow| match packet {
        Packet::FromClient(_) | Packet::FromServer(_) => [src, dst, ports, 0],
        Packet::Stranger => [src, dst, strange(ports), 0],
        Packet::ToHost => [src, last(own(service.client)), ports, 0],
        Packet::Error => [src, dst, ports.rotate_left(16), 0],
        Packet::First => [src, dst, ports, identification(service.client, number, FIRST4)],
        Packet::Later => [src, dst, 0, identification(service.client, number, LATER4)],
    };
    flows.iter().map(word).collect()
}

/// The flows of the servers' answers, from what was recorded of their clients' packets.
#[must_use]
pub fn answers(recorded: &[Flow]) -> Vec<Flow> {
    recorded.iter().map(|&[src, dst, ports, _]| [src, dst, ports.rotate_left(16), 0]).collect()
}

fn identification(family: Family, number: u32, fragment: u16) -> u32 {
    match family {
        Family::V4 => u32::from_ne_bytes(
            [(number as u16).to_be_bytes(), fragment.to_be_bytes()]
                .as_flattened()
                .try_into()
                .expect("two twos"),
        ),
        Family::V6 => number.to_be(),
    }
}

/// The ports of a flow, but for the client's, which is one that it does not use.
fn strange(ports: u32) -> u32 {
    (u32::from_be(ports) + (1 << 16)).to_be()
}

fn ports(src: u16, dst: u16) -> u32 {
    (u32::from(src) << 16 | u32::from(dst)).to_be()
}

/// The last word of an address, as it lies in a frame.
fn last(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits().to_be(),
        IpAddr::V6(address) => (address.to_bits() as u32).to_be(),
    }
}

fn socket(address: IpAddr) -> SocketAddr {
    (address, PORT).into()
}

/// Address number `number` of a network of this bench.
fn address(family: Family, v4: [u8; 4], v6: u16, number: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::from_be_bytes(v4) + number).into(),
        Family::V6 => {
            Ipv6Addr::from_bits(u128::from(0x2001_0db8_u32) << 96 | u128::from(v6) << 80 | u128::from(number))
                .into()
        }
    }
}

/// The address of a client.
#[must_use]
pub fn client(family: Family, number: u32) -> IpAddr {
    address(family, [10, 64, 0, 1], 1, number + 1)
}

/// The address of a VIP.
#[must_use]
pub fn vip(family: Family, number: u32) -> IpAddr {
    address(family, [192, 0, 2, 1], 2, number + 1)
}

/// The address of a server.
#[must_use]
pub fn server(family: Family, number: u32) -> IpAddr {
    address(family, [10, 128, 0, 1], 3, number + 1)
}

/// The address that `snat` and tunnels send from.
#[must_use]
pub fn snat_source(family: Family) -> IpAddr {
    address(family, [198, 51, 100, 1], 4, 1)
}

/// An address of the balancer that is no VIP.
fn own(family: Family) -> IpAddr {
    address(family, [198, 51, 100, 2], 4, 2)
}

/// A router in front of the clients.
fn router(family: Family) -> IpAddr {
    address(family, [203, 0, 113, 1], 5, 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use lb_testkit::inspect;

    use super::*;
    use crate::bench::case;

    fn service(name: &str) -> Service {
        case::all().into_iter().find(|case| case.to_string() == name).expect("a case").service
    }

    /// The frame as it is run for one flow.
    fn frame(shape: &Shape, flow: Flow) -> Vec<u8> {
        let course = shape.course(1);
        let mut frame = shape.frame.clone();
        for (place, word) in course.places.into_iter().zip(flow) {
            frame[place as usize..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        frame
    }

    #[test]
    fn a_flow_is_what_the_frame_says() {
        for name in ["dr-4/established/1k/64-vips", "dr-6/established/1k/64-vips"] {
            let service = service(name);
            let packet = Packet::FromClient(tcp::ACK);
            let shape = Shape::new(&service, packet);
            let flows = flows(&service);
            let seen: HashSet<_> = words(&service, packet, &flows)
                .into_iter()
                .map(|flow| inspect::read(&frame(&shape, flow)).expect("a packet"))
                .map(|seen| (seen.src, seen.dst))
                .collect();
            assert_eq!(seen.len(), 1_000);
            let vips: HashSet<_> = seen.iter().map(|(_, dst)| *dst).collect();
            assert_eq!(vips, (0..64).map(|number| socket(vip(service.client, number))).collect());
            assert!(seen.iter().all(|(src, _)| src.port() >= 10_000));
        }
    }

    #[test]
    fn an_error_quotes_what_went_to_the_client() {
        for (name, header) in [("dr-4/icmp-error/1k", 20), ("dr-6/icmp-error/1k", 40)] {
            let service = service(name);
            let flows = flows(&service);
            let shape = Shape::new(&service, Packet::Error);
            let of_client = Shape::new(&service, Packet::FromClient(tcp::ACK));
            for index in [0, 500, 999] {
                let packet = Packet::FromClient(tcp::ACK);
                let came = frame(&of_client, words(&service, packet, &flows)[index]);
                let came = inspect::read(&came).expect("a packet");
                let error = frame(&shape, words(&service, Packet::Error, &flows)[index]);
                let quoted = [&error[..14], &error[14 + header + 8..]].concat();
                let quoted = inspect::read(&quoted).expect("a packet");
                assert_eq!((quoted.src, quoted.dst), (came.dst, came.src));
            }
        }
    }
}
