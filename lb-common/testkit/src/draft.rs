//! Frames, described field by field. What is not said is what an ordinary host would send; lengths and
//! checksums come out right, so that a test that wants them wrong has to say it.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    abi::{MacBytes, protocol},
    wire::{checksum, ethernet, tcp},
};

/// What is on top of IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with these flags and options (a multiple of 4 bytes).
    Tcp(u8, Vec<u8>),
    /// UDP; `false` leaves the checksum 0.
    Udp(bool),
    /// Another protocol; the payload is all there is.
    Other(u8),
    /// ICMP or ICMPv6: type, code, the four bytes behind the checksum; the payload follows.
    Icmp([u8; 2], [u8; 4]),
}

/// A frame that is not written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    to: MacBytes,
    from: MacBytes,
    tags: Vec<(u16, u16)>,
    src: SocketAddr,
    dst: SocketAddr,
    ttl: u8,
    class: u8,
    ident: u16,
    fragment: u16,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    numbers: (u32, u32),
    payload: Vec<u8>,
    trailer: usize,
}

impl Draft {
    fn new(src: SocketAddr, dst: SocketAddr, transport: Transport) -> Self {
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "both ends speak the same IP");
        Self {
            to: crate::world::mac_of_interface(crate::world::FRONT),
            from: crate::world::CLIENT_MAC,
            tags: Vec::new(),
            src,
            dst,
            ttl: 64,
            class: 0,
            ident: 0x1234,
            fragment: 0,
            options: Vec::new(),
            extensions: Vec::new(),
            transport,
            numbers: (1, 2),
            payload: Vec::new(),
            trailer: 0,
        }
    }

    /// A TCP segment with these flags (see [`tcp`]).
    #[must_use]
    pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        Self::new(src, dst, Transport::Tcp(flags, Vec::new()))
    }

    /// A TCP segment that opens a connection.
    #[must_use]
    pub fn syn(src: SocketAddr, dst: SocketAddr) -> Self {
        Self::tcp(src, dst, tcp::SYN)
    }

    /// A TCP segment within a connection.
    #[must_use]
    pub fn ack(src: SocketAddr, dst: SocketAddr) -> Self {
        Self::tcp(src, dst, tcp::ACK)
    }

    /// Other numbers of TCP than 1 and 2: the segment's own and the one it acknowledges.
    #[must_use]
    pub fn numbers(self, sequence: u32, acknowledged: u32) -> Self {
        Self { numbers: (sequence, acknowledged), ..self }
    }

    /// A UDP datagram with a checksum.
    #[must_use]
    pub fn udp(src: SocketAddr, dst: SocketAddr) -> Self {
        Self::new(src, dst, Transport::Udp(true))
    }

    /// A packet of protocol number `number`; its ports do not count.
    #[must_use]
    pub fn other(src: SocketAddr, dst: SocketAddr, number: u8) -> Self {
        Self::new(src, dst, Transport::Other(number))
    }

    /// An ICMP or ICMPv6 message; ports do not count.
    #[must_use]
    pub fn icmp(src: SocketAddr, dst: SocketAddr, [kind, code]: [u8; 2], rest: [u8; 4]) -> Self {
        Self::new(src, dst, Transport::Icmp([kind, code], rest))
    }

    /// An echo request.
    #[must_use]
    pub fn echo(src: SocketAddr, dst: SocketAddr) -> Self {
        let kind = if src.is_ipv4() { 8 } else { 128 };
        Self::icmp(src, dst, [kind, 0], [0x12, 0x34, 0, 1])
    }

    /// An error of a host or router at `src`, type and code as given, about a frame: it goes to whom that came from,
    /// and quotes its headers and `bytes` bytes of what follows its IP header.
    ///
    /// # Panics
    /// When the frame is no packet.
    #[must_use]
    pub fn error(src: SocketAddr, kind: [u8; 2], rest: [u8; 4], about: &[u8], bytes: usize) -> Self {
        let net = crate::inspect::network(about).expect("a packet to complain about");
        let end = (net.l4 + bytes).min(about.len());
        Self::icmp(src, (net.src, 0).into(), kind, rest).payload(&about[net.l3..end])
    }

    /// TCP without flags or UDP, by protocol number.
    #[must_use]
    pub fn of(number: u8, src: SocketAddr, dst: SocketAddr) -> Self {
        match number {
            protocol::TCP => Self::tcp(src, dst, 0),
            protocol::UDP => Self::udp(src, dst),
            _ => Self::other(src, dst, number),
        }
    }

    /// Other TCP flags. Panics on UDP, which has none.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        let Transport::Tcp(old, _) = &mut self.transport else { panic!("only TCP has flags") };
        *old = flags;
        self
    }

    /// TCP options, a multiple of 4 bytes.
    #[must_use]
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        let Transport::Tcp(_, options) = &mut self.transport else { panic!("only TCP has TCP options") };
        *options = bytes.to_vec();
        self
    }

    /// UDP without a checksum.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        self.transport = Transport::Udp(false);
        self
    }

    /// Ethernet destination and source.
    #[must_use]
    pub fn macs(mut self, to: MacBytes, from: MacBytes) -> Self {
        (self.to, self.from) = (to, from);
        self
    }

    /// One more VLAN tag, inside those there are: EtherType and tag control information.
    #[must_use]
    pub fn tag(mut self, ethertype: u16, control: u16) -> Self {
        self.tags.push((ethertype, control));
        self
    }

    /// Time to live or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// IPv4: identification.
    #[must_use]
    pub fn ident(mut self, ident: u16) -> Self {
        self.ident = ident;
        self
    }

    /// IPv4: type of service; IPv6: traffic class.
    #[must_use]
    pub fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    /// A piece of a datagram: identification, offset in bytes (a multiple of 8), whether more follow. What of a
    /// transport header this is, is for the payload to say unless it is the first.
    #[must_use]
    pub fn piece(self, ident: u16, offset: u16, more: bool) -> Self {
        let number = self.number();
        let draft = if offset > 0 { Self { transport: Transport::Other(number), ..self } } else { self };
        if draft.src.is_ipv4() {
            draft.ident(ident).fragment((offset / 8) | if more { 0x2000 } else { 0 })
        } else {
            let ([a, b], [c, d]) = ((offset | u16::from(more)).to_be_bytes(), ident.to_be_bytes());
            draft.extension(44, &[0, 0, a, b, 0, 0, c, d])
        }
    }

    /// IPv4: flags and fragment offset.
    #[must_use]
    pub fn fragment(mut self, word: u16) -> Self {
        self.fragment = word;
        self
    }

    /// IPv4 options, a multiple of 4 bytes.
    #[must_use]
    pub fn options(mut self, bytes: &[u8]) -> Self {
        self.options = bytes.to_vec();
        self
    }

    /// One more IPv6 extension header, a multiple of 8 bytes (4 for AH); its first byte is filled in.
    #[must_use]
    pub fn extension(mut self, kind: u8, bytes: &[u8]) -> Self {
        self.extensions.push((kind, bytes.to_vec()));
        self
    }

    /// Bytes behind the transport header.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// Zeros behind the packet, as Ethernet pads short frames.
    #[must_use]
    pub fn trailer(mut self, bytes: usize) -> Self {
        self.trailer = bytes;
        self
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.to, self.from].concat();
        for (ethertype, control) in &self.tags {
            frame.extend([ethertype.to_be_bytes(), control.to_be_bytes()].concat());
        }
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ipv4(&mut frame, src.octets(), dst.octets()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.ipv6(&mut frame, src.octets(), dst.octets()),
            _ => unreachable!("checked when the draft was made"),
        }
        frame.resize(frame.len() + self.trailer, 0);
        frame
    }

    fn ipv4(&self, frame: &mut Vec<u8>, src: [u8; 4], dst: [u8; 4]) {
        let segment = self.segment(&[&src[..], &dst].concat());
        let words = 5 + self.options.len() / 4;
        let mut header = vec![0x40 | words as u8, self.class];
        header.extend(((words * 4 + segment.len()) as u16).to_be_bytes());
        header.extend(self.ident.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.number(), 0, 0]);
        header.extend([src, dst].concat());
        header.extend(&self.options);
        let sum = checksum::finish(checksum::sum(&header));
        header[10..12].copy_from_slice(&sum.to_ne_bytes());
        frame.extend(ethernet::IPV4.to_be_bytes());
        frame.extend(header);
        frame.extend(segment);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, src: [u8; 16], dst: [u8; 16]) {
        let segment = self.segment(&[&src[..], &dst].concat());
        let kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).chain([self.number()]).collect();
        let mut body = Vec::new();
        for ((_, bytes), next) in self.extensions.iter().zip(&kinds[1..]) {
            body.push(*next);
            body.extend(&bytes[1..]);
        }
        body.extend(segment);
        frame.extend(ethernet::IPV6.to_be_bytes());
        frame.extend([0x60 | self.class >> 4, self.class << 4, 0, 0]);
        frame.extend((body.len() as u16).to_be_bytes());
        frame.extend([kinds[0], self.ttl]);
        frame.extend([src, dst].concat());
        frame.extend(body);
    }

    fn number(&self) -> u8 {
        match self.transport {
            Transport::Tcp(..) => protocol::TCP,
            Transport::Udp(_) => protocol::UDP,
            Transport::Other(number) => number,
            Transport::Icmp(..) if self.src.is_ipv4() => protocol::ICMP,
            Transport::Icmp(..) => protocol::ICMPV6,
        }
    }

    /// The transport header and the payload, given both addresses for the pseudo-header.
    fn segment(&self, addresses: &[u8]) -> Vec<u8> {
        let mut segment = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        let checksum_at = match &self.transport {
            Transport::Icmp([kind, code], rest) => {
                segment = [&[*kind, *code, 0, 0], &rest[..]].concat();
                lb_common::wire::icmp::CHECKSUM
            }
            Transport::Other(_) => return self.payload.clone(),
            Transport::Tcp(flags, options) => {
                segment.extend(self.numbers.0.to_be_bytes());
                segment.extend(self.numbers.1.to_be_bytes());
                segment.extend([(((5 + options.len() / 4) << 4) & 0xf0) as u8, *flags, 0x20, 0, 0, 0, 0, 0]);
                segment.extend(options);
                tcp::CHECKSUM
            }
            Transport::Udp(_) => {
                segment.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                segment.extend([0, 0]);
                lb_common::wire::udp::CHECKSUM
            }
        };
        segment.extend(&self.payload);
        if self.transport != Transport::Udp(false) {
            let pseudo =
                [addresses, &(segment.len() as u32).to_be_bytes(), &[0, 0, 0, self.number()]].concat();
            // The only one that covers no addresses.
            let pseudo = if self.number() == protocol::ICMP { &[][..] } else { &pseudo };
            let sum = checksum::finish(checksum::sum(pseudo) + checksum::sum(&segment));
            let sum = if self.number() == protocol::UDP { checksum::never_zero(sum) } else { sum };
            segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect;

    #[test]
    fn what_is_not_said_is_right() {
        let ends = ["10.0.0.9:40000", "10.0.0.1:80", "[fd00::9]:40000", "[fd00::1]:80"];
        let ends = ends.map(|end| end.parse().expect("an address and a port"));
        for (src, dst) in [(ends[0], ends[1]), (ends[2], ends[3])] {
            for payload in [&b""[..], b"odd", b"even"] {
                for draft in [Draft::syn(src, dst), Draft::udp(src, dst)] {
                    let frame = draft.payload(payload).bytes();
                    let seen = inspect::read(&frame).expect("a packet");
                    assert_eq!((seen.src, seen.dst, seen.ttl), (src, dst, 64));
                    assert_eq!(inspect::sums(&frame, &seen), inspect::Sums::right(&seen), "{seen:?}");
                }
            }
        }
    }
}
