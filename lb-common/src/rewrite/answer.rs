//! Makes a packet into the balancer's own answer to it: an echo reply, a reset, or an ICMP error. It leaves by the
//! interface it came in by, from the VIP, to the MAC it came from.

use super::Rewrite;
use crate::{
    abi::protocol,
    family::{Family, V4, V6},
    parse::Kind,
    pipeline::{Work, facts},
    verdict::{DropReason, Event, Reply},
    wire::{Resize, checksum, checksum::Delta, ethernet, icmp, ipv4, ipv6, tcp},
};

/// Time to live of what the balancer sends itself.
const TTL: u8 = 64;

/// Most that is quoted: an IPv6 header with 80 bytes of extension headers, and 8 bytes (RFC 792 asks for those).
const QUOTE: usize = 128;

/// Makes the answer that `work.reply` names; gives what it was. `None` where the packet is none that may be
/// answered (RFC 1122 §3.2.2: no error about an error; a reset is not answered by one), or ends too early: the frame
/// is then of no use any more.
#[inline(always)]
pub fn answer<F: Answer, B: Resize>(frame: &mut B, work: &Work<F>) -> Option<Event> {
    match work.reply {
        Reply::Echo => echo(frame, work).map(|()| Event::EchoAnswered),
        Reply::Reset => reset(frame, work).map(|()| Event::ResetSent),
        Reply::TooBig => {
            let [kind, code] = F::TOO_BIG;
            error(frame, work, kind, code, work.tunnel.mtu).map(|()| Event::TooBigSent)
        }
        Reply::Unreachable => {
            let [kind, code] = F::PORT_UNREACHABLE;
            error(frame, work, kind, code, 0).map(|()| Event::UnreachableSent)
        }
    }
}

/// Why a packet that could not be answered is dropped.
#[inline(always)]
#[must_use]
pub fn unanswered<F: Family>(work: &Work<F>) -> DropReason {
    match work.reply {
        Reply::TooBig => DropReason::TooBig,
        // Of no flow: nobody is there to have one with.
        Reply::Reset if work.facts.flags & facts::IN_TABLE != 0 => DropReason::Halted,
        Reply::Reset | Reply::Unreachable => DropReason::NoServer,
        Reply::Echo => DropReason::RewriteFailed,
    }
}

/// An IP version in which the balancer can answer.
pub trait Answer: Rewrite {
    /// Type and code of "too big".
    const TOO_BIG: [u8; 2];
    /// Type and code of "port unreachable".
    const PORT_UNREACHABLE: [u8; 2];
    /// Type of an echo reply.
    const ECHO_REPLY: u8;

    /// Swaps the addresses and gives the header a fresh time to live and, if `length` is given, another length from
    /// its first byte on.
    fn turn<B: Resize>(frame: &mut B, work: &Work<Self>, length: Option<u16>) -> Option<()>;

    /// Writes a header for an ICMP message of `length` bytes at `l3`, from the packet's destination to its source.
    /// Gives what of it counts in the message's checksum, unfolded.
    fn head<B: Resize>(frame: &mut B, work: &Work<Self>, l3: usize, length: u16) -> Option<u64>;
}

/// Swaps the MAC addresses.
#[inline(always)]
fn turn_link<F: Family, B: Resize>(frame: &mut B, work: &Work<F>) -> Option<()> {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (work.link.from.bytes(), work.link.to.bytes());
    frame.write(0, [a, b, c, d, e, f, g, h, i, j, k, l])
}

#[inline(always)]
fn echo<F: Answer, B: Resize>(frame: &mut B, work: &Work<F>) -> Option<()> {
    let l4 = work.packet.l4();
    let [kind, code, a, b]: [u8; 4] = frame.read(l4)?;
    let delta = Delta::NONE.word(u16::from_ne_bytes([kind, code]), u16::from_ne_bytes([F::ECHO_REPLY, code]));
    let [a, b] = delta.apply(u16::from_ne_bytes([a, b])).to_ne_bytes();
    frame.write(l4, [F::ECHO_REPLY, code, a, b])?;
    F::turn(frame, work, None)?;
    turn_link(frame, work)
}

