//! From a verdict to an XDP action.

use aya_ebpf::{bindings::xdp_action, helpers::bpf_redirect};
use lb_common::{
    pipeline::Work,
    rewrite::{self, Answer},
    trace::End,
    verdict::{DropReason, Forward, Hop, Verdict},
};

use crate::{
    stages, stats,
    tables::{KernelFamily, KernelTables},
    trace::end,
    view::XdpFrame,
};

/// Carries out a verdict. `RARE` if the packet may be a piece of a datagram or an ICMP error.
#[inline(always)]
pub(crate) fn finish<const RARE: bool, F: Answer + KernelFamily>(
    mut frame: XdpFrame<'_>,
    work: &Work<F>,
    verdict: &Verdict,
    tables: &KernelTables<'_>,
) -> u32 {
    match verdict {
        Verdict::Forward(forward) => {
            let done = if RARE {
                rewrite::apply_rare(&mut frame, work, forward)
            } else {
                rewrite::apply(&mut frame, work, forward)
            };
            sent(work, forward, done, tables)
        }
        other => stop::<F>(other, tables),
    }
}

#[inline(always)]
fn sent<F: KernelFamily>(
    work: &Work<F>,
    forward: &Forward,
    done: Option<()>,
    tables: &KernelTables<'_>,
) -> u32 {
    if done.is_none() {
        return drop::<F>(DropReason::RewriteFailed, tables);
    }
    stats::forwarded(forward, work.packet.frame_length());
    end::<F>(tables, End::forwarded(send(&work.hop, work.ifindex), forward))
}

#[inline(always)]
fn stop<F: KernelFamily>(verdict: &Verdict, tables: &KernelTables<'_>) -> u32 {
    match verdict {
        Verdict::Pass(reason) => {
            stats::reason(reason.index());
            end::<F>(tables, End::here(xdp_action::XDP_PASS, reason.index()))
        }
        Verdict::Drop(reason) => drop::<F>(*reason, tables),
        Verdict::Later(stage) => stages::later::<F>(*stage),
        // Not reached: answers are made by their own stage, and the caller has taken the rest.
        Verdict::Answer(_) | Verdict::Forward(_) => xdp_action::XDP_PASS,
    }
}

/// Sends the frame back by the interface it came in, or out by another.
#[inline(always)]
fn send(hop: &Hop, ingress: u32) -> u32 {
    if hop.ifindex == ingress {
        xdp_action::XDP_TX
    } else {
        // SAFETY: the helper checks the index; without such an interface the frame is dropped and traced.
        unsafe { bpf_redirect(hop.ifindex, 0) as u32 }
    }
}

#[inline(always)]
pub(crate) fn drop<F: KernelFamily>(reason: DropReason, tables: &KernelTables<'_>) -> u32 {
    let count = stats::reason(reason.index());
    stats::log_drop(reason, count);
    end::<F>(tables, End::here(xdp_action::XDP_DROP, reason.index()))
}
