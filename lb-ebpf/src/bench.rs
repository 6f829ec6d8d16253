//! The programs of `cargo xtask bench`; no part of the product.
//!
//! `BPF_PROG_TEST_RUN` with a repeat count hands a program its own output as the next input. So a program is
//! put in front that makes the frame what it was, gives it the addresses of the next flow, and goes on to the
//! program under test by a tail call:
//!
//! ```text
//! reset ── tail call ──> null                the harness alone
//!                    ──> push                the unit of cost, U = push − null
//!                    ──> the program that lb-user loads
//! ```
//!
//! All exist twice, with and without `xdp.frags`: a tail call joins only programs that agree on it.

#![no_std]
#![no_main]

mod panic;

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action,
    btf_maps::{Array, ProgramArray},
    helpers::bpf_xdp_adjust_head,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::bench::{CHUNK, CHUNKS, Chunk, Course, Flow, HEAD};

#[btf_map]
static COURSE: Array<Course, 1> = Array::new();

#[btf_map]
static FLOWS: Array<Chunk, CHUNKS> = Array::new();

#[btf_map]
static RECORD: Array<Chunk, CHUNKS> = Array::new();

#[btf_map]
static PROGRAMS: ProgramArray<1> = ProgramArray::new();

/// Bytes that [`push`] adds: an IPv4 header's worth.
const PUSHED: usize = 20;

macro_rules! programs {
    ($($(#[$doc:meta])* $plain:ident, $frags:ident: $body:ident;)+) => {
        $(
            $(#[$doc])*
            #[xdp]
            fn $plain(ctx: XdpContext) -> u32 {
                $body(&ctx)
            }

            $(#[$doc])*
            #[xdp(frags)]
            fn $frags(ctx: XdpContext) -> u32 {
                $body(&ctx)
            }
        )+
    };
}

programs! {
    /// Restores the frame, goes to the next flow and on to the program under test.
    reset, reset_frags: restore_and_go;
    /// The same, and notes what became of the frame before.
    record, record_frags: note_and_go;
    /// Does nothing.
    null, null_frags: pass;
    /// Makes room for an outer header and fills it.
    push, push_frags: push_and_fill;
}

#[inline(always)]
fn pass(_: &XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[inline(always)]
fn push_and_fill(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is the kernel's own; no pointer into the frame is kept across the call.
    if unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), -(PUSHED as i32)) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    let Some(outer) = bytes::<[u32; PUSHED / 4]>(ctx, 0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: `bytes` has checked that it lies within the frame.
    unsafe { outer.write_unaligned([0x45, 0x1400_0000, 0x0440, 0x0100_000a, 0x0200_000a]) };
    xdp_action::XDP_TX
}

#[inline(always)]
fn note_and_go(ctx: &XdpContext) -> u32 {
    match note(ctx) {
        Some(()) => restore_and_go(ctx),
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn restore_and_go(ctx: &XdpContext) -> u32 {
    if restore(ctx).is_some() {
        // SAFETY: the context is the kernel's own. This returns only if there is no program.
        unsafe { PROGRAMS.tail_call(ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Makes the frame what it was, with the addresses of the next flow.
#[inline(always)]
fn restore(ctx: &XdpContext) -> Option<()> {
    let course = COURSE.get_ptr_mut(0)?;
    // SAFETY: the map gave a non-null pointer to its only value, which user space leaves alone while programs
    // run; only one runs.
    let (length, position, places) = unsafe { ((*course).length, (*course).position, (*course).places) };
    let excess = (ctx.data_end() - ctx.data()) as i32 - length as i32;
    if excess != 0 {
        // SAFETY: the context is the kernel's own; no pointer into the frame is kept across the call.
        if unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), excess) } != 0 {
            return None;
        }
    }
    let head = bytes::<[u64; HEAD / 8]>(ctx, 0)?.cast::<u64>();
    for word in 0..HEAD / 8 {
        // SAFETY: `bytes` has checked that all of the head lies within the frame.
        unsafe { head.add(word).write_unaligned((*course).head[word]) };
    }
    let flow = chunk(&FLOWS, position)?;
    for (word, offset) in places.into_iter().enumerate() {
        // SAFETY: `chunk` gives a pointer to a flow, and `bytes` checks that the word lies within the frame.
        unsafe { bytes::<u32>(ctx, place(offset))?.write_unaligned((*flow)[word]) };
    }
    let next = position + 1;
    // SAFETY: as at the beginning.
    unsafe { (*course).position = if next < (*course).flows { next } else { 0 } };
    Some(())
}

/// Notes what the run before this one made of its frame.
#[inline(always)]
fn note(ctx: &XdpContext) -> Option<()> {
    let course = COURSE.get_ptr(0)?;
    // SAFETY: see `restore`.
    let (flows, position, recorded) = unsafe { ((*course).flows, (*course).position, (*course).recorded) };
    let before = if position == 0 { flows - 1 } else { position - 1 };
    let flow = chunk(&RECORD, before)?;
    for (word, offset) in recorded.into_iter().enumerate() {
        // SAFETY: `bytes` checks that the word lies within the frame, and `chunk` gives a pointer to a flow.
        unsafe { (*flow)[word] = bytes::<u32>(ctx, place(offset))?.read_unaligned() };
    }
    Some(())
}

/// An offset, so that the verifier sees that it is a small one.
#[inline(always)]
fn place(offset: u32) -> usize {
    offset as usize & (HEAD - 1)
}

/// The place of a flow.
#[inline(always)]
fn chunk(map: &Array<Chunk, CHUNKS>, position: u32) -> Option<*mut Flow> {
    let chunk = map.get_ptr_mut(position / CHUNK as u32)?.cast::<Flow>();
    // SAFETY: the remainder is below the number of flows in a chunk.
    Some(unsafe { chunk.add(position as usize % CHUNK) })
}

/// A place in the frame, if it is one.
#[inline(always)]
fn bytes<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let pointer = ctx.data() + offset;
    if pointer + size_of::<T>() > ctx.data_end() { None } else { Some(pointer as *mut T) }
}

/// The licence of the whole project, in the words that the kernel knows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
