//! Real packets between namespaces: the balancer as its operators and their clients meet it.
//!
//! Each test is a sentence about what holds. Tests need root; see [`lb_tests::privilege`] for what happens
//! without.

mod harness;
