//! `nat` and `snat`: packets of flows that are known, from either side.

use super::{Tables, Work, choose, facts, flows, hop_to, is_for_us, refuse, vip};
use crate::{
    abi::{Half, Mac, Server, VipKey, protocol, server_flags},
    conntrack,
    family::Family,
    verdict::{Change, DropReason, Forward, Hop, PassReason, Stage, Verdict},
    wire::tcp,
};

/// From the client.
#[inline(always)]
pub(super) fn client<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Result<Forward, Verdict> {
    if work.packet.ttl <= 1 {
        return Err(Verdict::Drop(DropReason::TtlExceeded));
    }
    let key = work.packet.key;
    if !flows::find(work, &key, tables) {
        return Err(later(work));
    }
    match choose::entry(work.flow.server_ref, tables) {
        Some(server) if is_usable(work, &server) => {
            if server.flags & server_flags::HALTED != 0 {
                return Err(halted(work));
            }
            flows::keep(work, true, tables);
            note(work, 0);
            to_server(work, &server, false, tables)
        }
        _ => Err(later(work)),
    }
}

/// A packet of no flow that could go on: it may open one.
#[inline(always)]
fn later<F: Family>(work: &Work<F>) -> Verdict {
    if work.packet.opens() { Verdict::Later(Stage::Open) } else { Verdict::Pass(PassReason::NoFlow) }
}

/// A packet of a flow whose server is halted: a connection is reset, a datagram ends here.
#[inline(always)]
fn halted<F: Family>(work: &mut Work<F>) -> Verdict {
    note(work, 0);
    if work.packet.key.protocol == protocol::TCP as u32 {
        refuse(work)
    } else {
        Verdict::Drop(DropReason::Halted)
    }
}

#[inline(always)]
pub(super) fn note<F: Family>(work: &mut Work<F>, flags: u32) {
    work.facts.flags |= facts::IN_TABLE | flags;
    work.facts.server = work.flow.server_ref.index();
    work.facts.vip = work.flow.vip_id;
}

/// To the server of the flow in `work`.
#[inline(always)]
pub(super) fn to_server<F: Family>(
    work: &mut Work<F>,
    server: &Server,
    new: bool,
    tables: &impl Tables<F>,
) -> Result<Forward, Verdict> {
    hop_to(work, work.flow.server_ref, server, false, tables)?;
    Ok(Forward { change: Change::Translate, server: work.flow.server_ref, half: Half::Client, new })
}

/// Whether the packet may go on in its flow. Not if it had better start a new one: the flow was over and its 5-tuple is
/// used again; or the server keeps no flows, or takes no new ones and the client is only trying to connect. A datagram is
/// as likely the next of its flow as the first of another, and a SYN in the middle of a connection may be forged: the
/// server answers it (RFC 5961 §4).
#[inline(always)]
fn is_usable<F: Family>(work: &Work<F>, server: &Server) -> bool {
    let state = work.flow.state;
    let connects = work.packet.is_syn() && state & conntrack::CONFIRMED == 0;
    let wanted = if connects { server_flags::ACCEPTS_NEW } else { server_flags::KEEPS_FLOWS };
    let stale = server.flags & wanted == 0 || conntrack::is_over(state);
    !(work.packet.opens() && stale)
}

/// Not to a VIP: perhaps a server's answer in a translated flow.
#[inline(always)]
pub(super) fn reply<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Result<Forward, Verdict> {
    let key = work.packet.key;
    let is_reply = tables.settings().may_be_reply(key.dport)
        && is_for_us(work, tables)
        && flows::find_reply(work, &key, tables);
    if !is_reply {
        return Err(Verdict::Pass(PassReason::NotVip));
    }
    if work.packet.ttl <= 1 {
        return Err(Verdict::Drop(DropReason::TtlExceeded));
    }
    let server = tables.server(work.flow.server_ref.index());
    if server.is_some_and(|server| server.flags & server_flags::HALTED != 0) {
        return Err(halted(work));
    }
    if lowers_mss(work, tables) {
        return Err(Verdict::Later(Stage::Mss));
    }
    flows::keep(work, false, tables);
    note(work, facts::REPLY);
    to_client(work, tables)?;
    Ok(Forward { change: Change::Translate, server: work.flow.server_ref, half: Half::Server, new: false })
}

/// Whether the server announces an MSS here that its VIP, which is then in `work`, wants to have lowered.
#[inline(always)]
fn lowers_mss<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> bool {
    if work.prepared || work.packet.flags & tcp::SYN == 0 {
        return false;
    }
    let flow = &work.flow;
    let key = VipKey { address: flow.vip, port: flow.vip_port, protocol: flow.protocol };
    match vip(&key, tables) {
        Some(vip) if vip.mss != 0 => {
            work.vip = vip;
            true
        }
        _ => false,
    }
}

/// Back the way the client came: its router's MAC, its interface. On that same interface the frame was
/// addressed to the very MAC it must now come from.
#[inline(always)]
pub(super) fn to_client<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Result<(), Verdict> {
    let out = work.flow.client_ifindex;
    let from = if out == work.ifindex { work.link.to } else { tables.interface(out) };
    if from == Mac::NONE {
        return Err(Verdict::Drop(DropReason::NoNextHop));
    }
    work.hop = Hop { to: Mac::new(work.flow.client_mac), from, ifindex: out };
    Ok(())
}
