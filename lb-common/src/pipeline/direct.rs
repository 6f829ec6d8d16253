//! `dr`, `ipip` and `gue`: the ring says which server, and where it has changed, the flow tags.

use super::{
    Tables, Tunnel, Work, choose, facts, hop_to,
    tags::{self, Asked},
};
use crate::{
    abi::{
        FlowTag, Half, Mode, Selection, Server, ServerRef, TagStage, Vip, protocol, server_flags, vip_flags,
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
    let forward = remembered(work, vip, begins, tables).and_then(|reference| {
        // Known only now: a copy of the entry takes more of the kernel's stack than all that led to it.
        let server = choose::entry(reference, tables).ok_or_else(|| super::nobody(work))?;
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
    let counts =
        work.packet.key.protocol == protocol::TCP as u32 || work.vip.flags & vip_flags::BY_SOURCE != 0;
    counts && (hash ^ tables.now()) & (period - 1) == 0
}

/// Asks the flow tags, and tells them. `begins`: the packet is the first of a flow.
///
/// Where clients persist there is a tag for the client, which says where its next flow goes, and as everywhere one for
/// each flow, which stays where it is when the client goes elsewhere.
#[inline(always)]
fn remembered<F: Family>(
    work: &mut Work<F>,
    vip: Vip,
    begins: bool,
    tables: &impl Tables<F>,
) -> Result<ServerRef, Verdict> {
    let now = tables.now();
    let flow = tags::of_flow(work, tables);
    let by_source = vip.flags & vip_flags::BY_SOURCE != 0;
    // A datagram of a known flow is its next one: it does not begin anew, and stays with a server that is drained.
    let anew = begins && work.packet.is_syn();
    let over = anew && (flow.tag.stage() == TagStage::Closed || by_source);
    if !over && let Some(reference) = at_home(flow.tag, vip, anew, tables) {
        know(work, reference, tables);
        let stage = next_stage(flow.tag, work, begins);
        let fresh = FlowTag::new(work.facts.hash, reference.index(), stage, now);
        if fresh != flow.tag {
            tags::note(flow, fresh, now, tables);
        }
        if stage == TagStage::Closed && flow.tag.stage() != TagStage::Closed {
            tables.count_connection(reference.index(), false);
        }
        return Ok(reference);
    }
    let worth = tables.forget(is_worth_a_tag(work, now, tables) as u32) != 0;
    let (reference, persists) = chosen(work, vip, begins, worth, tables)?;
    let persists = tables.forget(persists as u32) != 0;
    // Datagrams have no beginning by which a flow could be told from its middle: in a settled slot there is nothing to
    // know about them.
    let lasts = work.facts.slot.tagged() || work.packet.key.protocol == protocol::TCP as u32;
    // Whoever has sent one packet may have forged it, whatever it says.
    let fresh = FlowTag::new(work.facts.hash, reference.index(), TagStage::Opening, now);
    let noted = worth && lasts && tags::note(flow, fresh, now, tables);
    if noted {
        work.facts.flags |= facts::ENTERED;
        if flow.tag.server() != reference.index() || flow.tag.stage() == TagStage::Closed {
            tables.count_connection(reference.index(), true);
        }
    }
    work.facts.flags |= if begins { facts::NEW } else { 0 };
    // Where nobody will know where it went, it goes where its next packets will.
    let own = work.facts.slot.server();
    let lonely = begins && !noted && !persists && vip.selection != Selection::Ring as u8;
    Ok(if lonely && choose::accepts(own, tables) { own } else { reference })
}

/// The server for a flow that is not known: where its client persists, if it does, and else as [`choose`] says; or, in the
/// middle of a flow, as the ring does. And whether the client is known there from now on. `worth`: whether what is not
/// known is to be noted.
#[inline(always)]
pub(super) fn chosen<F: Family>(
    work: &mut Work<F>,
    vip: Vip,
    begins: bool,
    worth: bool,
    tables: &impl Tables<F>,
) -> Result<(ServerRef, bool), Verdict> {
    let now = tables.now();
    let by_source = vip.flags & vip_flags::BY_SOURCE != 0;
    let client = if by_source { tags::of_client(work, vip, tables) } else { Asked::default() };
    // A client that was away for long is as good as new.
    let away = begins && vip.persistence != 0 && client.tag.age(now) > vip.persistence as u32;
    if !away && let Some(reference) = at_home(client.tag, vip, begins, tables) {
        know(work, reference, tables);
        let fresh = FlowTag::new(work.facts.hash, reference.index(), TagStage::Client, now);
        if fresh != client.tag {
            tags::note(client, fresh, now, tables);
        }
        return Ok((reference, true));
    }
    let (hash, slot) = (work.facts.hash, work.facts.slot);
    let reference = if begins {
        choose::fresh(work, vip, hash, slot, tables)?
    } else {
        if slot.tagged() {
            tables.count(Event::TagMiss);
        }
        if choose::entry(slot.server(), tables).is_none() {
            return Err(super::nobody(work));
        }
        slot.server()
    };
    // However it was found.
    let reference = ServerRef(tables.forget(reference.0));
    let fresh = FlowTag::new(hash, reference.index(), TagStage::Client, now);
    let persists = by_source && worth && tags::note(client, fresh, now, tables);
    Ok((reference, persists))
}

/// A tag said where to go.
#[inline(always)]
fn know<F: Family>(work: &mut Work<F>, reference: ServerRef, tables: &impl Tables<F>) {
    work.facts.flags |= facts::KNOWN;
    if reference.index() != work.facts.slot.server().index() {
        tables.count(Event::TagHit);
    }
}

/// How far a known flow has come with this packet. A SYN that is repeated does not take back what is known; nor do the
/// last words of a client that has ended.
#[inline(always)]
fn next_stage<F: Family>(tag: FlowTag, work: &Work<F>, begins: bool) -> TagStage {
    let lasting = if begins { TagStage::Established } else { TagStage::Closed };
    if tag.stage() == lasting {
        lasting
    } else if work.packet.flags & (tcp::FIN | tcp::RST) != 0 {
        TagStage::Closed
    } else if work.packet.is_syn() {
        TagStage::Opening
    } else {
        TagStage::Established
    }
}

/// Whether what is not known yet is to be noted: not a flow that ends, and not what a flood brings.
#[inline(always)]
pub(super) fn is_worth_a_tag<F: Family>(work: &Work<F>, now: u32, tables: &impl Tables<F>) -> bool {
    let flood = work.packet.is_syn() && tags::is_flood(now, tables);
    let ends = work.packet.flags & (tcp::FIN | tcp::RST) != 0;
    // A tagged slot's flows must be known: they may be where the slot does not say.
    if work.facts.slot.tagged() {
        return !ends;
    }
    if flood {
        tables.count(Event::SynFlood);
    }
    !flood && !ends
}

/// The server that a tag names, if it has room for the flow.
#[inline(always)]
fn at_home<F: Family>(tag: FlowTag, vip: Vip, anew: bool, tables: &impl Tables<F>) -> Option<ServerRef> {
    let server = tables.server(tag.server())?;
    let wanted = if anew { server_flags::ACCEPTS_NEW } else { server_flags::KEEPS_FLOWS };
    if tag.server() == 0 || server.vip != vip.id || server.flags & wanted == 0 {
        return None;
    }
    Some(ServerRef::new(tag.server(), server.generation))
}
