//! What the flow tables hold, in the kernel and on the host, in one shape: as the bytes that both are made of.

use std::collections::{BTreeMap, HashMap as Plain};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData},
};
use lb_common::{
    abi::{Flow, Fragment, FragmentKey, Line, RECORD4, RECORD6},
    family::{Family, V4},
    host::{FamilyTables, HostTables, entries as lines},
};

use crate::kernel::{entries, take};

/// All that is kept about flows. Times included: both sides are given the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    claims4: Vec<Line>,
    claims6: Vec<Line>,
    flows4: Vec<[u64; RECORD4]>,
    flows6: Vec<[u64; RECORD6]>,
    replies4: Vec<Line>,
    replies6: Vec<Line>,
    tags: Vec<Line>,
    loads: BTreeMap<u16, u32>,
    fragments4: Plain<FragmentKey<u32>, Fragment>,
    fragments6: Plain<FragmentKey<[u32; 4]>, Fragment>,
}

impl Snapshot {
    /// What the host has.
    pub(crate) fn of(tables: &HostTables) -> Self {
        Self {
            claims4: lines(&tables.v4.claims),
            claims6: lines(&tables.v6.claims),
            flows4: records(&tables.v4),
            flows6: records(&tables.v6),
            replies4: lines(&tables.v4.replies),
            replies6: lines(&tables.v6.replies),
            tags: lines(&tables.tags),
            loads: tables.loads.iter().map(|(&index, load)| (index, load.get())).collect(),
            fragments4: tables.v4.fragments.borrow().clone(),
            fragments6: tables.v6.fragments.borrow().clone(),
        }
    }

    /// The first difference, for whoever has to find out.
    pub(crate) fn difference(&self, kernel: &Self) -> Option<String> {
        fn first<T: PartialEq + std::fmt::Debug>(name: &str, host: &[T], kernel: &[T]) -> Option<String> {
            let at = host.iter().zip(kernel).position(|(host, kernel)| host != kernel)?;
            Some(format!("{name} {at}: host {:#x?}, kernel {:#x?}", host[at], kernel[at]))
        }
        first("claims of IPv4, line", &self.claims4, &kernel.claims4)
            .or_else(|| first("claims of IPv6, line", &self.claims6, &kernel.claims6))
            .or_else(|| first("IPv4 flow", &self.flows4, &kernel.flows4))
            .or_else(|| first("IPv6 flow", &self.flows6, &kernel.flows6))
            .or_else(|| first("replies of IPv4, line", &self.replies4, &kernel.replies4))
            .or_else(|| first("replies of IPv6, line", &self.replies6, &kernel.replies6))
            .or_else(|| first("flow tags, line", &self.tags, &kernel.tags))
            .or_else(|| {
                let loads = |snapshot: &Self| snapshot.loads.clone().into_iter().collect::<Vec<_>>();
                first("connections of a server", &loads(self), &loads(kernel))
            })
            .or_else(|| (self != kernel).then(|| "what is remembered of pieces of datagrams".to_owned()))
    }
}

/// Records as they lie in the maps: field by field, in the order of the ABI.
fn records<F: Family, const WORDS: usize>(tables: &FamilyTables<F>) -> Vec<[u64; WORDS]> {
    tables.flows.iter().map(|flow| record::<F, WORDS>(&flow.get())).collect()
}

/// A record of IPv4.
pub(crate) fn record4(flow: &Flow<u32>) -> [u64; RECORD4] {
    record::<V4, RECORD4>(flow)
}

fn record<F: Family, const WORDS: usize>(flow: &Flow<F::Addr>) -> [u64; WORDS] {
    let mut bytes = Vec::new();
    for address in [flow.client, flow.vip, flow.source, flow.server] {
        let words = &F::to_words(address)[..size_of::<F::Addr>() / 4];
        words.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    }
    let halves =
        [flow.client_port, flow.vip_port, flow.source_port, flow.server_port, flow.protocol, flow.vip_id];
    halves.iter().for_each(|half| bytes.extend(half.to_ne_bytes()));
    let words = [flow.server_ref.0, flow.seen, flow.state, flow.client_ifindex];
    words.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    bytes.extend(flow.client_mac);
    bytes.extend(flow.handshake.to_le_bytes());
    bytes.resize(WORDS * 8, 0);
    let words = bytes.as_chunks::<8>().0;
    std::array::from_fn(|word| u64::from_ne_bytes(words[word]))
}

