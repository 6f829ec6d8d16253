//! Small networks around one balancer.
//!
//! Everything hangs on a switch: a namespace with one bridge per wire. Host numbers on every wire are the
//! same: balancer 1, clients from 11, servers from [`Layout::first_server`], VIPs as tests like (200 and up
//! are free), routers 254 and 253.
//!
//! ```text
//! one arm   clients ─┬─ servers        two arms   clients ── lb ── servers
//!                    lb
//! routed    remote clients ─ router ─┬─ router ─ router ─ servers
//!                                clients, lb
//! ```
//!
//! With one arm the wire carries two networks, `FRONT` and `SERVERS`, unless the layout names the same
//! network twice. Servers have no default route until [`Topology::servers_reply_through_balancer`].

use std::net::IpAddr;

use crate::{
    address::{Dual, Family, Subnet},
    bystander::Bystander,
    netns::Netns,
    switch::{Switch, add_address, nodad},
};

pub use crate::switch::{Host, Tap};

/// Number of the balancer on its wires.
const BALANCER: u8 = 1;
/// Number of the first client.
const CLIENT: u8 = 11;

/// Where the servers are, seen from the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servers {
    /// On the balancer's only wire.
    SameWire,
    /// On a wire of the balancer's second interface.
    SecondWire,
    /// Behind two routers; clients too have a router in front of them.
    BehindRouters,
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Number of clients.
    pub clients: u8,
    /// Number of servers.
    pub servers: u8,
    /// Where the servers are.
    pub place: Servers,
    /// Network of clients and VIPs.
    pub front: Subnet,
    /// Network of the servers; may be the same as `front` on the same wire.
    pub back: Subnet,
    /// Host number of the first server.
    pub first_server: u8,
    /// Queues of the balancer's `eth0`, which spread frames over processors; no more than there are processors.
    pub queues: u8,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            clients: 1,
            servers: 3,
            place: Servers::SameWire,
            front: Subnet::FRONT,
            back: Subnet::SERVERS,
            first_server: 101,
            queues: 1,
        }
    }
}

/// A built network; everything goes when it is dropped.
#[derive(Debug)]
pub struct Topology {
    /// What was built.
    pub layout: Layout,
    /// Machines that send requests.
    pub clients: Vec<Host>,
    /// Machines behind the balancer.
    pub servers: Vec<Host>,
    /// The balancer: `eth0` towards clients, `eth1` towards servers where there are two wires.
    pub lb: Host,
    routers: Vec<Netns>,
    /// On the switch's ports to the balancer, so that frames it sends from XDP arrive.
    bystanders: Vec<Bystander>,
    switch: Switch,
}

impl Topology {
    /// Builds the network and waits for nothing: links are up and addresses usable at once.
    ///
    /// # Panics
    /// When the kernel refuses a step.
    #[track_caller]
    #[must_use]
    pub fn build(layout: Layout) -> Self {
        let switch = Switch::new();
        let Layout { front, back, place, .. } = layout;
        let server_wire = if place == Servers::SameWire { "front" } else { "back" };
        let client_wire = if place == Servers::BehindRouters { "remote" } else { "front" };
        let client_net = if place == Servers::BehindRouters { Subnet::REMOTE } else { front };

        let lb = switch.host("lb", "front", front, BALANCER);
        match place {
            Servers::SameWire if front != back => add_address(&lb.ns, "eth0", back, BALANCER),
            Servers::SecondWire => switch.attach(&lb, 1, "back", back, BALANCER),
            Servers::SameWire | Servers::BehindRouters => {}
        }
        let clients: Vec<_> = (0..layout.clients)
            .map(|n| switch.host(&format!("c{}", n + 1), client_wire, client_net, CLIENT + n))
            .collect();
        let servers: Vec<_> = (0..layout.servers)
            .map(|n| switch.host(&format!("s{}", n + 1), server_wire, back, layout.first_server + n))
            .collect();
        let mut routers = Vec::new();
        if place == Servers::BehindRouters {
            routers = lay_routes(&switch, &lb, layout);
            for host in clients.iter() {
                default_route(host, Subnet::REMOTE.host(254));
            }
            for host in servers.iter() {
                default_route(host, back.host(254));
            }
        }
        switch.set_queues(&lb, layout.queues);
        let arms = if place == Servers::SecondWire { 0..2 } else { 0..1 };
        let bystanders = arms.map(|card| switch.bystander(&lb, card)).collect();
        Self { layout, clients, servers, lb, routers, bystanders, switch }
    }

