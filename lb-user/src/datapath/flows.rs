//! The sweep: takes out of the tables what is over, forgotten or orphaned, and counts the rest.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

use aya::Ebpf;
use lb_common::{
    abi::{
        Claim, Flow, FlowStage, FlowTag, RECORD4, RECORD6, RING_SIZE, Reply, TAG_UNIT, TagStage, WAYS,
        protocol,
    },
    conntrack,
    family::{Family, V4, V6},
    hash,
};

pub use self::records::Record;
use super::{Error, mapped::Mapped, parted::Parted};
use crate::plan::orders::{Census, Fate, Orders, Sheet};

/// Lines of eight entries.
pub(crate) type Lines = Mapped<[AtomicU64; WAYS]>;

/// Ticks without a sign of life after which the tag of a client is forgotten, unless it is to persist for longer, or that of
/// a connection which its client has ended; and after which a flow no longer counts as one that is open: as long as an
/// established connection may be silent (RFC 5382 REQ-5), and a little more.
const TAG_TIMEOUT: u32 = 7_440 + 760;

/// The same for the tag of a flow: only one packet in some is a sign, and who says something once in some minutes may show
/// none for hours. About 16 hours; the clock of the tags wraps around after 19. Where room is short, those give way that
/// have shown none for two hours.
const FLOW_TIMEOUT: u32 = 53_000;

/// Units of a tag's time that are less than none: a packet that arrives while the sweep runs is "seen" after it began.
const WRAPPED: u32 = (1 << 14) - 2;

/// Units of a tag's time that a connection which its client has ended may still need its slot tagged: the other side
/// may go on sending, and what the client says to that keeps the tag fresh.
const LAST_WORDS: u32 = 30;

/// Ticks for which the ends of a halted server's connections are told; then what is left is removed.
const HALTING: u32 = 5;

/// The flow tables of both families, and the flow tags.
#[derive(Debug)]
pub struct FlowTables {
    v4: Table<V4, RECORD4>,
    v6: Table<V6, RECORD6>,
    tags: Lines,
    loads: Mapped<AtomicU32>,
    seed: u64,
}

/// The tables of one family.
#[derive(Debug)]
struct Table<F, const RECORD: usize> {
    claims: Lines,
    flows: Parted<[u64; RECORD]>,
    replies: Lines,
    family: PhantomData<F>,
}

/// What a sweep goes by: the orders, and how long servers have been halted.
#[derive(Clone, Copy)]
pub struct Round<'a> {
    /// The orders.
    pub orders: &'a Orders,
    /// The present tick.
    pub now: u32,
    /// For how many ticks the server with this index has been halted.
    pub halted_for: &'a dyn Fn(u16) -> u32,
}

/// A connection both of whose ends are to be told that its server is halted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halted {
    /// Over IPv4.
    V4(Flow<u32>),
    /// Over IPv6.
    V6(Flow<[u32; 4]>),
}

impl FlowTables {
    pub(super) fn take(ebpf: &mut Ebpf, seed: u64) -> Result<Self, Error> {
        Ok(Self {
            v4: Table::take(ebpf, "CLAIMS4", "FLOWS4", "REPLIES4")?,
            v6: Table::take(ebpf, "CLAIMS6", "FLOWS6", "REPLIES6")?,
            tags: Mapped::take(ebpf, "FLOW_TAGS")?,
            loads: Mapped::take(ebpf, "LOADS")?,
            seed,
        })
    }

