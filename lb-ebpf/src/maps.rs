//! Every map. Who writes and who reads each is in the table of `lb_common::abi`.
//!
//! Sizes are upper bounds; user space lowers the flow tables to what the operator wants before loading.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_fib_lookup},
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    abi::{
        Counters, DEFAULT_FLOW_ENTRIES, Flow, FlowKey, MAX_INTERFACES, MAX_SERVERS, MAX_VIP_PORTS, MAX_VIPS,
        Mac, Ring, Server, Settings, Vip, VipKey,
    },
    family::{Family, V4, V6},
    pipeline::Work,
    verdict::REASON_COUNT,
};

/// An address of IPv4, an address of IPv6.
type A4 = <V4 as Family>::Addr;
type A6 = <V6 as Family>::Addr;

/// VIPs are few and change rarely: no memory is kept for those that do not exist.
pub(crate) const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();

#[btf_map]
pub(crate) static VIPS4: HashMap<VipKey<A4>, Vip, MAX_VIP_PORTS, ON_DEMAND> = HashMap::new();

#[btf_map]
pub(crate) static VIPS6: HashMap<VipKey<A6>, Vip, MAX_VIP_PORTS, ON_DEMAND> = HashMap::new();

#[btf_map]
pub(crate) static RINGS: ArrayOfMaps<Array<Ring, 1>, MAX_VIPS> = ArrayOfMaps::new();

#[btf_map]
pub(crate) static SERVERS: Array<Server, MAX_SERVERS> = Array::new();

#[btf_map]
pub(crate) static INTERFACES: HashMap<u32, Mac, MAX_INTERFACES> = HashMap::new();

#[btf_map]
pub(crate) static FLOWS4: LruHashMap<FlowKey<A4>, Flow<A4>, DEFAULT_FLOW_ENTRIES> = LruHashMap::new();

#[btf_map]
pub(crate) static FLOWS6: LruHashMap<FlowKey<A6>, Flow<A6>, DEFAULT_FLOW_ENTRIES> = LruHashMap::new();

#[btf_map]
pub(crate) static VIP_COUNTERS: PerCpuArray<Counters, MAX_VIPS> = PerCpuArray::new();

#[btf_map]
pub(crate) static SERVER_COUNTERS: PerCpuArray<Counters, MAX_SERVERS> = PerCpuArray::new();

#[btf_map]
pub(crate) static WORK4: PerCpuArray<Work<V4>, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static WORK6: PerCpuArray<Work<V6>, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static ROUTE: PerCpuArray<bpf_fib_lookup, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static REASONS: PerCpuArray<u64, { REASON_COUNT as usize }> = PerCpuArray::new();
