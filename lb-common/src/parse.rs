//! From a frame to the packet in it: addresses, ports, offsets; or why it is none of our business.
//!
//! Nothing is refused here. A frame that cannot be understood cannot be known to be for a VIP either, so
//! it is passed to the host untouched, with the reason. Every length read from the packet is bounded
//! before it moves an offset: at most [`ipv6::MAX_EXTENSIONS`] headers of 2 KiB are walked.

use crate::{
    abi::{FlowKey, FragmentKey, Mac, VipKey, protocol},
    family::{Family, V4, V6},
    verdict::PassReason,
    wire::{Frame, be16, ethernet, icmp, ipv4, ipv6, raw32, tcp, udp},
};

/// The link layer of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Destination MAC: this host, for everything that is not flooded to it by mistake.
    pub to: Mac,
    /// Source MAC: the sender, or the router it came by.
    pub from: Mac,
    /// EtherType behind any VLAN tags.
    pub ethertype: u16,
    /// Offset of the network header.
    pub l3: usize,
}

/// What a packet is, as far as its way through the program depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A whole TCP or UDP packet.
    Whole = 0,
    /// The first of several pieces of one: it has the ports.
    FirstFragment = 1,
    /// Another piece: it has no ports.
    LaterFragment = 2,
    /// A whole ICMP or ICMPv6 message.
    Icmp = 3,
}

/// An IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<F: Family> {
    /// Addresses, ports and protocol: under what its flow would be found. Ports are 0 where it has none.
    pub key: FlowKey<F::Addr>,
    /// Identification of a datagram in pieces, as it lies; else 0.
    pub ident: u32,
    /// Bytes from the IP header on, as the header says.
    pub length: u32,
    /// TCP flags; 0 for all else.
    pub flags: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    kind: u8,
    l3: u8,
    l4: u32,
    /// The sequence and the acknowledgement number of TCP as they lie; 0 for all else.
    numbers: u64,
}

impl<F: Family> Packet<F> {
    /// What it is.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.kind {
            0 => Kind::Whole,
            1 => Kind::FirstFragment,
            2 => Kind::LaterFragment,
            _ => Kind::Icmp,
        }
    }

    /// Offset of the IP header: at most 22.
    #[inline(always)]
    #[must_use]
    pub fn l3(&self) -> usize {
        (self.l3 & 0x1f) as usize
    }

    /// Offset of the transport header: less than 32 KiB, which the mask repeats for the verifier.
    #[inline(always)]
    #[must_use]
    pub fn l4(&self) -> usize {
        (self.l4 & 0x7fff) as usize
    }

    /// Bytes of the frame, without padding behind the packet.
    #[inline(always)]
    #[must_use]
    pub fn frame_length(&self) -> u64 {
        self.l3 as u64 + self.length as u64
    }

    /// Under what its VIP would be found.
    #[inline(always)]
    #[must_use]
    pub fn vip_key(&self) -> VipKey<F::Addr> {
        VipKey { address: self.key.dst, port: self.key.dport, protocol: self.key.protocol as u16 }
    }

    /// Whether it may start a flow: a TCP SYN, or any UDP datagram.
    #[inline(always)]
    #[must_use]
    pub fn opens(&self) -> bool {
        self.key.protocol == protocol::UDP as u32 || self.is_syn()
    }

    /// The lower half of the number that the receiver of a SYN is to acknowledge.
    #[inline(always)]
    #[must_use]
    pub fn next_number(&self) -> u16 {
        let [_, _, high, low, ..] = self.numbers.to_ne_bytes();
        u16::from_be_bytes([high, low]).wrapping_add(1)
    }

    /// The lower half of the number that it acknowledges.
    #[inline(always)]
    #[must_use]
    pub fn acknowledged(&self) -> u16 {
        let [.., high, low] = self.numbers.to_ne_bytes();
        u16::from_be_bytes([high, low])
    }

    /// 0 if there is more than any header of TCP can be long, and so data for certain; else 1.
    #[inline(always)]
    #[must_use]
    pub fn lacks_data(&self) -> u32 {
        let header = self.l4() + tcp::LONGEST_HEADER - self.l3();
        (header as u32).wrapping_sub(self.length) >> 31 ^ 1
    }

    /// Whether it is a TCP SYN, and the first one.
    #[inline(always)]
    #[must_use]
    pub fn is_syn(&self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
    }

    /// What it has in common with the other pieces of its datagram.
    #[inline(always)]
    #[must_use]
    pub fn fragment_key(&self) -> FragmentKey<F::Addr> {
        let FlowKey { src, dst, protocol, .. } = self.key;
        FragmentKey { src, dst, ident: self.ident, protocol }
    }
}

