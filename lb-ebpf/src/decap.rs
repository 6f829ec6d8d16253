//! The XDP program of `lb-user decap`: takes packets out of the tunnels that a balancer has put them into.
//!
//! A program of its own, in an object of its own: it runs on servers, where there is no balancer. As in the
//! balancer's, all policy is in `lb_common`; here are only packet bytes, maps and the way out.
//!
//! | map | kind | key | value | written by | read by |
//! |---|---|---|---|---|---|
//! | `RULES` | prefix trie | `lb_common::decap::Question` and how many of its bits count | 1 | user | kernel |
//! | `GUE_PORT` | array of 1 | 0 | UDP port, 0 for none | user | kernel |
//! | `OUTCOMES` | per-CPU array | `lb_common::decap::Outcome` | `u64` packets | kernel | user |
//!
//! Empty maps are safe: they decapsulate nothing.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod panic;
#[allow(dead_code, reason = "shared with the balancer's program, which uses all of it")]
mod view;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, LpmTrie, PerCpuArray, lpm_trie::Key},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::decap::{Gate, MAX_RULES, Outcome, Question, decapsulate};

use crate::view::XdpFrame;

#[btf_map]
static RULES: LpmTrie<[u32; 5], u32, MAX_RULES> = LpmTrie::new();

#[btf_map]
static GUE_PORT: Array<u32, 1> = Array::new();

#[btf_map]
static OUTCOMES: PerCpuArray<u64, { Outcome::ALL.len() }> = PerCpuArray::new();

/// Runs for every frame that an interface of the server receives.
#[xdp]
fn decap(ctx: XdpContext) -> u32 {
    packet(&ctx)
}

/// The same where the kernel knows of frames in several pieces (5.18): it is then also given jumbo frames.
#[xdp(frags)]
fn decap_frags(ctx: XdpContext) -> u32 {
    packet(&ctx)
}

#[inline(always)]
fn packet(ctx: &XdpContext) -> u32 {
    let outcome = decapsulate(&mut XdpFrame::new(ctx), &Rules);
    if let Some(counter) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: the map gave a non-null pointer to this CPU's own value, and the program is not preempted by
        // another run of itself on the same CPU.
        unsafe { *counter += 1 };
    }
    if outcome.is_drop() { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// The operator's rules, in the maps.
struct Rules;

/// The key of a trie may lie anywhere; but LLVM writes it eight bytes at a time, and the verifier wants such a
/// write on the stack to be aligned.
#[repr(align(8))]
struct Aligned(Key<[u32; 5]>);

impl Gate for Rules {
    #[inline(always)]
    fn gue_port(&self) -> u16 {
        GUE_PORT.get(0).copied().unwrap_or_default() as u16
    }

    #[inline(always)]
    fn allows(&self, question: Question) -> bool {
        let key = Aligned(Key::new(Question::BITS, question.key()));
        RULES.get(&key.0).is_some()
    }
}

/// Required of programs whose helpers the kernel gives to known licences only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
