//! The flow tags: where flows of tagged slots are, and clients that persist.

use super::{
    Line as _, Tables, Work, facts,
    tables::{find, highest},
};
use crate::{
    abi::{Flood, FlowTag, Vip, WAYS},
    family::Family,
    hash,
    verdict::Event,
};

/// What the flow tags hold for a flow, or for a client. Numbers only: of a pointer that may not be there Linux 6.1 would
/// say that it may not be read.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked {
    line: u32,
    way: u32,
    /// Its tag; the default if there is none.
    pub tag: FlowTag,
}

/// Looks for the tag of the flow in hand.
#[inline(always)]
pub(super) fn of_flow<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Asked {
    let place = hash::place::<F>(&work.packet.key, tables.settings().seed);
    ask(work, place as u32, tables)
}

/// Looks for the tag of the client in hand.
#[inline(always)]
pub(super) fn of_client<F: Family>(work: &mut Work<F>, vip: Vip, tables: &impl Tables<F>) -> Asked {
    let place = hash::place_of_client::<F>(work.packet.key.src, vip.id, tables.settings().seed);
    ask(work, place as u32, tables)
}

#[inline(always)]
fn ask<F: Family>(work: &mut Work<F>, place: u32, tables: &impl Tables<F>) -> Asked {
    let number = place & tables.settings().tag_lines;
    let mut asked = Asked { line: number, way: WAYS as u32, tag: FlowTag::default() };
    if let Some(line) = tables.tags(number) {
        let way = find(line, work.facts.hash, tables);
        // All bits if there is one, else none.
        let known = (way as u64 / WAYS as u64).wrapping_sub(1);
        asked.way = way as u32;
        asked.tag = FlowTag(line.load(way % WAYS) & known);
    }
    work.facts.flags |= facts::ASKED;
    asked
}

/// Notes `tag` in the line that was asked: over the tag that was found, or if there was none, over the one that best
/// gives way. Nobody takes the place of who is established and has shown a sign of life within [`QUIET`]: whoever is
/// refused goes where the ring says, until there is room.
#[inline(always)]
pub(super) fn note<F: Family>(asked: Asked, tag: FlowTag, now: u32, tables: &impl Tables<F>) -> bool {
    let Some(line) = tables.tags(asked.line) else { return false };
    if asked.way < WAYS as u32 {
        line.store(asked.way as usize % WAYS, tag.0);
        return true;
    }
    let (way, rank) = highest(line, |tag| FlowTag(tag).rank(now), tables);
    if rank < QUIET {
        return false;
    }
    // Neither empty nor closed: somebody may still count on it.
    if rank < 2 << 14 {
        tables.count(Event::TagEvicted);
    }
    line.store(way, tag.0);
    true
}

/// Units of time without a sign of life after which an established flow gives way: 2 h 8 min.
const QUIET: u32 = 1_800;

/// Counts a SYN; whether there have been too many in this tick on this CPU.
#[inline(always)]
pub(super) fn is_flood<F: Family>(now: u32, tables: &impl Tables<F>) -> bool {
    let limit = tables.settings().syn_limit;
    let flood = tables.flood();
    let syns = if flood.tick == now { flood.syns.saturating_add(1) } else { 1 };
    tables.set_flood(Flood { tick: now, syns });
    limit != 0 && syns > limit
}

/// Whether SYNs go unnoted at present, so that the packets that follow have to be noted.
#[inline(always)]
pub(super) fn is_flooded<F: Family>(tables: &impl Tables<F>) -> bool {
    let limit = tables.settings().syn_limit;
    limit != 0 && tables.flood().syns > limit
}