/// Reads the link layer.
///
/// # Errors
/// The reason to leave the frame alone.
#[inline(always)]
pub fn ethernet<B: Frame + ?Sized>(frame: &B) -> Result<Link, PassReason> {
    let header: [u8; ethernet::HEADER] = frame.read(0).ok_or(PassReason::Malformed)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = header;
    let to = Mac::new([a, b, c, d, e, f]);
    if to.is_group() {
        return Err(PassReason::GroupAddressed);
    }
    let mut link =
        Link { to, from: Mac::new([g, h, i, j, k, l]), ethertype: be16(&header, 12), l3: ethernet::HEADER };
    for _ in 0..2 {
        if ethernet::is_tag(link.ethertype) {
            let tag: [u8; ethernet::TAG] = frame.read(link.l3).ok_or(PassReason::Malformed)?;
            link.ethertype = be16(&tag, 2);
            link.l3 += ethernet::TAG;
        }
    }
    Ok(link)
}

/// Why a packet could not be read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is to be left alone.
    Pass(PassReason),
    /// There are IPv6 extension headers, and they were not to be walked.
    Extensions,
}

impl From<PassReason> for Unread {
    #[inline(always)]
    fn from(reason: PassReason) -> Self {
        Self::Pass(reason)
    }
}

/// An IP version whose header can be read.
pub trait Parse: Family {
    /// Reads the network and transport headers from `l3` on. IPv6 extension headers are only walked with
    /// `WALK`: few packets have them, and the walk is long.
    ///
    /// # Errors
    /// The reason to leave the frame alone, or that it takes a walk.
    fn parse<const WALK: bool, B: Frame + ?Sized>(frame: &B, l3: usize) -> Result<Packet<Self>, Unread>;
}

impl Parse for V4 {
    #[inline(always)]
    fn parse<const WALK: bool, B: Frame + ?Sized>(frame: &B, l3: usize) -> Result<Packet<Self>, Unread> {
        let header: [u8; ipv4::HEADER] = frame.read(l3).ok_or(PassReason::Malformed)?;
        let own = ((header[0] & 0x0f) as usize) * 4;
        let length = be16(&header, 2) as usize;
        if header[0] >> 4 != 4 || own < ipv4::HEADER || length < own {
            return Err(PassReason::Malformed.into());
        }
        let piece = be16(&header, 6) & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET);
        let fragment = match (piece & ipv4::FRAGMENT_OFFSET, piece) {
            (_, 0) => Kind::Whole,
            (0, _) => Kind::FirstFragment,
            _ => Kind::LaterFragment,
        };
        let transport = transport(frame, header[9], protocol::ICMP, l3 + own, length - own, fragment)?;
        Ok(Packet {
            key: FlowKey {
                src: raw32(&header, ipv4::SOURCE),
                dst: raw32(&header, ipv4::SOURCE + 4),
                sport: transport.sport as u16,
                dport: transport.dport as u16,
                protocol: header[9] as u32,
            },
            ident: if piece != 0 { be16(&header, 4) as u32 } else { 0 },
            length: length as u32,
            flags: transport.flags as u8,
            ttl: header[ipv4::TTL],
            kind: transport.kind as u8,
            l3: l3 as u8,
            l4: (l3 + own) as u32,
            numbers: transport.numbers,
        })
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn parse<const WALK: bool, B: Frame + ?Sized>(frame: &B, l3: usize) -> Result<Packet<Self>, Unread> {
        let header: [u8; ipv6::HEADER] = frame.read(l3).ok_or(PassReason::Malformed)?;
        if header[0] >> 4 != 6 {
            return Err(PassReason::Malformed.into());
        }
        let mut walked = Walked { protocol: header[6], skipped: 0, fragment: Kind::Whole, ident: 0 };
        if is_extension(header[6]) {
            if !WALK {
                return Err(Unread::Extensions);
            }
            walked = extensions(frame, header[6], l3 + ipv6::HEADER)?;
        }
        // Also refuses jumbograms (RFC 2675), whose length here is 0.
        let payload = be16(&header, 4) as usize;
        let rest = payload.checked_sub(walked.skipped).ok_or(PassReason::Malformed)?;
        let l4 = l3 + ipv6::HEADER + walked.skipped;
        let transport = transport(frame, walked.protocol, protocol::ICMPV6, l4, rest, walked.fragment)?;
        let address = |at| core::array::from_fn(|word| raw32(&header, at + word * 4));
        Ok(Packet {
            key: FlowKey {
                src: address(ipv6::SOURCE),
                dst: address(ipv6::SOURCE + 16),
                sport: transport.sport as u16,
                dport: transport.dport as u16,
                protocol: walked.protocol as u32,
            },
            ident: walked.ident,
            length: (ipv6::HEADER + payload) as u32,
            flags: transport.flags as u8,
            ttl: header[ipv6::HOP_LIMIT],
            kind: transport.kind as u8,
            l3: l3 as u8,
            l4: l4 as u32,
            numbers: transport.numbers,
        })
    }
}

