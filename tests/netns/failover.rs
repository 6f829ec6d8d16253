//! Servers come and go under traffic.

use std::time::{Duration, Instant};

use lb_tests::{
    address::Family,
    client, needs_balancer,
    server::Server,
    streams::{Steady, Streams},
    topology::{Layout, Topology},
    wait,
};
use lb_user::snapshot::Health;

use crate::bed::{Bed, MODES, vip_name};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn fifty_long_streams_survive_a_joining_server_and_only_those_of_a_dead_one_break() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let start = |index: usize| Server::start(&net.servers[index].ns, &net.servers[index].name, &[80], false);
    let mut servers = vec![start(0), start(1)];
    let bed = Bed { servers: Vec::new(), net };
    let (net, config) = (&bed.net, bed.config(&["snat"], 80, ""));
    let balancer = bed.start(&config);
    for family in Family::BOTH {
        let vip = vip_name("snat", family);
        for (server, health) in [("s1", Health::Up), ("s2", Health::Up), ("s3", Health::Down)] {
            let _ = balancer.wait_health(LIMIT, &vip, server, health);
        }
    }
    let streams =
        Family::BOTH.map(|family| Streams::start(&net.client().ns, bed.target("snat", family, 80), 50));
    for streams in &streams {
        assert_eq!(streams.by_server().into_keys().collect::<Vec<_>>(), ["s1", "s2"]);
    }

    servers.push(Server::start(&net.servers[2].ns, "s3", &[80], false));
    for family in Family::BOTH {
        let _ = balancer.wait_health(LIMIT, &vip_name("snat", family), "s3", Health::Up);
    }
    for (streams, family) in streams.iter().zip(Family::BOTH) {
        let tally =
            client::requests(&net.client().ns, bed.target("snat", family, 80), 60).all_answered(family);
        assert_eq!(tally.servers(), ["s1", "s2", "s3"], "new connections reach the new server");
        streams.wait_for_echoes(5);
        streams.unbroken_except(None);
    }

    net.unplug(&net.servers[1]);
    for family in Family::BOTH {
        let _ = balancer.wait_health(LIMIT, &vip_name("snat", family), "s2", Health::Down);
    }
    for (streams, family) in streams.iter().zip(Family::BOTH) {
        let tally =
            client::requests(&net.client().ns, bed.target("snat", family, 80), 60).all_answered(family);
        assert_eq!(tally.servers(), ["s1", "s3"], "new connections avoid the dead server");
        wait::until(Duration::from_secs(20), "the dead server's streams to break", || {
            let reports = streams.reports();
            let of_dead: Vec<_> = reports.iter().filter(|report| report.server == "s2").collect();
            let alive = of_dead.iter().filter(|report| report.broken.is_none()).count();
            if alive == 0 && !of_dead.is_empty() {
                Ok(())
            } else {
                Err(format!("{alive} of {}", of_dead.len()))
            }
        });
        streams.wait_for_echoes(5);
        streams.unbroken_except(Some("s2"));
    }
}

#[test]
fn after_a_power_cut_is_noticed_no_request_fails_and_after_the_return_the_server_serves_again() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&MODES, 80, ""));
    let host = &bed.net.servers[1];
    let steady: Vec<_> = MODES
        .iter()
        .map(|mode| Steady::start(&bed.net.client().ns, bed.target(mode, Family::V4, 80), 25))
        .collect();
    let answers_of_s2 = |steady: &Steady, since: Instant| {
        let outcomes = steady.outcomes();
        outcomes.iter().filter(|o| o.sent > since && o.answer.as_deref() == Ok("s2")).count()
    };
    let begin = Instant::now();
    wait::until_true(LIMIT, "s2 to serve in every mode", || {
        steady.iter().all(|steady| answers_of_s2(steady, begin) > 0)
    });

    let cut = Instant::now();
    bed.net.unplug(host);
    for mode in MODES {
        let _ = balancer.wait_health(LIMIT, &vip_name(mode, Family::V4), "s2", Health::Down);
    }
    let noticed = Instant::now();
    wait::until_true(LIMIT, "fifty requests after the cut was noticed, in every mode", || {
        steady.iter().all(|steady| steady.outcomes().iter().filter(|o| o.sent > noticed).count() >= 50)
    });

    let plugged = Instant::now();
    bed.net.plug(host);
    wait::until_true(LIMIT, "s2 to serve again in every mode", || {
        steady.iter().all(|steady| answers_of_s2(steady, plugged) > 3)
    });

    for (steady, mode) in steady.into_iter().zip(MODES) {
        for outcome in steady.finish() {
            let Err(why) = outcome.answer else { continue };
            assert!(outcome.done > cut, "{mode}: a request failed before the cut: {why}");
            assert!(outcome.sent < noticed, "{mode}: a request failed after the cut was noticed: {why}");
        }
    }
}