/// The flow tables in the kernel.
pub(crate) struct Tables {
    claims4: Array<MapData, Line>,
    claims6: Array<MapData, Line>,
    flows4: Array<MapData, [u64; RECORD4]>,
    flows6: Array<MapData, [u64; RECORD6]>,
    replies4: Array<MapData, Line>,
    replies6: Array<MapData, Line>,
    tags: Array<MapData, Line>,
    loads: Array<MapData, u32>,
    fragments4: HashMap<MapData, FragmentKey<u32>, Fragment>,
    fragments6: HashMap<MapData, FragmentKey<[u32; 4]>, Fragment>,
}

impl Tables {
    pub(crate) fn take(ebpf: &mut Ebpf) -> Self {
        Self {
            claims4: take(ebpf, "CLAIMS4"),
            claims6: take(ebpf, "CLAIMS6"),
            flows4: take(ebpf, "FLOWS4"),
            flows6: take(ebpf, "FLOWS6"),
            replies4: take(ebpf, "REPLIES4"),
            replies6: take(ebpf, "REPLIES6"),
            tags: take(ebpf, "FLOW_TAGS"),
            loads: take(ebpf, "LOADS"),
            fragments4: take(ebpf, "FRAGMENTS4"),
            fragments6: take(ebpf, "FRAGMENTS6"),
        }
    }

    /// What the kernel has; of the servers that `like` knows.
    pub(crate) fn read(&self, like: &Snapshot) -> Snapshot {
        let load = |&index: &u16| (index, self.loads.get(&index.into(), 0).expect("a server's number"));
        Snapshot {
            claims4: all(&self.claims4),
            claims6: all(&self.claims6),
            flows4: all(&self.flows4),
            flows6: all(&self.flows6),
            replies4: all(&self.replies4),
            replies6: all(&self.replies6),
            tags: all(&self.tags),
            loads: like.loads.keys().map(load).collect(),
            fragments4: entries(&self.fragments4),
            fragments6: entries(&self.fragments6),
        }
    }

    /// Makes the kernel's into `new`, where they differ from `old`.
    pub(crate) fn write(&mut self, old: &Snapshot, new: &Snapshot) {
        set(&mut self.claims4, &old.claims4, &new.claims4);
        set(&mut self.claims6, &old.claims6, &new.claims6);
        set(&mut self.flows4, &old.flows4, &new.flows4);
        set(&mut self.flows6, &old.flows6, &new.flows6);
        set(&mut self.replies4, &old.replies4, &new.replies4);
        set(&mut self.replies6, &old.replies6, &new.replies6);
        set(&mut self.tags, &old.tags, &new.tags);
        for (&index, &load) in new.loads.iter().filter(|(index, load)| old.loads.get(index) != Some(load)) {
            self.loads.set(index.into(), load, 0).expect("a server's number");
        }
        replace(&mut self.fragments4, &old.fragments4, &new.fragments4);
        replace(&mut self.fragments6, &old.fragments6, &new.fragments6);
    }
}

fn all<T: Pod>(array: &Array<MapData, T>) -> Vec<T> {
    (0..array.len()).map(|index| array.get(&index, 0).expect("an element")).collect()
}

fn set<T: Pod + PartialEq>(array: &mut Array<MapData, T>, old: &[T], new: &[T]) {
    for (index, new) in new.iter().enumerate().filter(|(index, new)| old[*index] != **new) {
        array.set(index as u32, new, 0).expect("an element");
    }
}

fn replace<K: Pod + Eq + std::hash::Hash, V: Pod + PartialEq>(
    map: &mut HashMap<MapData, K, V>,
    old: &Plain<K, V>,
    new: &Plain<K, V>,
) {
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        map.remove(key).expect("it was there");
    }
    for (key, value) in new.iter().filter(|(key, value)| old.get(key) != Some(value)) {
        map.insert(key, value, 0).expect("room");
    }
}
