//! The harness itself, without a balancer: if one of these fails, no other result means anything.

use std::time::Duration;

use lb_tests::{
    address::{Family, Subnet},
    bystander::Bystander,
    capture::Capture,
    client,
    daemon::attached_program,
    needs_namespaces,
    netns::Netns,
    server::{Purpose, Server},
    streams::{Steady, Streams},
    tls::{self, TlsServer},
    topology::{Layout, Servers, Topology},
    wait,
};

#[test]
fn every_host_reaches_every_other_one_on_its_wire_in_both_families() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let _server = Server::start(&net.servers[0].ns, "s1", &[80], true);
    for family in Family::BOTH {
        let target = net.servers[0].address.at(family, 80);
        let from_lb = client::requests(&net.lb.ns, target, 20).all_answered(target);
        assert_eq!(from_lb.servers(), ["s1"]);
        let _ = client::datagrams(&net.servers[1].ns, target, 20).all_answered(target);
        // Another network on the same wire, and no route: what only the balancer may bridge.
        let _ = client::requests(&net.client().ns, target, 1).none_answered(target);
    }
}

#[test]
fn servers_behind_routers_are_reached_from_the_balancer() {
    needs_namespaces!();
    let net = Topology::build(Layout { place: Servers::BehindRouters, ..Layout::default() });
    let servers: Vec<_> =
        net.servers.iter().map(|host| Server::start(&host.ns, &host.name, &[80], false)).collect();
    for family in Family::BOTH {
        for host in &net.servers {
            let tally = client::requests(&net.lb.ns, host.address.at(family, 80), 5).all_answered(&host.name);
            assert_eq!(tally.servers(), [host.name.as_str()]);
        }
    }
    assert_eq!(servers.len(), 3);
    // The remote client reaches the front network through its router.
    let _front = Server::start(&net.lb.ns, "lb", &[80], false);
    for family in Family::BOTH {
        let target = net.lb.address.at(family, 80);
        let _ = client::requests(&net.client().ns, target, 5).all_answered(target);
    }
}

#[test]
fn with_two_wires_servers_are_on_the_second_one() {
    needs_namespaces!();
    let net = Topology::build(Layout { place: Servers::SecondWire, ..Layout::default() });
    let _server = Server::start(&net.servers[2].ns, "s3", &[80], false);
    let _front = Server::start(&net.client().ns, "c1", &[80], false);
    let routes = net.lb.ns.ip_output(&["route", "get", "10.20.0.103"]);
    assert!(routes.contains("dev eth1"), "{routes}");
    for family in Family::BOTH {
        let _ = client::requests(&net.lb.ns, net.servers[2].address.at(family, 80), 5).all_answered(family);
        let _ = client::requests(&net.lb.ns, net.client().address.at(family, 80), 5).all_answered(family);
    }
}

#[test]
fn an_unplugged_server_is_silent_and_a_plugged_one_answers_again() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let host = &net.servers[0];
    let _server = Server::start(&host.ns, "s1", &[80], false);
    let target = host.address.at(Family::V4, 80);
    let _ = client::requests(&net.lb.ns, target, 3).all_answered("plugged");
    net.unplug(host);
    let failed = client::requests(&net.lb.ns, target, 1).none_answered("unplugged");
    assert!(failed.failures[0].contains("timed out"), "silence, not a refusal: {failed}");
    net.plug(host);
    let _ = client::requests(&net.lb.ns, target, 3).all_answered("plugged again");
}

#[test]
fn a_server_remembers_who_came_and_what_for() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let server = Server::start(&net.servers[0].ns, "s1", &[80, 443], true);
    let target = net.servers[0].address.at(Family::V6, 443);
    let _ = client::requests(&net.lb.ns, target, 7).all_answered("requests");
    let _ = client::datagrams(&net.lb.ns, target, 5).all_answered("datagrams");
    net.lb.ns.run(|| drop(client::connect(target, None, client::REQUEST).expect("connect")));
    let what = "the probe to be told from a request";
    wait::until_true(Duration::from_secs(5), what, || server.visits_for(443, Purpose::Probe).len() == 1);
    let requests = server.visits_for(443, Purpose::Request);
    assert_eq!(requests.len(), 7);
    let from = Subnet::SERVERS.host(1).of(Family::V6);
    assert!(requests.iter().all(|visit| visit.peer.ip() == from && visit.local == target), "{requests:?}");
    assert_eq!(server.visits_for(443, Purpose::Datagram).len(), 5);
    assert_eq!(server.visits_for(80, Purpose::Request).len(), 0);
}

#[test]
fn a_closed_port_refuses_and_an_opened_one_answers() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let server = Server::start(&net.servers[0].ns, "s1", &[80], false);
    let target = net.servers[0].address.at(Family::V4, 80);
    server.close(80);
    let refused = client::requests(&net.lb.ns, target, 3).none_answered("closed");
    assert!(refused.failures[0].contains("refused"), "{refused}");
    server.open(80);
    let _ = client::requests(&net.lb.ns, target, 3).all_answered("opened");
}

#[test]
fn ten_megabytes_arrive_unchanged_both_ways() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let _server = Server::start(&net.servers[0].ns, "s1", &[80], false);
    let transfer = client::transfer(&net.lb.ns, net.servers[0].address.at(Family::V4, 80), 10 << 20, 3);
    transfer.expect("a transfer").intact("10 MB");
}

