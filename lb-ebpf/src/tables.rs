//! The only place that looks anything up: `lb_common::pipeline::Tables` over the maps.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_and, atomic_or, atomic_xadd};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup as FibLookup},
    btf_maps::{HashMap, LruHashMap},
    helpers::{bpf_fib_lookup, generated::bpf_ktime_get_coarse_ns},
    programs::XdpContext,
};
use lb_common::{
    abi::{
        FRAGMENTED, Flood, Flow, Fragment, FragmentKey, Line, MAX_VIP_PORTS, Mac, QuicLb, QuicLbKey,
        QuicServerKey, RING_SIZE, Server, ServerRef, Settings, Slot, Vip, VipKey, VipLimit, server_flags,
        settings_flags,
    },
    conntrack,
    family::{Family, V4, V6},
    hash,
    pipeline::{Tables, Touched, Work, open},
    verdict::{Event, Hop},
};

use crate::{
    line::KernelLine,
    maps::{self, ON_DEMAND},
    stats,
};

type Vips<F> = HashMap<VipKey<<F as Family>::Addr>, Vip, MAX_VIP_PORTS, ON_DEMAND>;
type Fragments<F> = LruHashMap<FragmentKey<<F as Family>::Addr>, Fragment, FRAGMENTED>;

/// A family with maps of its own.
pub(crate) trait KernelFamily: Family {
    /// 0 or 1: which of a stage's programs is its.
    const NUMBER: u32;
    /// This CPU's workspace. The caller must be the only one to hold it in a run of a program.
    fn work() -> Option<&'static mut Work<Self>>;
    fn vips() -> &'static Vips<Self>;
    fn fragments() -> &'static Fragments<Self>;
    fn claim_mask(settings: &Settings) -> u32;
    fn claims(line: u32) -> Option<*mut Line>;
    fn replies(line: u32) -> Option<*mut Line>;
    fn flow(number: u32) -> Option<*mut Flow<Self::Addr>>;
    fn claim_port(work: &mut Work<Self>, own: bool, attempt: u32) -> bool;
    fn route(ctx: &XdpContext, server: u16, direct: bool, hop: &mut Hop) -> u32;
}

macro_rules! kernel_family {
    ($family:ty, $number:literal, $lines:ident, $work:ident, $vips:ident, $fragments:ident, $claims:ident,
     $replies:ident, $flows:ident, $claim_port:ident,
     $route:ident) => {
        impl KernelFamily for $family {
            const NUMBER: u32 = $number;
            #[inline(always)]
            fn work() -> Option<&'static mut Work<Self>> {
                // SAFETY: the map gave a non-null pointer to this CPU's own value; XDP runs with bottom halves
                // disabled, so no other run on this CPU comes in between, and a run asks once.
                maps::$work.get_ptr_mut(0).map(|work| unsafe { &mut *work })
            }
            #[inline(always)]
            fn vips() -> &'static Vips<Self> {
                &maps::$vips
            }
            #[inline(always)]
            fn fragments() -> &'static Fragments<Self> {
                &maps::$fragments
            }
            #[inline(always)]
            fn claim_mask(settings: &Settings) -> u32 {
                settings.$lines
            }
            #[inline(always)]
            fn claims(line: u32) -> Option<*mut Line> {
                maps::$claims.get_ptr_mut(line)
            }
            #[inline(always)]
            fn replies(line: u32) -> Option<*mut Line> {
                maps::$replies.get_ptr_mut(line)
            }
            #[inline(always)]
            fn flow(number: u32) -> Option<*mut Flow<Self::Addr>> {
                // The room of a record is larger than the record: asserted in `lb_common::abi`.
                maps::$flows.get_ptr_mut(number).map(|room| room.cast())
            }
            #[inline(always)]
            fn claim_port(work: &mut Work<Self>, own: bool, attempt: u32) -> bool {
                // The function finds the workspace by itself: what is in it has to be written by now.
                core::hint::black_box(work);
                $claim_port(own as u32, attempt) != 0
            }
            #[inline(always)]
            fn route(ctx: &XdpContext, server: u16, direct: bool, hop: &mut Hop) -> u32 {
                $route(ctx, server, direct, hop)
            }
        }

        /// Seldom asked, so not made part of every place that might. (Without a result, the verifier would look at
        /// what is left in the register for it.)
        #[inline(never)]
        fn $route(ctx: &XdpContext, server: u16, direct: bool, hop: &mut Hop) -> u32 {
            ask_route(ctx, server, direct, hop) as u32
        }

        /// Verified by itself, because it is global; such a function may only be given numbers.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $claim_port(own: u32, attempt: u32) -> u32 {
            match (<$family as KernelFamily>::work(), KernelTables::without_context()) {
                (Some(work), Some(tables)) => open::claim_port(work, own != 0, attempt, &tables) as u32,
                _ => 0,
            }
        }
    };
}

