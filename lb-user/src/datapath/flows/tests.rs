//! The sweep over tables in ordinary memory.

use std::collections::HashMap;

use lb_common::abi::{Reply, ServerRef, protocol};

use super::*;
use crate::plan::{Image, RingSpec};

const NOW: u32 = 100_000;
const SEED: u64 = 7;

/// Tables for 128 flows of each kind.
pub(crate) fn tables() -> FlowTables {
    fn table<F, const RECORD: usize>() -> Table<F, RECORD> {
        let (claims, flows) = (Mapped::ordinary(16), Parted::ordinary(128));
        Table { claims, flows, replies: Mapped::ordinary(32), family: PhantomData }
    }
    let (v4, v6, tags, loads) = (table(), table(), Mapped::ordinary(16), Mapped::ordinary(64));
    FlowTables { v4, v6, tags, loads, seed: SEED }
}

/// Orders about servers with these fates, from index 1 on.
fn orders(fates: &[Fate]) -> Orders {
    let sheet = |&fate: &Fate| Sheet { vip: 1, fate, ..Sheet::default() };
    let servers = std::iter::once(Sheet::default()).chain(fates.iter().map(sheet)).collect();
    Orders { step: 5, servers, ..Orders::default() }
}

impl FlowTables {
    fn sweep_for(&self, orders: &Orders, halted_for: u32) -> (Census, Vec<Halted>) {
        let mut halted = Vec::new();
        let round = Round { orders, now: NOW, halted_for: &|_| halted_for };
        let census = self.sweep(&round, &mut |connection| halted.push(connection)).unwrap();
        (census, halted)
    }

    fn census(&self, orders: &Orders) -> Census {
        self.sweep_for(orders, 0).0
    }

    fn tag(&self, place: usize, tag: FlowTag) {
        self.tags.get(place / WAYS)[place % WAYS].store(tag.0, SeqCst);
    }

    /// An established TCP flow of a server, entered at `place`.
    pub(crate) fn enter(&self, place: usize, server: u16, seen: u32) -> Flow<u32> {
        let flow = Flow {
            client: place as u32,
            source_port: 1_000 + place as u16,
            protocol: protocol::TCP.into(),
            server_ref: ServerRef::new(server, 1),
            state: conntrack::REPLIED | conntrack::CONFIRMED,
            seen,
            ..Flow::default()
        };
        self.v4.flows.write(place, flow);
        let claim = Claim::new(place as u32 + 1, FlowStage::Established, seen);
        self.v4.claims.get(place / WAYS)[place % WAYS].store(claim.0, SeqCst);
        let reply = hash::place::<V4>(&flow.reply_key(), SEED);
        let line = self.v4.replies.get(reply as usize & (self.v4.replies.len() - 1));
        let free = line.iter().find(|way| way.load(SeqCst) == 0).expect("room");
        free.store(Reply::new((reply >> 32) as u32, place as u32).0, SeqCst);
        flow
    }

    fn replies(&self) -> usize {
        let lines = (0..self.v4.replies.len()).map(|line| self.v4.replies.get(line));
        lines.flatten().filter(|way| way.load(SeqCst) != 0).count()
    }
}

fn ago(units: u32) -> u32 {
    NOW - units * TAG_UNIT
}

#[test]
fn what_has_been_silent_for_too_long_goes_and_the_rest_is_counted() {
    let tables = tables();
    tables.enter(3, 1, NOW);
    tables.enter(4, 1, NOW - 7_440);
    tables.enter(5, 1, NOW - 7_441);
    tables.enter(6, 2, NOW + 1);
    tables.tag(0, FlowTag::new(1, 1, TagStage::Established, ago(0)));
    tables.tag(1, FlowTag::new(2, 2, TagStage::Opening, ago(2_050)));
    tables.tag(2, FlowTag::new(3, 2, TagStage::Closed, ago(2_051)));
    tables.tag(3, FlowTag::new(6, 2, TagStage::Established, ago(13_250)));
    tables.tag(4, FlowTag::new(7, 2, TagStage::Established, ago(13_251)));
    tables.tag(9, FlowTag::new(4, 2, TagStage::Closed, ago(1)));
    tables.tag(10, FlowTag::new(5, 1, TagStage::Established, NOW + TAG_UNIT));
    let census = tables.census(&orders(&[Fate::Kept, Fate::Kept]));
    let expected = Census {
        step: 5,
        by_server: [(1, 4), (2, 2)].into(),
        alive: 3,
        records: 3,
        tags: 3,
        tags_taken: 5,
        removed: 3,
        ..Census::default()
    };
    assert_eq!(census, expected);
    assert_eq!(tables.replies(), 3, "with a record goes what led to it");
    assert_eq!(tables.census(&orders(&[Fate::Kept, Fate::Kept])), Census { removed: 0, ..expected });
}

