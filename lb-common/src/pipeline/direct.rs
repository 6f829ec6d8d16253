//! `dr`, `ipip` and `gue`: the ring says which server, and where it has changed, the flow tags.

use super::{Line as _, Tables, Tunnel, Work, choose, facts, hop_to, tables::find, tags};
use crate::{
    abi::{
        FlowTag, Half, Mode, Selection, Server, ServerRef, TagStage, Vip, WAYS, protocol, server_flags,
        vip_flags,
    },
    family::Family,
    verdict::{Change, Event, Forward, Reply, Stage, Verdict},
    wire::{ipv4, ipv6, tcp, udp},
};

/// A flow in a settled slot shows a sign of life in one tick of this many, a power of two.
const SIGN_OF_LIFE: u32 = 64;

/// The same during a flood: flows that begin then are not noted by their SYNs.
const SIGN_OF_LIFE_IN_FLOOD: u32 = 8;

/// Sends a client's packet to the server of its slot, or leaves it to [`remember`]: where the slot is tagged, where
/// a connection begins or ends, and now and then.
#[inline(always)]
pub(super) fn to_server<F: Family>(
    work: &mut Work<F>,
    vip: Vip,
    mode: Mode,
    tables: &impl Tables<F>,
) -> Result<Forward, Verdict> {
    let (hash, slot) = choose::ask_ring(work, vip, tables);
    if let Some(server) = choose::entry(work.named, tables) {
        work.facts.server = work.named.index();
        return forward(work, mode, work.named, &server, false, tables);
    }
    let flags = work.packet.flags;
    let special =
        flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 || slot.tagged() || is_sign_of_life(work, hash, tables);
    if special && vip.flags & vip_flags::NO_FLOW_STATE == 0 {
        return Err(Verdict::Later(Stage::Remember));
    }
    let Some(server) = choose::entry(slot.server(), tables) else {
        return Err(super::nobody(work));
    };
    work.facts.server = slot.server().index();
    forward(work, mode, slot.server(), &server, false, tables)
}

/// Sends a client's packet where the flow tags know it belongs, and else where the ring says; notes it.
#[inline(always)]
pub fn remember<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Verdict {
    let vip = work.vip;
    // A datagram of an unknown flow may begin it, or not. Where slots only say who is next, it must.
    let by_turns = vip.selection != Selection::Ring as u8;
    let begins = work.packet.is_syn() || by_turns && work.packet.opens();
    let forward = remembered(work, vip, begins, tables).and_then(|(reference, server)| {
        work.facts.server = reference.index();
        let new = work.facts.flags & facts::NEW != 0;
        forward(work, Mode::from_u8(vip.mode), reference, &server, new, tables)
    });
    forward.map_or_else(|stop| stop, Verdict::Forward)
}

/// The rest of the way once the server is known.
#[inline(always)]
pub(super) fn forward<F: Family>(
    work: &mut Work<F>,
    mode: Mode,
    reference: ServerRef,
    server: &Server,
    new: bool,
    tables: &impl Tables<F>,
) -> Result<Forward, Verdict> {
    hop_to(work, reference, server, mode == Mode::Dr, tables)?;
    let change = if mode == Mode::Dr { Change::Link } else { enter(work, mode, server)? };
    Ok(Forward { change, server: reference, half: Half::Client, new })
}

/// Makes the tunnel ready, unless the packet is too large for it.
#[inline(always)]
fn enter<F: Family>(work: &mut Work<F>, mode: Mode, server: &Server) -> Result<Change, Verdict> {
    let outer = if server.flags & server_flags::IPV6 != 0 { ipv6::HEADER } else { ipv4::HEADER };
    let overhead = outer + if mode == Mode::Gue { udp::HEADER } else { 0 };
    work.tunnel = Tunnel {
        source: server.source,
        server: server.address,
        mtu: server.mtu,
        port: if mode == Mode::Gue { server.port } else { 0 },
        ipv6: server.flags & server_flags::IPV6 != 0,
        entropy: (work.facts.hash >> 16) as u16,
    };
    // No IP packet is larger than its length can say, whatever the way takes.
    let mtu = if server.mtu == 0 { u16::MAX } else { server.mtu };
    if work.packet.length as usize + overhead > mtu as usize {
        // What its sender can use: the rest of the way's size.
        work.tunnel.mtu = mtu.saturating_sub(overhead as u16);
        work.reply = Reply::TooBig;
        return Err(Verdict::Later(Stage::Answer));
    }
    Ok(Change::Encapsulate)
}

