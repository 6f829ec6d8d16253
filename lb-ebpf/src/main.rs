//! The XDP program: the life of a packet on one screen.
//!
//! ```text
//! frame ─ link layer ─ IPv4 / IPv6 headers ─ decide ─ rewrite ─ send ─ count
//! view     lb-common    lb-common             lb-common          act    stats
//!                                             (asks tables)
//! ```
//!
//! All policy is in `lb-common`; this crate only touches: packet bytes ([`view`]), maps ([`tables`],
//! [`stats`]) and the way out ([`act`]).

#![no_std]
#![no_main]

mod act;
mod maps;
mod panic;
mod stats;
mod tables;
mod view;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    family::{V4, V6},
    parse::{self, Link, Parse},
    pipeline::decide,
    rewrite::{self, Rewrite},
    verdict::{DropReason, PassReason, Verdict},
    wire::ethernet,
};

use crate::{
    tables::{KernelFamily, KernelTables},
    view::XdpFrame,
};

/// Runs for every frame that an interface of the balancer receives.
#[xdp]
fn lb(ctx: XdpContext) -> u32 {
    let frame = XdpFrame::new(&ctx);
    match parse::ethernet(&frame) {
        Ok(link) if link.ethertype == ethernet::IPV4 => forward4(&ctx, &link),
        Ok(link) if link.ethertype == ethernet::IPV6 => forward6(&ctx, &link),
        Ok(_) => pass(PassReason::NotIp),
        Err(reason) => pass(reason),
    }
}

// One function of its own for each family: together they would need more than the 512 bytes of stack that
// the kernel allows (all versions up to at least 6.18).

#[inline(never)]
fn forward4(ctx: &XdpContext, link: &Link) -> u32 {
    forward::<V4>(ctx, link)
}

#[inline(never)]
fn forward6(ctx: &XdpContext, link: &Link) -> u32 {
    forward::<V6>(ctx, link)
}

/// The rest of the way of an IP packet.
#[inline(always)]
fn forward<F: Parse + Rewrite + KernelFamily>(ctx: &XdpContext, link: &Link) -> u32 {
    let mut frame = XdpFrame::new(ctx);
    let Some(work) = F::work() else {
        return xdp_action::XDP_PASS;
    };
    work.link = *link;
    work.packet = match F::parse(&frame, link.l3) {
        Ok(packet) => packet,
        Err(reason) => return pass(reason),
    };
    let ifindex = ctx.ingress_ifindex() as u32;
    match decide(work, ifindex, &mut KernelTables::new(ctx)) {
        Verdict::Pass(reason) => pass(reason),
        Verdict::Drop(reason) => drop(ctx, reason),
        Verdict::Forward(forward) => match rewrite::apply(&mut frame, work, &forward) {
            Some(()) => {
                stats::forwarded(&forward, frame.len());
                act::send(&forward.hop, ifindex)
            }
            None => drop(ctx, DropReason::RewriteFailed),
        },
    }
}

#[inline(always)]
fn pass(reason: PassReason) -> u32 {
    stats::reason(reason.index());
    xdp_action::XDP_PASS
}

#[inline(always)]
fn drop(ctx: &XdpContext, reason: DropReason) -> u32 {
    let count = stats::reason(reason.index());
    stats::log_drop(ctx, reason, count);
    xdp_action::XDP_DROP
}

/// `bpf_ktime_get_ns` and friends may only be called by programs under a licence the kernel knows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
