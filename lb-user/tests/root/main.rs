//! What only root can test of `lb-user`, without BPF: a plain `cargo test` leaves it out, `cargo xtask test`
//! runs it as root. Without root each test says that it was skipped.

#[path = "../common/mod.rs"]
mod common;
mod netlink;
mod stranger;
