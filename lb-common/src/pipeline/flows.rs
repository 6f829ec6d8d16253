//! The flow table: how records are found, taken and given back. See [`crate::abi::Flow`] for its shape.

use super::{
    Line as _, Tables, Work,
    tables::{self, Touched},
};
use crate::{
    abi::{Claim, FlowKey, FlowStage, Reply, WAYS},
    conntrack,
    family::Family,
    hash,
    verdict::Event,
    wire::tcp,
};

/// Where the claim to a record is: its line, and the fingerprint there.
#[derive(Clone, Copy)]
pub(super) struct Place {
    line: u32,
    other: u32,
    fingerprint: u32,
}

/// The two lines where a flow may be.
#[inline(always)]
pub(super) fn place<F: Family>(key: &FlowKey<F::Addr>, tables: &impl Tables<F>) -> Place {
    let (place, mask) = (hash::place::<F>(key, tables.settings().seed), tables.claim_mask());
    let fingerprint = (place >> 32) as u32;
    let line = place as u32 & mask;
    // As in a cuckoo filter (Fan et al., 2014): either line is found from the other and the fingerprint.
    Place { line, other: (line ^ (fingerprint >> 7 | 1)) & mask, fingerprint }
}

/// The line of `REPLIES` where a reply's 5-tuple belongs, and its fingerprint.
#[inline(always)]
pub(super) fn reply_place<F: Family>(key: &FlowKey<F::Addr>, tables: &impl Tables<F>) -> (u32, u32) {
    let place = hash::place::<F>(key, tables.settings().seed);
    (place as u32 & (tables.claim_mask() << 1 | 1), (place >> 32) as u32)
}

/// Looks for the flow of the client's packet in hand: its record is then in `work.flow`, its number in
/// `work.number`.
#[inline(always)]
pub(super) fn find<F: Family>(work: &mut Work<F>, key: &FlowKey<F::Addr>, tables: &impl Tables<F>) -> bool {
    let place = place::<F>(key, tables);
    find_at(work, key, place, tables)
}

/// [`find`], given where the flow may be.
#[inline(always)]
pub(super) fn find_at<F: Family>(
    work: &mut Work<F>,
    key: &FlowKey<F::Addr>,
    place: Place,
    tables: &impl Tables<F>,
) -> bool {
    let mut line = place.line;
    let mut way = find_in(line, place, tables);
    if way == WAYS {
        line = place.other;
        way = find_in(line, place, tables);
    }
    if way == WAYS {
        return false;
    }
    work.number = tables.forget(number(line, way));
    tables.read_flow(work.number, &mut work.flow);
    work.flow.key() == *key
}

#[inline(always)]
fn find_in<F: Family>(line: u32, place: Place, tables: &impl Tables<F>) -> usize {
    tables.claims(line).map_or(WAYS, |claims| tables::find(claims, place.fingerprint, tables))
}

/// Looks for the flow of the server's packet in hand, or of another with such a 5-tuple.
#[inline(always)]
pub(super) fn find_reply<F: Family>(
    work: &mut Work<F>,
    key: &FlowKey<F::Addr>,
    tables: &impl Tables<F>,
) -> bool {
    let (line, fingerprint) = reply_place::<F>(key, tables);
    let Some(line) = tables.replies(line) else { return false };
    let way = tables::find(line, fingerprint, tables);
    if way >= WAYS {
        return false;
    }
    work.number = Reply(line.load(way)).number();
    tables.read_flow(work.number, &mut work.flow);
    work.flow.reply_key() == *key
}

/// The record that belongs to a way of a line of claims.
#[inline(always)]
const fn number(line: u32, way: usize) -> u32 {
    line * WAYS as u32 + way as u32
}

/// Takes a record for the flow with this place, if need be from a flow that has not come to be established: its
/// number goes to `work.number`. `false` as well if another CPU is taking one for the same flow.
#[inline(always)]
pub(super) fn reserve<F: Family>(work: &mut Work<F>, place: Place, tables: &impl Tables<F>) -> bool {
    let now = tables.now();
    let (Some(one), Some(other)) = (tables.claims(place.line), tables.claims(place.other)) else {
        return false;
    };
    let rank = |claim| Claim(claim).rank(now);
    let (way, first) = tables::highest(one, rank, tables);
    let (other_way, second) = tables::highest(other, rank, tables);
    let (line, claims, way) =
        if second > first { (place.other, other, other_way) } else { (place.line, one, way) };
    if first | second == 0 {
        return false;
    }
    work.number = tables.forget(number(line, way));
    let old = Claim(claims.load(way));
    let fresh = Claim::new(place.fingerprint, FlowStage::Entering, now);
    // Another CPU may have come in between; or the best way is one of another rank by now.
    if old.rank(now) == 0 || !claims.exchange(way, old.0, fresh.0) {
        return false;
    }
    if !old.is_empty() && old.stage() != FlowStage::Entering {
        tables.read_flow(work.number, &mut work.flow);
        forget(work, old, tables);
    }
    // The same packet may be in hand on another CPU, which has taken another way for it. Each looks for the other after
    // it has taken its own, so at least one of them sees both and withdraws.
    let claims = tables::count(one, place.fingerprint) + tables::count(other, place.fingerprint);
    let alone = tables.forget(claims) == 1;
    if !alone {
        exchange::<F>(work.number, fresh, Claim::default(), tables);
    }
    alone
}

