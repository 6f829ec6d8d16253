//! The tables as the kernel program has them now, to be asked and not to be changed: what was written into the maps, the
//! mapped flow tables, and a layer above in which the decision may write as it likes.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use lb_common::{
    abi::{
        Flood, Flow, Fragment, FragmentKey, Mac, QuicLb, QuicLbKey, RING_SIZE, Server, ServerRef, Settings,
        Slot, Vip, VipKey, WAYS,
    },
    family::{Family, V4, V6},
    hash,
    parse::{Parse, Quote},
    pipeline::{Line, Tables, Touched},
    rewrite::Answer,
    verdict::{Event, Hop},
};

use crate::{
    datapath::flows::{FlowTables, Lines},
    plan::Desired,
};

/// A family, and where its part of the tables is.
pub(super) trait OfflineFamily: Parse + Quote + Answer {
    fn vip(written: &Desired, key: &VipKey<Self::Addr>) -> Option<Vip>;
    fn claims(flows: &FlowTables) -> &Lines;
    fn replies(flows: &FlowTables) -> &Lines;
    fn flow(flows: &FlowTables, number: u32) -> Option<Flow<Self::Addr>>;
}

macro_rules! offline_family {
    ($family:ty, $vips:ident, $claims:ident, $replies:ident, $flow:ident) => {
        impl OfflineFamily for $family {
            fn vip(written: &Desired, key: &VipKey<Self::Addr>) -> Option<Vip> {
                written.$vips.get(key).copied()
            }
            fn claims(flows: &FlowTables) -> &Lines {
                flows.$claims()
            }
            fn replies(flows: &FlowTables) -> &Lines {
                flows.$replies()
            }
            fn flow(flows: &FlowTables, number: u32) -> Option<Flow<Self::Addr>> {
                flows.$flow(number)
            }
        }
    };
}

offline_family!(V4, vips4, claims4, replies4, flow4);
offline_family!(V6, vips6, claims6, replies6, flow6);

/// The tables of one family, for one question.
pub(super) struct Offline<'a, F: Family> {
    written: &'a Desired,
    flows: &'a FlowTables,
    now: u32,
    entries: Entries,
    records: RefCell<HashMap<u32, Flow<F::Addr>>>,
}

/// Entries of lines that were written since: by address of the one in the kernel.
type Entries = RefCell<HashMap<usize, u64>>;

impl<'a, F: OfflineFamily> Offline<'a, F> {
    /// The tables as they are at the tick `now`.
    pub(super) fn new(written: &'a Desired, flows: &'a FlowTables, now: u32) -> Self {
        Self { written, flows, now, entries: Entries::default(), records: RefCell::default() }
    }

    fn line<'b>(&'b self, lines: &'b Lines, line: u32) -> Option<Shadow<'b>> {
        let line = line as usize;
        (line < lines.len()).then(|| Shadow { kernel: lines.get(line), written: &self.entries })
    }
}

/// A line of the kernel's, with what was written over it.
#[derive(Clone, Copy)]
pub(super) struct Shadow<'a> {
    kernel: &'a [AtomicU64; WAYS],
    written: &'a Entries,
}

impl Line for Shadow<'_> {
    fn load(self, way: usize) -> u64 {
        let entry = &self.kernel[way];
        let address = std::ptr::from_ref(entry).addr();
        self.written.borrow().get(&address).copied().unwrap_or_else(|| entry.load(SeqCst))
    }

    fn store(self, way: usize, value: u64) {
        self.written.borrow_mut().insert(std::ptr::from_ref(&self.kernel[way]).addr(), value);
    }

    fn exchange(self, way: usize, old: u64, new: u64) -> bool {
        let same = self.load(way) == old;
        if same {
            self.store(way, new);
        }
        same
    }
}

impl<F: OfflineFamily> Tables<F> for Offline<'_, F> {
    type Line<'b>
        = Shadow<'b>
    where
        Self: 'b;

    fn now(&self) -> u32 {
        self.now
    }

    fn settings(&self) -> &Settings {
        &self.written.settings
    }

    fn claim_mask(&self) -> u32 {
        F::claims(self.flows).len() as u32 - 1
    }

    fn vip(&self, key: &VipKey<F::Addr>) -> Option<Vip> {
        F::vip(self.written, key)
    }

    fn slot(&self, vip: u16, hash: u32) -> Slot {
        let ring = self.written.rings.get(&vip);
        ring.map_or(Slot::default(), |ring| ring.slot(hash::scale(hash, RING_SIZE as u32) as usize))
    }

    /// The kernel alone knows whose turn it is: any slot is as likely, so it is the first.
    fn next_slot(&self, vip: u16) -> Slot {
        self.slot(vip, 0)
    }

    /// What the VIP has had in this tick, the kernel alone knows.
    fn admits(&self, _: u16, _: u32) -> bool {
        true
    }

    fn server(&self, index: u16) -> Option<Server> {
        Some(self.written.servers.get(&index).copied().unwrap_or_default())
    }

    fn load(&self, server: u16) -> u32 {
        self.flows.load(server.into())
    }

    fn count_connection(&self, _: u16, _: bool) {}

    fn interface(&self, ifindex: u32) -> Mac {
        let place = self.written.settings.place_of_interface(ifindex);
        let found = self.written.interfaces.get(&place).filter(|interface| interface.ifindex == ifindex);
        found.map_or(Mac::NONE, |interface| interface.mac)
    }

    /// The host's routing table is not asked.
    fn route(&self, _: u16, _: bool, _: &mut Hop) -> bool {
        false
    }

    fn tags(&self, line: u32) -> Option<Shadow<'_>> {
        self.line(self.flows.tags(), line)
    }

    fn claims(&self, line: u32) -> Option<Shadow<'_>> {
        self.line(F::claims(self.flows), line)
    }

    fn replies(&self, line: u32) -> Option<Shadow<'_>> {
        self.line(F::replies(self.flows), line)
    }

    fn read_flow(&self, number: u32, flow: &mut Flow<F::Addr>) {
        let written = self.records.borrow().get(&number).copied();
        *flow = written.or_else(|| F::flow(self.flows, number)).unwrap_or_default();
    }

    fn write_flow(&self, number: u32, flow: &Flow<F::Addr>) {
        self.records.borrow_mut().insert(number, *flow);
    }

    fn touch_flow(&self, _: u32, _: &Flow<F::Addr>, _: &Touched) {}

    /// Only whole packets are asked about.
    fn fragment(&self, _: &FragmentKey<F::Addr>) -> Option<Fragment> {
        None
    }

    fn note_fragment(&self, _: &FragmentKey<F::Addr>, _: &Fragment) {}

    /// A question names no connection ID.
    fn quic(&self, _: &QuicLbKey) -> Option<&QuicLb> {
        None
    }

    fn quic_server(&self, _: u16, _: u64) -> Option<ServerRef> {
        None
    }

    fn flood(&self) -> Flood {
        Flood::default()
    }

    fn set_flood(&self, _: Flood) {}

    fn count(&self, _: Event) {}
}
