//! Puts a packet into a tunnel: IP in IP (RFC 2003, RFC 2473, RFC 4213), or IP in UDP as GUE variant 1
//! (draft-ietf-intarea-gue, §4), with either family outside and inside.

use super::Rewrite;
use crate::{
    abi::protocol,
    family::Family,
    parse::{Kind, Packet},
    pipeline::{Tunnel, Work},
    wire::{Resize, be16, checksum, ethernet, ipv4, ipv6, udp},
};

/// Time to live of the outer header.
const TTL: u8 = 64;

/// Puts the outer headers before the packet and makes the link header anew before them; VLAN tags stay.
#[inline(always)]
pub(super) fn encapsulate<F: Rewrite, B: Resize>(frame: &mut B, work: &Work<F>) -> Option<()> {
    let (tunnel, l3) = (&work.tunnel, work.packet.l3());
    let tags: [u8; 8] = if l3 > ethernet::HEADER { frame.read(ethernet::HEADER - 2)? } else { [0; 8] };
    let inner = inner::<F, B>(frame, &work.packet, tunnel)?;
    let udp = if tunnel.port != 0 { udp::HEADER } else { 0 };
    // Sizes that are known when this is compiled: four shapes.
    match (tunnel.ipv6, tunnel.port != 0) {
        (false, false) => frame.push_front(ipv4::HEADER)?,
        (false, true) => frame.push_front(ipv4::HEADER + udp::HEADER)?,
        (true, false) => frame.push_front(ipv6::HEADER)?,
        (true, true) => frame.push_front(ipv6::HEADER + udp::HEADER)?,
    }
    super::link(frame, &work.hop)?;
    let ethertype = if tunnel.ipv6 { ethernet::IPV6 } else { ethernet::IPV4 };
    link_type(frame, l3, tags, ethertype)?;
    if tunnel.ipv6 {
        outer6(frame, l3, tunnel, &inner, udp)?;
        if udp != 0 {
            datagram(frame, l3 + ipv6::HEADER, tunnel, &inner)?;
        }
    } else {
        outer4(frame, l3, tunnel, &inner, udp)?;
        if udp != 0 {
            datagram(frame, l3 + ipv4::HEADER, tunnel, &inner)?;
        }
    }
    Some(())
}

/// What the outer headers depend on.
struct Inner {
    /// Bytes.
    length: u16,
    /// IPv4: type of service. IPv6: traffic class. DSCP and ECN are copied outwards (RFC 2983, RFC 6040).
    class: u8,
    /// Whether it may not be fragmented: of IPv6 never.
    whole: bool,
    /// Differs between packets of a flow that may be fragmented, as their own identification does.
    ident: u16,
    /// Protocol number of its IP version.
    protocol: u8,
    /// One's complement sum over all of its bytes, if that is known without reading them: [`sum_of`].
    sum: Option<u64>,
}

#[inline(always)]
fn inner<F: Family, B: Resize>(frame: &B, packet: &Packet<F>, tunnel: &Tunnel) -> Option<Inner> {
    let length = packet.length as u16;
    if F::HEADER == ipv4::HEADER {
        let head: [u8; 8] = frame.read(packet.l3())?;
        let whole = head[6] & (ipv4::DO_NOT_FRAGMENT >> 8) as u8 != 0;
        let sum = if tunnel.ipv6 && tunnel.port != 0 { sum_of(frame, packet)? } else { None };
        // Pieces of one datagram have one identification, but each its place. An odd factor, so that neighbours of both
        // do not meet.
        let place = be16(&head, 6) & ipv4::FRAGMENT_OFFSET;
        let ident = be16(&head, 4) ^ place.wrapping_mul(0x9e37);
        Some(Inner { length, class: head[1], whole, ident, protocol: protocol::IPV4, sum })
    } else {
        let head: [u8; 8] = frame.read(packet.l3())?;
        let class = head[0] << 4 | head[1] >> 4;
        let sum = if tunnel.ipv6 && tunnel.port != 0 { sum_of(frame, packet)? } else { None };
        Some(Inner { length, class, whole: true, ident: 0, protocol: protocol::IPV6, sum })
    }
}

/// The one's complement sum over a packet whose checksums are right, from its header alone.
///
/// The transport's words and its pseudo-header add up to 0, so its words are the negative of the pseudo-header:
/// the data need not be read. Of a damaged packet this makes a wrong sum, and the far end drops it, as the server
/// would. `None` where the transport has no checksum, or an IP header has options.
#[inline(always)]
fn sum_of<F: Family, B: Resize>(frame: &B, packet: &Packet<F>) -> Option<Option<u64>> {
    let is_udp = packet.key.protocol == protocol::UDP as u32;
    let transport = (packet.length as usize).wrapping_sub(F::HEADER) as u16;
    let is_tcp = packet.key.protocol == protocol::TCP as u32;
    if packet.kind() != Kind::Whole || packet.l4() - packet.l3() != F::HEADER || !is_udp && !is_tcp {
        return Some(None);
    }
    if is_udp {
        let [l0, l1, c0, c1]: [u8; 4] = frame.read(packet.l4() + udp::HEADER - 4)?;
        if c0 | c1 == 0 || u16::from_be_bytes([l0, l1]) != transport {
            return Some(None);
        }
    }
    let addresses = F::sum(packet.key.src) + F::sum(packet.key.dst);
    let pseudo = addresses + (transport.to_be() as u64) + (packet.key.protocol as u16).to_be() as u64;
    // ~x is -x in one's complement.
    let data = checksum::finish(pseudo) as u64;
    if F::HEADER == ipv4::HEADER {
        // A header that holds its checksum adds up to 0 as well.
        return Some(Some(data));
    }
    let head: [u8; 8] = frame.read(packet.l3())?;
    Some(Some(data + addresses + words(head)))
}

