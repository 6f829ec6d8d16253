//! The only place that looks anything up: `lb_common::pipeline::Tables` over the maps.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT, BPF_NOEXIST, bpf_fib_lookup as FibLookup},
    btf_maps::{HashMap, LruHashMap},
    helpers::{bpf_fib_lookup, bpf_ktime_get_ns},
    programs::XdpContext,
};
use lb_common::{
    abi::{
        DEFAULT_FLOW_ENTRIES, Flow, FlowKey, MAX_VIP_PORTS, Mac, RING_SIZE, Server, ServerRef, Settings, Vip,
        VipKey,
    },
    conntrack,
    family::{Family, V4, V6},
    hash,
    pipeline::{Refused, Tables, Work},
    verdict::Hop,
};

use crate::maps::{self, ON_DEMAND};

type Vips<F> = HashMap<VipKey<<F as Family>::Addr>, Vip, MAX_VIP_PORTS, ON_DEMAND>;
type Flows<F> = LruHashMap<FlowKey<<F as Family>::Addr>, Flow<<F as Family>::Addr>, DEFAULT_FLOW_ENTRIES>;

/// A family with maps of its own.
pub(crate) trait KernelFamily: Family {
    /// `AF_INET` or `AF_INET6`.
    const ADDRESS_FAMILY: u8;
    /// This CPU's workspace. The caller must be the only one to ask for it in a run of the program.
    fn work() -> Option<&'static mut Work<Self>>;
    fn vips() -> &'static Vips<Self>;
    fn flows() -> &'static Flows<Self>;
}

impl KernelFamily for V4 {
    const ADDRESS_FAMILY: u8 = 2;
    #[inline(always)]
    fn work() -> Option<&'static mut Work<Self>> {
        // SAFETY: the map gave a non-null pointer to this CPU's own value; XDP runs with bottom halves
        // disabled, so no other run on this CPU comes in between, and `forward` asks once.
        maps::WORK4.get_ptr_mut(0).map(|work| unsafe { &mut *work })
    }
    #[inline(always)]
    fn vips() -> &'static Vips<Self> {
        &maps::VIPS4
    }
    #[inline(always)]
    fn flows() -> &'static Flows<Self> {
        &maps::FLOWS4
    }
}

impl KernelFamily for V6 {
    const ADDRESS_FAMILY: u8 = 10;
    #[inline(always)]
    fn work() -> Option<&'static mut Work<Self>> {
        // SAFETY: the map gave a non-null pointer to this CPU's own value; XDP runs with bottom halves
        // disabled, so no other run on this CPU comes in between, and `forward` asks once.
        maps::WORK6.get_ptr_mut(0).map(|work| unsafe { &mut *work })
    }
    #[inline(always)]
    fn vips() -> &'static Vips<Self> {
        &maps::VIPS6
    }
    #[inline(always)]
    fn flows() -> &'static Flows<Self> {
        &maps::FLOWS6
    }
}

/// The maps, as seen by one run of the program.
pub(crate) struct KernelTables<'a> {
    ctx: &'a XdpContext,
}

impl<'a> KernelTables<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }
}

