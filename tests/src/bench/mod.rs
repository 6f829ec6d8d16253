//! What a packet costs: `cargo xtask bench`.
//!
//! | module | what it gives |
//! |---|---|
//! | [`case`] | the cases, their names, which of them are run |
//! | [`goal`] | what a case may cost |
//! | [`packets`] | the frames of a case and what distinguishes its flows |
//! | [`harness`] | runs a program on many frames and takes the time |
//! | [`bed`] | the product's program with its maps filled: the only file that knows them |
//! | [`measure`] | rounds over cases, and what comes of them |
//! | [`report`] | table and JSON |
//! | [`e2e`] | the balancer against others |
//! | [`scale`] | the daemon with many VIPs |
//! | [`l7`] | l7-proxy against HAProxy |
//!
//! Costs are told in **U**: what it costs to push 20 bytes and fill them, on the same machine in the same round.
//! Nanoseconds drift with the machine, and multiples of U hardly do.

pub mod bed;
pub mod case;
pub mod e2e;
pub mod goal;
pub mod harness;
pub mod l7;
pub mod measure;
pub mod packets;
pub mod report;
pub mod scale;
