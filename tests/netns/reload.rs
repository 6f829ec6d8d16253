//! The configuration file is read again while everything runs.

use std::time::Duration;

use lb_tests::{
    address::Family,
    client,
    daemon::{Balancer, find_server, find_vip},
    needs_balancer,
    streams::Streams,
    topology::Host,
    wait,
};
use lb_user::snapshot::Health;
use rustix::process::{Pid, Signal, kill_process};

use crate::{bed::Bed, config::Config};

const LIMIT: Duration = Duration::from_secs(10);

fn pool(bed: &Bed, servers: &[usize]) -> Config {
    let members: Vec<(&Host, String)> =
        servers.iter().map(|&place| (&bed.net.servers[place], String::new())).collect();
    Config::new().pool_of("all", Family::V4, &members)
}

/// VIPs on these ports of the usual address, with these servers.
fn config(bed: &Bed, ports: &[u16], servers: &[usize], more: &str) -> Config {
    let vip = bed.target("snat", Family::V4, 80).ip();
    ports.iter().fold(pool(bed, servers), |config, port| {
        config.vip(&format!("vip{port}"), vip, &port.to_string(), "snat", "all", more)
    })
}

fn serves(bed: &Bed, port: u16, servers: &[&str]) {
    let target = bed.target("snat", Family::V4, port);
    let tally = client::requests(&bed.net.client().ns, target, 60).all_answered(port);
    assert_eq!(tally.servers(), servers, "port {port}");
}

fn counted(balancer: &Balancer<'_>, vip: &str) -> u64 {
    find_vip(&balancer.status(), vip).traffic.connections
}

/// R51, and R10: adding one does not touch the counters of the others.
#[test]
fn servers_and_vips_come_and_go_and_nothing_else_changes() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80, 81]);
    let balancer = bed.balance(&config(&bed, &[80], &[0, 1], ""));
    serves(&bed, 80, &["s1", "s2"]);
    let before = find_server(find_vip(&balancer.status(), "vip80"), "s1").clone();
    let streams = Streams::start(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 30);

    let told = balancer.reload(config(&bed, &[80, 81], &[0, 1, 2], "").text()).expect("a good file");
    assert!(told.contains("+ vip.vip81: ") && told.contains("is in use: 2 VIPs"), "{told}");
    let _ = balancer.wait_all_up();
    serves(&bed, 81, &["s1", "s2", "s3"]);
    serves(&bed, 80, &["s1", "s2", "s3"]);
    let after = find_server(find_vip(&balancer.status(), "vip80"), "s1").clone();
    assert_eq!((after.since, &after.reason), (before.since, &before.reason), "health goes on");
    assert!(after.traffic.connections > before.traffic.connections);
    streams.wait_for_echoes(3);
    streams.unbroken_except(None);

    let connections = counted(&balancer, "vip80");
    let _ = balancer.reload(config(&bed, &[80], &[0, 2], "").text()).expect("a good file");
    let _ = balancer.wait_all_up();
    serves(&bed, 80, &["s1", "s3"]);
    assert!(counted(&balancer, "vip80") >= connections + 60, "what s2 had still counts");
    let gone = client::requests(&bed.net.client().ns, bed.target("snat", Family::V4, 81), 1);
    assert!(gone.none_answered("a VIP that is gone").failures[0].contains("refused"), "by the host itself");
    wait::until_true(LIMIT, "the connections of s2 to end", || {
        streams.reports().iter().all(|report| report.server != "s2" || report.broken.is_some())
    });
    streams.wait_for_echoes(3);
    streams.unbroken_except(Some("s2"));
}

