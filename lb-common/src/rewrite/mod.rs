//! Puts a verdict into the bytes of the frame.
//!
//! Only the fields that change are written; checksums are updated by the difference (RFC 1624), so a
//! packet that arrives damaged stays damaged and the receiver finds out.

mod answer;
mod mss;
mod quote;
mod tunnel;

pub use answer::{Answer, answer, unanswered};
pub use mss::clamp;

use crate::{
    abi::{FlowKey, protocol},
    family::{Family, V4, V6},
    parse::Packet,
    pipeline::Work,
    verdict::{Change, Forward, Hop},
    wire::{Frame, Resize, checksum, checksum::Delta, ipv4, ipv6, tcp, udp},
};

/// Carries out `forward` on the frame that `work.packet` was read from; for the changes that most packets undergo.
///
/// Gives `None` where the frame is shorter than when it was parsed; it may then be half rewritten and
/// must be dropped.
#[inline(always)]
pub fn apply<F: Rewrite, B: Resize>(frame: &mut B, work: &Work<F>, forward: &Forward) -> Option<()> {
    match forward.change {
        Change::Link => {}
        Change::Encapsulate => return tunnel::encapsulate(frame, work),
        Change::Translate | Change::TranslateAddresses | Change::TranslateQuote => {
            let to = work.flow.outgoing(forward.half);
            let addresses = F::rewrite(frame, &work.packet, &to)?;
            transport(frame, &work.packet, &to, addresses)?;
        }
    }
    link(frame, &work.hop)
}

/// The same for the rest: pieces of datagrams, and ICMP errors.
#[inline(always)]
pub fn apply_rare<F: Rewrite, B: Resize>(frame: &mut B, work: &Work<F>, forward: &Forward) -> Option<()> {
    match forward.change {
        Change::TranslateAddresses => {
            F::rewrite(frame, &work.packet, &work.flow.outgoing(forward.half))?;
            link(frame, &work.hop)
        }
        Change::TranslateQuote => {
            quote::translate(frame, work, forward.half)?;
            link(frame, &work.hop)
        }
        Change::Link | Change::Translate | Change::Encapsulate => apply(frame, work, forward),
    }
}

/// Writes both MAC addresses.
#[inline(always)]
fn link<B: Frame + ?Sized>(frame: &mut B, hop: &Hop) -> Option<()> {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (hop.to.bytes(), hop.from.bytes());
    frame.write(0, [a, b, c, d, e, f, g, h, i, j, k, l])
}

/// Writes the ports and brings the transport checksum up to date. `addresses` is the change of the
/// pseudo-header.
#[inline(always)]
fn transport<F: Family, B: Frame + ?Sized>(
    frame: &mut B,
    packet: &Packet<F>,
    to: &FlowKey<F::Addr>,
    addresses: Delta,
) -> Option<()> {
    let delta = addresses
        .word(packet.key.sport.to_be(), to.sport.to_be())
        .word(packet.key.dport.to_be(), to.dport.to_be());
    let is_udp = packet.key.protocol == protocol::UDP as u32;
    let at = packet.l4() + if is_udp { udp::CHECKSUM } else { tcp::CHECKSUM };
    let old = u16::from_ne_bytes(frame.read(at)?);
    // UDP over IPv4 may come without a checksum, and then leaves without.
    if !(is_udp && old == 0) {
        let new = delta.apply(old);
        let new = if is_udp { checksum::never_zero(new) } else { new };
        frame.write(at, new.to_ne_bytes())?;
    }
    let ([a, b], [c, d]) = (to.sport.to_be_bytes(), to.dport.to_be_bytes());
    frame.write(packet.l4(), [a, b, c, d])
}

/// An IP version whose header can be rewritten.
pub trait Rewrite: Family {
    /// Writes addresses, a time to live less by one, and the header checksum where there is one. Gives the
    /// change of the addresses, which the transport checksum covers too.
    fn rewrite<B: Frame + ?Sized>(
        frame: &mut B,
        packet: &Packet<Self>,
        to: &FlowKey<Self::Addr>,
    ) -> Option<Delta>;

