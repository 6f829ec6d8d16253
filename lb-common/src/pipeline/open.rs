//! The first packet of a flow that is to be translated: server, record, port.

use super::{
    Line as _, Tables, Work, choose, direct, facts, flows,
    tables::{count, find},
    translate,
};
use crate::{
    abi::{
        Claim, FlowStage, Half, Mode, Reply, Server, ServerRef, Settings, VipKey, WAYS, server_flags,
        vip_flags,
    },
    conntrack,
    family::Family,
    hash,
    verdict::{DropReason, Forward, Verdict},
};

/// Source ports tried for a new translation before giving up.
///
/// With a fraction `p` of a server's ports held by living flows, a new flow fails with probability about
/// `p^16`: 3 % at 80 %.
pub const PORT_ATTEMPTS: u32 = 16;

/// From this try on, the port of a flow that is over is as good as a free one. Not before: the server remembers the
/// old connection for a while, and may have another client try twice. The client that had it (`nat`) may have it again.
const FROM_OVER: u32 = 4;

/// From this try on, so is that of one that has been opening for longer than [`PATIENCE`]: a flood of SYNs must
/// not hold the ports.
const FROM_OPENING: u32 = 10;

/// Ticks that a flow may take to be answered and confirmed while ports are short.
const PATIENCE: u32 = 3;

/// Starts the flow of the packet in `work`, which is to a VIP that translates and is of no flow that could go on.
#[inline(always)]
pub fn open<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Verdict {
    start(work, tables).map_or_else(|stop| stop, Verdict::Forward)
}

#[inline(always)]
fn start<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Result<Forward, Verdict> {
    if tables.settings().holds(tables.now()) {
        return Err(Verdict::Drop(DropReason::Held));
    }
    let key = work.packet.key;
    // What it had before is over, or its server does not want it again.
    let place = flows::place::<F>(&key, tables);
    if flows::find_at(work, &key, place, tables) {
        flows::release(work, place, tables);
    }
    let reference = server_of(work, tables)?;
    let Some(server) = choose::entry(reference, tables) else { return Err(super::nobody(work)) };
    if server.flags & server_flags::HOP_KNOWN == 0 && server.ifindex == 0 {
        return Err(Verdict::Drop(DropReason::NoNextHop));
    }
    if !flows::reserve(work, place, tables) {
        return Err(Verdict::Drop(DropReason::FlowTableFull));
    }
    describe(work, reference, &server, tables);
    let found = find_port(work, tables);
    let claim = flows::claim::<F>(work.number, tables);
    if let Err(reason) = found {
        flows::exchange::<F>(work.number, claim, Claim::default(), tables);
        return Err(Verdict::Drop(reason));
    }
    tables.write_flow(work.number, &work.flow);
    let stage = conntrack::stage(work.flow.state);
    flows::exchange::<F>(work.number, claim, claim.at(stage, work.flow.seen), tables);
    tables.count_connection(reference.index(), true);
    translate::note(work, facts::ENTERED);
    translate::to_server(work, &server, true, tables)
}

/// The server of the new flow.
#[inline(always)]
fn server_of<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Result<ServerRef, Verdict> {
    let vip = work.vip;
    if choose::entry(work.named, tables).is_some() {
        return Ok(work.named);
    }
    let (hash, slot) = choose::ask_ring(work, vip, tables);
    if vip.flags & vip_flags::BY_SOURCE != 0 {
        let worth = direct::is_worth_a_tag(work, tables.now(), tables);
        return direct::chosen(work, vip, true, worth, tables).map(|(reference, _)| reference);
    }
    choose::fresh(work, vip, hash, slot, tables)
}

/// Fills in all of the record but the port towards the server, which is the client's own.
#[inline(always)]
fn describe<F: Family>(work: &mut Work<F>, reference: ServerRef, server: &Server, tables: &impl Tables<F>) {
    let key = work.packet.key;
    let snat = work.vip.mode == Mode::Snat as u8;
    let flow = &mut work.flow;
    flow.client = key.src;
    flow.vip = key.dst;
    flow.source = if snat { F::from_words(server.source) } else { key.src };
    flow.server = F::from_words(server.address);
    flow.client_port = key.sport;
    flow.vip_port = key.dport;
    flow.source_port = key.sport;
    flow.server_port = if server.port == 0 { key.dport } else { server.port };
    flow.protocol = key.protocol as u16;
    flow.vip_id = work.vip.id;
    flow.server_ref = reference;
    flow.seen = tables.now();
    flow.state = conntrack::advance(0, Half::Client, work.packet.flags, 0);
    flow.client_ifindex = work.ifindex;
    flow.client_mac = work.link.from.bytes();
    flow.handshake = 0;
}

