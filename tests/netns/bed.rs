//! The usual test bed: a network whose servers all say who they are, and VIPs in every mode and family.

use std::net::SocketAddr;

use lb_tests::{
    address::Family,
    daemon::Balancer,
    server::Server,
    topology::{Layout, Servers, Topology},
};

use crate::config::Config;

/// The modes the kernel forwards.
pub(crate) const MODES: [&str; 3] = ["snat", "nat", "dr"];

/// A network with running servers.
#[derive(Debug)]
pub(crate) struct Bed {
    // Before the network: a server's sockets go first.
    pub(crate) servers: Vec<Server>,
    pub(crate) net: Topology,
}

impl Bed {
    /// Builds the network and starts a server with these TCP and UDP ports on each server host.
    #[track_caller]
    pub(crate) fn new(layout: Layout, ports: &[u16]) -> Self {
        let net = Topology::build(layout);
        let servers =
            net.servers.iter().map(|host| Server::start(&host.ns, &host.name, ports, true)).collect();
        Self { servers, net }
    }

    /// The default network, its servers set up for every mode at once.
    #[track_caller]
    pub(crate) fn for_all_modes(ports: &[u16]) -> Self {
        let bed = Self::new(Layout::default(), ports);
        bed.net.servers_reply_through_balancer();
        for family in Family::BOTH {
            bed.net.servers_accept(bed.net.vip(vip_number("dr")).of(family));
        }
        bed
    }

    /// Starts the balancer on all its interfaces and waits until every server is up in every VIP.
    #[track_caller]
    pub(crate) fn balance(&self, config: &Config) -> Balancer<'_> {
        let balancer = self.start(config);
        let _ = balancer.wait_all_up();
        balancer
    }

    /// Starts the balancer on all its interfaces.
    #[track_caller]
    pub(crate) fn start(&self, config: &Config) -> Balancer<'_> {
        let two = self.net.layout.place == Servers::SecondWire;
        let interfaces: &[&str] = if two { &["eth0", "eth1"] } else { &["eth0"] };
        Balancer::start(&self.net.lb.ns, interfaces, config.text())
    }

    /// Pools `v4` and `v6` of all servers, and a VIP per mode and family on `port`, e.g. `snat_v6`.
    pub(crate) fn config(&self, modes: &[&str], port: u16, more: &str) -> Config {
        let mut config = Config::new();
        for family in Family::BOTH {
            config = config.pool(pool_name(family), family, &self.net.servers);
            for mode in modes {
                let address = self.net.vip(vip_number(mode)).of(family);
                config = config.vip(
                    &vip_name(mode, family),
                    address,
                    &port.to_string(),
                    mode,
                    pool_name(family),
                    more,
                );
            }
        }
        config
    }

    /// Where clients find the VIP that [`Self::config`] made for a mode and family.
    pub(crate) fn target(&self, mode: &str, family: Family, port: u16) -> SocketAddr {
        self.net.vip(vip_number(mode)).at(family, port)
    }
}

/// Name of the pool of a family in [`Bed::config`].
pub(crate) fn pool_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

/// Name of the VIP of a mode and family in [`Bed::config`].
pub(crate) fn vip_name(mode: &str, family: Family) -> String {
    format!("{mode}_{}", pool_name(family))
}

/// Host number of the VIP of a mode.
fn vip_number(mode: &str) -> u8 {
    match mode {
        "snat" => 200,
        "nat" => 201,
        _ => 202,
    }
}
