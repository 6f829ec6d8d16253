//! R16, R25: when a server counts as down or up, how often it is asked, and what its weight means.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_tests::{
    address::Family,
    client,
    daemon::{find_server, find_vip},
    needs_balancer,
    server::Purpose,
    topology::Layout,
    wait,
};
use lb_user::snapshot::{Health, PoolHealth};

use crate::{bed::Bed, config::Config};

/// R16's settings.
const OPERATORS: &str = "[health]\ncheck = \"tcp\"\ninterval = \"2s\"\nrise = 2\nfall = 5\n";

#[test]
fn every_two_seconds_five_failures_down_two_successes_up() {
    needs_balancer!();
    let bed = Bed::new(Layout { servers: 2, ..Layout::default() }, &[80, 443]);
    let vip = bed.net.vip(200).of(Family::V4);
    let config = Config::with_top(OPERATORS)
        .pool("all", Family::V4, &bed.net.servers)
        .vip("web", vip, "80", "snat", "all", "")
        .vip("tls", vip, "443", "snat", "all", "");
    let balancer = bed.balance(&config);
    let begin = Instant::now();

    bed.servers[0].close(80);
    let closed = Instant::now();
    let status = balancer.wait_health(Duration::from_secs(15), "web", "s1", Health::Down);
    in_seconds(closed, 8.0..10.5, "from closing the port to DOWN");
    assert_eq!(find_vip(&status, "web").health, PoolHealth::Degraded);
    assert_eq!(find_vip(&status, "tls").health, PoolHealth::Healthy, "the other VIP of the same server");

    bed.servers[0].open(80);
    let opened = Instant::now();
    let _ = balancer.wait_health(Duration::from_secs(10), "web", "s1", Health::Up);
    in_seconds(opened, 2.0..4.5, "from opening the port to UP");

    // The ports nobody touched: how often were they asked in the meantime? Eleven probes are ten intervals.
    for (server, port) in [(0, 443), (1, 80), (1, 443)] {
        let server = &bed.servers[server];
        let what = format!("eleven probes of {} on port {port}", server.name());
        let probes = wait::until(Duration::from_secs(25), &what, || {
            let probes = server.visits_for(port, Purpose::Probe);
            let later: Vec<_> = probes.into_iter().map(|visit| visit.at).filter(|&at| at > begin).collect();
            if later.len() >= 11 { Ok(later) } else { Err(format!("{}", later.len())) }
        });
        let span = (probes[10] - probes[0]).as_secs_f64();
        let rate = 10.0 / span;
        assert!((0.475..=0.525).contains(&rate), "{what}: {rate:.3} per second");
    }
}

#[track_caller]
fn in_seconds(since: Instant, range: std::ops::Range<f64>, what: &str) {
    let took = since.elapsed().as_secs_f64();
    assert!(range.contains(&took), "{what}: {took:.2} s is not within {range:?} s");
}

#[test]
fn a_server_has_weight_100_unless_told_otherwise_and_with_0_it_takes_nothing_new() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let [s1, s2, s3] = &bed.net.servers[..] else { panic!("three servers") };
    for family in Family::BOTH {
        let members =
            [(s1, String::new()), (s2, ", weight = 0".to_owned()), (s3, ", weight = 300".to_owned())];
        let target = bed.net.vip(200).at(family, 80);
        let config =
            Config::new().pool_of("all", family, &members).vip("web", target.ip(), "80", "snat", "all", "");
        let balancer = bed.balance(&config);
        let tally = client::requests(&bed.net.client().ns, target, 400).all_answered(family);
        let status = balancer.status();
        let vip = find_vip(&status, "web");
        assert_eq!([100, 0, 300], ["s1", "s2", "s3"].map(|name| find_server(vip, name).weight));
        assert_eq!([true, false, true], ["s1", "s2", "s3"].map(|name| find_server(vip, name).active));
        assert_eq!(find_server(vip, "s2").health, Health::Up, "weight 0 is not a kind of illness");
        assert_eq!(tally.servers(), ["s1", "s3"], "{tally}");
        // 300 of 400 on average; five standard deviations are 43.
        assert!((257..=343).contains(&tally.by_server["s3"]), "{tally}");
        assert_eq!(find_server(vip, "s2").traffic.connections, 0);
        let _ = balancer.stop();
    }
}

#[test]
fn probes_come_from_the_address_that_traffic_comes_from() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let _balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    for family in Family::BOTH {
        let target = bed.target("snat", family, 80);
        let _ = client::requests(&bed.net.client().ns, target, 60).all_answered(family);
    }
    for server in &bed.servers {
        let peers = |purpose: Purpose| -> BTreeSet<IpAddr> {
            server.visits_for(80, purpose).into_iter().map(|visit| visit.peer.ip()).collect()
        };
        let (probes, requests) = (peers(Purpose::Probe), peers(Purpose::Request));
        assert_eq!(probes, requests, "{}", server.name());
        assert_eq!(probes.len(), 2, "one for each family: {probes:?}");
    }
}

#[test]
fn without_a_server_left_clients_get_no_answer_and_the_reason_is_counted() {
    needs_balancer!();
    let bed = Bed::new(Layout { servers: 1, ..Layout::default() }, &[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    bed.servers[0].close(80);
    let status = balancer.wait_health(Duration::from_secs(10), "snat_v4", "s1", Health::Down);
    assert_eq!(find_vip(&status, "snat_v4").health, PoolHealth::Down);
    let _ = client::requests(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 1)
        .none_answered("no server");
    let status = balancer.status();
    let counted = status.reasons.iter().find(|reason| reason.reason == "no-server");
    assert!(counted.is_some_and(|reason| reason.packets > 0), "{:?}", status.reasons);
    bed.servers[0].open(80);
    let _ = balancer.wait_health(Duration::from_secs(10), "snat_v4", "s1", Health::Up);
    let _ = client::requests(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 20)
        .all_answered("server back");
}
