//! R76: servers that are known by name.

use std::{fs, path::PathBuf, time::Duration};

use lb_tests::{
    address::Family,
    client,
    daemon::{Balancer, find_server, find_vip},
    needs_balancer,
    netns::Netns,
    wait,
};
use lb_user::snapshot::Health;

use crate::bed::Bed;

const LIMIT: Duration = Duration::from_secs(15);

/// A hosts file for what runs in a namespace (`ip netns exec` puts it over the host's own); removed on drop.
pub(crate) struct Hosts(PathBuf);

impl Hosts {
    pub(crate) fn of(ns: &Netns) -> Self {
        let folder = PathBuf::from("/etc/netns").join(ns.name());
        fs::create_dir_all(&folder).expect("a folder for the namespace");
        fs::write(folder.join("nsswitch.conf"), "hosts: files\n").expect("a file for the namespace");
        Self(folder)
    }

    pub(crate) fn write(&self, lines: &str) {
        fs::write(self.0.join("hosts"), lines).expect("a hosts file");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Only if nobody else has one.
        let _ = fs::remove_dir("/etc/netns");
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_and_one_that_leads_nowhere_stops_nothing() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let hosts = Hosts::of(&bed.net.lb.ns);
    let addresses = [0, 1].map(|index| bed.net.servers[index].address.of(Family::V4));
    hosts.write(&format!("{} rs.example\n", addresses[0]));
    let vip = |number: u8| bed.net.vip(number).of(Family::V4);
    let config = format!(
        "resolve_interval = \"1s\"\n\
         [health]\ninterval = \"200ms\"\n\
         [pool.web]\nservers = [{{ name = \"named\", address = \"rs.example\" }}, \
         {{ name = \"lost\", address = \"nobody.example\" }}]\n\
         [vip_defaults]\nport = 80\npool = \"web\"\n\
         [vip.snat]\naddress = \"{}\"\nmode = \"snat\"\n[vip.dr]\naddress = \"{}\"\nmode = \"dr\"\n",
        vip(200),
        vip(202),
    );
    let balancer = Balancer::start(&bed.net.lb.ns, &["eth0"], &config);
    let answers = |when: &str, server: &str| {
        for number in [200, 202] {
            let target = bed.net.vip(number).at(Family::V4, 80);
            let tally = client::requests(&bed.net.client().ns, target, 10).all_answered(when);
            assert_eq!(tally.servers(), [server], "{when}");
        }
    };
    for name in ["snat", "dr"] {
        let _ = balancer.wait_health(LIMIT, name, "named", Health::Up);
        let status = balancer.wait_health(LIMIT, name, "lost", Health::Down);
        let lost = find_server(find_vip(&status, name), "lost");
        assert_eq!((lost.address, lost.host.as_deref()), (None, Some("nobody.example")));
        assert!(lost.reason.contains("its name nobody.example does not resolve"), "{}", lost.reason);
    }
    answers("at first", "s1");

    hosts.write(&format!("{} rs.example\n", addresses[1]));
    let moved = |name: &str| {
        wait::until(LIMIT, "the name to lead elsewhere", || {
            let status = balancer.status();
            let server = find_server(find_vip(&status, name), "named");
            let there = server.address == Some(addresses[1]) && server.health == Health::Up && server.active;
            if there { Ok(()) } else { Err(format!("{server:?}")) }
        });
    };
    moved("snat");
    moved("dr");
    answers("after the name was given to another", "s2");

    // The other way round: a server is known by its address from now on.
    balancer.installation().configure(&config.replace("rs.example", &addresses[1].to_string()));
    balancer.lbctl(&["reload"]).expect("a reload");
    moved("snat");
    answers("by its address", "s2");
}