/// What a walk over extension headers has found.
struct Walked {
    protocol: u8,
    skipped: usize,
    fragment: Kind,
    ident: u32,
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::FRAGMENT | ipv6::AUTHENTICATION | ipv6::DESTINATION
    )
}

/// Walks the extension headers.
#[inline(always)]
fn extensions<B: Frame + ?Sized>(frame: &B, first: u8, at: usize) -> Result<Walked, PassReason> {
    let mut walked = Walked { protocol: first, skipped: 0, fragment: Kind::Whole, ident: 0 };
    for _ in 0..ipv6::MAX_EXTENSIONS {
        // What follows in a later piece is the middle of something.
        if !is_extension(walked.protocol) || walked.fragment == Kind::LaterFragment {
            return Ok(walked);
        }
        let header: [u8; 8] = frame.read(at + walked.skipped).ok_or(PassReason::Malformed)?;
        let words = header[1] as usize;
        walked.skipped += match walked.protocol {
            ipv6::FRAGMENT => {
                let (offset, more) = (be16(&header, 2) & 0xfff8, header[3] & 1 != 0);
                // An atomic fragment (RFC 6946) is the whole datagram.
                walked.fragment = match (offset, more) {
                    (0, false) => Kind::Whole,
                    (0, true) => Kind::FirstFragment,
                    _ => Kind::LaterFragment,
                };
                walked.ident = raw32(&header, 4);
                8
            }
            // With segments left, the destination in the IP header is not the last one (RFC 8200 §4.4).
            ipv6::ROUTING if header[3] != 0 => return Err(PassReason::ExtensionHeaders),
            ipv6::AUTHENTICATION => words * 4 + 8,
            _ => words * 8 + 8,
        };
        walked.protocol = header[0];
    }
    if is_extension(walked.protocol) { Err(PassReason::ExtensionHeaders) } else { Ok(walked) }
}

/// Wide fields: of narrow ones, the compiler would make copies in the kernel's stack that are not aligned.
struct Transport {
    kind: u32,
    sport: u32,
    dport: u32,
    flags: u32,
    numbers: u64,
}

impl Transport {
    #[inline(always)]
    const fn without_ports(kind: Kind) -> Self {
        Self { kind: kind as u32, sport: 0, dport: 0, flags: 0, numbers: 0 }
    }
}

/// Reads what TCP and UDP have in common, from a transport packet, or the first piece of one, of `length`
/// bytes.
#[inline(always)]
fn transport<B: Frame + ?Sized>(
    frame: &B,
    protocol: u8,
    icmp: u8,
    l4: usize,
    length: usize,
    piece: Kind,
) -> Result<Transport, PassReason> {
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return if protocol == icmp && piece == Kind::Whole {
            Ok(Transport::without_ports(Kind::Icmp))
        } else {
            Err(PassReason::NotTcpUdp)
        };
    }
    if piece == Kind::LaterFragment {
        return Ok(Transport::without_ports(piece));
    }
    if protocol == protocol::TCP {
        let header: [u8; tcp::HEADER] = frame.read(l4).ok_or(PassReason::Malformed)?;
        let own = (header[12] >> 4) as usize * 4;
        if own < tcp::HEADER || own > length {
            return Err(PassReason::Malformed);
        }
        let (sport, dport) = (be16(&header, 0) as u32, be16(&header, 2) as u32);
        let [_, _, _, _, a, b, c, d, e, f, g, h, ..] = header;
        let numbers = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        Ok(Transport { kind: piece as u32, sport, dport, flags: header[13] as u32, numbers })
    } else {
        let header: [u8; udp::HEADER] = frame.read(l4).ok_or(PassReason::Malformed)?;
        let own = be16(&header, 4) as usize;
        // The first piece has the length of the whole.
        if own < udp::HEADER || own > length && piece == Kind::Whole {
            return Err(PassReason::Malformed);
        }
        let (sport, dport) = (be16(&header, 0) as u32, be16(&header, 2) as u32);
        Ok(Transport { kind: piece as u32, sport, dport, flags: 0, numbers: 0 })
    }
}

