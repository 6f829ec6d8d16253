//! The kernel program, packet by packet: what goes in, what comes out, what is counted.
//!
//! Nothing is attached: the kernel runs the program on frames made here (`BPF_PROG_TEST_RUN`). Each packet also
//! goes through the same code on the host, with the same tables, and both must agree: see [`pair`]. The
//! tables, the frames and the laws are those of `lb-testkit`.
//!
//! Tests need root and the kernel program; see [`lb_tests::privilege`] for what happens without.

mod abi;
mod conntrack;
mod decap;
mod flood;
mod forward;
mod forward_v4;
mod forward_v6;
mod hostile;
mod kernel;
mod log;
mod pair;
mod parity;
mod quic;
mod reasons;
mod routes;
mod state;
mod trace;
mod verifier;
