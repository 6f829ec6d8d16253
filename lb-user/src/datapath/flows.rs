//! The sweep: takes flows out of the tables that have been silent for too long, and counts the rest.

use std::{
    collections::HashMap as Counts,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

use aya::Ebpf;
use lb_common::{
    abi::{Claim, Flow, FlowStage, FlowTag, RECORD4, RECORD6, Reply, TAG_UNIT, TagStage, WAYS},
    conntrack,
    family::{Family, V4, V6},
    hash,
};

use super::{Error, mapped::Mapped};

type Lines = Mapped<[AtomicU64; WAYS]>;

/// Ticks without a sign of life after which a flow tag is forgotten: as long as an established connection may be
/// silent (RFC 5382 REQ-5), and a little more, as only some of its packets are signs.
const TAG_TIMEOUT: u32 = 7_440 + 760;

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
    flows: Mapped<[u64; RECORD]>,
    replies: Lines,
    family: std::marker::PhantomData<F>,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Translated flows and flow tags alive, by server index. One that has ended is not, although its entry stays a
    /// while for stragglers.
    pub by_server: Counts<u16, u64>,
    /// Translated flows alive.
    pub alive: u64,
    /// Flow tags of flows that are alive.
    pub tags: u64,
    /// Flows and tags removed.
    pub removed: u64,
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

    /// Flow tags that there is room for.
    #[must_use]
    pub fn tag_capacity(&self) -> u64 {
        (self.tags.len() * WAYS) as u64
    }

    /// Goes through all tables once, at the tick `now`: some ten nanoseconds for each flow.
    pub fn sweep(&self, now: u32) -> Census {
        let mut census = Census::default();
        self.v4.sweep(now, self.seed, &mut census);
        self.v6.sweep(now, self.seed, &mut census);
        self.sweep_tags(now, &mut census);
        self.correct_loads(&census);
        census
    }

    fn sweep_tags(&self, now: u32, census: &mut Census) {
        for line in 0..self.tags.len() {
            for way in self.tags.get(line) {
                let tag = FlowTag(way.load(SeqCst));
                if tag.server() == 0 {
                    continue;
                }
                if tag.age(now) * TAG_UNIT > TAG_TIMEOUT {
                    // If the kernel has just refreshed it, it stays.
                    census.removed += u64::from(way.compare_exchange(tag.0, 0, SeqCst, SeqCst).is_ok());
                } else if tag.stage() != TagStage::Closed {
                    census.tags += 1;
                    *census.by_server.entry(tag.server()).or_default() += 1;
                }
            }
        }
    }

    /// The kernel counts connections up and down as it sees them begin and end; some ends it cannot see. A flow that
    /// began or ended during the sweep is a mistake of one, until the next.
    fn correct_loads(&self, census: &Census) {
        for index in 0..self.loads.len() {
            let counted = census.by_server.get(&(index as u16)).copied().unwrap_or(0) as u32;
            let load = self.loads.get(index);
            if load.load(SeqCst) != counted {
                load.store(counted, SeqCst);
            }
        }
    }
}

impl<F: Family, const RECORD: usize> Table<F, RECORD> {
    fn take(ebpf: &mut Ebpf, claims: &str, flows: &str, replies: &str) -> Result<Self, Error> {
        Ok(Self {
            claims: Mapped::take(ebpf, claims)?,
            flows: Mapped::take(ebpf, flows)?,
            replies: Mapped::take(ebpf, replies)?,
            family: std::marker::PhantomData,
        })
    }

    fn sweep(&self, now: u32, seed: u64, census: &mut Census) {
        for line in 0..self.claims.len() {
            for (way, entry) in self.claims.get(line).iter().enumerate() {
                let claim = Claim(entry.load(SeqCst));
                if claim.is_empty() || claim.stage() == FlowStage::Entering {
                    continue;
                }
                let number = line * WAYS + way;
                let flow: Flow<F::Addr> = self.flows.read(number);
                if conntrack::expired(flow.protocol as u8, flow.state, flow.seen, now) {
                    census.removed += u64::from(self.remove(number, entry, claim, &flow, seed));
                } else if claim.stage() != FlowStage::Over {
                    census.alive += 1;
                    *census.by_server.entry(flow.server_ref.index()).or_default() += 1;
                }
            }
        }
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

/// The present tick of the clock that the program uses: nanoseconds since boot, without suspend.
#[must_use]
pub fn tick() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    conntrack::tick(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}