#[test]
fn clients_that_persist_are_remembered_for_as_long_as_was_asked() {
    let tables = tables();
    let mut orders = orders(&[Fate::Kept]);
    orders.servers[1].remember = 5_000 * TAG_UNIT;
    tables.tag(0, FlowTag::new(1, 1, TagStage::Client, ago(5_000)));
    tables.tag(1, FlowTag::new(2, 1, TagStage::Client, ago(5_001)));
    let census = tables.census(&orders);
    assert_eq!((census.tags, census.removed), (1, 1));
    assert_eq!(census.by_server, HashMap::new(), "they are no connections");
}

#[test]
fn tags_of_servers_that_keep_no_flows_go() {
    let fates = [Fate::Down, Fate::Halted, Fate::Gone, Fate::Nobody];
    let tables = tables();
    for server in 1..=4u16 {
        tables.tag(server.into(), FlowTag::new(server.into(), server, TagStage::Established, ago(3)));
    }
    // As young as the sweep: perhaps of a server that is well again.
    tables.tag(20, FlowTag::new(9, 1, TagStage::Established, ago(0)));
    let census = tables.census(&orders(&fates));
    assert_eq!((census.removed, census.tags), (3, 2));
    assert_eq!(census.by_server, [(1, 1), (4, 1)].into(), "who is not known yet may be new");
}

#[test]
fn an_index_lingers_for_as_long_as_something_names_it() {
    let tables = tables();
    let orders = orders(&[Fate::Gone, Fate::Gone, Fate::Kept]);
    tables.enter(7, 1, NOW);
    tables.tag(0, FlowTag::new(1, 2, TagStage::Closed, ago(0)));
    let census = tables.census(&orders);
    assert_eq!((census.lingering, census.removed), (vec![2], 1), "the record is gone, the tag too young");
    tables.tag(0, FlowTag::new(1, 2, TagStage::Closed, ago(1)));
    assert_eq!(tables.census(&orders).lingering, [] as [u16; 0]);
}

#[test]
fn slots_are_held_by_flows_that_live_elsewhere() {
    let tables = tables();
    let member = |n: u8| (ServerRef::new(n.into(), 1), 100, [10, 0, 0, n].into());
    let image = RingSpec::new(vec![member(1)]).build();
    let mut orders = orders(&[Fate::Kept, Fate::Kept]);
    let tag = |place: usize, hash, server, stage, age| {
        tables.tag(place, FlowTag::new(hash, server, stage, ago(age)))
    };
    let step = u32::MAX / 8;
    tag(0, step, 2, TagStage::Established, 9);
    tag(1, 2 * step, 2, TagStage::Opening, 9);
    tag(2, 3 * step, 2, TagStage::Closed, 2);
    tag(3, 4 * step, 2, TagStage::Closed, LAST_WORDS + 1);
    tag(4, 5 * step, 1, TagStage::Established, 9);
    assert!(tables.census(&orders).held.is_empty(), "no ring is under way");
    orders.rings.insert(1, image.clone());
    assert!(tables.census(&orders).held.is_empty(), "no slot is tagged");
    orders.rings.insert(1, image.tagged());
    let census = tables.census(&orders);
    let held = |hash| census.held[&1].has(hash::scale(hash, RING_SIZE as u32) as usize);
    assert_eq!([1, 2, 3, 4, 5].map(|n| held(n * step)), [true, true, true, false, false]);
    assert_eq!((0..RING_SIZE).filter(|&slot| census.held[&1].has(slot)).count(), 3);
    let _: &Image = &image;
}

#[test]
fn connections_of_a_halted_server_are_told_and_then_removed() {
    let tables = tables();
    let flow = tables.enter(1, 1, NOW);
    tables.enter(2, 2, NOW);
    let datagrams = Flow { protocol: protocol::UDP.into(), ..tables.enter(3, 1, NOW) };
    tables.v4.flows.write(3, datagrams);
    let orders = orders(&[Fate::Halted, Fate::Kept]);
    let (census, halted) = tables.sweep_for(&orders, 1);
    assert_eq!((halted, census.removed), (vec![Halted::V4(flow)], 0));
    let (census, halted) = tables.sweep_for(&orders, HALTING + 1);
    assert_eq!((halted, census.removed, census.records), (vec![], 2, 1));
}

#[test]
fn the_kernels_counts_are_corrected_and_nothing_that_it_counts_meanwhile() {
    let tables = tables();
    for place in 0..10 {
        tables.enter(place, 1, NOW);
    }
    let orders = orders(&[Fate::Kept, Fate::Kept]);
    tables.loads.get(1).store(12, SeqCst);
    tables.loads.get(2).store(u32::MAX, SeqCst);
    let census = tables.census(&orders);
    assert_eq!([1, 2].map(|index| tables.load(index)), [10, 0]);
    // Nine before the sweep, twelve after it: ten in between is nobody's mistake.
    tables.loads.get(1).store(12, SeqCst);
    tables.correct_loads(&[0, 9, 0], &census);
    assert_eq!(tables.load(1), 12);
    // Fifteen before, sixteen after: five or six too many.
    tables.loads.get(1).store(16, SeqCst);
    tables.correct_loads(&[0, 15, 0], &census);
    assert_eq!(tables.load(1), 11);
}
