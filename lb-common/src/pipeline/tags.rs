//! The flow tags: where flows of tagged slots are, and clients that persist.

use super::{Line, Tables, Work, tables::highest};
use crate::{
    abi::{Flood, FlowTag, TagStage, Vip, WAYS, vip_flags},
    family::Family,
    hash,
    verdict::Event,
};

/// The line of a flow, or of a client where the client is what persists.
#[inline(always)]
pub(super) fn line_of<'a, F: Family, T: Tables<F>>(
    work: &Work<F>,
    vip: Vip,
    tables: &'a T,
) -> Option<T::Line<'a>> {
    let seed = tables.settings().seed;
    let place = if vip.flags & vip_flags::BY_SOURCE != 0 {
        hash::place_of_client::<F>(work.packet.key.src, vip.id, seed)
    } else {
        hash::place::<F>(&work.packet.key, seed)
    };
    tables.tags(place as u32 & tables.settings().tag_lines)
}

/// Notes `tag` in a line: over the tag of the same flow at `way`, or if that is [`WAYS`], over the one that best
/// gives way. A flow of which only a SYN is known takes nobody's place who has come further and shown a sign of life
/// within [`QUIET`].
#[inline(always)]
pub(super) fn note<F: Family, T: Tables<F>>(
    line: T::Line<'_>,
    way: usize,
    tag: FlowTag,
    now: u32,
    tables: &T,
) -> bool {
    if way < WAYS {
        line.store(way, tag.0);
        return true;
    }
    let (way, rank) = highest(line, |tag| FlowTag(tag).rank(now), tables);
    if tag.stage() == TagStage::Opening && rank < QUIET {
        return false;
    }
    // Neither empty nor closed: somebody may still count on it.
    if rank < 2 << 14 {
        tables.count(Event::TagEvicted);
    }
    line.store(way, tag.0);
    true
}

/// Units of time without a sign of life after which an established flow gives way to a SYN: 2 h 8 min.
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