impl<F: KernelFamily> Tables<F> for KernelTables<'_> {
    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: the helper has no precondition.
        conntrack::tick(unsafe { bpf_ktime_get_ns() })
    }

    #[inline(always)]
    fn settings(&self) -> Settings {
        maps::SETTINGS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey<F::Addr>) -> Option<Vip> {
        let vip = F::vips().get_ptr(key)?;
        // SAFETY: the map gave a non-null pointer to a value; an entry that user space replaces meanwhile
        // is freed only after this program run (RCU).
        Some(unsafe { vip.read() })
    }

    #[inline(always)]
    fn slot(&self, vip: u16, hash: u32) -> ServerRef {
        let Some(ring) = maps::RINGS.get_value_ptr_mut(vip as u32, &0) else {
            return ServerRef::NONE;
        };
        let slot = hash::scale(hash, RING_SIZE as u32) as usize;
        // SAFETY: the map gave a non-null pointer to a ring, and `scale` gives a number below `RING_SIZE`
        // (which the verifier checks for itself).
        ServerRef(unsafe { ring.cast::<u32>().add(slot).read() })
    }

    #[inline(always)]
    fn server(&self, index: u16) -> Option<Server> {
        let server = maps::SERVERS.get_ptr(index as u32)?;
        // SAFETY: the map gave a non-null pointer; entries of an array are never freed. User space may be
        // writing it: the generation check afterwards rejects an entry that changed hands.
        Some(unsafe { server.read() })
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<Mac> {
        let mac = maps::INTERFACES.get_ptr(ifindex)?;
        // SAFETY: the map gave a non-null pointer, valid for this run (RCU).
        Some(unsafe { mac.read() })
    }

    #[inline(always)]
    fn route(&self, server: &Server, direct: bool) -> Option<Hop> {
        route::<F>(self.ctx, server, direct)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey<F::Addr>, flow: &mut Flow<F::Addr>) -> bool {
        let Some(found) = F::flows().get_ptr(key) else {
            return false;
        };
        // SAFETY: the map gave a non-null pointer. Should the entry be evicted and reused on another CPU
        // right now, the copy may be another flow's: one packet goes astray, as it would without an entry.
        // (Said as a copy between places that do not overlap, or it becomes a call of `memmove`.)
        unsafe { core::ptr::copy_nonoverlapping(found, flow, 1) };
        true
    }

    #[inline(always)]
    fn insert(&mut self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, replace: bool) -> Result<(), Refused> {
        let flags = if replace { 0 } else { BPF_NOEXIST as u64 };
        F::flows().insert(key, flow, flags).map_err(|_| Refused)
    }

    #[inline(always)]
    fn refresh(&mut self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>) -> bool {
        let Some(entry) = F::flows().get_ptr_mut(key) else {
            return false;
        };
        // SAFETY: the map gave a non-null pointer. Other CPUs may write the same fields: each is a single
        // store but the MAC, which all packets of a flow agree on unless the client's router changes.
        unsafe {
            (*entry).seen = flow.seen;
            (*entry).state = flow.state;
            (*entry).client_ifindex = flow.client_ifindex;
            (*entry).client_mac = flow.client_mac;
        }
        true
    }
}

/// Asks the host's routing table and neighbours. Works only while the kernel forwards on that interface
/// (`bpf_fib_lookup` insists on it) and knows the neighbour; user space has usually spared us the question.
#[inline(always)]
fn route<F: KernelFamily>(ctx: &XdpContext, server: &Server, direct: bool) -> Option<Hop> {
    if server.ifindex == 0 {
        return None;
    }
    let lookup = maps::ROUTE.get_ptr_mut(0)?;
    // SAFETY: the map gave a non-null pointer to this CPU's own value, used nowhere else; its fields are
    // integers, for which any bits are valid. The helper is told the true size.
    unsafe {
        lookup.write(core::mem::zeroed());
        (*lookup).family = F::ADDRESS_FAMILY;
        (*lookup).ifindex = server.ifindex;
        (*lookup).__bindgen_anon_4.ipv6_dst = server.address;
        let size = size_of::<FibLookup>() as i32;
        let outcome = bpf_fib_lookup(ctx.as_ptr(), lookup, size, BPF_FIB_LOOKUP_OUTPUT);
        // On success this is the next hop: the server itself, or a router.
        let next = F::from_words((*lookup).__bindgen_anon_4.ipv6_dst);
        let routed = next != F::from_words(server.address);
        if outcome != BPF_FIB_LKUP_RET_SUCCESS as i64 || (direct && routed) {
            return None;
        }
        Some(Hop { to: Mac::new((*lookup).dmac), from: Mac::new((*lookup).smac), ifindex: (*lookup).ifindex })
    }
}
