//! The XDP programs: the life of a packet on one screen.
//!
//! ```text
//! frame ─ link layer ─ IPv4 / IPv6 headers ─ decide ─ rewrite ─ count ─ send
//! view     lb-common    lb-common             lb-common          stats   act
//!                                             (asks tables) └ later: a stage of its own, by tail call
//! ```
//!
//! All policy is in `lb-common`; this crate only touches: packet bytes ([`view`]), maps ([`tables`], [`line`],
//! [`stats`]) and the way out ([`act`]). `lb` is entered by every frame, the programs of [`stages`] by few.

#![no_std]
#![no_main]
#![expect(internal_features, reason = "atomics that BPF has, but core::sync::atomic does not offer for it")]
#![feature(core_intrinsics, asm_experimental_arch)]

mod act;
mod line;
mod maps;
mod panic;
mod stages;
mod stats;
mod tables;
mod view;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    family::{V4, V6},
    parse::{self, Link, Parse, Unread},
    pipeline::decide,
    rewrite::Answer,
    verdict::{PassReason, Stage},
    wire::ethernet,
};

use crate::{
    act::{finish, pass},
    tables::{KernelFamily, KernelTables},
    view::XdpFrame,
};

/// Runs for every frame that an interface of the balancer receives.
#[xdp]
fn lb(ctx: XdpContext) -> u32 {
    stages::enter(&ctx, packet(&ctx))
}

/// The same where the kernel knows of frames in several pieces (5.18): it is then also given jumbo frames.
#[xdp(frags)]
fn lb_frags(ctx: XdpContext) -> u32 {
    stages::enter(&ctx, packet(&ctx))
}

#[inline(always)]
fn packet(ctx: &XdpContext) -> u32 {
    match parse::ethernet(&XdpFrame::new(ctx)) {
        Ok(link) if link.ethertype == ethernet::IPV4 => forward4(ctx, &link),
        Ok(link) if link.ethertype == ethernet::IPV6 => forward6(ctx, &link),
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
fn forward<F: Parse + Answer + KernelFamily>(ctx: &XdpContext, link: &Link) -> u32 {
    let frame = XdpFrame::new(ctx);
    let (Some(work), Some(tables)) = (F::work(), KernelTables::new(ctx)) else {
        return xdp_action::XDP_PASS;
    };
    work.link = *link;
    work.ifindex = ctx.ingress_ifindex() as u32;
    work.packet = match F::parse::<false, _>(&frame, link.l3) {
        Ok(packet) => packet,
        Err(Unread::Pass(reason)) => return pass(reason),
        Err(Unread::Extensions) => return stages::later::<F>(Stage::Walk),
    };
    (work.prepared, work.facts) = (false, Default::default());
    let verdict = decide(work, &tables);
    finish(ctx, frame, work, &verdict)
}

/// `bpf_ktime_get_ns` and friends may only be called by programs under a licence the kernel knows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
