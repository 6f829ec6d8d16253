//! R13: who gets a new connection.

use std::{collections::BTreeMap, time::Duration};

use lb_tests::{
    address::Family,
    client::{self, Tally},
    needs_balancer,
    streams::Streams,
    topology::Layout,
    wait,
};
use lb_user::snapshot::Health;

use crate::{bed::Bed, config::Config};

/// Requests of a series.
const REQUESTS: usize = 600;

/// The modes that are tried: one that translates, and one that does not.
const MODES: [&str; 2] = ["snat", "dr"];

/// VIPs in both modes, their servers with weights 100, 50 and 50.
fn config(bed: &Bed, more: &str) -> Config {
    let [one, two, three] = &bed.net.servers[..] else { panic!("three servers") };
    let half = ", weight = 50".to_owned();
    let members = [(one, String::new()), (two, half.clone()), (three, half)];
    let mut config = Config::new().pool_of("all", Family::V4, &members);
    for mode in MODES {
        let vip = bed.target(mode, Family::V4, 80).ip();
        config = config.vip(mode, vip, "80", mode, "all", more);
    }
    config
}

fn requests(bed: &Bed, mode: &str) -> Tally {
    let target = bed.target(mode, Family::V4, 80);
    client::requests(&bed.net.client().ns, target, REQUESTS).all_answered(mode)
}

/// Shares of a half and two quarters, give or take so many percent of all.
#[track_caller]
fn assert_shares(what: &str, counts: &BTreeMap<String, usize>, tolerance: f64) {
    let all: usize = counts.values().sum();
    for (server, share) in [("s1", 0.5), ("s2", 0.25), ("s3", 0.25)] {
        let got = counts.get(server).copied().unwrap_or(0) as f64 / all as f64;
        assert!((got - share).abs() <= tolerance / 100.0, "{what}: {server} got {got} of {all}: {counts:?}");
    }
}

#[test]
fn by_hash_the_shares_follow_the_weights() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let _balancer = bed.balance(&config(&bed, ""));
    for mode in MODES {
        // Three times the standard deviation of so many throws of a coin.
        assert_shares(mode, &requests(&bed, mode).by_server, 6.2);
    }
}

#[test]
fn in_turns_the_shares_are_exact() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let _balancer = bed.balance(&config(&bed, "algorithm = \"round-robin\""));
    for mode in MODES {
        assert_shares(mode, &requests(&bed, mode).by_server, 3.0);
    }
}

#[test]
fn the_one_with_fewer_connections_gets_the_next() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&config(&bed, "algorithm = \"least-conn\""));
    for mode in MODES {
        let target = bed.target(mode, Family::V4, 80);
        let streams = Streams::start(&bed.net.client().ns, target, 120);
        assert_shares(mode, &streams.by_server(), 8.0);
        let hosted = streams.by_server();
        wait::until(Duration::from_secs(10), "the connections to be counted", || {
            let status = balancer.status();
            let vip = status.vips.iter().find(|vip| vip.name == mode).expect("the VIP");
            let active: BTreeMap<_, _> = vip
                .servers
                .iter()
                .map(|server| (server.name.clone(), server.traffic.active as usize))
                .collect();
            if active == hosted { Ok(()) } else { Err(format!("{active:?}, not {hosted:?}")) }
        });
        drop(streams);
    }
}

#[test]
fn by_client_each_has_one_server() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let addresses: Vec<_> = (20..50).map(|number| bed.net.layout.front.host(number).v4).collect();
    let lines: Vec<_> = addresses.iter().map(|address| format!("addr add {address}/24 dev eth0")).collect();
    bed.net.client().ns.ip(&lines.join("\n"));
    let _balancer = bed.balance(&config(&bed, "algorithm = \"source\""));
    for mode in MODES {
        let target = bed.target(mode, Family::V4, 80);
        let mut servers = BTreeMap::<String, usize>::new();
        for &address in &addresses {
            let ask =
                || client::request_from(target, Some(address.into()), client::REQUEST).expect("an answer");
            let answers: Vec<_> = bed.net.client().ns.run(|| (0..5).map(|_| ask()).collect());
            assert!(answers.iter().all(|server| *server == answers[0]), "{address}: {answers:?}");
            *servers.entry(answers[0].clone()).or_default() += 1;
        }
        assert_eq!(servers.len(), 3, "{mode}: {servers:?}");
    }
}

#[test]
fn the_first_has_all_and_takes_them_back() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&config(&bed, "algorithm = \"first\""));
    let only = |server: &str| {
        for mode in MODES {
            assert_eq!(requests(&bed, mode).servers(), [server], "{mode}");
        }
    };
    only("s1");
    bed.servers[0].close(80);
    for mode in MODES {
        let _ = balancer.wait_health(Duration::from_secs(10), mode, "s1", Health::Down);
    }
    only("s2");
    let target = bed.target("dr", Family::V4, 80);
    let streams = Streams::start(&bed.net.client().ns, target, 5);
    bed.servers[0].open(80);
    for mode in MODES {
        let target = bed.target(mode, Family::V4, 80);
        wait::until(Duration::from_secs(10), "the first to have all again", || {
            let tally = client::requests(&bed.net.client().ns, target, 20).all_answered(mode);
            if tally.servers() == ["s1"] { Ok(()) } else { Err(tally.to_string()) }
        });
    }
    streams.wait_for_echoes(5);
    streams.unbroken_except(None);
    assert_eq!(streams.by_server().into_keys().collect::<Vec<_>>(), ["s2"]);
}

/// What a VIP wants to be done with new connections while nobody takes them.
#[test]
fn without_a_server_a_vip_drops_or_refuses() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    for (empty, words) in [("drop", "timed out"), ("reject", "refused")] {
        for mode in MODES {
            let vip = bed.target(mode, Family::V4, 80).ip();
            let more = format!("empty = \"{empty}\"");
            let config = Config::new().pool("all", Family::V4, &bed.net.servers);
            let balancer = bed.start(&config.vip(mode, vip, "80", mode, "all", &more));
            let _ = balancer.wait_all_up();
            for host in &bed.net.servers {
                balancer.server("drain", mode, &host.name);
            }
            let target = bed.target(mode, Family::V4, 80);
            let tally = client::requests(&bed.net.client().ns, target, 1).none_answered(empty);
            assert!(tally.failures[0].contains(words), "{mode}, {empty}: {tally}");
        }
    }
}