    /// The only or first client.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.clients[0]
    }

    /// An address for a VIP, next to the balancer's front address.
    #[must_use]
    pub fn vip(&self, number: u8) -> Dual {
        self.layout.front.host(number)
    }

    /// The balancer's own addresses: front, and back where that is another network.
    #[must_use]
    pub fn lb_addresses(&self) -> [Dual; 2] {
        [self.lb.address, self.layout.back.host(BALANCER)]
    }

    /// Makes the balancer the servers' default gateway, which mode `nat` needs.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn servers_reply_through_balancer(&self) {
        let gateway = if self.layout.place == Servers::BehindRouters {
            self.lb.address
        } else {
            self.lb_addresses()[1]
        };
        for server in &self.servers {
            default_route(server, gateway);
        }
    }

    /// Lets every server accept a VIP for mode `dr`: the address on its loopback device, no ARP answers for
    /// it, and replies from it go straight to the clients on the wire, whatever the default route.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn servers_accept(&self, vip: IpAddr) {
        let family = if vip.is_ipv4() { Family::V4 } else { Family::V6 };
        let (bits, front) = (family.bits(), self.layout.front.network(family));
        for server in &self.servers {
            server.ns.sysctl("ipv4/conf/all/arp_ignore", "1");
            server.ns.sysctl("ipv4/conf/all/arp_announce", "2");
            server.ns.ip(&format!("addr add {vip}/{bits} dev lo{}", nodad(family)));
            if self.layout.front != self.layout.back {
                let ip = if family == Family::V4 { Netns::ip } else { Netns::ip6 };
                ip(
                    &server.ns,
                    &format!("rule add from {vip} lookup 100\nroute replace {front} dev eth0 table 100"),
                );
            }
        }
    }

    /// Takes a host's cable out of the switch: it is there, up, and unreachable, like after a power cut.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn unplug(&self, host: &Host) {
        self.switch.unplug(host);
    }

    /// Puts a cable back that [`Self::unplug`] took out.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn plug(&self, host: &Host) {
        let on_back = host.name.starts_with('s') && self.layout.place != Servers::SameWire;
        let wire = if on_back { "back" } else { "front" };
        self.switch.plug(host, wire);
    }

    /// The switch's port to a host's `eth0`: the place to see everything it sends and receives, also what
    /// an XDP program on it sends, which the host itself never gets to see.
    #[must_use]
    pub fn tap<'a>(&'a self, host: &'a Host) -> Tap<'a> {
        self.switch.tap(host)
    }

    /// Takes the programs off the switch's ports to the balancer, which only one that sends from XDP needs.
    pub fn dismiss_bystanders(&mut self) {
        self.bystanders.clear();
    }

    /// The routers, nearest to the servers last; empty unless servers are behind routers.
    #[must_use]
    pub fn routers(&self) -> &[Netns] {
        &self.routers
    }
}

/// remote ─ r0 ─ front ─ r1 ─ between ─ r2 ─ back, with routes everywhere but on clients and servers.
#[track_caller]
fn lay_routes(switch: &Switch, lb: &Host, layout: Layout) -> Vec<Netns> {
    let Layout { front, back, .. } = layout;
    let r0 = switch.host("r0", "front", front, 253);
    switch.attach(&r0, 1, "remote", Subnet::REMOTE, 254);
    let r1 = switch.host("r1", "front", front, 254);
    switch.attach(&r1, 1, "between", Subnet::BETWEEN, 1);
    let r2 = switch.host("r2", "between", Subnet::BETWEEN, 2);
    switch.attach(&r2, 1, "back", back, 254);
    for router in [&r0, &r1, &r2] {
        router.ns.sysctl("ipv4/ip_forward", "1");
        router.ns.sysctl("ipv6/conf/all/forwarding", "1");
    }
    let route = |from: &Netns, to: Subnet, via: Dual| {
        for family in Family::BOTH {
            from.ip(&format!("route add {} via {}", to.network(family), via.of(family)));
        }
    };
    route(&lb.ns, Subnet::REMOTE, front.host(253));
    route(&lb.ns, back, front.host(254));
    route(&r1.ns, back, Subnet::BETWEEN.host(2));
    route(&r2.ns, front, Subnet::BETWEEN.host(1));
    vec![r0.ns, r1.ns, r2.ns]
}

#[track_caller]
fn default_route(host: &Host, gateway: Dual) {
    host.ns
        .ip(&format!("route replace default via {}\nroute replace default via {}", gateway.v4, gateway.v6));
}
