//! The load balancer daemon as a library: the rooms of the house, see ARCHITECTURE.md.

pub mod admin;
pub mod app;
pub mod config;
pub mod datapath;
pub mod decap;
pub mod health;
pub mod hops;
pub mod lbctl;
pub mod listeners;
pub mod lock;
pub mod memory;
pub mod model;
pub mod names;
pub mod netlink;
pub mod picture;
pub mod plan;
pub mod poke;
pub mod reconcile;
pub mod reload;
pub mod signals;
pub mod snapshot;
pub mod sweep;
pub mod takeover;
pub mod telemetry;
pub mod trace;
pub mod vip_addresses;
