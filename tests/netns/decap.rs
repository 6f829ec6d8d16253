//! `lb-user decap`: servers that get a VIP's packets through tunnels answer clients themselves. There is no
//! balancer here; a relay sends through the kernel's own sockets, so that both ends are not of one mind.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_tests::{
    address::Family,
    bystander::Bystander,
    client,
    daemon::attached_program,
    decapsulator::Decapsulator,
    needs_balancer,
    packet::Draft,
    relay::{Kind, Relay, Tunnel},
    server::Server,
    topology::{Layout, Topology},
    wait,
};

/// A client, a relay in the balancer's place, two servers of which the first is to get everything.
struct Bed {
    net: Topology,
}

impl Bed {
    #[track_caller]
    fn new() -> Self {
        let net = Topology::build(Layout { servers: 2, ..Layout::default() });
        let offload = net.lb.ns.command("ethtool").args(["-K", "eth0", "gro", "off"]).status();
        assert!(offload.expect("run `ethtool`").success());
        for family in Family::BOTH {
            let (vip, relay) = (net.vip(200).of(family), net.lb.mac);
            net.servers_accept(vip);
            // Larger packets would not fit once there are outer headers around them.
            net.client().ns.ip(&format!(
                "neigh replace {vip} lladdr {relay} dev eth0\nroute add {vip} dev eth0 mtu 1400"
            ));
        }
        Self { net }
    }

    fn vip(&self, family: Family) -> SocketAddr {
        self.net.vip(200).at(family, 80)
    }

    /// A tunnel from the balancer's place to the first server.
    #[track_caller]
    fn relay(&self, kind: Kind, outer: Family, inner: Family) -> Relay {
        let server = self.net.servers[0].address.of(outer);
        Relay::start(&self.net.lb.ns, self.vip(inner).ip(), kind, server)
    }
}

/// A datagram to a VIP from far away, from its IP header on.
fn datagram(vip: SocketAddr) -> Vec<u8> {
    let client = if vip.is_ipv4() { "192.0.2.7:4000" } else { "[2001:db8::7]:4000" };
    Draft::udp(client.parse().expect("an end"), vip).payload(b"hello").bytes().split_off(14)
}

#[test]
fn every_kind_of_tunnel_and_every_mix_of_families_is_answered() {
    needs_balancer!();
    let bed = Bed::new();
    let host = &bed.net.servers[0];
    let _web = Server::start(&host.ns, "s1", &[80], false);
    let _udp: Vec<_> =
        Family::BOTH.map(|family| Server::start_on(&host.ns, "s1", bed.vip(family).ip(), &[81], true)).into();
    let mut decap = Decapsulator::start(&host.ns, &[]);
    for outer in Family::BOTH {
        for inner in Family::BOTH {
            for kind in Kind::ALL {
                let what = format!("{inner} in {kind:?} over {outer}");
                let before = decap.outcomes()["decapsulated"];
                let relay = bed.relay(kind, outer, inner);
                let (client, vip) = (&bed.net.client().ns, bed.vip(inner));
                let _ = client::requests(client, vip, 20).all_answered(&what);
                let _ = client::datagrams(client, SocketAddr::new(vip.ip(), 81), 20).all_answered(&what);
                let transfer = client::transfer(client, vip, 1 << 20, 5);
                transfer.unwrap_or_else(|error| panic!("{what}: {error}")).intact(&what);
                drop(relay);
                let packets = decap.outcomes()["decapsulated"] - before;
                assert!(packets > 20 * 5 + 20 + 700, "{what}: {packets} packets came through the tunnel");
            }
        }
    }
    let outcomes = decap.stop();
    for refused in ["not-at-us", "source-refused", "inner-refused", "fragment", "malformed", "unsupported"] {
        assert_eq!(outcomes[refused], 0, "{outcomes:?}");
    }
    assert!(outcomes["not-tunnel"] > 0, "ARP at least: {outcomes:?}");
}

#[test]
fn without_it_tunnels_lead_nowhere_and_with_it_all_else_goes_on() {
    needs_balancer!();
    let bed = Bed::new();
    let host = &bed.net.servers[0];
    let _web = Server::start(&host.ns, "s1", &[80], false);
    let relay = bed.relay(Kind::Ip, Family::V4, Family::V4);
    let ask_vip = |requests| client::requests(&bed.net.client().ns, bed.vip(Family::V4), requests);
    let _ = ask_vip(1).none_answered("nobody takes packets out");
    let decap = Decapsulator::start(&host.ns, &[]);
    let _ = ask_vip(10).all_answered("taken out");
    for family in Family::BOTH {
        let own = client::requests(&bed.net.lb.ns, host.address.at(family, 80), 10);
        let _ = own.all_answered("the server's own address");
    }
    drop(decap);
    wait::until_true(Duration::from_secs(5), "the program to go", || {
        attached_program(&host.ns, "eth0").is_none()
    });
    let _ = ask_vip(1).none_answered("nobody takes packets out any more");
    drop(relay);
}

