//! Per-CPU counters, and the rare line in the log.

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
pub(crate) fn log_drop(reason: DropReason, count: u64) {
    let notable =
        matches!(reason, DropReason::PortsExhausted | DropReason::FlowTableFull | DropReason::RewriteFailed);
    if notable && count & count.wrapping_sub(1) == 0 {
        write_drop(reason.index(), count);
    }
}

/// Verified by itself, because it is global, and not on each of the many ways to a drop, on which it would be most of
/// the verifier's work. Such a function may only be given numbers, hence has no context; the log's ring buffer needs
/// none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_drop(reason: u32, count: u64) -> u32 {
    const PORTS: u32 = DropReason::PortsExhausted.index();
    const TABLE: u32 = DropReason::FlowTableFull.index();
    match reason {
        PORTS => warn!((), "dropped: no free source port for a new flow ({} so far on this CPU)", count),
        TABLE => warn!((), "dropped: the flow table refuses a new flow ({} so far on this CPU)", count),
        _ => warn!((), "dropped: a packet could not be rewritten ({} so far on this CPU)", count),
    }
    0
}
