//! From a verdict to an XDP action.

use aya_ebpf::{bindings::xdp_action, helpers::bpf_redirect, programs::XdpContext};
use lb_common::{
    family::Family,
    pipeline::Work,
    rewrite::{self, Answer},
    verdict::{DropReason, Forward, Hop, PassReason, Verdict},
};

use crate::{stages, stats, tables::KernelFamily, view::XdpFrame};

/// Carries out a verdict on an ordinary packet.
#[inline(always)]
pub(crate) fn finish<F: Answer + KernelFamily>(
    ctx: &XdpContext,
    mut frame: XdpFrame<'_>,
    work: &Work<F>,
    verdict: &Verdict,
) -> u32 {
    match verdict {
        Verdict::Forward(forward) => {
            let done = rewrite::apply(&mut frame, work, forward);
            sent(ctx, work, forward, done)
        }
        other => stop::<F>(ctx, other),
    }
}

/// The same on one that may be a piece of a datagram or an ICMP error.
#[inline(always)]
pub(crate) fn finish_rare<F: Answer + KernelFamily>(
    ctx: &XdpContext,
    mut frame: XdpFrame<'_>,
    work: &Work<F>,
    verdict: &Verdict,
) -> u32 {
    match verdict {
        Verdict::Forward(forward) => {
            let done = rewrite::apply_rare(&mut frame, work, forward);
            sent(ctx, work, forward, done)
        }
        other => stop::<F>(ctx, other),
    }
}

#[inline(always)]
fn sent<F: Family>(ctx: &XdpContext, work: &Work<F>, forward: &Forward, done: Option<()>) -> u32 {
    if done.is_none() {
        return drop(ctx, DropReason::RewriteFailed);
    }
    stats::forwarded(forward, work.packet.frame_length());
    send(&work.hop, work.ifindex)
}

#[inline(always)]
fn stop<F: KernelFamily>(ctx: &XdpContext, verdict: &Verdict) -> u32 {
    match verdict {
        Verdict::Pass(reason) => pass(*reason),
        Verdict::Drop(reason) => drop(ctx, *reason),
        Verdict::Later(stage) => stages::later::<F>(*stage),
        // Not reached: answers are made by their own stage, and the caller has taken the rest.
        Verdict::Answer(_) | Verdict::Forward(_) => xdp_action::XDP_PASS,
    }
}

/// Sends the frame back by the interface it came in, or out by another.
#[inline(always)]
pub(crate) fn send(hop: &Hop, ingress: u32) -> u32 {
    if hop.ifindex == ingress {
        xdp_action::XDP_TX
    } else {
        // SAFETY: the helper checks the index; without such an interface the frame is dropped and traced.
        unsafe { bpf_redirect(hop.ifindex, 0) as u32 }
    }
}

#[inline(always)]
pub(crate) fn pass(reason: PassReason) -> u32 {
    stats::reason(reason.index());
    xdp_action::XDP_PASS
}

#[inline(always)]
pub(crate) fn drop(ctx: &XdpContext, reason: DropReason) -> u32 {
    let count = stats::reason(reason.index());
    stats::log_drop(ctx, reason, count);
    xdp_action::XDP_DROP
}
