//! What the balancer adds to a machine, and that it takes it away again.

use std::time::Duration;

use lb_tests::{
    address::Family,
    client,
    daemon::{Installation, attached_program},
    needs_balancer,
    topology::Layout,
    wait,
};

use crate::{
    bed::{Bed, MODES},
    config::Config,
};

/// Whether an address is on the balancer's `eth0`.
fn has_address(bed: &Bed, address: std::net::IpAddr) -> bool {
    let listed = bed.net.lb.ns.ip_output(&["-oneline", "address", "show", "dev", "eth0"]);
    listed.split_whitespace().any(|word| word.split('/').next() == Some(&address.to_string()))
}

#[test]
fn a_clean_stop_leaves_the_machine_as_it_was() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let config = bed.config(&MODES, 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text());
    let before = installation.footprint();
    let balancer = installation.xdp_mode("native").start();
    let _ = balancer.wait_all_up();
    for family in Family::BOTH {
        for mode in MODES {
            assert!(has_address(&bed, bed.target(mode, family, 80).ip()), "{mode} over {family}");
        }
    }
    assert!(balancer.installation().footprint().programs[0].is_some());
    let (installation, log) = balancer.stop();
    assert_eq!(installation.footprint(), before, "{log}");
}

#[test]
fn after_a_kill_the_next_start_takes_over_and_its_stop_cleans_up() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let config = bed.config(&["snat"], 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text()).xdp_mode("native");
    let before = installation.footprint();
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    let installation = balancer.kill();
    assert!(has_address(&bed, bed.target("snat", Family::V4, 80).ip()), "what a kill leaves behind");

    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    let _ = balancer.assert_native();
    for family in Family::BOTH {
        let _ =
            client::requests(&bed.net.client().ns, bed.target("snat", family, 80), 60).all_answered(family);
    }
    let (installation, log) = balancer.stop();
    assert_eq!(installation.footprint(), before, "{log}");
}

#[test]
fn addresses_of_vips_that_are_gone_after_a_kill_are_removed_by_the_next_start() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let one = bed.config(&["snat"], 80, "");
    let other = bed.config(&["nat"], 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], one.text()).xdp_mode("native");
    let before = installation.footprint();
    let installation = installation.start().kill();
    installation.configure(other.text());
    let balancer = installation.start();
    for family in Family::BOTH {
        assert!(!has_address(&bed, bed.target("snat", family, 80).ip()), "the old VIP is gone");
        assert!(has_address(&bed, bed.target("nat", family, 80).ip()), "the new one is there");
    }
    let (installation, log) = balancer.stop();
    assert_eq!(installation.footprint(), before, "{log}");
}

#[test]
fn an_address_that_was_there_before_stays_and_none_is_added_when_told_so() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let target = bed.target("snat", Family::V4, 80);
    bed.net.lb.ns.ip(&format!("addr add {}/32 dev eth0", target.ip()));
    let config = bed.config(&["snat"], 80, "");
    let balancer = bed.balance(&config);
    let _ = client::requests(&bed.net.client().ns, target, 20).all_answered("an address of the operator's");
    let (installation, log) = balancer.stop();
    assert!(has_address(&bed, target.ip()), "the operator's address was taken away: {log}");

    installation.configure(&format!("manage_addresses = false\n{}", config.text()));
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    assert!(
        !has_address(&bed, bed.target("snat", Family::V6, 80).ip()),
        "an address was added against orders"
    );
    let _ = client::requests(&bed.net.client().ns, target, 20).all_answered("managed by the operator");
}

#[test]
fn without_a_configuration_file_it_starts_empty_and_passes_everything() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let own = lb_tests::server::Server::start(&bed.net.lb.ns, "lb", &[80], true);
    let balancer = bed.start(&Config::with_top(""));
    assert!(balancer.status().vips.is_empty());
    assert!(attached_program(&bed.net.lb.ns, "eth0").is_some());
    let target = bed.net.lb.address.at(Family::V6, 80);
    let _ = client::requests(&bed.net.client().ns, target, 20).all_answered("the host itself");
    assert_eq!(own.name(), "lb");
}

/// The kernel takes IPv6 addresses off an interface that is switched off.
#[test]
fn a_vip_address_that_was_taken_off_is_put_back() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    let address = bed.target("snat", Family::V6, 80).ip();
    assert!(has_address(&bed, address));
    bed.net.lb.ns.ip(&format!("address del {address}/128 dev eth0"));
    wait::until_true(Duration::from_secs(10), "the address to be put back", || has_address(&bed, address));
    let (_, log) = balancer.stop();
    assert!(log.contains(&format!("VIP address {address} had been taken off")), "{log}");
    assert!(!has_address(&bed, address));
}

/// A host of containers has more interfaces than the kernel program can know.
#[test]
fn a_host_with_many_other_interfaces_is_a_balancer_like_any_other() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    for number in 0..40 {
        bed.net.lb.ns.ip(&format!("link add a{number} type veth peer name b{number}"));
    }
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    for family in Family::BOTH {
        let requests = client::requests(&bed.net.client().ns, bed.target("snat", family, 80), 20);
        let _ = requests.all_answered(family);
    }
    let (_, log) = balancer.stop();
    assert!(!log.contains("ERROR"), "{log}");
}
