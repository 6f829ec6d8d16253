//! Datagrams in pieces: the first is decided like any packet, the others follow it.

use super::{Tables, Work, choose, direct, facts, is_for_us, translate, whole};
use crate::{
    abi::{Fragment, Half, Mode},
    family::Family,
    parse::Kind,
    verdict::{Change, DropReason, Forward, PassReason, Verdict},
};

/// Ticks for which the first piece is remembered: what RFC 8200 §4.5 gives a receiver to put a datagram together.
/// After that its identification may be another's.
const PATIENCE: u32 = 60;

/// Decides about the first piece of a datagram.
#[inline(always)]
pub fn first<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Verdict {
    let verdict = whole(work, tables);
    remember(work, &verdict, tables);
    verdict
}

/// Decides about any other piece.
#[inline(always)]
pub fn later<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Verdict {
    follow(work, tables).map_or_else(|stop| stop, Verdict::Forward)
}

/// Remembers what was decided about the first piece, for those that come after it.
#[inline(always)]
pub fn remember<F: Family>(work: &Work<F>, verdict: &Verdict, tables: &impl Tables<F>) {
    let (Verdict::Forward(forward), Kind::FirstFragment) = (verdict, work.packet.kind()) else { return };
    let translated = forward.change == Change::Translate;
    let fragment = Fragment {
        number: if translated { work.number } else { 0 },
        server: forward.server,
        vip: work.facts.vip,
        mode: if translated { Mode::Nat as u8 } else { work.vip.mode },
        half: (forward.half == Half::Server) as u8,
        tick: tables.now(),
    };
    tables.note_fragment(&work.packet.fragment_key(), &fragment);
}

/// Sends a piece where the first one went.
#[inline(always)]
fn follow<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Result<Forward, Verdict> {
    const GONE: Verdict = Verdict::Drop(DropReason::NoServer);
    let first = match tables.fragment(&work.packet.fragment_key()) {
        Some(first) if tables.now().wrapping_sub(first.tick) <= PATIENCE => first,
        // Perhaps the host's own; or its first piece is late, and the sender will try again.
        _ => return Err(Verdict::Pass(PassReason::Fragment)),
    };
    if !is_for_us(work, tables) {
        return Err(Verdict::Pass(PassReason::OtherHost));
    }
    (work.facts.vip, work.facts.server) = (first.vip, first.server.index());
    let mode = Mode::from_u8(first.mode);
    if !mode.translates() {
        let server = choose::entry(first.server, tables).ok_or(GONE)?;
        return direct::forward(work, mode, first.server, &server, false, tables);
    }
    let (src, dst) = (work.packet.key.src, work.packet.key.dst);
    tables.read_flow(first.number, &mut work.flow);
    let protocol = work.flow.protocol as u32;
    if work.packet.ttl <= 1 {
        return Err(Verdict::Drop(DropReason::TtlExceeded));
    }
    let forward = if first.half == 0 {
        if (protocol, work.flow.client, work.flow.vip) != (work.packet.key.protocol, src, dst) {
            return Err(GONE);
        }
        translate::note(work, 0);
        let server = choose::entry(work.flow.server_ref, tables).ok_or(GONE)?;
        translate::to_server(work, &server, false, tables)?
    } else {
        if (protocol, work.flow.server, work.flow.source) != (work.packet.key.protocol, src, dst) {
            return Err(GONE);
        }
        translate::note(work, facts::REPLY);
        translate::to_client(work, tables)?;
        let server = work.flow.server_ref;
        Forward { change: Change::Translate, server, half: Half::Server, new: false }
    };
    Ok(Forward { change: Change::TranslateAddresses, ..forward })
}
