//! Real packets between namespaces: the balancer as its operators and their clients meet it.
//!
//! Each test is a sentence about what holds; R-numbers are those of the operators' requirements. Tests need
//! root and a built `lb-user`; see [`lb_tests::privilege`] for what happens without.

mod api;
mod bed;
mod brokers;
mod churn;
mod config;
mod l7;

mod commit;
mod databases;
mod decap;
mod drain;
mod edit;
mod endure;
mod failover;
mod forwarding;
mod harness;
mod health;
mod left;
mod lifecycle;
mod metrics;
mod names;
mod openstack;
mod passthrough;
mod people;
mod persistence;
mod ports;
mod posts;
mod proxied;
mod refusal;
mod reload;
mod routes;
mod select;
mod service;
mod smoke;
mod steer;
mod sticky;
mod takeover;
mod trace;
mod transparent;
mod tunnels;
mod website;
