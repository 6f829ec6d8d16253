//! The server of a new flow.

use super::{Tables, Work, nobody};
use crate::{
    abi::{Selection, Server, ServerRef, Slot, Vip, server_flags, vip_flags},
    family::Family,
    hash,
    verdict::{DropReason, Verdict},
};

/// How often another slot is tried if a slot's server takes no new flows: while a server drains, its slots keep
/// naming it for the flows it has.
const ATTEMPTS: u32 = 6;

/// The flow's hash and what the ring holds for it.
#[inline(always)]
pub(super) fn ask_ring<F: Family>(work: &mut Work<F>, vip: Vip, tables: &impl Tables<F>) -> (u32, Slot) {
    let hash = if vip.flags & vip_flags::BY_SOURCE != 0 {
        hash::source::<F>(work.packet.key.src)
    } else {
        hash::flow::<F>(&work.packet.key)
    };
    let slot = tables.slot(vip.id, hash);
    (work.facts.hash, work.facts.slot) = (hash, slot);
    (hash, slot)
}

/// The entry that a reference names, unless it has another owner by now.
#[inline(always)]
pub(super) fn entry<F: Family>(reference: ServerRef, tables: &impl Tables<F>) -> Option<Server> {
    if reference.is_none() {
        return None;
    }
    let server = tables.server(reference.index())?;
    if server.generation != reference.generation() { None } else { Some(server) }
}

/// A server for a new flow with ring hash `hash`, whose slot is `slot`.
#[inline(always)]
pub(super) fn fresh<F: Family>(
    work: &mut Work<F>,
    vip: Vip,
    hash: u32,
    slot: Slot,
    tables: &impl Tables<F>,
) -> Result<ServerRef, Verdict> {
    if vip.flags & vip_flags::LIMITED != 0 && !tables.admits(vip.id, tables.now()) {
        return Err(Verdict::Drop(DropReason::NewFlowLimit));
    }
    let first = match Selection::from_u8(vip.selection) {
        Selection::Ring => slot,
        Selection::RoundRobin => tables.next_slot(vip.id),
        Selection::LeastConnections => less_loaded(slot, tables.slot(vip.id, hash::again(hash, 0)), tables),
    };
    if accepts(first.server(), tables) {
        return Ok(first.server());
    }
    if slot.server().is_none() {
        return Err(nobody(work));
    }
    for attempt in 1..=ATTEMPTS {
        // A SYN that is repeated a tick later tries others.
        let other = hash::again(hash, attempt ^ tables.now() << 3);
        let server = tables.slot(vip.id, other).server();
        if accepts(server, tables) {
            return Ok(server);
        }
    }
    Err(nobody(work))
}

/// Whether a server takes new flows.
#[inline(always)]
pub(super) fn accepts<F: Family>(reference: ServerRef, tables: &impl Tables<F>) -> bool {
    entry(reference, tables).is_some_and(|server| server.flags & server_flags::ACCEPTS_NEW != 0)
}

/// The power of two choices (Mitzenmacher, 2001): of two slots, the one whose server has fewer connections for
/// its weight. Heavier servers have more slots, and so are also asked more often.
#[inline(always)]
fn less_loaded<F: Family>(one: Slot, other: Slot, tables: &impl Tables<F>) -> Slot {
    let weigh = |slot: Slot| {
        let index = slot.server().index();
        let weight = tables.server(index).map_or(0, |server| server.weight);
        (tables.load(index) as u64, weight as u64)
    };
    let ((load, weight), (other_load, other_weight)) = (weigh(one), weigh(other));
    if (other_load + 1) * weight < (load + 1) * other_weight { other } else { one }
}