#[test]
fn who_may_not_use_the_tunnel_gets_nothing_through_it() {
    needs_balancer!();
    let bed = Bed::new();
    let [host, other] = [0, 1].map(|n| &bed.net.servers[n]);
    let from: Vec<String> =
        Family::BOTH.map(|family| bed.net.lb_addresses()[1].of(family).to_string()).into();
    let mut decap = Decapsulator::start(&host.ns, &["--from", &from.join(",")]);
    let mut expect = |name: &str, packets: u64| {
        wait::until(Duration::from_secs(5), name, || {
            let outcomes = decap.outcomes();
            if outcomes[name] == packets { Ok(()) } else { Err(format!("{outcomes:?}")) }
        });
    };
    let mut sent = 0;
    for family in Family::BOTH {
        for kind in Kind::ALL {
            let (to, vip) = (host.address.of(family), bed.vip(family));
            let may = Tunnel::open(&bed.net.lb.ns, kind, to, vip.ip());
            let may_not = Tunnel::open(&other.ns, kind, to, vip.ip());
            sent += 1;
            may_not.send(&datagram(vip));
            expect("source-refused", sent);
            may.send(&datagram(vip));
            expect("decapsulated", sent);
            may.send(&datagram(bed.net.vip(201).at(family, 80)));
            expect("inner-refused", sent);
            // Not to the address of the interface, but to that of the VIP.
            let route = format!("route replace {} via {to}", vip.ip());
            bed.net.lb.ns.ip(&route);
            Tunnel::open(&bed.net.lb.ns, kind, vip.ip(), vip.ip()).send(&datagram(vip));
            expect("not-at-us", sent);
        }
    }
    assert!(!decap.log().contains("anyone may"), "{}", decap.log());
}

#[test]
fn addresses_that_come_and_go_are_followed() {
    needs_balancer!();
    let bed = Bed::new();
    let host = &bed.net.servers[0];
    let mut decap = Decapsulator::start(&host.ns, &[]);
    assert!(decap.log().contains("anyone may send packets through a tunnel"), "{}", decap.log());
    let vip: SocketAddr = "10.10.0.207:80".parse().expect("an end");
    let end: IpAddr = "10.20.0.177".parse().expect("an address");
    // Sent again and again: nobody knows when the program has heard of the change.
    let mut until_counted = |to: IpAddr, name: &str| {
        let tunnel = Tunnel::open(&bed.net.lb.ns, Kind::Gue, to, vip.ip());
        let before = decap.outcomes();
        wait::until(Duration::from_secs(5), name, || {
            tunnel.send(&datagram(vip));
            let outcomes = decap.outcomes();
            if outcomes[name] > before[name] { Ok(()) } else { Err(format!("{outcomes:?}")) }
        });
    };
    until_counted(host.address.of(Family::V4), "inner-refused");
    host.ns.ip(&format!("addr add {}/32 dev lo", vip.ip()));
    until_counted(host.address.of(Family::V4), "decapsulated");
    host.ns.ip(&format!("addr add {end}/24 dev eth0"));
    until_counted(end, "decapsulated");
    host.ns.ip(&format!("addr del {}/32 dev lo", vip.ip()));
    until_counted(end, "inner-refused");
}

#[test]
fn the_operators_own_lists_replace_the_defaults() {
    needs_balancer!();
    let bed = Bed::new();
    let host = &bed.net.servers[0];
    let mut decap = Decapsulator::start(
        &host.ns,
        &["--at", "10.20.0.177,fd00::/8", "--to", "198.51.100.0/25", "--gue-port", "6666"],
    );
    host.ns.ip("addr add 10.20.0.177/24 dev eth0");
    let vip: SocketAddr = "198.51.100.9:80".parse().expect("an end");
    let send = |kind, to: &str| {
        let to = to.parse().expect("an address");
        Tunnel::open(&bed.net.lb.ns, kind, to, vip.ip()).send(&datagram(vip));
    };
    send(Kind::Ip, "10.20.0.177");
    send(Kind::Ip, &host.address.v4.to_string());
    send(Kind::Ip, &host.address.v6.to_string());
    // Port 6080 is not GUE's any more.
    send(Kind::Gue, "10.20.0.177");
    wait::until(Duration::from_secs(5), "all four to be counted", || {
        let outcomes = decap.outcomes();
        let counted = [outcomes["decapsulated"], outcomes["not-at-us"]];
        if counted == [2, 1] { Ok(()) } else { Err(format!("{outcomes:?}")) }
    });
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    needs_balancer!();
    let bed = Bed::new();
    let host = &bed.net.servers[0];
    let refused = |arguments: &[&str], words: &str| {
        let before = attached_program(&host.ns, "eth0");
        let (status, log) = Decapsulator::launch(&host.ns, arguments).wait(Duration::from_secs(20));
        assert!(!status.success() && log.contains(words) && !log.contains("panicked"), "{status} {log}");
        assert_eq!(attached_program(&host.ns, "eth0"), before);
    };
    refused(&["--iface", "eth7"], "there is no interface \"eth7\"");
    refused(&["--iface", "lo"], "lo is not an Ethernet interface");
    refused(&["--iface", "eth0", "--iface", "eth0"], "given twice");
    refused(&["--iface", "eth0", "--from", "10.0.0.1/8"], "10.0.0.0/8");
    refused(&["--iface", "eth0", "--from", "lb1.example"], "is not a network");
    refused(&[], "--iface");
    let foreign = Bystander::attach(&host.ns, "eth0");
    refused(&["--iface", "eth0"], "already runs the XDP program \"bystander\"");
    drop(foreign);
    let first = Decapsulator::start(&host.ns, &[]);
    refused(&["--iface", "eth0"], "already runs the XDP program \"decap");
    let outcomes = first.stop();
    assert_eq!(outcomes["resize-failed"], 0);
    assert_eq!(attached_program(&host.ns, "eth0"), None, "detached at the end");
}