/// Finds a 5-tuple towards the server that no other flow has, and enters it in the replies' index.
///
/// `nat` tries the client's own port first; only if another flow of the same client to the same server has it
/// does the port change.
#[inline(always)]
fn find_port<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Result<(), DropReason> {
    let Settings { snat_first, snat_count, .. } = *tables.settings();
    let snat = work.vip.mode == Mode::Snat as u8;
    let count = snat_count as u32;
    if count == 0 && snat {
        return Err(DropReason::PortsExhausted);
    }
    let hash = hash::flow::<F>(&work.packet.key);
    let mut offset = hash::scale(hash, count);
    // A stride of its own for every flow, or taken ports would gather in ever longer rows.
    let stride = if count >= 4_096 { hash & 0x7ff | 1 } else { 1 };
    for attempt in 0..PORT_ATTEMPTS {
        let own = attempt == 0 && !snat;
        if !own {
            if count == 0 {
                break;
            }
            work.flow.source_port = snat_first.wrapping_add(offset as u16);
            offset += stride;
            if offset >= count {
                offset -= count;
            }
        }
        if tables.claim_port(work, own, attempt) {
            return Ok(());
        }
    }
    Err(DropReason::PortsExhausted)
}

/// Takes the port in `work.flow` by entering the reply's 5-tuple, unless another flow has it. A port on which a
/// reply would be taken for a VIP's client is never free.
///
/// Two CPUs may enter the same 5-tuple at the same time, in different ways of the line. Each looks for the other
/// after it has entered its own, so at least one of them sees both and withdraws.
#[inline(always)]
pub fn claim_port<F: Family>(work: &Work<F>, own: bool, attempt: u32, tables: &impl Tables<F>) -> bool {
    let key = work.flow.reply_key();
    let as_vip = VipKey { address: key.dst, port: key.dport, protocol: key.protocol as u16 };
    if !own && tables.vip(&as_vip).is_some() {
        return false;
    }
    let (line, fingerprint) = flows::reply_place::<F>(&key, tables);
    let Some(replies) = tables.replies(line) else { return false };
    let mine = Reply::new(fingerprint, work.number).0;
    let way = find(replies, fingerprint, tables);
    if way < WAYS {
        let other = replies.load(way);
        return gives_way(Reply(other).number(), own, attempt, tables) && replies.exchange(way, other, mine);
    }
    let way = find(replies, 0, tables);
    if way >= WAYS || !replies.exchange(way, 0, mine) {
        return false;
    }
    let alone = tables.forget(count(replies, fingerprint)) == 1;
    if !alone {
        replies.exchange(way, mine, 0);
    }
    alone
}

/// Takes the record of another flow away, so that its port can be taken too, if the flow is none to wait for.
#[inline(always)]
fn gives_way<F: Family>(number: u32, own: bool, attempt: u32, tables: &impl Tables<F>) -> bool {
    let claim = flows::claim::<F>(number, tables);
    let now = tables.now();
    let gives_way = match claim.stage() {
        FlowStage::Over => own || attempt >= FROM_OVER || claim.is_empty(),
        FlowStage::Opening => attempt >= FROM_OPENING && claim.age(now) > PATIENCE,
        FlowStage::Entering | FlowStage::Established => false,
    };
    // Nobody's: what is left of a flow whose record was taken away just now.
    if !gives_way || claim.is_empty() {
        return gives_way;
    }
    let taken = flows::exchange::<F>(number, claim, Claim::default(), tables);
    if taken && claim.stage() == FlowStage::Opening {
        // It still counts as a connection of its server until the sweep sees that it is none.
        tables.count(crate::verdict::Event::FlowEvicted);
    }
    taken
}