    /// Flows that each family's table holds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.v4.flows.len() as u64
    }

    /// The claims to records of IPv4.
    pub(crate) fn claims4(&self) -> &Lines {
        &self.v4.claims
    }

    /// The claims to records of IPv6.
    pub(crate) fn claims6(&self) -> &Lines {
        &self.v6.claims
    }

    /// The index of IPv4's replies.
    pub(crate) fn replies4(&self) -> &Lines {
        &self.v4.replies
    }

    /// The index of IPv6's replies.
    pub(crate) fn replies6(&self) -> &Lines {
        &self.v6.replies
    }

    /// The flow tags.
    pub(crate) fn tags(&self) -> &Lines {
        &self.tags
    }

    /// A record of IPv4.
    pub(crate) fn flow4(&self, number: u32) -> Option<Flow<u32>> {
        self.v4.record(number)
    }

    /// A record of IPv6.
    pub(crate) fn flow6(&self, number: u32) -> Option<Flow<[u32; 4]>> {
        self.v6.record(number)
    }

    /// Flow tags that there is room for.
    #[must_use]
    pub fn tag_capacity(&self) -> u64 {
        (self.tags.len() * WAYS) as u64
    }

    /// Goes through all tables once: some ten nanoseconds for each flow. `halted` is told of every connection of a
    /// server that has been halted just now.
    ///
    /// # Errors
    /// When a part of the records cannot be looked at. Flows that were taken out by then stay so.
    pub fn sweep(&self, round: &Round<'_>, halted: &mut dyn FnMut(Halted)) -> Result<Census, Error> {
        let loads: Vec<u32> = (0..round.orders.servers.len()).map(|index| self.load(index)).collect();
        let mut census = Census { step: round.orders.step, ..Census::default() };
        self.v4.sweep(round, self.seed, &mut census, &mut |flow| halted(Halted::V4(flow)))?;
        self.v6.sweep(round, self.seed, &mut census, &mut |flow| halted(Halted::V6(flow)))?;
        self.sweep_tags(round, &mut census);
        census.lingering.sort_unstable();
        census.lingering.dedup();
        self.correct_loads(&loads, &census);
        Ok(census)
    }

    fn sweep_tags(&self, round: &Round<'_>, census: &mut Census) {
        for line in 0..self.tags.len() {
            for way in self.tags.get(line) {
                let tag = FlowTag(way.load(SeqCst));
                if tag.server() == 0 {
                    continue;
                }
                let sheet = round.orders.sheet(tag.server());
                if is_forgotten(tag, &sheet, round.now) {
                    // If the kernel has just refreshed it, it stays.
                    census.removed += u64::from(way.compare_exchange(tag.0, 0, SeqCst, SeqCst).is_ok());
                    continue;
                }
                count_tag(tag, &sheet, round, census);
            }
        }
    }

    /// Connections of the server with an index that are alive.
    pub(crate) fn load(&self, index: usize) -> u32 {
        if index < self.loads.len() { self.loads.get(index).load(SeqCst) } else { 0 }
    }

    /// The kernel counts connections up and down as it sees them begin and end; some ends it cannot see. What it counted
    /// while the sweep was under way explains any number between the one before, `loads`, and the one now: only what is
    /// beyond them is a mistake.
    fn correct_loads(&self, loads: &[u32], census: &Census) {
        for (index, &before) in loads.iter().enumerate().take(self.loads.len()) {
            let counted = census.by_server.get(&(index as u16)).copied().unwrap_or(0) as i64;
            let now = self.load(index);
            // A count below zero has wrapped around.
            let (before, after) = (i64::from(before as i32), i64::from(now as i32));
            let mistake = counted - counted.clamp(before.min(after), before.max(after));
            if mistake != 0 {
                self.loads.get(index).fetch_add(mistake as u32, SeqCst);
            }
        }
    }
}

impl Orders {
    /// What is known of a server.
    pub(crate) fn sheet(&self, server: u16) -> Sheet {
        self.servers.get(usize::from(server)).copied().unwrap_or_default()
    }
}

/// Whether a tag is of no use any more: it has been silent for too long, or leads nowhere. One that is as young as the
/// sweep may be of a server that came back since the orders were given.
pub(crate) fn is_forgotten(tag: FlowTag, sheet: &Sheet, now: u32) -> bool {
    let silent = tag.age(now);
    if silent >= WRAPPED {
        return false;
    }
    let leads_nowhere = matches!(sheet.fate, Fate::Down | Fate::Halted | Fate::Gone);
    let timeout = match tag.stage() {
        TagStage::Closed => TAG_TIMEOUT,
        TagStage::Opening | TagStage::Established => FLOW_TIMEOUT,
        TagStage::Client => TAG_TIMEOUT.max(sheet.remember),
    };
    leads_nowhere && silent > 0 || silent * TAG_UNIT > timeout
}

