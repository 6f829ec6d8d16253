//! Every map. Who writes and who reads each is in the table of `lb_common::abi`.
//!
//! Sizes are defaults; user space sets those of the flow tables to what the operator wants before loading.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_fib_lookup},
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    abi::{
        Counters, DEFAULT_FLOW_TAGS, DEFAULT_FLOWS, FRAGMENTED, Flood, Fragment, FragmentKey,
        INTERFACE_PLACES, Interface, Line, MAX_QUIC, MAX_QUIC_SERVERS, MAX_SERVERS, MAX_VIP_PORTS, MAX_VIPS,
        QuicLb, QuicLbKey, QuicServerKey, RECORD4, RECORD6, Ring, Server, ServerRef, Settings, TRACE_RING,
        TraceFilter, TraceRecord, Vip, VipKey, VipLimit, WAYS,
    },
    family::{Family, V4, V6},
    pipeline::Work,
    trace::End,
    verdict::{REASON_COUNT, STAGE_COUNT},
};

/// An address of IPv4, an address of IPv6.
type A4 = <V4 as Family>::Addr;
type A6 = <V6 as Family>::Addr;

/// VIPs are few and change rarely: no memory is kept for those that do not exist.
pub(crate) const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// User space reads and writes it like its own memory.
pub(crate) const MAPPED: usize = BPF_F_MMAPABLE as usize;

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
pub(crate) static INTERFACES: Array<Interface, INTERFACE_PLACES> = Array::new();

#[btf_map]
pub(crate) static CLAIMS4: Array<Line, { DEFAULT_FLOWS / WAYS }, MAPPED> = Array::new();

#[btf_map]
pub(crate) static CLAIMS6: Array<Line, { DEFAULT_FLOWS / WAYS }, MAPPED> = Array::new();

#[btf_map]
pub(crate) static FLOWS4: Array<[u64; RECORD4], DEFAULT_FLOWS, MAPPED> = Array::new();

#[btf_map]
pub(crate) static FLOWS6: Array<[u64; RECORD6], DEFAULT_FLOWS, MAPPED> = Array::new();

#[btf_map]
pub(crate) static REPLIES4: Array<Line, { 2 * DEFAULT_FLOWS / WAYS }, MAPPED> = Array::new();

#[btf_map]
pub(crate) static REPLIES6: Array<Line, { 2 * DEFAULT_FLOWS / WAYS }, MAPPED> = Array::new();

#[btf_map]
pub(crate) static FLOW_TAGS: Array<Line, { DEFAULT_FLOW_TAGS / WAYS }, MAPPED> = Array::new();

#[btf_map]
pub(crate) static FRAGMENTS4: LruHashMap<FragmentKey<A4>, Fragment, FRAGMENTED> = LruHashMap::new();

#[btf_map]
pub(crate) static FRAGMENTS6: LruHashMap<FragmentKey<A6>, Fragment, FRAGMENTED> = LruHashMap::new();

#[btf_map]
pub(crate) static QUIC: HashMap<QuicLbKey, QuicLb, MAX_QUIC, ON_DEMAND> = HashMap::new();

#[btf_map]
pub(crate) static QUIC_SERVERS: HashMap<QuicServerKey, ServerRef, MAX_QUIC_SERVERS, ON_DEMAND> =
    HashMap::new();

#[btf_map]
pub(crate) static LIMITS: Array<VipLimit, MAX_VIPS> = Array::new();

#[btf_map]
pub(crate) static LOADS: Array<u32, MAX_SERVERS, MAPPED> = Array::new();

#[btf_map]
pub(crate) static FLOOD: PerCpuArray<Flood, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, MAX_SERVERS> = PerCpuArray::new();

#[btf_map]
pub(crate) static WORK4: PerCpuArray<Work<V4>, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static WORK6: PerCpuArray<Work<V6>, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<u32, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static ROUTE: PerCpuArray<bpf_fib_lookup, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static REASONS: PerCpuArray<u64, { REASON_COUNT as usize }> = PerCpuArray::new();

#[btf_map]
pub(crate) static STAGES: ProgramArray<{ 2 * STAGE_COUNT as usize }> = ProgramArray::new();

#[btf_map]
pub(crate) static TRACE: Array<TraceFilter, 1> = Array::new();

#[btf_map]
pub(crate) static EVENTS: RingBuf<TraceRecord, TRACE_RING> = RingBuf::new();

#[btf_map]
pub(crate) static END: PerCpuArray<End, 1> = PerCpuArray::new();