kernel_family!(V4, 0, lines4, WORK4, VIPS4, FRAGMENTS4, CLAIMS4, REPLIES4, FLOWS4, claim_port4, route4);
kernel_family!(V6, 1, lines6, WORK6, VIPS6, FRAGMENTS6, CLAIMS6, REPLIES6, FLOWS6, claim_port6, route6);

/// The maps, as seen by one run of a program.
pub(crate) struct KernelTables<'a> {
    ctx: Option<&'a XdpContext>,
    settings: &'static Settings,
    scratch: *mut u32,
}

impl<'a> KernelTables<'a> {
    /// `None` never happens: it is a place in an array that there is.
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Option<Self> {
        Some(Self { ctx: Some(ctx), ..Self::without_context()? })
    }

    /// Whether somebody wants to know what becomes of packets.
    #[inline(always)]
    pub(crate) fn watched(&self) -> bool {
        self.settings.flags & settings_flags::TRACE != 0
    }

    /// For functions that have no context: the host's routing table cannot be asked then.
    #[inline(always)]
    fn without_context() -> Option<Self> {
        Some(Self { ctx: None, settings: maps::SETTINGS.get(0)?, scratch: maps::SCRATCH.get_ptr_mut(0)? })
    }
}

impl<F: KernelFamily> Tables<F> for KernelTables<'_> {
    type Line<'a>
        = KernelLine
    where
        Self: 'a;

    #[inline(always)]
    fn now(&self) -> u32 {
        // Exact to a timer tick, and a fifth of the price of the exact time.
        // SAFETY: the helper has no precondition.
        conntrack::tick(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn settings(&self) -> &Settings {
        self.settings
    }

    #[inline(always)]
    fn claim_mask(&self) -> u32 {
        F::claim_mask(self.settings)
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey<F::Addr>) -> Option<Vip> {
        let vip = F::vips().get_ptr(key)?;
        // SAFETY: the map gave a non-null pointer to a value; an entry that user space replaces meanwhile
        // is freed only after this program run (RCU).
        Some(unsafe { vip.read() })
    }

    #[inline(always)]
    fn slot(&self, vip: u16, hash: u32) -> Slot {
        let Some(ring) = maps::RINGS.get_value_ptr_mut(vip as u32, &0) else {
            return Slot::default();
        };
        let slot = hash::scale(hash, RING_SIZE as u32) as usize;
        // SAFETY: the map gave a non-null pointer to a ring, and `scale` gives a number below `RING_SIZE`
        // (which the verifier checks for itself).
        Slot(unsafe { ring.cast::<u32>().add(slot).read() })
    }

    #[inline(always)]
    fn next_slot(&self, vip: u16) -> Slot {
        let (Some(limit), Some(ring)) =
            (maps::LIMITS.get_ptr_mut(vip as u32), maps::RINGS.get_value_ptr_mut(vip as u32, &0))
        else {
            return Slot::default();
        };
        // SAFETY: the map gave a non-null pointer to a value of which this is a field.
        let turn: u32 = unsafe { atomic_xadd::<u32, u32, { SeqCst }>(&raw mut (*limit).turn, 1) };
        // The verifier learns nothing from a remainder, and LLVM too much: hence the comparison it cannot see
        // through.
        let slot = core::hint::black_box(turn % RING_SIZE as u32) as usize;
        if slot >= RING_SIZE {
            return Slot::default();
        }
        // SAFETY: the map gave a non-null pointer to a ring, and the slot is below `RING_SIZE`.
        Slot(unsafe { ring.cast::<u32>().add(slot).read() })
    }

    #[inline(always)]
    fn admits(&self, vip: u16, now: u32) -> bool {
        let Some(limit) = maps::LIMITS.get_ptr_mut(vip as u32) else { return true };
        // SAFETY: the map gave a non-null pointer. Several CPUs may find the tick new at once: a few flows more
        // are then let in.
        unsafe {
            let VipLimit { tick, per_tick, .. } = limit.read();
            if tick != now {
                (*limit).tick = now;
                (*limit).count = 1;
                return per_tick > 0;
            }
            atomic_xadd::<u32, u32, { SeqCst }>(&raw mut (*limit).count, 1) < per_tick
        }
    }

    #[inline(always)]
    fn server(&self, index: u16) -> Option<Server> {
        let server = maps::SERVERS.get_ptr(index as u32)?;
        // SAFETY: the map gave a non-null pointer; entries of an array are never freed. User space may be
        // writing it: the generation check afterwards rejects an entry that changed hands.
        Some(unsafe { server.read() })
    }

    #[inline(always)]
    fn load(&self, server: u16) -> u32 {
        // SAFETY: the map gave a non-null pointer to a number.
        maps::LOADS.get_ptr(server as u32).map_or(0, |load| unsafe { load.read_volatile() })
    }

    #[inline(always)]
    fn count_connection(&self, server: u16, begun: bool) {
        if let Some(load) = maps::LOADS.get_ptr_mut(server as u32) {
            // SAFETY: the map gave a non-null pointer to a number.
            unsafe { atomic_xadd::<u32, u32, { SeqCst }>(load, if begun { 1 } else { u32::MAX }) };
        }
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Mac {
        let Some(interface) = maps::INTERFACES.get_ptr(self.settings.place_of_interface(ifindex)) else {
            return Mac::NONE;
        };
        // SAFETY: the map gave a non-null pointer to a place that is never freed.
        unsafe { if (*interface).ifindex == ifindex { (*interface).mac } else { Mac::NONE } }
    }

    #[inline(always)]
    fn route(&self, server: u16, direct: bool, hop: &mut Hop) -> bool {
        self.ctx.is_some_and(|ctx| F::route(ctx, server, direct, hop) != 0)
    }

    #[inline(always)]
    fn tags(&self, line: u32) -> Option<KernelLine> {
        maps::FLOW_TAGS.get_ptr_mut(line).map(KernelLine::new)
    }

    #[inline(always)]
    fn claims(&self, line: u32) -> Option<KernelLine> {
        F::claims(line).map(KernelLine::new)
    }

    #[inline(always)]
    fn replies(&self, line: u32) -> Option<KernelLine> {
        F::replies(line).map(KernelLine::new)
    }

    #[inline(always)]
    fn read_flow(&self, number: u32, flow: &mut Flow<F::Addr>) {
        let Some(found) = F::flow(number) else {
            flow.protocol = 0;
            return;
        };
        // SAFETY: the map gave a non-null pointer. Should the record be given to another flow on another CPU
        // right now, the copy may be of both: the caller compares the 5-tuple, and one packet may go astray.
        // (Said as a copy between places that do not overlap, or it becomes a call of `memmove`.)
        unsafe { core::ptr::copy_nonoverlapping(found, flow, 1) };
    }

    #[inline(always)]
    fn write_flow(&self, number: u32, flow: &Flow<F::Addr>) {
        if let Some(room) = F::flow(number) {
            // SAFETY: the map gave a non-null pointer to a record that this run has claimed.
            unsafe { core::ptr::copy_nonoverlapping(flow, room, 1) };
        }
    }

    #[inline(always)]
    fn touch_flow(&self, number: u32, flow: &Flow<F::Addr>, touched: &Touched) {
        let Some(record) = F::flow(number) else { return };
        // SAFETY: the map gave a non-null pointer. Other CPUs may write the same fields: each is a single store, or
        // atomic, but the MAC, which all packets of a flow agree on unless the client's router changes.
        unsafe {
            (*record).seen = flow.seen;
            if touched.set != 0 {
                atomic_or::<u32, u32, { SeqCst }>(&raw mut (*record).state, touched.set);
            }
            if touched.clear != 0 {
                atomic_and::<u32, u32, { SeqCst }>(&raw mut (*record).state, !touched.clear);
            }
            if touched.answered {
                (*record).handshake = flow.handshake;
            }
            if touched.moved {
                (*record).client_ifindex = flow.client_ifindex;
                (*record).client_mac = flow.client_mac;
            }
        }
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<Fragment> {
        let fragment = F::fragments().get_ptr(key)?;
        // SAFETY: the map gave a non-null pointer, valid for this run (RCU); should the entry be evicted and
        // reused right now, the datagram is lost, as it would be without an entry.
        Some(unsafe { fragment.read() })
    }

    #[inline(always)]
    fn note_fragment(&self, key: &FragmentKey<F::Addr>, fragment: &Fragment) {
        let _ = F::fragments().insert(key, fragment, 0);
    }

    #[inline(always)]
    fn quic(&self, key: &QuicLbKey) -> Option<&QuicLb> {
        // SAFETY: the map gave a non-null pointer, valid for this run (RCU); an entry is replaced, never changed.
        maps::QUIC.get_ptr(key).map(|entry| unsafe { &*entry })
    }

    #[inline(always)]
    fn quic_server(&self, vip: u16, id: u64) -> Option<ServerRef> {
        let server = maps::QUIC_SERVERS.get_ptr(QuicServerKey { id, vip: vip.into() })?;
        // SAFETY: the map gave a non-null pointer, valid for this run (RCU).
        Some(unsafe { server.read() })
    }

    #[inline(always)]
    fn flood(&self) -> Flood {
        // SAFETY: the map gave a non-null pointer to this CPU's own value.
        maps::FLOOD.get_ptr(0).map_or(Flood::default(), |flood| unsafe { flood.read() })
    }

    #[inline(always)]
    fn set_flood(&self, flood: Flood) {
        if let Some(own) = maps::FLOOD.get_ptr_mut(0) {
            // SAFETY: the map gave a non-null pointer to this CPU's own value.
            unsafe { own.write(flood) };
        }
    }

    #[inline(always)]
    fn count(&self, event: Event) {
        stats::reason(event.index());
    }

    #[inline(always)]
    fn claim_port(&self, work: &mut Work<F>, own: bool, attempt: u32) -> bool {
        F::claim_port(work, own, attempt)
    }

    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        // SAFETY: the pointer is to this CPU's own value of a map, where it stays for all of the run.
        unsafe {
            self.scratch.write_volatile(number);
            self.scratch.read_volatile()
        }
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Asks the host's routing table and neighbours. Works only while the kernel forwards on that interface
/// (`bpf_fib_lookup` insists on it) and knows the neighbour; user space has usually spared us the question.
#[inline(always)]
fn ask_route(ctx: &XdpContext, server: u16, direct: bool, hop: &mut Hop) -> bool {
    let (Some(lookup), Some(server)) = (maps::ROUTE.get_ptr_mut(0), maps::SERVERS.get(server as u32)) else {
        return false;
    };
    if server.ifindex == 0 {
        return false;
    }
    // SAFETY: the map gave a non-null pointer to this CPU's own value, used nowhere else; its fields are
    // integers, for which any bits are valid. The helper is told the true size.
    unsafe {
        lookup.write(core::mem::zeroed());
        // Not always that of the packet: a tunnel may lead through the other one.
        (*lookup).family = if server.flags & server_flags::IPV6 != 0 { AF_INET6 } else { AF_INET };
        (*lookup).ifindex = server.ifindex;
        (*lookup).__bindgen_anon_4.ipv6_dst = server.address;
        let size = size_of::<FibLookup>() as i32;
        let outcome = bpf_fib_lookup(ctx.as_ptr(), lookup, size, BPF_FIB_LOOKUP_OUTPUT);
        // On success this is the next hop: the server itself, or a router.
        let routed = (*lookup).__bindgen_anon_4.ipv6_dst != server.address;
        if outcome != BPF_FIB_LKUP_RET_SUCCESS as i64 || (direct && routed) {
            return false;
        }
        let (to, from) = (Mac::new((*lookup).dmac), Mac::new((*lookup).smac));
        *hop = Hop { to, from, ifindex: (*lookup).ifindex };
        true
    }
}