#[test]
fn a_tls_client_accepts_the_servers_certificate_and_no_other() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let (one, two) =
        (TlsServer::start(&net.servers[0].ns, "s1", 443), TlsServer::start(&net.servers[1].ns, "s2", 443));
    for family in Family::BOTH {
        let target = net.servers[0].address.at(family, 443);
        let seen = tls::handshake(&net.lb.ns, target, &[one.certificate()]).expect("a trusted certificate");
        assert_eq!(seen.name, "s1");
        assert_eq!(seen.certificate, std::fs::read_to_string(one.certificate()).expect("the certificate"));
        let refused =
            tls::handshake(&net.lb.ns, target, &[two.certificate()]).expect_err("a wrong certificate");
        assert!(refused.contains("verify error"), "{refused}");
    }
}

#[test]
fn a_capture_shows_all_frames_of_a_series_with_their_addresses() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let host = &net.servers[0];
    let _server = Server::start(&host.ns, "s1", &[80], false);
    for family in Family::BOTH {
        let (at_host, at_switch) =
            (Capture::start(host.tap(), "tcp port 80"), Capture::start(net.tap(host), "tcp port 80"));
        let _ = client::requests(&net.lb.ns, host.address.at(family, 80), 200).all_answered(family);
        let ((at_host, _one), (at_switch, _two)) = (at_host.stop(), at_switch.stop());
        for frames in [at_host, at_switch] {
            let syns: Vec<_> = frames.iter().filter(|frame| frame.is_syn()).collect();
            assert_eq!(syns.len(), 200);
            assert!(
                syns.iter().all(|syn| syn.dst == host.address.of(family) && syn.dst_mac == host.mac),
                "{}",
                syns[0]
            );
            assert!(
                syns.iter().all(|syn| syn.src == Subnet::SERVERS.host(1).of(family) && syn.dst_port == 80)
            );
            assert_eq!(frames.iter().filter(|frame| frame.is_syn_ack()).count(), 200);
        }
    }
}

#[test]
fn streams_break_when_their_server_is_gone_and_only_then() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let host = &net.servers[0];
    let server = Server::start(&host.ns, "s1", &[80], false);
    let streams = Streams::start(&net.lb.ns, host.address.at(Family::V6, 80), 50);
    streams.wait_for_echoes(3);
    streams.unbroken_except(None);
    assert_eq!(streams.by_server()["s1"], 50);
    server.cut_connections();
    wait::until_true(Duration::from_secs(10), "all streams to break", || {
        streams.reports().iter().all(|report| report.broken.is_some())
    });
    streams.unbroken_except(Some("s1"));
}

#[test]
fn steady_requests_show_when_a_server_was_away() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let server = Server::start(&net.servers[0].ns, "s1", &[80], false);
    let steady = Steady::start(&net.lb.ns, net.servers[0].address.at(Family::V4, 80), 50);
    let wait_for = |what: &str, good: bool| {
        let before = steady.outcomes().len();
        wait::until_true(Duration::from_secs(10), what, || {
            steady.outcomes().iter().skip(before).filter(|outcome| outcome.answer.is_ok() == good).count()
                > 10
        });
    };
    wait_for("answers", true);
    server.close(80);
    wait_for("failures", false);
    server.open(80);
    wait_for("answers again", true);
    let outcomes = steady.finish();
    assert!(outcomes.first().expect("first").answer.is_ok() && outcomes.last().expect("last").answer.is_ok());
}

#[test]
fn a_direct_server_takes_the_vip_and_keeps_quiet_about_it() {
    needs_namespaces!();
    let net = Topology::build(Layout::default());
    let _servers: Vec<_> =
        net.servers.iter().map(|host| Server::start(&host.ns, &host.name, &[80], false)).collect();
    for family in Family::BOTH {
        let vip = net.vip(200);
        net.servers_accept(vip.of(family));
        // Nobody answers for the address on the wire...
        let failed = client::requests(&net.client().ns, vip.at(family, 80), 1).none_answered(family);
        assert!(!failed.failures[0].contains("refused"), "{failed}");
        // ...but a frame sent to a server's Ethernet address is answered, straight to the client.
        let (address, mac) = (vip.of(family), net.servers[1].mac);
        net.client().ns.ip(&format!("neigh replace {address} lladdr {mac} dev eth0"));
        let capture = Capture::start(net.tap(&net.lb), "tcp port 80");
        let tally = client::requests(&net.client().ns, vip.at(family, 80), 5).all_answered(family);
        assert_eq!(tally.servers(), ["s2"]);
        let (frames, _folder) = capture.stop();
        assert_eq!(frames.len(), 0, "the balancer's port saw {}", frames[0]);
    }
}

#[test]
fn a_foreign_program_is_attached_and_goes_when_dropped() {
    needs_namespaces!();
    let net = Topology::build(Layout { servers: 1, ..Layout::default() });
    let foreign = Bystander::attach(&net.lb.ns, "eth0");
    assert_eq!(attached_program(&net.lb.ns, "eth0"), Some(foreign.id.into()));
    let _server = Server::start(&net.lb.ns, "lb", &[80], false);
    let _ =
        client::requests(&net.client().ns, net.lb.address.at(Family::V4, 80), 5).all_answered("through it");
    drop(foreign);
    assert_eq!(attached_program(&net.lb.ns, "eth0"), None);
}

#[test]
fn a_dropped_namespace_is_gone_with_its_processes() {
    needs_namespaces!();
    let ns = Netns::new("gone");
    let mut sleeper = lb_tests::process::Running::start("sleep", ns.command("sleep").arg("60"));
    wait::until_true(Duration::from_secs(5), "sleep to run there", || ns.processes().len() == 1);
    let name = ns.name().to_owned();
    drop(ns);
    let (status, _) = sleeper.wait(Duration::from_secs(5));
    assert!(!status.success(), "killed, not finished");
    assert!(!std::path::Path::new("/run/netns").join(name).exists());
}
