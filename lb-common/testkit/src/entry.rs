//! Entries of the flow tables, whatever their family, under the 5-tuples that frames have.

use std::net::IpAddr;

use lb_common::abi::{Flow, FlowKey, Half, MacBytes, ServerRef};

use crate::{
    inspect::Tuple,
    world::{self, Key, World},
};

/// An entry of a flow table, whatever its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What its packets become.
    pub out: Tuple,
    /// Its server.
    pub server: ServerRef,
    /// Which packets it is for.
    pub half: Half,
    /// What the two halves have in common: state, time, the client's whereabouts.
    pub shared: (u8, u32, MacBytes, u32),
}

/// The entry for packets with this 5-tuple.
#[must_use]
pub fn entry(world: &World, tuple: Tuple) -> Option<Entry> {
    match Key::from(tuple) {
        Key::V4(key) => world.tables.v4.flows.get(&key).map(|flow| entry_of(&key, flow, world::ip4)),
        Key::V6(key) => world.tables.v6.flows.get(&key).map(|flow| entry_of(&key, flow, world::ip6)),
    }
}

fn entry_of<A: Copy>(key: &FlowKey<A>, flow: &Flow<A>, ip: impl Fn(A) -> IpAddr) -> Entry {
    let (src, dst) = ((ip(flow.src), flow.sport).into(), (ip(flow.dst), flow.dport).into());
    Entry {
        out: Tuple { src, dst, protocol: key.protocol as u8 },
        server: flow.server,
        half: flow.half(),
        shared: (flow.state, flow.seen, flow.client_mac, flow.client_ifindex),
    }
}
