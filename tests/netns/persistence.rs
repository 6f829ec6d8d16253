//! R18, R19 as far as the kernel does them: which clients stay with which server.

use std::{collections::BTreeSet, time::Duration};

use lb_tests::{address::Family, client, needs_balancer, topology::Layout};
use lb_user::snapshot::Health;

use crate::bed::{Bed, vip_name};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn last_successful_keeps_everybody_on_one_server_and_does_not_fail_back() {
    needs_balancer!();
    let bed = Bed::new(Layout { clients: 3, ..Layout::default() }, &[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, "persistence = { type = \"last-successful\" }"));
    for family in Family::BOTH {
        let vip = vip_name("snat", family);
        let everybody = |when: &str| {
            let mut servers = BTreeSet::new();
            for host in &bed.net.clients {
                let tally = client::requests(&host.ns, bed.target("snat", family, 80), 20).all_answered(when);
                servers.extend(tally.by_server.into_keys());
            }
            assert_eq!(servers.len(), 1, "{when}, {family}: {servers:?}");
            servers.pop_first().expect("one server")
        };
        let first = everybody("at first");
        let server = bed.servers.iter().find(|server| server.name() == first).expect("a server of ours");
        server.close(80);
        let _ = balancer.wait_health(LIMIT, &vip, &first, Health::Down);
        let second = everybody("after the first server's death");
        assert_ne!(first, second);
        server.open(80);
        for family in Family::BOTH {
            let _ = balancer.wait_health(LIMIT, &vip_name("snat", family), &first, Health::Up);
        }
        assert_eq!(everybody("after the first server's return"), second);
    }
}

#[test]
fn source_ip_keeps_each_client_on_its_server() {
    needs_balancer!();
    let bed = Bed::new(Layout { clients: 3, ..Layout::default() }, &[80]);
    let _balancer = bed.balance(&bed.config(&["snat"], 80, "persistence = { type = \"source-ip\" }"));
    for family in Family::BOTH {
        for host in &bed.net.clients {
            let tally = client::requests(&host.ns, bed.target("snat", family, 80), 20);
            let what = format!("{} over {family}", host.name);
            assert_eq!(tally.all_answered(&what).servers().len(), 1, "{what}");
        }
    }
}

#[test]
fn source_ip_spreads_clients_and_moves_only_those_of_a_dead_server() {
    needs_balancer!();
    let bed = Bed::new(Layout { clients: 1, ..Layout::default() }, &[80]);
    let family = Family::V4;
    let addresses: Vec<_> = (20..60).map(|number| bed.net.layout.front.host(number).of(family)).collect();
    let lines: Vec<_> = addresses.iter().map(|address| format!("addr add {address}/24 dev eth0")).collect();
    bed.net.client().ns.ip(&lines.join("\n"));
    let balancer = bed.balance(&bed.config(&["snat"], 80, "persistence = { type = \"source-ip\" }"));
    let target = bed.target("snat", family, 80);
    let map = || -> Vec<String> {
        let ask = |&source| client::request_from(target, Some(source), client::REQUEST).expect("an answer");
        bed.net.client().ns.run(|| addresses.iter().map(ask).collect())
    };
    let before = map();
    assert_eq!(before, map(), "the same clients, the same servers");
    let servers: BTreeSet<_> = before.iter().collect();
    assert_eq!(servers.len(), 3, "forty clients on {servers:?}");
    bed.servers[1].close(80);
    let _ = balancer.wait_health(LIMIT, &vip_name("snat", family), "s2", Health::Down);
    for ((address, before), after) in addresses.iter().zip(&before).zip(map()) {
        if before == "s2" {
            assert_ne!(after, "s2", "{address}");
        } else {
            assert_eq!(&after, before, "{address} had no reason to move");
        }
    }
}
