//! Brings an ICMP error about a packet of a translated flow to the view of whom it is for: the outer addresses, and
//! the packet it quotes.

use super::Rewrite;
use crate::{
    abi::{FlowKey, Half, protocol},
    pipeline::Work,
    wire::{Frame, checksum::Delta, icmp, tcp, udp},
};

/// Translates outer header and quote. An error for a server is about a packet that the server sent, one for a
/// client about a packet that the client sent: so each sees its own 5-tuple again.
#[inline(always)]
pub(super) fn translate<F: Rewrite, B: Frame>(frame: &mut B, work: &Work<F>, half: Half) -> Option<()> {
    let (flow, packet) = (&work.flow, &work.packet);
    let own = match half {
        Half::Client => flow.reply_key(),
        Half::Server => flow.key(),
    };
    // Whoever reports it, with `snat` both sides know nobody but the balancer.
    let snat = flow.source != flow.client;
    let reporter = if snat { own.dst } else { packet.key.src };
    let outer = FlowKey { src: reporter, dst: own.src, ..packet.key };
    let addresses = F::rewrite(frame, packet, &outer)?;
    let quoted = F::rewrite_quoted(frame, work.quoted.l3(), &work.quoted.key, &own)?;
    let message = ports(frame, work.quoted.l4(), &work.quoted.key, &own, quoted)?;
    let at = packet.l4() + icmp::CHECKSUM;
    let old = u16::from_ne_bytes(frame.read(at)?);
    // ICMPv6 covers the addresses of its own header too.
    let all = if F::ICMP == protocol::ICMPV6 { message.and(addresses) } else { message };
    frame.write(at, all.apply(old).to_ne_bytes())
}

/// Ports and, where it is quoted, checksum of the quoted packet. `change` is what has changed in its IP header;
/// gives what has changed in all of the quote.
#[inline(always)]
fn ports<A: Copy, B: Frame>(
    frame: &mut B,
    at: usize,
    from: &FlowKey<A>,
    to: &FlowKey<A>,
    (pseudo, header): (Delta, Delta),
) -> Option<Delta> {
    let ports =
        Delta::NONE.word(from.sport.to_be(), to.sport.to_be()).word(from.dport.to_be(), to.dport.to_be());
    let mut message = header.and(ports);
    let is_udp = from.protocol == protocol::UDP as u32;
    let sum_at = at + if is_udp { udp::CHECKSUM } else { tcp::CHECKSUM };
    if let Some(old) = frame.read(sum_at).map(u16::from_ne_bytes)
        && !(is_udp && old == 0)
    {
        let new = pseudo.and(ports).apply(old);
        frame.write(sum_at, new.to_ne_bytes())?;
        message = message.word(old, new);
    }
    let ([a, b], [c, d]) = (to.sport.to_be_bytes(), to.dport.to_be_bytes());
    frame.write(at, [a, b, c, d])?;
    Some(message)
}
