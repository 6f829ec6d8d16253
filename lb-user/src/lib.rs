//! The load balancer daemon as a library: the rooms of the house, see ARCHITECTURE.md.

#![deny(unsafe_code)]

pub mod admin;
pub mod app;
pub mod config;
pub mod connections;
pub mod datapath;
pub mod decap;
pub mod health;
pub mod hops;
pub mod l7;
pub mod lbctl;
pub mod listeners;
pub mod lock;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod names;
pub mod netlink;
pub mod notify;
pub mod picture;
pub mod plan;
pub mod poke;
pub mod premises;
pub mod reconcile;
pub mod reload;
pub mod signals;
pub mod snapshot;
pub mod sweep;
pub mod takeover;
pub mod telemetry;
pub mod trace;
pub mod vip_addresses;
pub mod ways_back;