#[inline(always)]
fn words([a, b, c, d, e, f, g, h]: [u8; 8]) -> u64 {
    u32::from_ne_bytes([a, b, c, d]) as u64 + u32::from_ne_bytes([e, f, g, h]) as u64
}

/// Writes the tags, if any, and what comes behind them.
#[inline(always)]
fn link_type<B: Resize>(frame: &mut B, l3: usize, tags: [u8; 8], ethertype: u16) -> Option<()> {
    let [a, b, c, d, e, f, g, h] = tags;
    let [y, z] = ethertype.to_be_bytes();
    if l3 == ethernet::HEADER {
        frame.write(12, [y, z])
    } else if l3 == ethernet::HEADER + ethernet::TAG {
        frame.write(12, [a, b, c, d, y, z])
    } else {
        frame.write(12, [a, b, c, d, e, f, g, h, y, z])
    }
}

#[inline(always)]
fn outer4<B: Resize>(frame: &mut B, l3: usize, tunnel: &Tunnel, inner: &Inner, udp: usize) -> Option<()> {
    let length = (ipv4::HEADER + udp) as u16 + inner.length;
    let [l0, l1] = length.to_be_bytes();
    let flags = if inner.whole { (ipv4::DO_NOT_FRAGMENT >> 8) as u8 } else { 0 };
    // Fragments of what may be fragmented are told apart by this (RFC 6864); of the rest nobody looks at it.
    let [i0, i1] = (tunnel.entropy ^ inner.ident).to_be_bytes();
    let protocol = if udp != 0 { protocol::UDP } else { inner.protocol };
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) =
        (tunnel.source[0].to_ne_bytes(), tunnel.server[0].to_ne_bytes());
    let sum = words([0x45, inner.class, l0, l1, i0, i1, flags, 0])
        + u32::from_ne_bytes([TTL, protocol, 0, 0]) as u64
        + tunnel.source[0] as u64
        + tunnel.server[0] as u64;
    let [c0, c1] = checksum::finish(sum).to_ne_bytes();
    frame.write(
        l3,
        [0x45, inner.class, l0, l1, i0, i1, flags, 0, TTL, protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3],
    )
}

#[inline(always)]
fn outer6<B: Resize>(frame: &mut B, l3: usize, tunnel: &Tunnel, inner: &Inner, udp: usize) -> Option<()> {
    let [l0, l1] = (inner.length + udp as u16).to_be_bytes();
    // The flow label spreads flows over routers' paths (RFC 6438).
    let [f0, f1] = tunnel.entropy.to_be_bytes();
    let next = if udp != 0 { protocol::UDP } else { inner.protocol };
    frame.write(l3, [0x60 | inner.class >> 4, inner.class << 4, f0, f1, l0, l1, next, TTL])?;
    super::write_address(frame, l3 + ipv6::SOURCE, tunnel.source)?;
    super::write_address(frame, l3 + ipv6::SOURCE + 16, tunnel.server)
}

/// The UDP header of GUE variant 1, behind which the inner IP header begins at once.
///
/// Over IPv4 without a checksum. Over IPv6 with one if it is known without reading the packet, else without, as
/// RFC 6935 allows for tunnels.
#[inline(always)]
fn datagram<B: Resize>(frame: &mut B, at: usize, tunnel: &Tunnel, inner: &Inner) -> Option<()> {
    let length = (udp::HEADER as u16 + inner.length).to_be();
    let source = tunnel.source_port().to_be();
    let port = tunnel.port.to_be();
    let checksum = match inner.sum {
        Some(sum) => {
            let pseudo = checksum::sum_address(tunnel.source)
                + checksum::sum_address(tunnel.server)
                + length as u64
                + (protocol::UDP as u16).to_be() as u64;
            let header = source as u64 + port as u64 + length as u64;
            checksum::never_zero(checksum::finish(sum + pseudo + header))
        }
        None => 0,
    };
    let ([a, b], [c, d]) = (source.to_ne_bytes(), port.to_ne_bytes());
    let ([e, f], [g, h]) = (length.to_ne_bytes(), checksum.to_ne_bytes());
    frame.write(at, [a, b, c, d, e, f, g, h])
}
