//! Makes both ends of a connection speak whose server has been halted.
//!
//! The kernel program answers every packet of such a connection with a reset; but one that is idle sends none. A TCP
//! segment with a sequence number that cannot be right is answered with an acknowledgement that says what would be
//! (RFC 9293 §3.10.7.4), and that answer is all it takes. Nobody here has to know the right numbers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use lb_common::{
    abi::{Flow, protocol},
    family::{Family, V4, V6},
    wire::{checksum, ipv4, ipv6, tcp},
};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use tracing::warn;

use crate::datapath::flows::Halted;

/// After this many connections there is a pause.
const ROW: u32 = 100;

/// How long it is: at most a hundred thousand connections in a second.
const PAUSE: Duration = Duration::from_millis(1);

/// Time to live of what is sent.
const TTL: u8 = 64;

/// An IP packet, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    to: IpAddr,
    bytes: Vec<u8>,
}

/// Sends such segments.
#[derive(Debug, Default)]
pub struct Poker {
    sockets: Option<[Option<OwnedFd>; 2]>,
    sent: u32,
}

impl Poker {
    /// Makes both ends of a connection speak. What cannot be sent is not: the end learns when it next speaks itself.
    pub fn poke(&mut self, connection: &Halted) {
        let [v4, v6] = self.sockets.get_or_insert_with(|| {
            [AddressFamily::INET, AddressFamily::INET6].map(|family| {
                let opened = socket(family, SocketType::RAW, Some(ipproto::RAW));
                opened.inspect_err(|error| warn!("idle connections of halted servers stay: {error}")).ok()
            })
        });
        let (socket, packets) = match connection {
            Halted::V4(flow) => (v4, packets::<V4>(flow)),
            Halted::V6(flow) => (v6, packets::<V6>(flow)),
        };
        let Some(socket) = socket else { return };
        for packet in packets {
            let _ = sendto(&*socket, &packet.bytes, SendFlags::DONTWAIT, &SocketAddr::new(packet.to, 0));
        }
        self.sent = self.sent.wrapping_add(1);
        if self.sent.is_multiple_of(ROW) {
            thread::sleep(PAUSE);
        }
    }
}

/// To the client as from the VIP, and to the server as from whom it takes for its client.
fn packets<F: Header>(flow: &Flow<F::Addr>) -> [Packet; 2] {
    let to_client = packet::<F>((flow.vip, flow.vip_port), (flow.client, flow.client_port));
    let to_server = packet::<F>((flow.source, flow.source_port), (flow.server, flow.server_port));
    [to_client, to_server]
}

fn packet<F: Header>(from: (F::Addr, u16), to: (F::Addr, u16)) -> Packet {
    let mut segment = [0; tcp::HEADER];
    segment[..2].copy_from_slice(&from.1.to_be_bytes());
    segment[2..4].copy_from_slice(&to.1.to_be_bytes());
    // Five words of header, an acknowledgement, no window.
    (segment[12], segment[13]) = (0x50, tcp::ACK);
    let pseudo = u64::from((tcp::HEADER as u16).to_be()) + u64::from(u16::from(protocol::TCP).to_be());
    let sum = F::sum(from.0) + F::sum(to.0) + pseudo + checksum::sum(&segment);
    segment[16..18].copy_from_slice(&checksum::finish(sum).to_ne_bytes());
    let mut bytes = F::header(from.0, to.0);
    bytes.extend_from_slice(&segment);
    Packet { to: F::address(to.0), bytes }
}

/// An IP version whose header is written here.
trait Header: Family {
    /// An address of it.
    fn address(address: Self::Addr) -> IpAddr;
    /// The header of a packet with a bare TCP header.
    fn header(from: Self::Addr, to: Self::Addr) -> Vec<u8>;
}

impl Header for V4 {
    fn address(address: u32) -> IpAddr {
        Ipv4Addr::from(address.to_ne_bytes()).into()
    }

    fn header(from: u32, to: u32) -> Vec<u8> {
        let mut header = vec![0; ipv4::HEADER];
        let length = (ipv4::HEADER + tcp::HEADER) as u16;
        header[0] = 0x45;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        (header[8], header[9]) = (TTL, protocol::TCP);
        header[12..16].copy_from_slice(&from.to_ne_bytes());
        header[16..20].copy_from_slice(&to.to_ne_bytes());
        let sum = checksum::finish(checksum::sum(&header));
        header[10..12].copy_from_slice(&sum.to_ne_bytes());
        header
    }
}

impl Header for V6 {
    fn address(address: [u32; 4]) -> IpAddr {
        Ipv6Addr::from(bytes_of(address)).into()
    }

    fn header(from: [u32; 4], to: [u32; 4]) -> Vec<u8> {
        let mut header = vec![0; ipv6::HEADER];
        header[0] = 0x60;
        header[4..6].copy_from_slice(&(tcp::HEADER as u16).to_be_bytes());
        (header[6], header[7]) = (protocol::TCP, TTL);
        header[8..24].copy_from_slice(&bytes_of(from));
        header[24..40].copy_from_slice(&bytes_of(to));
        header
    }
}

/// The bytes of an IPv6 address, which lies in network order.
fn bytes_of(words: [u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use lb_common::{
        family::{words4, words6},
        parse::Parse,
    };

    use super::*;

    /// Both packets as the kernel program reads them.
    fn check<F: Header + Parse>(flow: &Flow<F::Addr>, ethertype: [u8; 2]) {
        let ways = [flow.key().reversed(), flow.reply_key().reversed()];
        for (packet, key) in packets::<F>(flow).into_iter().zip(ways) {
            let mut frame = vec![2; 12];
            frame.extend_from_slice(&ethertype);
            frame.extend_from_slice(&packet.bytes);
            let parsed = F::parse::<false, _>(&frame[..], 14).expect("a packet");
            assert_eq!((parsed.key, packet.to), (key, F::address(key.dst)));
            assert_eq!(parsed.flags, tcp::ACK);
            let tcp = &packet.bytes[packet.bytes.len() - tcp::HEADER..];
            let pseudo = u64::from((tcp.len() as u16).to_be()) + u64::from(6u16.to_be());
            let sum = F::sum(key.src) + F::sum(key.dst) + pseudo + checksum::sum(tcp);
            assert_eq!(checksum::finish(sum), 0, "the checksum fits");
        }
    }

    #[test]
    fn both_ends_get_a_segment_of_their_connection() {
        let ports = Flow {
            client_port: 1_234,
            vip_port: 80,
            source_port: 2_345,
            server_port: 8_080,
            ..Flow::default()
        };
        check::<V4>(
            &Flow {
                client: words4([192, 0, 2, 9])[0],
                vip: words4([192, 0, 2, 1])[0],
                source: words4([10, 0, 0, 1])[0],
                server: words4([10, 0, 0, 2])[0],
                protocol: 6,
                ..ports
            },
            [8, 0],
        );
        let address = |last| words6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).octets());
        let (client, vip, source, server) = (address(1), address(2), address(3), address(4));
        check::<V6>(
            &Flow {
                client,
                vip,
                source,
                server,
                client_port: 1_234,
                vip_port: 80,
                source_port: 2_345,
                server_port: 8_080,
                protocol: 6,
                ..Flow::default()
            },
            [0x86, 0xdd],
        );
    }
}
