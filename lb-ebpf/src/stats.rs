//! Per-CPU counters, and the rare line in the log.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::warn;
use lb_common::{
    abi::Half,
    verdict::{DropReason, Forward},
};

use crate::maps;

/// Counts a packet that is passed or dropped; gives how many there were on this CPU, this one included.
#[inline(always)]
pub(crate) fn reason(index: u32) -> u64 {
    let Some(counter) = maps::REASONS.get_ptr_mut(index) else {
        return 0;
    };
    // SAFETY: the map gave a non-null pointer to this CPU's own value, and the program is not preempted by
    // another run of itself on the same CPU.
    unsafe {
        *counter += 1;
        *counter
    }
}

/// Counts a forwarded packet for its server. What a VIP has had is the sum over its servers.
#[inline(always)]
pub(crate) fn forwarded(forward: &Forward, bytes: u64) {
    let Some(counters) = maps::COUNTERS.get_ptr_mut(forward.server.index() as u32) else { return };
    // SAFETY: the map gave a non-null pointer to this CPU's own value, and the program is not preempted by
    // another run of itself on the same CPU.
    unsafe {
        match forward.half {
            Half::Client => {
                (*counters).packets_in += 1;
                (*counters).bytes_in += bytes;
                if forward.new {
                    (*counters).connections += 1;
                }
            }
            Half::Server => {
                (*counters).packets_out += 1;
                (*counters).bytes_out += bytes;
            }
        }
    }
}

/// Logs drops that an operator should hear of, ever more rarely: the first on a CPU, the second, the
/// fourth … A flood writes a few dozen lines, not millions.
#[inline(always)]
pub(crate) fn log_drop(ctx: &XdpContext, reason: DropReason, count: u64) {
    let what = match reason {
        DropReason::PortsExhausted => "no free source port for a new flow",
        DropReason::FlowTableFull => "the flow table refuses a new flow",
        DropReason::RewriteFailed => "a packet could not be rewritten",
        DropReason::NoServer
        | DropReason::NoNextHop
        | DropReason::TtlExceeded
        | DropReason::NewFlowLimit
        | DropReason::TooBig
        | DropReason::Halted => return,
    };
    if count & count.wrapping_sub(1) == 0 {
        warn!(ctx, "dropped: {} ({} so far on this CPU)", what, count);
    }
}