/// RFC 9293 §3.10.7.1: with the sequence number that the other side expects; if it did not say, acknowledging
/// what it sent.
#[inline(always)]
fn reset<F: Answer, B: Resize>(frame: &mut B, work: &Work<F>) -> Option<()> {
    let (l3, l4) = (work.packet.l3(), work.packet.l4());
    let header: [u8; tcp::HEADER] = frame.read(l4)?;
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, ..] = header;
    if flags & tcp::RST != 0 || work.packet.kind() != Kind::Whole {
        return None;
    }
    let before = (l4 - l3) as u32 + (offset >> 4) as u32 * 4;
    let sent = work.packet.length.wrapping_sub(before)
        + (flags & tcp::SYN != 0) as u32
        + (flags & tcp::FIN != 0) as u32;
    let acknowledged = u32::from_be_bytes([q0, q1, q2, q3]).wrapping_add(sent).to_be_bytes();
    let (sequence, acknowledged, flags) = if flags & tcp::ACK != 0 {
        ([a0, a1, a2, a3], [0; 4], tcp::RST)
    } else {
        ([0; 4], acknowledged, tcp::RST | tcp::ACK)
    };
    let length = (l4 - l3 + tcp::HEADER) as u16;
    frame.set_len(l4 + tcp::HEADER)?;
    let ([q0, q1, q2, q3], [a0, a1, a2, a3]) = (sequence, acknowledged);
    let long = |bytes| u32::from_ne_bytes(bytes) as u64;
    let sum = F::sum(work.packet.key.src)
        + F::sum(work.packet.key.dst)
        + (tcp::HEADER as u16).to_be() as u64
        + (protocol::TCP as u16).to_be() as u64
        + long([d0, d1, s0, s1])
        + long(sequence)
        + long(acknowledged)
        + long([0x50, flags, 0, 0]);
    let [c0, c1] = checksum::finish(sum).to_ne_bytes();
    frame.write(l4, [d0, d1, s0, s1, q0, q1, q2, q3, a0, a1, a2, a3, 0x50, flags, 0, 0, c0, c1, 0, 0])?;
    F::turn(frame, work, Some(length))?;
    turn_link(frame, work)
}

/// An ICMP error that quotes the packet: its headers, and the first 8 bytes behind its IP header.
#[inline(always)]
fn error<F: Answer, B: Resize>(frame: &mut B, work: &Work<F>, kind: u8, code: u8, mtu: u16) -> Option<()> {
    let (l3, l4) = (work.packet.l3(), work.packet.l4());
    let quote = l4 - l3 + 8;
    if work.packet.kind() == Kind::Icmp || quote > QUOTE {
        return None;
    }
    let mut sum = 0;
    for word in 0..QUOTE / 4 {
        if word * 4 >= quote {
            break;
        }
        sum += u32::from_ne_bytes(frame.read(l3 + word * 4)?) as u64;
    }
    let tags: [u8; 10] = if l3 > ethernet::HEADER { frame.read(ethernet::HEADER - 2)? } else { [0; 10] };
    frame.set_len(l3 + quote)?;
    frame.push_front(F::HEADER + icmp::HEADER)?;
    link_again(frame, l3, tags, F::ETHERTYPE)?;
    turn_link(frame, work)?;
    let pseudo = F::head(frame, work, l3, (icmp::HEADER + quote) as u16)?;
    let [m0, m1] = mtu.to_be_bytes();
    let first = u32::from_ne_bytes([kind, code, 0, 0]) as u64 + u32::from_ne_bytes([0, 0, m0, m1]) as u64;
    let [c0, c1] = checksum::finish(sum + pseudo + first).to_ne_bytes();
    frame.write(l3 + F::HEADER, [kind, code, c0, c1, 0, 0, m0, m1])
}

/// Writes tags and EtherType as they were, to where they belong now.
#[inline(always)]
fn link_again<B: Resize>(frame: &mut B, l3: usize, tags: [u8; 10], ethertype: u16) -> Option<()> {
    let [y, z] = ethertype.to_be_bytes();
    let [a, b, c, d, e, f, ..] = tags;
    if l3 == ethernet::HEADER {
        frame.write(12, [y, z])
    } else if l3 == ethernet::HEADER + ethernet::TAG {
        frame.write(12, [a, b, c, d, e, f])
    } else {
        frame.write(12, tags)
    }
}

impl Answer for V4 {
    const TOO_BIG: [u8; 2] = [icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED];
    const PORT_UNREACHABLE: [u8; 2] = [icmp::UNREACHABLE, icmp::PORT_UNREACHABLE];
    const ECHO_REPLY: u8 = icmp::ECHO_REPLY;