/// Whether this packet is one of the few that refresh their flow's tag, or make one. By hash and time: each flow has
/// a tick of its own.
#[inline(always)]
fn is_sign_of_life<F: Family>(work: &Work<F>, hash: u32, tables: &impl Tables<F>) -> bool {
    let period = if tags::is_flooded(tables) { SIGN_OF_LIFE_IN_FLOOD } else { SIGN_OF_LIFE };
    work.packet.key.protocol == protocol::TCP as u32 && (hash ^ tables.now()) & (period - 1) == 0
}

/// Asks the flow tags, and tells them. `begins`: the packet is the first of a flow.
#[inline(always)]
pub(super) fn remembered<F: Family, T: Tables<F>>(
    work: &mut Work<F>,
    vip: Vip,
    begins: bool,
    tables: &T,
) -> Result<(ServerRef, Server), Verdict> {
    let (hash, slot, now) = (work.facts.hash, work.facts.slot, tables.now());
    let Some(line) = tags::line_of(work, vip, tables) else {
        return Err(super::nobody(work));
    };
    let way = find(line, hash, tables);
    let tag = if way < WAYS { FlowTag(line.load(way)) } else { FlowTag::default() };
    work.facts.flags |= facts::ASKED;
    let stage = stage(work, vip);
    // A datagram of a known flow is its next one: it does not begin anew, and stays with a server that is drained.
    let anew = begins && (work.packet.is_syn() || vip.flags & vip_flags::BY_SOURCE != 0);
    if let Some((reference, server)) = at_home(tag, vip, anew, now, tables) {
        work.facts.flags |= facts::KNOWN;
        if reference.index() != slot.server().index() {
            tables.count(Event::TagHit);
        }
        // A SYN that is repeated does not take back what is known; nor do the last words of a client that has ended.
        let lasting = if begins { TagStage::Established } else { TagStage::Closed };
        let stage = if tag.stage() == lasting { lasting } else { stage };
        let fresh = FlowTag::new(hash, reference.index(), stage, now);
        if fresh != tag {
            tags::note(line, way, fresh, now, tables);
        }
        if stage == TagStage::Closed && tag.stage() != TagStage::Closed {
            tables.count_connection(reference.index(), false);
        }
        return Ok((reference, server));
    }
    let (reference, server) = if begins {
        choose::fresh(work, vip, hash, slot, tables)?
    } else {
        if slot.tagged() {
            tables.count(Event::TagMiss);
        }
        let server = choose::entry(slot.server(), tables);
        (slot.server(), server.ok_or_else(|| super::nobody(work))?)
    };
    if is_worth_a_tag(work, stage, now, tables) {
        let fresh = FlowTag::new(hash, reference.index(), stage, now);
        if tags::note(line, way, fresh, now, tables) {
            work.facts.flags |= facts::ENTERED;
            tables.count_connection(reference.index(), true);
        }
    }
    work.facts.flags |= if begins { facts::NEW } else { 0 };
    Ok((reference, server))
}

/// What this packet says of its flow.
#[inline(always)]
fn stage<F: Family>(work: &Work<F>, vip: Vip) -> TagStage {
    let by_source = vip.flags & vip_flags::BY_SOURCE != 0;
    if work.packet.flags & (tcp::FIN | tcp::RST) != 0 && !by_source {
        TagStage::Closed
    } else if work.packet.is_syn() {
        TagStage::Opening
    } else {
        TagStage::Established
    }
}

/// Whether an unknown flow is to be noted.
#[inline(always)]
fn is_worth_a_tag<F: Family>(work: &Work<F>, stage: TagStage, now: u32, tables: &impl Tables<F>) -> bool {
    let flood = work.packet.is_syn() && tags::is_flood(now, tables);
    // A tagged slot's flows must be known: they may be where the slot does not say.
    if work.facts.slot.tagged() {
        return stage != TagStage::Closed;
    }
    if flood {
        tables.count(Event::SynFlood);
    }
    // Datagrams have no beginning by which a flow could be told from its middle: in a settled slot there is
    // nothing to know about them.
    !flood && stage != TagStage::Closed && work.packet.key.protocol == protocol::TCP as u32
}

/// The server that a tag names, if the flow may stay there. The 5-tuple of a closed flow may be used again, and
/// a client that was away for long is as good as new.
#[inline(always)]
fn at_home<F: Family>(
    tag: FlowTag,
    vip: Vip,
    begins: bool,
    now: u32,
    tables: &impl Tables<F>,
) -> Option<(ServerRef, Server)> {
    let server = tables.server(tag.server())?;
    let wanted = if begins { server_flags::ACCEPTS_NEW } else { server_flags::KEEPS_FLOWS };
    let away = vip.persistence != 0 && tag.age(now) > vip.persistence as u32;
    let anew = begins && (tag.stage() == TagStage::Closed || away);
    if tag.server() == 0 || server.vip != vip.id || server.flags & wanted == 0 || anew {
        return None;
    }
    Some((ServerRef::new(tag.server(), server.generation), server))
}