    /// Writes addresses, and the header checksum where there is one, of the packet at `l3` that an ICMP error
    /// quotes. Gives the change of the addresses, and that of the whole header.
    fn rewrite_quoted<B: Frame + ?Sized>(
        frame: &mut B,
        l3: usize,
        from: &FlowKey<Self::Addr>,
        to: &FlowKey<Self::Addr>,
    ) -> Option<(Delta, Delta)>;
}

impl Rewrite for V4 {
    #[inline(always)]
    fn rewrite<B: Frame + ?Sized>(
        frame: &mut B,
        packet: &Packet<Self>,
        to: &FlowKey<Self::Addr>,
    ) -> Option<Delta> {
        let addresses = Delta::NONE.long(packet.key.src, to.src).long(packet.key.dst, to.dst);
        let (ttl, protocol) = (packet.ttl.saturating_sub(1), packet.key.protocol as u8);
        let header =
            addresses.word(u16::from_ne_bytes([packet.ttl, protocol]), u16::from_ne_bytes([ttl, protocol]));
        let old = u16::from_ne_bytes(frame.read(packet.l3() + ipv4::CHECKSUM)?);
        let [c, d] = header.apply(old).to_ne_bytes();
        let ([e, f, g, h], [i, j, k, l]) = (to.src.to_ne_bytes(), to.dst.to_ne_bytes());
        frame.write(packet.l3() + ipv4::TTL, [ttl, protocol, c, d, e, f, g, h, i, j, k, l])?;
        Some(addresses)
    }

    #[inline(always)]
    fn rewrite_quoted<B: Frame + ?Sized>(
        frame: &mut B,
        l3: usize,
        from: &FlowKey<u32>,
        to: &FlowKey<u32>,
    ) -> Option<(Delta, Delta)> {
        let addresses = Delta::NONE.long(from.src, to.src).long(from.dst, to.dst);
        let old = u16::from_ne_bytes(frame.read(l3 + ipv4::CHECKSUM)?);
        let new = addresses.apply(old);
        let ([c, d], [e, f, g, h], [i, j, k, l]) =
            (new.to_ne_bytes(), to.src.to_ne_bytes(), to.dst.to_ne_bytes());
        frame.write(l3 + ipv4::CHECKSUM, [c, d, e, f, g, h, i, j, k, l])?;
        Some((addresses, addresses.word(old, new)))
    }
}

impl Rewrite for V6 {
    #[inline(always)]
    fn rewrite<B: Frame + ?Sized>(
        frame: &mut B,
        packet: &Packet<Self>,
        to: &FlowKey<Self::Addr>,
    ) -> Option<Delta> {
        // Together with the byte before it: the verifier (6.18) does not understand the check for a single
        // byte, `at < end`, when nothing is added to `at`.
        let [next_header, _] = frame.read(packet.l3() + ipv6::HOP_LIMIT - 1)?;
        frame.write(packet.l3() + ipv6::HOP_LIMIT - 1, [next_header, packet.ttl.saturating_sub(1)])?;
        write_address(frame, packet.l3() + ipv6::SOURCE, to.src)?;
        write_address(frame, packet.l3() + ipv6::SOURCE + 16, to.dst)?;
        Some(Delta::NONE.longs(packet.key.src, to.src).longs(packet.key.dst, to.dst))
    }

    #[inline(always)]
    fn rewrite_quoted<B: Frame + ?Sized>(
        frame: &mut B,
        l3: usize,
        from: &FlowKey<[u32; 4]>,
        to: &FlowKey<[u32; 4]>,
    ) -> Option<(Delta, Delta)> {
        write_address(frame, l3 + ipv6::SOURCE, to.src)?;
        write_address(frame, l3 + ipv6::SOURCE + 16, to.dst)?;
        let addresses = Delta::NONE.longs(from.src, to.src).longs(from.dst, to.dst);
        Some((addresses, addresses))
    }
}

#[inline(always)]
fn write_address<B: Frame + ?Sized>(frame: &mut B, at: usize, address: [u32; 4]) -> Option<()> {
    let bytes: [u8; 16] = core::array::from_fn(|byte| address[byte / 4].to_ne_bytes()[byte % 4]);
    frame.write(at, bytes)
}
