//! What the tests of the packet path share. They run in three places: `lb-common/tests` (properties and
//! golden values), `lb-common/fuzz`, and `tests/bpf`, which does the same to the program in the kernel.
//!
//! | module | what it gives |
//! |---|---|
//! | [`draft`] | frames, described field by field |
//! | [`inspect`] | what is in a frame, read by other code than what is tested |
//! | [`world`] | tables with VIPs of every mode, always the same |
//! | [`service`] | which VIPs those are |
//! | [`change`] | what user space and time do to the tables |
//! | [`entry`] | what the flow tables hold |
//! | [`golden`] | the frames of `lb-common/tests/vectors/packets.txt` |
//! | [`dice`] | choices made from bytes: of a fuzzer, of a seed |
//! | [`damage`] | frames that are not as they should be |
//! | [`traffic`] | packets and changes of the tables, in an order that means something |
//! | [`bed`] | a world with its laws, for tests that tell a story |
//! | [`tunnel`] | packets in tunnels, and a slower way to take them out |
//! | [`rewriting`] | everything that can be done to the bytes of a frame |
//! | [`quic`] | QUIC datagrams with connection IDs of servers, and their laws |
//! | [`laws`] | what holds for every frame and every state of the tables |
//!
//! Everything panics with what it found: a test has no better answer either.

#![forbid(unsafe_code)]

pub mod bed;
pub mod change;
pub mod damage;
pub mod dice;
pub mod draft;
pub mod entry;
pub mod golden;
pub mod inspect;
pub mod laws;
pub mod quic;
pub mod rewriting;
pub mod service;
pub mod traffic;
pub mod tunnel;
pub mod world;