/// A packet of a flow that an ICMP error quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quoted<A> {
    /// Its 5-tuple, as it was sent.
    pub key: FlowKey<A>,
    l3: u16,
    l4: u16,
}

impl<A> Quoted<A> {
    /// Offset of the quoted IP header.
    #[inline(always)]
    #[must_use]
    pub fn l3(&self) -> usize {
        (self.l3 & 0x7fff) as usize
    }

    /// Offset of what is quoted of its transport header: 8 bytes at least.
    #[inline(always)]
    #[must_use]
    pub fn l4(&self) -> usize {
        (self.l4 & 0x7fff) as usize
    }
}

/// An IP version whose ICMP errors can be read.
pub trait Quote: Family {
    /// Whether a message of this type asks for an echo.
    fn is_echo(kind: u8) -> bool;
    /// Whether a message of this type is an error, and so quotes a packet.
    fn is_error(kind: u8) -> bool;
    /// The TCP or UDP packet that the error at `icmp` quotes; `None` if it is something else, has IPv6 extension
    /// headers, is not the first piece of a datagram, or is cut off too early.
    fn quoted<B: Frame + ?Sized>(frame: &B, icmp: usize) -> Option<Quoted<Self::Addr>>;
}

impl Quote for V4 {
    #[inline(always)]
    fn is_echo(kind: u8) -> bool {
        kind == icmp::ECHO
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM)
    }

    #[inline(always)]
    fn quoted<B: Frame + ?Sized>(frame: &B, icmp: usize) -> Option<Quoted<u32>> {
        let l3 = icmp + icmp::HEADER;
        let header: [u8; ipv4::HEADER] = frame.read(l3)?;
        let own = ((header[0] & 0x0f) as usize) * 4;
        if header[0] >> 4 != 4 || own < ipv4::HEADER || be16(&header, 6) & ipv4::FRAGMENT_OFFSET != 0 {
            return None;
        }
        quoted_ports(
            frame,
            FlowKey {
                src: raw32(&header, ipv4::SOURCE),
                dst: raw32(&header, ipv4::SOURCE + 4),
                protocol: header[9] as u32,
                ..FlowKey::default()
            },
            l3,
            own,
        )
    }
}

impl Quote for V6 {
    #[inline(always)]
    fn is_echo(kind: u8) -> bool {
        kind == icmp::V6_ECHO
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, icmp::V6_UNREACHABLE..=icmp::V6_PARAMETER_PROBLEM)
    }

    #[inline(always)]
    fn quoted<B: Frame + ?Sized>(frame: &B, icmp: usize) -> Option<Quoted<[u32; 4]>> {
        let l3 = icmp + icmp::HEADER;
        let header: [u8; ipv6::HEADER] = frame.read(l3)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let address = |at| core::array::from_fn(|word| raw32(&header, at + word * 4));
        quoted_ports(
            frame,
            FlowKey {
                src: address(ipv6::SOURCE),
                dst: address(ipv6::SOURCE + 16),
                protocol: header[6] as u32,
                ..FlowKey::default()
            },
            l3,
            ipv6::HEADER,
        )
    }
}

/// Adds the ports, if the protocol has any.
#[inline(always)]
fn quoted_ports<A, B: Frame + ?Sized>(
    frame: &B,
    mut key: FlowKey<A>,
    l3: usize,
    own: usize,
) -> Option<Quoted<A>> {
    let ports: [u8; 8] = frame.read(l3 + own)?;
    if key.protocol != protocol::TCP as u32 && key.protocol != protocol::UDP as u32 {
        return None;
    }
    (key.sport, key.dport) = (be16(&ports, 0), be16(&ports, 2));
    Some(Quoted { key, l3: l3 as u16, l4: (l3 + own) as u16 })
}