/// After the claim `old` to `work.number` was taken away, whose flow is in `work.flow`: it can no longer be answered, and
/// no longer counts as a connection of its server.
#[inline(always)]
fn forget<F: Family>(work: &mut Work<F>, old: Claim, tables: &impl Tables<F>) {
    if old.stage() == FlowStage::Opening {
        tables.count(Event::FlowEvicted);
        tables.count_connection(work.flow.server_ref.index(), false);
    }
    let (line, fingerprint) = reply_place::<F>(&work.flow.reply_key(), tables);
    let Some(replies) = tables.replies(line) else { return };
    let way = tables::find(replies, fingerprint, tables);
    if way < WAYS {
        replies.exchange(way, Reply::new(fingerprint, work.number).0, 0);
    }
}

/// Gives up the record `work.number`, whose contents are in `work.flow` and whose claim belongs to `place`; whether this CPU was the one to do so.
#[inline(always)]
pub(super) fn release<F: Family>(work: &mut Work<F>, place: Place, tables: &impl Tables<F>) -> bool {
    let claim = claim::<F>(work.number, tables);
    // Nobody's, or another flow's by now, which another CPU may be about to enter.
    if claim.fingerprint() != place.fingerprint || claim.stage() == FlowStage::Entering {
        return false;
    }
    if !exchange::<F>(work.number, claim, Claim::default(), tables) {
        return false;
    }
    if claim.stage() == FlowStage::Established {
        tables.count_connection(work.flow.server_ref.index(), false);
    }
    forget(work, claim, tables);
    true
}

/// The claim to a record.
#[inline(always)]
pub(super) fn claim<F: Family>(number: u32, tables: &impl Tables<F>) -> Claim {
    let claims = tables.claims(number / WAYS as u32);
    Claim(claims.map_or(0, |claims| claims.load(number as usize % WAYS)))
}

/// Replaces the claim to a record if it still is `old`.
#[inline(always)]
pub(super) fn exchange<F: Family>(number: u32, old: Claim, new: Claim, tables: &impl Tables<F>) -> bool {
    let claims = tables.claims(number / WAYS as u32);
    claims.is_some_and(|claims| claims.exchange(number as usize % WAYS, old.0, new.0))
}

/// Notes a packet of the flow in `work`, but only if that changes something: a new state, another way to the
/// client, or the first packet of a tick.
#[inline(always)]
pub(super) fn keep<F: Family>(work: &mut Work<F>, is_client: bool, tables: &impl Tables<F>) {
    let half = if is_client { crate::abi::Half::Client } else { crate::abi::Half::Server };
    let (old, now) = (work.flow.state, tables.now());
    let state = conntrack::advance(old, half, work.packet.flags, proves(work, is_client));
    let moved = is_client
        && (work.flow.client_ifindex != work.ifindex || work.flow.client_mac != work.link.from.bytes());
    let mut news = (state ^ old) | (now ^ work.flow.seen);
    if !is_client {
        // A server may answer twice, and not with the same number (SYN cookies). All bits of SYN, or none.
        let syn = 0u16.wrapping_sub((work.packet.flags & tcp::SYN) as u16 / tcp::SYN as u16);
        news |= syn as u32;
        work.flow.handshake = work.packet.next_number() & syn | work.flow.handshake & !syn;
    }
    if news == 0 && !moved {
        return;
    }
    if moved {
        work.flow.client_ifindex = work.ifindex;
        work.flow.client_mac = work.link.from.bytes();
    }
    work.flow.seen = now;
    work.flow.state = state;
    let touched = Touched { set: state & !old, clear: old & !state, moved, answered: !is_client };
    tables.touch_flow(work.number, &work.flow, &touched);
    let (before, after) = (conntrack::stage(old), conntrack::stage(state));
    if before != after {
        advance(work, after, now, tables);
    }
}

/// 1 if the packet shows that the client has had the server's answer, else 0. Without a branch for each condition, which Linux
/// 6.1 would follow in every combination. Datagrams have no number, as nothing that is expected of them has one.
#[inline(always)]
fn proves<F: Family>(work: &Work<F>, is_client: bool) -> u32 {
    let packet = &work.packet;
    let differs = ((packet.acknowledged() ^ work.flow.handshake) as u32 + u16::MAX as u32) >> 16;
    let wrong = if is_client { differs } else { packet.lacks_data() | packet.key.protocol & 1 };
    let syn = (packet.flags & tcp::SYN) as u32 / tcp::SYN as u32;
    (wrong | syn) ^ 1
}

/// Brings the claim up to date with the stage of its flow.
#[inline(always)]
fn advance<F: Family>(work: &Work<F>, stage: FlowStage, now: u32, tables: &impl Tables<F>) {
    let claim = claim::<F>(work.number, tables);
    if claim.is_empty() || claim.stage() == FlowStage::Entering || claim.stage() == stage {
        return;
    }
    if exchange::<F>(work.number, claim, claim.at(stage, now), tables) {
        let (was_over, is_over) = (claim.stage() == FlowStage::Over, stage == FlowStage::Over);
        if was_over != is_over {
            tables.count_connection(work.flow.server_ref.index(), was_over);
        }
    }
}
