//! Modes `ipip` and `gue`, end to end: the balancer wraps packets up, `lb-user decap` takes them out on the servers,
//! and the servers answer clients themselves. Every mix of families inside and outside.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_tests::{
    address::{Dual, Family, Subnet},
    capture::Capture,
    client,
    daemon::{Balancer, find_vip},
    decapsulator::Decapsulator,
    needs_balancer,
    server::{Purpose, Server},
    topology::{Layout, Servers},
};

use crate::{
    bed::{Bed, pool_name},
    config::Config,
};

const MODES: [&str; 2] = ["ipip", "gue"];
const REQUESTS: usize = 60;

/// A mode with a family inside and one outside; each has a VIP of its own.
#[derive(Clone, Copy)]
struct Mix {
    mode: &'static str,
    inner: Family,
    outer: Family,
}

impl Mix {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for mode in MODES {
            for inner in Family::BOTH {
                all.extend(Family::BOTH.map(|outer| Self { mode, inner, outer }));
            }
        }
        all
    }

    /// Of the VIP.
    fn name(self) -> String {
        format!("{}_{}_in_{}", self.mode, pool_name(self.inner), pool_name(self.outer))
    }

    fn address(self, bed: &Bed) -> Dual {
        let outer = u8::from(self.outer == Family::V6);
        bed.net.vip(210 + 2 * u8::from(self.mode == "gue") + outer)
    }

    fn at(self, bed: &Bed, port: u16) -> SocketAddr {
        self.address(bed).at(self.inner, port)
    }
}

/// Starts a balancer with a VIP for every mix on `port`; each server has them all.
#[track_caller]
fn balance<'a>(bed: &'a Bed, port: u16, more: &str) -> Balancer<'a> {
    let mut config = Config::new();
    for family in Family::BOTH {
        config = config.pool(pool_name(family), family, &bed.net.servers);
    }
    for mix in Mix::all() {
        let vip = mix.at(bed, port).ip();
        bed.net.servers_accept(vip);
        config = config.vip(&mix.name(), vip, &port.to_string(), mix.mode, pool_name(mix.outer), more);
    }
    bed.balance(&config)
}

/// Nothing was refused and nothing was damaged; gives how many packets came out of tunnels.
#[track_caller]
fn all_came_out(decapsulators: Vec<Decapsulator>) -> u64 {
    let mut total = 0;
    for decapsulator in decapsulators {
        let outcomes: BTreeMap<String, u64> = decapsulator.stop();
        let fine = ["decapsulated", "not-tunnel"];
        let odd: Vec<_> =
            outcomes.iter().filter(|(name, n)| **n > 0 && !fine.contains(&name.as_str())).collect();
        assert!(odd.is_empty(), "{odd:?}");
        total += outcomes["decapsulated"];
    }
    total
}

#[test]
fn requests_are_answered_by_all_servers_which_see_the_client_and_answers_bypass_the_balancer() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let decapsulators = Decapsulator::start_all(&bed.net);
    let balancer = balance(&bed, 80, "");
    let _ = balancer.assert_native();
    let client = bed.net.client();
    for mix in Mix::all() {
        let (what, vip) = (mix.name(), mix.at(&bed, 80));
        let capture = Capture::start(bed.net.tap(&bed.net.lb), &format!("src host {}", vip.ip()));
        let tally = client::requests(&client.ns, vip, REQUESTS).all_answered(&what);
        assert_eq!(tally.servers(), ["s1", "s2", "s3"], "{what}");
        let visits = bed.servers.iter().flat_map(|server| server.visits_for(80, Purpose::Request));
        let peers: Vec<_> = visits.filter(|visit| visit.local == vip).map(|visit| visit.peer.ip()).collect();
        assert_eq!(peers, vec![client.address.of(mix.inner); REQUESTS], "{what}");
        let (frames, _folder) = capture.stop();
        assert_eq!(frames.len(), 0, "{what}: an answer passed the balancer: {}", frames[0]);
        let status = balancer.status();
        let traffic = find_vip(&status, &what).traffic;
        assert!(traffic.packets_in > 3 * REQUESTS as u64 && traffic.packets_out == 0, "{what}: {traffic:?}");
    }
    assert!(all_came_out(decapsulators) > 3 * (8 * REQUESTS) as u64);
}

#[test]
fn a_client_is_told_what_fits_through_the_tunnel() {
    needs_balancer!();
    let bed = Bed::new(Layout { servers: 1, ..Layout::default() }, &[80]);
    let decapsulators = Decapsulator::start_all(&bed.net);
    // The client's packets of 1,500 bytes do not fit once they are wrapped up: it has to hear of it.
    let _balancer = balance(&bed, 80, "");
    for mix in Mix::all() {
        let transfer = client::transfer(&bed.net.client().ns, mix.at(&bed, 80), 1 << 20, 3);
        transfer.unwrap_or_else(|error| panic!("{}: {error}", mix.name())).intact(mix.name());
    }
    assert!(all_came_out(decapsulators) > 8 * 700);
}

