//! What the decision may look up and change: the only thing it knows of the world.

use super::{Work, open};
use crate::{
    abi::{
        Flood, Flow, Fragment, FragmentKey, Mac, QuicLb, QuicLbKey, Server, ServerRef, Settings, Slot, Vip,
        VipKey, WAYS,
    },
    family::Family,
    verdict::{Event, Hop},
};

/// A line of eight entries, each read and written by itself, shared with other CPUs and with user space.
pub trait Line: Copy {
    /// The entry at `way`, below [`WAYS`].
    fn load(self, way: usize) -> u64;
    /// Writes an entry.
    fn store(self, way: usize, value: u64);
    /// Writes an entry if it still is `old`; whether it was.
    fn exchange(self, way: usize, old: u64, new: u64) -> bool;
}

/// The first way of a line whose upper half is `wanted`, or [`WAYS`].
#[inline(always)]
pub(super) fn find<F: Family>(line: impl Line, wanted: u32, tables: &impl Tables<F>) -> usize {
    let way = (0..WAYS).find(|&way| (line.load(way) >> 32) as u32 == wanted);
    tables.forget(way.unwrap_or(WAYS) as u32) as usize
}

/// How many ways of a line have `wanted` as their upper half. Without a branch for each way: Linux 6.1 follows every
/// combination of them.
#[inline(always)]
pub(super) fn count(line: impl Line, wanted: u32) -> u32 {
    let others = (0..WAYS).fold(0, |others, way| {
        let difference = (line.load(way) >> 32) ^ wanted as u64;
        // Carries into the upper half unless the difference is 0.
        others + ((difference + u32::MAX as u64) >> 32)
    });
    WAYS as u32 - others as u32
}

/// The way of a line with the highest rank, and the rank; of those that rank alike the last.
#[inline(always)]
pub(super) fn highest<F: Family>(
    line: impl Line,
    rank: impl Fn(u64) -> u32,
    tables: &impl Tables<F>,
) -> (usize, u32) {
    let mut best = 0;
    for way in 0..WAYS {
        best = ((rank(line.load(way)) as u64) << 3 | way as u64).max(best);
    }
    let (way, rank) = (tables.forget(best as u32), tables.forget((best >> 3) as u32));
    (way as usize % WAYS, rank)
}

/// What a packet has changed in the record of its flow.
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    /// Facts of its state that are new.
    pub set: u32,
    /// Those that no longer hold.
    pub clear: u32,
    /// Whether the client's whereabouts are others.
    pub moved: bool,
    /// Whether it came from the server: then the number that it answers with may be another.
    pub answered: bool,
}

/// The tables of one family, as the kernel has them in BPF maps and [`crate::host`] in ordinary memory.
pub trait Tables<F: Family> {
    /// A line of any of the tables that have lines.
    type Line<'a>: Line
    where
        Self: 'a;

    /// The present tick, see [`crate::conntrack::tick`].
    fn now(&self) -> u32;
    /// The settings record.
    fn settings(&self) -> &Settings;
    /// How many lines `CLAIMS` of this family has, less one.
    fn claim_mask(&self) -> u32;
    /// The VIP of an address and port.
    fn vip(&self, key: &VipKey<F::Addr>) -> Option<Vip>;
    /// What the ring of a VIP holds at a place below [`crate::abi::RING_SIZE`], given as a hash to be scaled;
    /// the default if there is no ring.
    fn slot(&self, vip: u16, hash: u32) -> Slot;
    /// The next slot of the ring of a VIP, in turns.
    fn next_slot(&self, vip: u16) -> Slot;
    /// Counts a new flow of a VIP in this tick; whether there may be one more.
    fn admits(&self, vip: u16, now: u32) -> bool;
    /// A server entry.
    fn server(&self, index: u16) -> Option<Server>;
    /// Connections of a server that are alive.
    fn load(&self, server: u16) -> u32;
    /// Counts a connection of a server that has begun or ended.
    fn count_connection(&self, server: u16, begun: bool);
    /// The MAC address of one of the balancer's interfaces; [`Mac::NONE`] of any other.
    fn interface(&self, ifindex: u32) -> Mac;
    /// Where the host's routing table would send a packet to this server goes to `hop`, for servers whose next hop
    /// user space does not know; `false` if nowhere. With `direct`, a way over a router does not count.
    fn route(&self, server: u16, direct: bool, hop: &mut Hop) -> bool;
    /// A line of the flow tags.
    fn tags(&self, line: u32) -> Option<Self::Line<'_>>;
    /// A line of the claims to records.
    fn claims(&self, line: u32) -> Option<Self::Line<'_>>;
    /// A line of the replies' index.
    fn replies(&self, line: u32) -> Option<Self::Line<'_>>;
    /// Copies a record into `flow`. There is none with a number beyond the table, which no entry of it names: it would
    /// be of protocol 0, which no packet has.
    fn read_flow(&self, number: u32, flow: &mut Flow<F::Addr>);
    /// Writes a record.
    fn write_flow(&self, number: u32, flow: &Flow<F::Addr>);
    /// Notes a packet in a record: its time, and what else there is to it, as in `flow`.
    fn touch_flow(&self, number: u32, flow: &Flow<F::Addr>, touched: &Touched);
    /// What was decided about the first piece of a datagram.
    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<Fragment>;
    /// Remembers it.
    fn note_fragment(&self, key: &FragmentKey<F::Addr>, fragment: &Fragment);
    /// How connection IDs of a VIP's QUIC are to be read.
    fn quic(&self, key: &QuicLbKey) -> Option<&QuicLb>;
    /// The server of a VIP that has this name in them.
    fn quic_server(&self, vip: u16, id: u64) -> Option<ServerRef>;
    /// What this CPU knows of a flood.
    fn flood(&self) -> Flood;
    /// Writes it.
    fn set_flood(&self, flood: Flood);
    /// Counts an event.
    fn count(&self, event: Event);
    /// [`open::claim_port`], which the kernel verifies as a function by itself: once, not for each try.
    #[inline(always)]
    fn claim_port(&self, work: &mut Work<F>, own: bool, attempt: u32) -> bool
    where
        Self: Sized,
    {
        open::claim_port(work, own, attempt, self)
    }
    /// The same number. In the kernel it goes through memory, so that the verifier forgets how it came about:
    /// whether a loop has found something in its first round or in its last is then one case, not eight.
    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        number
    }
}
