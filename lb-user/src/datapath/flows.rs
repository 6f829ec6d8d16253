//! The sweep: takes flows out of the tables that have been silent for too long, and counts the rest.

use std::collections::HashMap as Counts;

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData},
};
use lb_common::{
    abi::{Flow, FlowKey, Half},
    conntrack,
};

use super::{Error, load::take};

/// The flow tables of both families.
#[derive(Debug)]
pub struct FlowTables {
    flows4: HashMap<MapData, FlowKey<u32>, Flow<u32>>,
    flows6: HashMap<MapData, FlowKey<[u32; 4]>, Flow<[u32; 4]>>,
    capacity: u32,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Flows alive, by server index. One that both sides have ended, or one has reset, is not, although its
    /// entry stays a while for stragglers.
    pub by_server: Counts<u16, u64>,
    /// Flows alive.
    pub alive: u64,
    /// Entries removed, two for most flows.
    pub removed: u64,
}

impl FlowTables {
    pub(super) fn take(ebpf: &mut Ebpf, capacity: u32) -> Result<Self, Error> {
        Ok(Self { flows4: take(ebpf, "FLOWS4")?, flows6: take(ebpf, "FLOWS6")?, capacity })
    }

    /// Flows that each family's table holds: half its entries.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        u64::from(self.capacity) / 2
    }

    /// Goes through both tables once, at the tick `now`. Takes about two microseconds for each entry.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self, now: u32) -> Result<Census, Error> {
        let mut census = Census::default();
        sweep(&mut self.flows4, self.capacity, now, &mut census)?;
        sweep(&mut self.flows6, self.capacity, now, &mut census)?;
        Ok(census)
    }
}

fn sweep<A: Copy>(
    map: &mut HashMap<MapData, FlowKey<A>, Flow<A>>,
    capacity: u32,
    now: u32,
    census: &mut Census,
) -> Result<(), Error>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let mut expired = Vec::new();
    // When an entry vanishes just as it is reached, the kernel starts over: hence the bound.
    for entry in map.iter().take(2 * capacity as usize) {
        let (key, flow) = entry?;
        if conntrack::expired(key.protocol as u8, flow.state, flow.seen, now) {
            expired.push(key);
        } else if flow.half() == Half::Client && !conntrack::is_over(flow.state) {
            census.alive += 1;
            *census.by_server.entry(flow.server.index()).or_default() += 1;
        }
    }
    for key in expired {
        // It may have been evicted meanwhile, which is as well.
        census.removed += u64::from(map.remove(&key).is_ok());
    }
    Ok(())
}

/// The present tick of the clock that the program uses: nanoseconds since boot, without suspend.
#[must_use]
pub fn tick() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    conntrack::tick(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}
