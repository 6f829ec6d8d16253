//! The load balancer daemon as a library: the rooms of the house, see ARCHITECTURE.md.

pub mod health;
pub mod model;
pub mod netlink;
pub mod snapshot;
