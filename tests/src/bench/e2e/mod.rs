//! The balancer against others, end to end: `cargo xtask bench e2e`.
//!
//! | module | what it gives |
//! |---|---|
//! | [`contender`] | who balances: this balancer (`snat`), HAProxy, nftables, nobody |
//! | [`server`] | what is balanced over |
//! | [`load`] | what clients do, and how long it takes |
//! | [`affinity`] | who runs on which processor |
//! | [`cpu`] | how busy the machine is meanwhile |
//! | [`report`] | table and JSON |
//!
//! Clients, balancer and servers share this machine's processors, so all rates are those of the whole:
//! they say which way costs less, not what a balancer of its own could do. Segmentation and checksum offload
//! are off on all cables, because XDP on veth needs that; it takes from HAProxy and nftables what a
//! network card would have given them, and from this balancer nothing.

pub mod affinity;
pub mod contender;
pub mod cpu;
pub mod load;
pub mod report;
pub mod server;

use std::time::Duration;

use self::{contender::Contender, load::Measured, server::Server};
use crate::{
    address::Subnet,
    topology::{Layout, Topology},
};

/// What one round found of a contender.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Who.
    pub contender: Contender,
    /// What.
    pub measured: Measured,
}

/// Lets every contender do everything, so many rounds; each measurement takes about `time`.
///
/// # Panics
/// When a network cannot be built, or a contender does not balance.
#[must_use]
pub fn run(rounds: usize, time: Duration, mut progress: impl FnMut(&str)) -> Vec<Round> {
    let mut found = Vec::new();
    for round in 0..rounds {
        for contender in Contender::ALL {
            progress(&format!("round {} of {rounds}: {}", round + 1, contender.name()));
            found.push(Round { contender, measured: measure(contender, time) });
        }
    }
    found
}

/// In a network of its own: what one contender leaves behind in tables is not in the next one's way.
fn measure(contender: Contender, time: Duration) -> Measured {
    let layout = Layout { front: Subnet::FRONT, back: Subnet::FRONT, ..Layout::default() };
    let mut net = Topology::build(layout);
    if contender != Contender::Lb {
        net.dismiss_bystanders();
    }
    let servers: Vec<_> = net.servers.iter().map(|host| Server::start(&host.ns)).collect();
    let balancing = contender.start(&net);
    let targets = contender.targets(&net);
    let processes = balancing.processes();
    let measured = net.client().ns.run(|| load::measure(&targets, time, processes));
    drop(balancing);
    drop(servers);
    measured
}
