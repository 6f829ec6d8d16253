//! R8, R9, R10, R12, R41, R42: which ports a VIP may have, and whose traffic they are.

use std::thread;

use lb_tests::{
    address::Family, client, daemon::find_vip, needs_balancer, server::Purpose, topology::Layout,
};
use lb_user::snapshot::PoolHealth;

use crate::{
    bed::{Bed, MODES, pool_name, vip_name},
    config::Config,
};

#[test]
fn port_80_of_a_vip_is_answered_by_port_8080_of_the_servers() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[8080]);
    let _balancer = bed.balance(&bed.config(&["nat", "snat"], 80, "server_port = 8080"));
    for family in Family::BOTH {
        for mode in ["nat", "snat"] {
            let what = format!("{mode} over {family}");
            let tally = client::requests(&bed.net.client().ns, bed.target(mode, family, 80), 60);
            assert_eq!(tally.all_answered(&what).servers(), ["s1", "s2", "s3"], "{what}");
        }
    }
    let served: usize =
        bed.servers.iter().map(|server| server.visits_for(8080, Purpose::Request).len()).sum();
    assert_eq!(served, 4 * 60);
}

#[test]
fn two_vips_share_a_server_port_and_serve_a_thousand_requests_each_at_the_same_time() {
    needs_balancer!();
    let bed = Bed::new(Layout { servers: 1, ..Layout::default() }, &[80]);
    for family in Family::BOTH {
        let [one, two] = [210, 211].map(|number| bed.net.vip(number).at(family, 80));
        let config = Config::new()
            .pool("all", family, &bed.net.servers)
            .vip("one", one.ip(), "80", "snat", "all", "")
            .vip("two", two.ip(), "80", "snat", "all", "");
        let balancer = bed.balance(&config);
        thread::scope(|scope| {
            for target in [one, two] {
                let client = bed.net.client();
                scope.spawn(move || {
                    let _ = client::requests(&client.ns, target, 1000).all_answered(target);
                });
            }
        });
        let status = balancer.status();
        for name in ["one", "two"] {
            assert_eq!(find_vip(&status, name).traffic.connections, 1000, "{name} over {family}");
        }
        let _ = balancer.stop();
    }
}

#[test]
fn twenty_three_ports_on_one_address_and_one_port_on_two_more_are_vips_of_their_own() {
    needs_balancer!();
    let many: Vec<u16> = (9001..=9023).collect();
    let ports: Vec<u16> = many.iter().copied().chain([443]).collect();
    let bed = Bed::new(Layout::default(), &ports);
    let family = Family::V4;
    let mut config = Config::new().pool("all", family, &bed.net.servers);
    for port in &many {
        config = config.vip(
            &format!("p{port}"),
            bed.net.vip(250).of(family),
            &port.to_string(),
            "snat",
            "all",
            "",
        );
    }
    for number in [251, 252] {
        config = config.vip(&format!("a{number}"), bed.net.vip(number).of(family), "443", "snat", "all", "");
    }
    let balancer = bed.balance(&config);
    // One VIP after the other: what was not used yet must stand at zero.
    let mut used = Vec::new();
    let targets = many.iter().map(|&port| (format!("p{port}"), bed.net.vip(250).at(family, port)));
    let targets =
        targets.chain([251, 252].map(|number| (format!("a{number}"), bed.net.vip(number).at(family, 443))));
    for (name, target) in targets {
        let _ = client::requests(&bed.net.client().ns, target, 20).all_answered(&name);
        used.push(name);
        for vip in balancer.status().vips {
            let expected = if used.contains(&vip.name) { 20 } else { 0 };
            assert_eq!(vip.traffic.connections, expected, "{} after requests to {used:?}", vip.name);
            assert_eq!(vip.traffic.packets_in > 0, expected > 0, "{}", vip.name);
        }
    }
    assert_eq!(used.len(), 25);
}

#[test]
fn a_list_with_a_range_opens_its_first_middle_and_last_port_and_no_other() {
    needs_balancer!();
    let served: Vec<u16> = [80, 443].into_iter().chain(1024..=1123).collect();
    let outside = [1023, 1124, 81];
    // The servers listen outside the range too: only the balancer can refuse.
    let ports: Vec<u16> = served.iter().copied().chain(outside).collect();
    let bed = Bed::for_all_modes(&ports);
    let mut config = Config::new();
    for family in Family::BOTH {
        config = config.pool(pool_name(family), family, &bed.net.servers);
        for mode in MODES {
            let address = bed.target(mode, family, 0).ip();
            config = config.vip(
                &vip_name(mode, family),
                address,
                "\"80,443,1024-1123\"",
                mode,
                pool_name(family),
                "",
            );
        }
    }
    let balancer = bed.balance(&config);
    assert_eq!(find_vip(&balancer.status(), "snat_v4").ports, "80,443,1024-1123");
    for family in Family::BOTH {
        for mode in MODES {
            for port in [80, 443, 1024, 1073, 1123] {
                let target = bed.target(mode, family, port);
                let came = || -> usize {
                    bed.servers.iter().map(|server| server.visits_for(port, Purpose::Request).len()).sum()
                };
                let before = came();
                let tally = client::requests(&bed.net.client().ns, target, 10);
                let _ = tally.all_answered(format!("{mode} {target}"));
                assert_eq!(
                    came(),
                    before + 10,
                    "{mode} {target}: the server's port is the one the client chose"
                );
            }
            for port in outside {
                let target = bed.target(mode, family, port);
                let tally = client::requests(&bed.net.client().ns, target, 2);
                let refused = tally.none_answered(format!("{mode} {target}"));
                assert!(refused.failures.iter().all(|why| why.contains("refused")), "{refused}");
            }
        }
    }
}

#[test]
fn any_free_port_can_be_a_vips_port() {
    needs_balancer!();
    let ports = [1, 4443, 32768, 65535];
    let bed = Bed::new(Layout::default(), &ports);
    let family = Family::V4;
    let mut config = Config::new().pool("all", family, &bed.net.servers);
    for port in ports {
        config = config.vip(
            &format!("p{port}"),
            bed.net.vip(200).of(family),
            &port.to_string(),
            "snat",
            "all",
            "",
        );
    }
    let _balancer = bed.balance(&config);
    for port in ports {
        let tally = client::requests(&bed.net.client().ns, bed.net.vip(200).at(family, port), 60);
        assert_eq!(tally.all_answered(port).servers(), ["s1", "s2", "s3"], "port {port}");
    }
}

#[test]
fn a_pool_of_a_single_server_is_healthy_and_serves() {
    needs_balancer!();
    let bed = Bed::new(Layout { servers: 1, ..Layout::default() }, &[443]);
    let config = bed.config(&["snat"], 443, "");
    let balancer = bed.balance(&config);
    for family in Family::BOTH {
        let name = vip_name("snat", family);
        assert_eq!(find_vip(&balancer.status(), &name).health, PoolHealth::Healthy);
        let tally = client::requests(&bed.net.client().ns, bed.target("snat", family, 443), 60);
        assert_eq!(tally.all_answered(family).servers(), ["s1"]);
    }
}
