//! The programs that few packets see. Each is entered by a tail call and finds the packet where the first program has
//! left it, in this CPU's workspace.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    family::{V4, V6},
    parse::{Kind, Parse, Quote, Unread},
    pipeline::{Work, decide, direct, fragment, icmp, open, quic},
    rewrite::{self, Answer},
    trace::End,
    verdict::{DropReason, PassReason, Stage},
};

use crate::{
    act::{drop, finish},
    forward, maps, stats,
    tables::{KernelFamily, KernelTables},
    trace::{self, end},
    view::XdpFrame,
};

/// Beyond all XDP actions: the number of a stage's program is added to it.
const LATER: u32 = 0x100;

/// Where in an answer the action is that was decided upon already.
const DECIDED: u32 = 16;

/// What a program answers that leaves the packet to a stage.
#[inline(always)]
pub(crate) fn later<F: KernelFamily>(stage: Stage) -> u32 {
    LATER + 2 * stage as u32 + F::NUMBER
}

/// The same once an action is decided upon, which the stage will not change.
#[inline(always)]
pub(crate) fn then<F: KernelFamily>(stage: Stage, action: u32) -> u32 {
    later::<F>(stage) | action << DECIDED
}

/// Does what a program has answered.
#[inline(always)]
pub(crate) fn enter(ctx: &XdpContext, answer: u32) -> u32 {
    if answer < LATER {
        return answer;
    }
    // SAFETY: the packet and all about it are in the frame and in this CPU's workspace: nothing here is waiting
    // to be dropped.
    unsafe { maps::STAGES.tail_call(ctx, answer & (LATER - 1)) };
    if answer >> DECIDED != 0 {
        return answer >> DECIDED;
    }
    stats::reason(PassReason::NoStage.index());
    xdp_action::XDP_PASS
}

/// Two programs for each stage and family: one for the kernels that know of frames in several pieces. All programs
/// that call each other must agree in that.
macro_rules! stages {
    ($($name:ident, $frags:ident, $body:ident, $family:ty;)+) => {
        $(
            #[xdp]
            fn $name(ctx: XdpContext) -> u32 {
                enter(&ctx, shared::$name(&ctx))
            }

            #[xdp(frags)]
            fn $frags(ctx: XdpContext) -> u32 {
                enter(&ctx, shared::$name(&ctx))
            }
        )+

        mod shared {
            use super::*;

            $(
                #[inline(never)]
                pub(super) fn $name(ctx: &XdpContext) -> u32 {
                    match (<$family as KernelFamily>::work(), KernelTables::new(ctx)) {
                        (Some(work), Some(tables)) => $body::<$family>(ctx, work, &tables),
                        _ => xdp_action::XDP_PASS,
                    }
                }
            )+
        }
    };
}

stages! {
    six6, six6_frags, forward, V6;
    walk6, walk6_frags, walk, V6;
    open4, open4_frags, open, V4;
    open6, open6_frags, open, V6;
    remember4, remember4_frags, remember, V4;
    remember6, remember6_frags, remember, V6;
    icmp4, icmp4_frags, icmp, V4;
    icmp6, icmp6_frags, icmp, V6;
    fragment4, fragment4_frags, fragment, V4;
    fragment6, fragment6_frags, fragment, V6;
    answer4, answer4_frags, answer, V4;
    answer6, answer6_frags, answer, V6;
    mss4, mss4_frags, mss, V4;
    mss6, mss6_frags, mss, V6;
    quic4, quic4_frags, quic, V4;
    quic6, quic6_frags, quic, V6;
}

/// Walks over extension headers, then decides.
#[inline(always)]
fn walk<F: Parse + Answer + KernelFamily>(
    ctx: &XdpContext,
    work: &mut Work<F>,
    tables: &KernelTables<'_>,
) -> u32 {
    let frame = XdpFrame::new(ctx);
    work.packet = match F::parse::<true, _>(&frame, work.link.l3 & 0x1f) {
        Ok(packet) => packet,
        Err(Unread::Pass(reason)) => return trace::unread::<F>(tables, reason),
        Err(Unread::Extensions) => return trace::unread::<F>(tables, PassReason::ExtensionHeaders),
    };
    work.begin();
    let verdict = decide(work, tables);
    finish::<false, F>(frame, work, &verdict, tables)
}

/// Starts a translated flow.
#[inline(always)]
fn open<F: Answer + KernelFamily>(ctx: &XdpContext, work: &mut Work<F>, tables: &KernelTables<'_>) -> u32 {
    let verdict = open::open(work, tables);
    fragment::remember(work, &verdict, tables);
    finish::<false, F>(XdpFrame::new(ctx), work, &verdict, tables)
}

/// Asks the flow tags, and tells them.
#[inline(always)]
fn remember<F: Answer + KernelFamily>(
    ctx: &XdpContext,
    work: &mut Work<F>,
    tables: &KernelTables<'_>,
) -> u32 {
    let verdict = direct::remember(work, tables);
    fragment::remember(work, &verdict, tables);
    finish::<false, F>(XdpFrame::new(ctx), work, &verdict, tables)
}

#[inline(always)]
fn icmp<F: Quote + Answer + KernelFamily>(
    ctx: &XdpContext,
    work: &mut Work<F>,
    tables: &KernelTables<'_>,
) -> u32 {
    let frame = XdpFrame::new(ctx);
    let verdict = icmp::icmp(work, &frame, tables);
    finish::<true, F>(frame, work, &verdict, tables)
}

#[inline(always)]
fn fragment<F: Answer + KernelFamily>(
    ctx: &XdpContext,
    work: &mut Work<F>,
    tables: &KernelTables<'_>,
) -> u32 {
    let frame = XdpFrame::new(ctx);
    if work.packet.kind() == Kind::FirstFragment {
        let verdict = fragment::first(work, tables);
        return finish::<false, F>(frame, work, &verdict, tables);
    }
    let verdict = fragment::later(work, tables);
    finish::<true, F>(frame, work, &verdict, tables)
}

/// Makes the packet into its own answer.
#[inline(always)]
fn answer<F: Answer + KernelFamily>(ctx: &XdpContext, work: &mut Work<F>, tables: &KernelTables<'_>) -> u32 {
    let mut frame = XdpFrame::of_packet(ctx, work.packet.frame_length());
    match rewrite::answer(&mut frame, work) {
        Some(event) => {
            stats::reason(event.index());
            end::<F>(tables, End::here(xdp_action::XDP_TX, event.index()))
        }
        None => drop::<F>(rewrite::unanswered(work), tables),
    }
}

/// Lowers the announced MSS, then decides.
#[inline(always)]
fn mss<F: Answer + KernelFamily>(ctx: &XdpContext, work: &mut Work<F>, tables: &KernelTables<'_>) -> u32 {
    let mut frame = XdpFrame::new(ctx);
    if rewrite::clamp(&mut frame, &work.packet, work.vip.mss).is_none() {
        return drop::<F>(DropReason::RewriteFailed, tables);
    }
    work.prepared = true;
    let verdict = decide(work, tables);
    finish::<false, F>(frame, work, &verdict, tables)
}

/// Looks for a server's name in a QUIC connection ID, then decides.
#[inline(always)]
fn quic<F: Answer + KernelFamily>(ctx: &XdpContext, work: &mut Work<F>, tables: &KernelTables<'_>) -> u32 {
    let frame = XdpFrame::new(ctx);
    let verdict = quic::quic(work, &frame, tables);
    finish::<false, F>(frame, work, &verdict, tables)
}
