//! The XDP programs: the life of a packet on one screen.
//!
//! ```text
//! frame ─ link layer ─ IPv4 / IPv6 headers ─ decide ─ rewrite ─ count ─ send
//! view     lb-common    lb-common             lb-common          stats   act
//!                                             (asks tables) └ later: a stage of its own, by tail call
//! ```
//!
//! All policy is in `lb-common`; this crate only touches: packet bytes ([`view`]), maps ([`tables`], [`mod@line`],
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
mod trace;
mod view;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    family::{V4, V6},
    parse::{self, Link, Parse, Unread},
    pipeline::{Work, decide},
    rewrite::Answer,
    verdict::{PassReason, Stage},
    wire::ethernet,
};

use crate::{
    act::finish,
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
        Ok(link) if link.ethertype == ethernet::IPV4 => {
            note::<V4>(ctx, &link);
            forward4(ctx)
        }
        // A program of its own: together they would be too much for the verifier's patience, and for ours.
        Ok(link) if link.ethertype == ethernet::IPV6 => {
            note::<V6>(ctx, &link);
            stages::later::<V6>(Stage::Six)
        }
        Ok(_) => unread(ctx, PassReason::NotIp),
        Err(reason) => unread(ctx, reason),
    }
}

/// Leaves a frame to the host that is none of IP.
#[inline(always)]
fn unread(ctx: &XdpContext, reason: PassReason) -> u32 {
    KernelTables::new(ctx).map_or(xdp_action::XDP_PASS, |tables| trace::unread::<V4>(&tables, reason))
}

/// Writes down how the packet came.
#[inline(always)]
fn note<F: KernelFamily>(ctx: &XdpContext, link: &Link) {
    if let Some(work) = F::work() {
        work.link = *link;
        work.ifindex = ctx.ingress_ifindex() as u32;
    }
}

#[inline(never)]
fn forward4(ctx: &XdpContext) -> u32 {
    match (V4::work(), KernelTables::new(ctx)) {
        (Some(work), Some(tables)) => forward(ctx, work, &tables),
        _ => xdp_action::XDP_PASS,
    }
}

/// The way of an IP packet whose link layer was read.
#[inline(always)]
fn forward<F: Parse + Answer + KernelFamily>(
    ctx: &XdpContext,
    work: &mut Work<F>,
    tables: &KernelTables<'_>,
) -> u32 {
    let frame = XdpFrame::new(ctx);
    work.packet = match F::parse::<false, _>(&frame, work.link.l3 & 0x1f) {
        Ok(packet) => packet,
        Err(Unread::Pass(reason)) => return trace::unread::<F>(tables, reason),
        Err(Unread::Extensions) => return stages::later::<F>(Stage::Walk),
    };
    work.begin();
    let verdict = decide(work, tables);
    finish::<false, F>(frame, work, &verdict, tables)
}

/// `bpf_ktime_get_ns` and friends may only be called by programs under a licence the kernel knows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
