//! What happens to a packet, as pure code: no system calls, no clock, no memory of its own.
//!
//! The same source is compiled twice. In the kernel, `lb-ebpf` runs it on real frames and BPF maps; on
//! the host it is tested, fuzzed, and asked where a flow would go. Nothing here may need `std`, allocate,
//! log, or read a clock, and `unsafe` is confined to [`abi`]'s declaration of plain data (feature `user`).
//!
//! The way of a packet:
//!
//! ```text
//! parse::ethernet ─ parse::ip ─ pipeline::decide ─ rewrite::apply
//!   link layer       headers      VIP, flow, ring     bytes
//! ```

#![cfg_attr(not(any(test, feature = "host")), no_std)]
#![deny(unsafe_code)]

pub mod abi;
pub mod bench;
pub mod conntrack;
pub mod decap;
pub mod family;
pub mod hash;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod maglev;
pub mod parse;
pub mod pipeline;
pub mod quic;
pub mod rewrite;
pub mod trace;
pub mod verdict;
pub mod wire;