#[test]
fn clamping_limits_what_servers_send() {
    needs_balancer!();
    let bed = Bed::new(Layout { servers: 1, ..Layout::default() }, &[80]);
    let decapsulators = Decapsulator::start_all(&bed.net);
    // Only the client's announcement passes the balancer; the server's goes straight to the client.
    let _balancer = balance(&bed, 80, "mss = 1000");
    for mix in Mix::all() {
        let (client, vip) = (bed.net.client(), mix.at(&bed, 80));
        // Each where it is sent: on arrival, the kernel joins segments.
        let sent = [(&bed.net.servers[0], vip.ip()), (client, client.address.of(mix.inner))]
            .map(|(host, from)| Capture::start(host.tap(), &format!("tcp and src host {from}")));
        let transfer = client::transfer(&client.ns, vip, 1 << 20, 4);
        transfer.unwrap_or_else(|error| panic!("{}: {error}", mix.name())).intact(mix.name());
        let [server, client] = sent.map(|capture| {
            let (frames, _folder) = capture.stop();
            frames.iter().map(|frame| frame.payload).max().unwrap_or(0)
        });
        assert!((900..=1_000).contains(&server) && client > 1_000, "{}: {server} {client}", mix.name());
    }
    assert!(all_came_out(decapsulators) > 8 * 700);
}

#[test]
fn datagrams_are_answered() {
    needs_balancer!();
    // The health check asks by TCP; the datagrams go to servers that answer from the VIP's address.
    let bed = Bed::new(Layout::default(), &[5353]);
    let decapsulators = Decapsulator::start_all(&bed.net);
    let _balancer = balance(&bed, 5354, "protocol = \"udp\"\nhealth = { check = \"tcp\", port = 5353 }");
    let servers: Vec<_> = bed
        .net
        .servers
        .iter()
        .flat_map(|host| {
            let bed = &bed;
            Mix::all()
                .into_iter()
                .map(move |mix| Server::start_on(&host.ns, &host.name, mix.at(bed, 5354).ip(), &[5354], true))
        })
        .collect();
    for mix in Mix::all() {
        let tally = client::datagrams(&bed.net.client().ns, mix.at(&bed, 5354), REQUESTS);
        assert_eq!(tally.all_answered(mix.name()).servers(), ["s1", "s2", "s3"], "{}", mix.name());
    }
    assert_eq!(
        all_came_out(decapsulators),
        (8 * REQUESTS) as u64,
        "each datagram went through a tunnel, once"
    );
    drop(servers);
}

#[test]
fn servers_may_be_behind_routers() {
    needs_balancer!();
    let bed = Bed::new(Layout { place: Servers::BehindRouters, ..Layout::default() }, &[80]);
    // Answers go to the clients by the routers, not to the balancer.
    let [_, near, far] = bed.net.routers() else { panic!("three routers") };
    for family in Family::BOTH {
        let clients = Subnet::REMOTE.network(family);
        near.ip(&format!("route add {clients} via {}", bed.net.layout.front.host(253).of(family)));
        far.ip(&format!("route add {clients} via {}", Subnet::BETWEEN.host(1).of(family)));
    }
    let decapsulators = Decapsulator::start_all(&bed.net);
    let _balancer = balance(&bed, 80, "");
    for mix in Mix::all() {
        let tally = client::requests(&bed.net.client().ns, mix.at(&bed, 80), REQUESTS);
        assert_eq!(tally.all_answered(mix.name()).servers(), ["s1", "s2", "s3"], "{}", mix.name());
    }
    assert!(all_came_out(decapsulators) > 3 * (8 * REQUESTS) as u64);
}

#[test]
fn another_port_of_gue() {
    needs_balancer!();
    let bed = Bed::new(Layout { servers: 1, ..Layout::default() }, &[80]);
    let decapsulator = Decapsulator::start(&bed.net.servers[0].ns, &["--gue-port", "6666"]);
    let vip = bed.net.vip(210).of(Family::V4);
    bed.net.servers_accept(vip);
    let config = Config::new().pool("v6", Family::V6, &bed.net.servers);
    let _balancer = bed.balance(&config.vip("web", vip, "80", "gue", "v6", "gue_port = 6666"));
    let capture = Capture::start(bed.net.tap(&bed.net.servers[0]), "udp port 6666");
    let target = SocketAddr::new(vip, 80);
    let _ = client::requests(&bed.net.client().ns, target, REQUESTS).all_answered("GUE on port 6666");
    let (frames, _folder) = capture.stop();
    assert!(frames.iter().all(|frame| frame.dst_port == 6666 && frame.src_port >= 0xc000));
    assert_eq!(frames.len() as u64, all_came_out(vec![decapsulator]));
}
