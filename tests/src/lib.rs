//! The harness: what tests need to build a small network and look at what happens in it.
//!
//! | module | what it gives |
//! |---|---|
//! | [`privilege`] | whether this machine can run such tests; skips that say why |
//! | [`netns`], [`veth`] | network namespaces and the cables between them |
//! | [`address`], [`topology`] | address plan; "clients – balancer – servers" around a switch |
//! | [`process`], [`daemon`], [`folder`] | child processes with deadlines; `lb-user` and `lbctl`; files for them |
//! | [`server`], [`tls`] | servers that say who they are |
//! | [`decapsulator`], [`relay`] | servers that take packets out of tunnels; tunnels without a balancer |
//! | [`client`], [`streams`] | requests, transfers, long streams, all with deadlines |
//! | [`http`], [`visitors`], [`websocket`] | a web server; clients of a web site in the background; frames of WebSockets |
//! | [`stomp`], [`syslog`] | a message broker and its clients; somebody who takes log lines |
//! | [`frame`], [`capture`] | what was on the wire |
//! | [`packet`] | frames made by hand |
//! | [`stack`] | what a kernel program needs of it |
//! | [`mod@bench`] | what a packet costs |
//! | [`bystander`] | an XDP program that is not the balancer's |
//! | [`pattern`], [`wait`] | reproducible bytes; polling with a deadline |
//!
//! A harness call that cannot do its work panics with what it tried: a test has no better answer either.
//! Nothing here decides anything about packets; that is what is being tested.

pub mod address;
pub mod bench;
pub mod bystander;
pub mod capture;
pub mod client;
pub mod daemon;
pub mod decapsulator;
pub mod folder;
pub mod frame;
pub mod http;
mod installation;
pub mod netns;
pub mod packet;
pub mod pattern;
pub mod privilege;
pub mod process;
pub mod relay;
pub mod schema;
pub mod server;
pub mod stack;
pub mod stomp;
pub mod streams;
mod switch;
pub mod syslog;
pub mod tls;
pub mod topology;
pub mod veth;
pub mod visitors;
pub mod wait;
pub mod websocket;

/// Instructions that the verifier may look at before it accepts a program. It would look at a million; but other kernels
/// see less and take more steps, and a daemon that starts waits for it.
pub const MOST_VERIFIED: u32 = 65_000;
