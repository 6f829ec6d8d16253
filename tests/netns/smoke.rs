//! The main job, once in every mode: requests are answered, by all servers, in native XDP mode.

use lb_tests::{
    address::Family,
    client,
    daemon::{Installation, find_vip},
    needs_balancer,
    server::{Purpose, Server},
    topology::{Layout, Servers},
};

use crate::bed::{Bed, MODES, vip_name};

const REQUESTS: usize = 60;

#[test]
fn every_mode_answers_in_both_families_from_all_servers() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&MODES, 80, ""));
    let _ = balancer.assert_native();
    for family in Family::BOTH {
        for mode in MODES {
            let what = format!("{mode} over {family}");
            let tally = client::requests(&bed.net.client().ns, bed.target(mode, family, 80), REQUESTS);
            assert_eq!(tally.all_answered(&what).servers(), ["s1", "s2", "s3"], "{what}");
        }
    }
    let status = balancer.status();
    for family in Family::BOTH {
        for mode in MODES {
            let vip = find_vip(&status, &vip_name(mode, family));
            let of_servers: u64 = vip.servers.iter().map(|server| server.traffic.connections).sum();
            assert_eq!(
                (vip.traffic.connections, of_servers),
                (REQUESTS as u64, REQUESTS as u64),
                "{}",
                vip.name
            );
            assert!(vip.traffic.packets_in > 3 * REQUESTS as u64, "{}: {:?}", vip.name, vip.traffic);
            assert!(vip.traffic.bytes_in > 54 * vip.traffic.packets_in, "{}: {:?}", vip.name, vip.traffic);
            // Replies of `dr` must not come by: nobody may count them.
            assert_eq!(vip.traffic.packets_out > 0, mode != "dr", "{}: {:?}", vip.name, vip.traffic);
        }
    }
    let dropped: Vec<_> = status.reasons.iter().filter(|r| r.verdict == "drop" && r.packets > 0).collect();
    assert!(dropped.is_empty(), "{dropped:?}");
}

#[test]
fn datagrams_are_answered_through_snat_and_nat_in_both_families() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[5353]);
    let balancer = bed.balance(&bed.config(&["snat", "nat"], 5353, "protocol = \"udp\""));
    for family in Family::BOTH {
        for mode in ["snat", "nat"] {
            let what = format!("UDP by {mode} over {family}");
            let tally = client::datagrams(&bed.net.client().ns, bed.target(mode, family, 5353), REQUESTS);
            assert_eq!(tally.all_answered(&what).servers(), ["s1", "s2", "s3"], "{what}");
            let vip = balancer.status();
            assert_eq!(
                find_vip(&vip, &vip_name(mode, family)).traffic.connections,
                REQUESTS as u64,
                "{what}"
            );
        }
    }
    let came: usize = bed.servers.iter().map(|server| server.visits_for(5353, Purpose::Datagram).len()).sum();
    assert_eq!(came, 4 * REQUESTS, "each datagram reached exactly one server, once");
}

#[test]
fn with_two_interfaces_servers_are_reached_over_the_second_one() {
    needs_balancer!();
    let bed = Bed::new(Layout { place: Servers::SecondWire, ..Layout::default() }, &[80]);
    bed.net.servers_reply_through_balancer();
    let modes = ["snat", "nat"];
    let balancer = bed.balance(&bed.config(&modes, 80, ""));
    assert_eq!(balancer.assert_native().len(), 2);
    for family in Family::BOTH {
        for mode in modes {
            let what = format!("{mode} over {family} from eth0 to eth1");
            let tally = client::requests(&bed.net.client().ns, bed.target(mode, family, 80), REQUESTS);
            assert_eq!(tally.all_answered(&what).servers(), ["s1", "s2", "s3"], "{what}");
            client::transfer(&bed.net.client().ns, bed.target(mode, family, 80), 1 << 20, 5)
                .expect("a transfer")
                .intact(&what);
        }
    }
}

#[test]
fn generic_mode_serves_too_and_says_so() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let config = bed.config(&MODES, 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text()).xdp_mode("generic");
    let balancer = installation.start();
    let status = balancer.wait_all_up();
    assert_eq!(status.interfaces[0].xdp_mode, "generic");
    for family in Family::BOTH {
        for mode in MODES {
            let what = format!("{mode} over {family} in generic mode");
            let tally = client::requests(&bed.net.client().ns, bed.target(mode, family, 80), REQUESTS);
            assert_eq!(tally.all_answered(&what).servers(), ["s1", "s2", "s3"], "{what}");
        }
    }
}

#[test]
fn where_native_mode_is_impossible_auto_says_why_and_what_it_does_instead() {
    needs_balancer!();
    let bed = Bed::new(Layout { servers: 1, ..Layout::default() }, &[80]);
    // A bridge has no native XDP.
    bed.net.lb.ns.ip("link add bridge0 type bridge\nlink set bridge0 up");
    let config = bed.config(&["snat"], 80, "");
    let install = |mode: &str| Installation::new(&bed.net.lb.ns, &["bridge0"], config.text()).xdp_mode(mode);
    let (status, log) = install("native").run_to_end();
    assert!(!status.success(), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("bridge0") && last.contains("native"), "{log}");

    let balancer = install("auto").start();
    let interface = &balancer.status().interfaces[0];
    assert_eq!(interface.xdp_mode, "generic");
    assert!(interface.note.as_ref().is_some_and(|note| note.contains("native")), "{interface:?}");
    assert!(balancer.log().contains("native"), "{}", balancer.log());
    let (installation, log) = balancer.stop();
    assert_eq!(installation.footprint().programs, [None], "{log}");
}

#[test]
fn what_is_not_for_a_vip_reaches_the_host_itself() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    // A service of the host on a port of its own, and one that shares the VIP's port but not its address.
    let _own = Server::start(&bed.net.lb.ns, "lb", &[2222], true);
    let _beside = Family::BOTH
        .map(|f| Server::start_on(&bed.net.lb.ns, "beside", bed.net.lb.address.of(f), &[80], true));
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    for family in Family::BOTH {
        let (own, vip) = (bed.net.lb.address, bed.target("snat", family, 2222));
        for (target, name) in [(own.at(family, 80), "beside"), (own.at(family, 2222), "lb"), (vip, "lb")] {
            let tally = client::requests(&bed.net.client().ns, target, 20).all_answered(target);
            assert_eq!(tally.servers(), [name], "{target}");
        }
        for (target, name) in [(own.at(family, 80), "beside"), (own.at(family, 2222), "lb")] {
            let tally = client::datagrams(&bed.net.client().ns, target, 20).all_answered(target);
            assert_eq!(tally.servers(), [name], "{target} over UDP");
        }
        // And what the host asks others for comes back to it.
        for server in &bed.net.servers {
            let target = server.address.at(family, 80);
            let tally = client::requests(&bed.net.lb.ns, target, 20).all_answered(target);
            assert_eq!(tally.servers(), [server.name.as_str()]);
        }
    }
    for vip in balancer.status().vips {
        assert_eq!(vip.traffic.connections, 0, "{} counted what was not for it", vip.name);
    }
}
