//! Tells those who watch what became of a packet. Nobody does most of the time: that costs a look at the settings.
//!
//! While somebody does, every program ends by leaving word in `END` and going on to the programs here, which have all
//! of the verifier's patience for themselves: they ask whether the packet is wanted, write its record, and answer the
//! driver as was decided.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_xadd};

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{bpf_ktime_get_ns, generated::bpf_get_prandom_u32, generated::bpf_xdp_get_buff_len},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    abi::{TRACE_BYTES, TraceFilter, TraceRecord},
    family::{V4, V6},
    pipeline::Work,
    trace::{self, End, FORWARDED},
    verdict::{PassReason, Stage},
    wire::Frame as _,
};

use crate::{
    maps, stages,
    tables::{KernelFamily, KernelTables},
    view::XdpFrame,
};

/// The end of a packet's way: what the driver is told, at once or by way of those who watch.
#[inline(always)]
pub(crate) fn end<F: KernelFamily>(tables: &KernelTables<'_>, end: End) -> u32 {
    if !tables.watched() {
        return end.action;
    }
    if let Some(room) = maps::END.get_ptr_mut(0) {
        // SAFETY: the map gave a non-null pointer to this CPU's own value.
        unsafe { room.write(end) };
    }
    stages::then::<F>(Stage::Report, end.action)
}

/// The same for a frame whose headers could not be read.
#[inline(always)]
pub(crate) fn unread<F: KernelFamily>(tables: &KernelTables<'_>, reason: PassReason) -> u32 {
    crate::stats::reason(reason.index());
    end::<F>(tables, End::unread(xdp_action::XDP_PASS, reason))
}

#[xdp]
fn report4(ctx: XdpContext) -> u32 {
    report::<V4>(&ctx, linear(&ctx))
}

#[xdp(frags)]
fn report4_frags(ctx: XdpContext) -> u32 {
    report::<V4>(&ctx, whole(&ctx))
}

#[xdp]
fn report6(ctx: XdpContext) -> u32 {
    report::<V6>(&ctx, linear(&ctx))
}

#[xdp(frags)]
fn report6_frags(ctx: XdpContext) -> u32 {
    report::<V6>(&ctx, whole(&ctx))
}

/// Length of a frame in one piece.
#[inline(always)]
fn linear(ctx: &XdpContext) -> u32 {
    XdpFrame::new(ctx).linear() as u32
}

/// Length of a frame with all its pieces.
#[inline(always)]
fn whole(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is the one that the program was called with.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) as u32 }
}

/// Reports the packet if it is wanted, then does what was decided about it.
#[inline(always)]
fn report<F: KernelFamily>(ctx: &XdpContext, length: u32) -> u32 {
    let (Some(end), Some(filter), Some(work)) = (maps::END.get_ptr(0), maps::TRACE.get_ptr_mut(0), F::work())
    else {
        // Not reached: places in arrays that there are.
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the map gave a non-null pointer to this CPU's own value.
    let end = unsafe { end.read() };
    // SAFETY: the map gave a non-null pointer. User space may be writing it: a few packets are then reported that
    // neither the old nor the new filter wants.
    let wanted = unsafe { is_wanted(&*filter, &end, work) };
    if wanted {
        write(ctx, length, filter, &end, work);
    }
    end.action
}

#[inline(always)]
fn is_wanted<F: KernelFamily>(filter: &TraceFilter, end: &End, work: &Work<F>) -> bool {
    // SAFETY: the helper has no precondition.
    let chance = unsafe { bpf_get_prandom_u32() };
    match maps::SERVERS.get(work.facts.server as u32) {
        Some(server) => trace::wants(filter, end, work, server, chance),
        None => false,
    }
}

/// Writes the record, or counts that there was no room for it.
#[inline(always)]
fn write<F: KernelFamily>(
    ctx: &XdpContext,
    length: u32,
    filter: *mut TraceFilter,
    end: &End,
    work: &Work<F>,
) {
    let Some(mut entry) = maps::EVENTS.reserve(0) else {
        // SAFETY: the map gave a non-null pointer to a filter of which this is a field.
        let _: u32 = unsafe { atomic_xadd::<u32, u32, { SeqCst }>(&raw mut (*filter).lost, 1) };
        return;
    };
    let record = entry.write(TraceRecord::default());
    trace::describe(record, end, work);
    // SAFETY: the helper has no precondition.
    record.time = unsafe { bpf_ktime_get_ns() };
    record.ifindex = ctx.ingress_ifindex() as u32;
    // SAFETY: the map gave a non-null pointer.
    record.session = unsafe { (*filter).session };
    record.left_length = length;
    // What was made into the answer to itself goes back.
    if end.action == xdp_action::XDP_TX && end.ending != FORWARDED {
        record.out = record.ifindex;
    }
    record.captured = copy(&XdpFrame::new(ctx), &mut record.bytes) as u16;
    entry.submit(0);
}

/// Copies the first bytes of a frame; gives how many there were.
#[inline(always)]
fn copy(frame: &XdpFrame<'_>, bytes: &mut [u8; TRACE_BYTES]) -> usize {
    let mut copied = 0;
    while copied < TRACE_BYTES {
        match frame.read::<8>(copied) {
            Some(piece) => put(bytes, copied, piece),
            None => break,
        }
        copied += 8;
    }
    if copied < TRACE_BYTES {
        if let Some(piece) = frame.read::<4>(copied) {
            put(bytes, copied, piece);
            copied += 4;
        }
        if let Some(piece) = frame.read::<2>(copied) {
            put(bytes, copied, piece);
            copied += 2;
        }
        // Together with the byte before it: the verifier learns nothing from the check for one.
        if copied > 0
            && let Some(piece) = frame.read::<2>(copied - 1)
        {
            put(bytes, copied - 1, piece);
            copied += 1;
        }
    }
    copied
}

#[inline(always)]
fn put<const N: usize>(bytes: &mut [u8; TRACE_BYTES], at: usize, piece: [u8; N]) {
    if at + N <= TRACE_BYTES {
        // SAFETY: just compared.
        unsafe { bytes.as_mut_ptr().add(at).cast::<[u8; N]>().write_unaligned(piece) };
    }
}