    #[inline(always)]
    fn turn<B: Resize>(frame: &mut B, work: &Work<Self>, length: Option<u16>) -> Option<()> {
        let (l3, key) = (work.packet.l3(), &work.packet.key);
        let [v, tos, l0, l1]: [u8; 4] = frame.read(l3)?;
        let old_length = u16::from_ne_bytes([l0, l1]);
        let new_length = length.map_or(old_length, u16::to_be);
        let [ttl, protocol, c0, c1]: [u8; 4] = frame.read(l3 + ipv4::TTL)?;
        let delta = Delta::NONE
            .word(old_length, new_length)
            .word(u16::from_ne_bytes([ttl, protocol]), u16::from_ne_bytes([TTL, protocol]));
        let [c0, c1] = delta.apply(u16::from_ne_bytes([c0, c1])).to_ne_bytes();
        let [l0, l1] = new_length.to_ne_bytes();
        frame.write(l3, [v, tos, l0, l1])?;
        let ([e, f, g, h], [i, j, k, l]) = (key.dst.to_ne_bytes(), key.src.to_ne_bytes());
        frame.write(l3 + ipv4::TTL, [TTL, protocol, c0, c1, e, f, g, h, i, j, k, l])
    }

    #[inline(always)]
    fn head<B: Resize>(frame: &mut B, work: &Work<Self>, l3: usize, length: u16) -> Option<u64> {
        let (src, dst) = (work.packet.key.dst, work.packet.key.src);
        let [l0, l1] = (ipv4::HEADER as u16 + length).to_be_bytes();
        let flags = (ipv4::DO_NOT_FRAGMENT >> 8) as u8;
        let sum = u32::from_ne_bytes([0x45, 0, l0, l1]) as u64
            + u32::from_ne_bytes([0, 0, flags, 0]) as u64
            + u32::from_ne_bytes([TTL, protocol::ICMP, 0, 0]) as u64
            + src as u64
            + dst as u64;
        let [c0, c1] = checksum::finish(sum).to_ne_bytes();
        let ([e, f, g, h], [i, j, k, l]) = (src.to_ne_bytes(), dst.to_ne_bytes());
        frame.write(
            l3,
            [0x45, 0, l0, l1, 0, 0, flags, 0, TTL, protocol::ICMP, c0, c1, e, f, g, h, i, j, k, l],
        )?;
        Some(0)
    }
}

impl Answer for V6 {
    const TOO_BIG: [u8; 2] = [icmp::V6_TOO_BIG, 0];
    const PORT_UNREACHABLE: [u8; 2] = [icmp::V6_UNREACHABLE, icmp::V6_PORT_UNREACHABLE];
    const ECHO_REPLY: u8 = icmp::V6_ECHO_REPLY;

    #[inline(always)]
    fn turn<B: Resize>(frame: &mut B, work: &Work<Self>, length: Option<u16>) -> Option<()> {
        let (l3, key) = (work.packet.l3(), &work.packet.key);
        let [l0, l1, next, _]: [u8; 4] = frame.read(l3 + 4)?;
        let [l0, l1] = length.map_or([l0, l1], |length| (length - ipv6::HEADER as u16).to_be_bytes());
        frame.write(l3 + 4, [l0, l1, next, TTL])?;
        super::write_address(frame, l3 + ipv6::SOURCE, key.dst)?;
        super::write_address(frame, l3 + ipv6::SOURCE + 16, key.src)
    }

    #[inline(always)]
    fn head<B: Resize>(frame: &mut B, work: &Work<Self>, l3: usize, length: u16) -> Option<u64> {
        let (src, dst) = (work.packet.key.dst, work.packet.key.src);
        let [l0, l1] = length.to_be_bytes();
        frame.write(l3, [0x60, 0, 0, 0, l0, l1, protocol::ICMPV6, TTL])?;
        super::write_address(frame, l3 + ipv6::SOURCE, src)?;
        super::write_address(frame, l3 + ipv6::SOURCE + 16, dst)?;
        let pseudo = length.to_be() as u64 + (protocol::ICMPV6 as u16).to_be() as u64;
        Some(Self::sum(src) + Self::sum(dst) + pseudo)
    }
}
