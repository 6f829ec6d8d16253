//! The load balancer daemon as a library: the rooms of the house, see ARCHITECTURE.md.

pub mod admin;
pub mod health;
pub mod lbctl;
pub mod model;
pub mod netlink;
pub mod snapshot;
pub mod telemetry;