#[test]
fn addresses_of_vips_follow() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let has = |address| {
        let listed = bed.net.lb.ns.ip_output(&["-oneline", "address", "show", "dev", "eth0"]);
        listed.contains(&format!("{address}/32"))
    };
    let vip = |number| bed.net.vip(number).of(Family::V4);
    let with = |number| pool(&bed, &[0, 1]).vip("web", vip(number), "80", "snat", "all", "");
    let balancer = bed.balance(&with(230));
    assert!(has(vip(230)));
    let _ = balancer.reload(with(231).text()).expect("a good file");
    assert!(!has(vip(230)) && has(vip(231)));
    let target = bed.net.vip(231).at(Family::V4, 80);
    let _ = client::requests(&bed.net.client().ns, target, 20).all_answered("the new address");
    let _ = balancer.reload(&format!("manage_addresses = false\n{}", with(231).text())).expect("a good file");
    assert!(!has(vip(231)));
    let (_, log) = balancer.stop();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_bad_file_changes_nothing_and_says_all_that_is_wrong() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let good = config(&bed, &[80], &[0, 1, 2], "");
    let balancer = bed.balance(&good);
    let bad = good.text().replace("\"snat\"", "\"snart\"").replace("rise = 2", "rise = 0");
    let refused = balancer.reload(&bad).expect_err("a bad file");
    for words in ["there is no mode \"snart\"", "rise in [health]: expected a number of probes", "lb.toml:"] {
        assert!(refused.contains(words), "{refused}");
    }
    serves(&bed, 80, &["s1", "s2", "s3"]);

    // What is wrong with this host is found too: somebody listens there.
    let _own = lb_tests::server::Server::start(&bed.net.lb.ns, "lb", &[8080], false);
    let refused = balancer.reload(config(&bed, &[80, 8080], &[0], "").text()).expect_err("a port in use");
    assert!(refused.contains("port 8080 is in use"), "{refused}");
    serves(&bed, 80, &["s1", "s2", "s3"]);
    assert_eq!(balancer.status().vips.len(), 1);

    let later = format!("[flows]\ntags = 4096\n{}", good.text());
    balancer.installation().configure(&later);
    let _ = balancer.lbctl(&["reload"]).expect("a reload");
    wait::until_true(LIMIT, "the log to say that it waits", || {
        balancer.log().contains("takes effect when lb-user is started the next time")
    });
}

#[test]
fn a_hangup_reads_the_file_too() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&config(&bed, &[80], &[0], ""));
    serves(&bed, 80, &["s1"]);
    balancer.installation().configure(config(&bed, &[80], &[1], "").text());
    let process = Pid::from_raw(balancer.id().try_into().expect("a process id")).expect("a process");
    kill_process(process, Signal::HUP).expect("send SIGHUP");
    let _ = balancer.wait_for(LIMIT, "s2 to be the server", |status| {
        let vip = find_vip(status, "vip80");
        let server = &vip.servers[0];
        if server.name == "s2" && server.active { Ok(()) } else { Err(server.name.clone()) }
    });
    serves(&bed, 80, &["s2"]);
}

/// R19, R26: choices and states outlast it.
#[test]
fn the_last_successful_server_and_a_drained_one_stay_what_they_are() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80, 81]);
    let sticky = "persistence = { type = \"last-successful\" }";
    let balancer = bed.balance(&config(&bed, &[80], &[0, 1, 2], sticky));
    serves(&bed, 80, &["s1"]);
    bed.servers[0].close(80);
    let _ = balancer.wait_health(LIMIT, "vip80", "s1", Health::Down);
    serves(&bed, 80, &["s2"]);
    bed.servers[0].open(80);
    let _ = balancer.wait_health(LIMIT, "vip80", "s1", Health::Up);
    balancer.server("drain", "vip80", "s3");
    let _ = balancer.reload(config(&bed, &[80, 81], &[2, 0, 1], sticky).text()).expect("a good file");
    let _ = balancer.wait_all_up();
    serves(&bed, 80, &["s2"]);
    balancer.server("drain", "vip80", "s2");
    serves(&bed, 80, &["s1"]);
    let state = find_server(find_vip(&balancer.status(), "vip80"), "s3").state;
    assert_eq!(state.to_string(), "drain");
}