/// Counts a tag that stays.
pub(crate) fn count_tag(tag: FlowTag, sheet: &Sheet, round: &Round<'_>, census: &mut Census) {
    census.tags_taken += 1;
    if sheet.fate == Fate::Gone {
        census.lingering.push(tag.server());
    }
    let closed = tag.stage() == TagStage::Closed;
    if closed && tag.age(round.now) > LAST_WORDS {
        return;
    }
    if let Some(ring) = round.orders.rings.get(&sheet.vip) {
        let at = hash::scale(tag.hash(), RING_SIZE as u32) as usize;
        let slot = ring.slot(at);
        if slot.tagged() && slot.server().index() != tag.server() {
            census.held.entry(sheet.vip).or_default().add(at);
        }
    }
    let silent = tag.age(round.now);
    let open = silent >= WRAPPED || silent * TAG_UNIT <= TAG_TIMEOUT;
    if tag.stage() == TagStage::Client || !closed && open {
        census.tags += 1;
        if tag.stage() != TagStage::Client {
            *census.by_server.entry(tag.server()).or_default() += 1;
        }
    }
}

impl<F: Family, const RECORD: usize> Table<F, RECORD> {
    fn take(ebpf: &mut Ebpf, claims: &str, flows: &str, replies: &str) -> Result<Self, Error> {
        Ok(Self {
            claims: Mapped::take(ebpf, claims)?,
            flows: Parted::take(ebpf, flows)?,
            replies: Mapped::take(ebpf, replies)?,
            family: PhantomData,
        })
    }

    fn record(&self, number: u32) -> Option<Flow<F::Addr>> {
        let number = number as usize;
        // One that cannot be mapped is as good as none for whoever asks about one flow.
        if number < self.flows.len() { self.flows.view().read(number).ok() } else { None }
    }

    fn sweep(
        &self,
        round: &Round<'_>,
        seed: u64,
        census: &mut Census,
        halted: &mut dyn FnMut(Flow<F::Addr>),
    ) -> Result<(), Error> {
        let mut records = self.flows.view();
        for line in 0..self.claims.len() {
            for (way, entry) in self.claims.get(line).iter().enumerate() {
                let claim = Claim(entry.load(SeqCst));
                if claim.is_empty() || claim.stage() == FlowStage::Entering {
                    continue;
                }
                let number = line * WAYS + way;
                let flow: Flow<F::Addr> = records.read(number)?;
                let server = flow.server_ref.index();
                let fate = round.orders.sheet(server).fate;
                if is_to_go(&flow, fate, round) {
                    census.removed += u64::from(self.remove(number, entry, claim, &flow, seed));
                    continue;
                }
                census.records += 1;
                if fate == Fate::Gone {
                    census.lingering.push(server);
                }
                if fate == Fate::Halted && flow.protocol == u16::from(protocol::TCP) {
                    halted(flow);
                }
                if claim.stage() != FlowStage::Over {
                    census.alive += 1;
                    *census.by_server.entry(server).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes the record away from its flow, unless the kernel has done so just now; then the reply's entry.
    fn remove(
        &self,
        number: usize,
        entry: &AtomicU64,
        claim: Claim,
        flow: &Flow<F::Addr>,
        seed: u64,
    ) -> bool {
        if entry.compare_exchange(claim.0, 0, SeqCst, SeqCst).is_err() {
            return false;
        }
        let place = hash::place::<F>(&flow.reply_key(), seed);
        let reply = Reply::new((place >> 32) as u32, number as u32);
        let line = place as usize & (self.replies.len() - 1);
        for way in self.replies.get(line) {
            if way.compare_exchange(reply.0, 0, SeqCst, SeqCst).is_ok() {
                break;
            }
        }
        true
    }
}

/// Whether a record is of no use any more. That of a server which is gone would keep its answers coming while the
/// client's packets lead nowhere: without it the host resets both ends.
pub(crate) fn is_to_go<A>(flow: &Flow<A>, fate: Fate, round: &Round<'_>) -> bool {
    match fate {
        Fate::Gone => true,
        Fate::Halted if (round.halted_for)(flow.server_ref.index()) > HALTING => true,
        _ => conntrack::expired(flow.protocol as u8, flow.state, flow.seen, round.now),
    }
}

/// The present tick of the clock that the program uses: nanoseconds since boot, without suspend.
#[must_use]
pub fn tick() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    conntrack::tick(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

mod records;

#[cfg(test)]
pub(crate) mod tests;
