//! The configuration file is edited by command: VIPs and servers come and go, and the file keeps what people wrote.

use std::{fs, time::Duration};

use lb_tests::{
    address::Family,
    client,
    daemon::{Balancer, find_vip},
    needs_balancer,
    streams::Streams,
    topology::Layout,
    wait,
};

use crate::bed::Bed;

const PATIENCE: Duration = Duration::from_secs(15);

fn file(balancer: &Balancer<'_>) -> String {
    fs::read_to_string(balancer.status().config_file.expect("a file")).expect("read it")
}

/// R23: a copy under another name and port, while everything runs.
#[test]
fn a_vip_is_cloned_and_removed_while_the_other_goes_on() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let config = bed.config(&["snat"], 80, "server_port = 80   # as always");
    let balancer = bed.balance(&config);
    let client = &bed.net.client().ns;
    let streams = Streams::start(client, bed.target("snat", Family::V4, 80), 12);
    let clone = ["vip", "clone", "snat_v4", "--name", "copy", "--port", "8080"];

    let told = balancer.lbctl(&[&clone[..], &["--dry-run"]].concat()).expect("a dry run");
    assert!(told.contains("+ vip.copy: ") && told.contains("stays as it is"), "{told}");
    assert_eq!((file(&balancer), balancer.status().vips.len()), (config.text().to_owned(), 2));

    let told = balancer.lbctl(&clone).expect("a clone");
    assert!(told.contains("is in use: 3 VIPs, number 2 of the history"), "{told}");
    let _ = balancer.wait_all_up();
    let _ = client::requests(client, bed.target("snat", Family::V4, 8080), 30).all_answered("the copy");
    let text = file(&balancer);
    assert!(text.starts_with(config.text().trim_end()) && text.matches("# as always").count() == 3, "{text}");
    let status = balancer.status();
    let (one, other) = (find_vip(&status, "snat_v4"), find_vip(&status, "copy"));
    assert_eq!((one.address, &one.mode, &one.pool), (other.address, &other.mode, &other.pool));

    let refused = balancer.lbctl(&["vip", "clone", "snat_v4", "--name", "same"]).expect_err("the same port");
    assert!(refused.contains("snat_v4") && refused.contains("port 80"), "{refused}");
    assert_eq!(balancer.status().last_reload.and_then(|last| last.problem), None, "the file is as it was");

    let told = balancer.lbctl(&["vip", "remove", "copy"]).expect("a removal");
    assert!(told.contains("- vip.copy: "), "{told}");
    assert_eq!(file(&balancer).trim_end(), config.text().trim_end());
    let _ = client::requests(client, bed.target("snat", Family::V4, 8080), 1).none_answered("it is gone");
    streams.wait_for_echoes(3);
    streams.unbroken_except(None);
}

#[test]
fn servers_come_and_go_by_command_and_what_is_not_confirmed_is_taken_back() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let config = bed.config(&["snat"], 80, "");
    let balancer = bed.balance(&config);
    let client = &bed.net.client().ns;
    let target = bed.target("snat", Family::V4, 80);
    let _ = balancer.lbctl(&["pool", "remove-server", "v4", "s3"]).expect("a removal");
    let tally = client::requests(client, target, 60).all_answered("two servers");
    assert_eq!(tally.servers(), ["s1", "s2"]);
    let without = file(&balancer);

    let address = bed.net.servers[2].address.of(Family::V4).to_string();
    let add = ["pool", "add-server", "v4", "s3", &address];
    let told = balancer.lbctl(&[&add[..], &["--confirm", "2s"]].concat()).expect("on trial");
    assert!(told.contains("It is taken back in 2s"), "{told}");
    wait::until_true(PATIENCE, "the trial to end", || file(&balancer) == without);
    let _ = balancer.lbctl(&add).expect("for good");
    let _ = balancer.wait_all_up();
    let tally = client::requests(client, target, 60).all_answered("three servers");
    assert_eq!(tally.servers(), ["s1", "s2", "s3"]);
    assert_eq!(file(&balancer), config.text());

    balancer.installation().configure(&format!("# My work.\n{}", config.text()));
    let refused = balancer.lbctl(&["pool", "remove-server", "v4", "s3"]).expect_err("it would come into use");
    assert!(refused.contains("was changed and is not in use as it is"), "{refused}");
}

/// R24: what is staged changes nothing, is shown, and is used or discarded.
#[test]
fn changes_are_staged_and_then_used_or_discarded_together() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let config = bed.config(&["snat"], 80, "");
    let balancer = bed.balance(&config);
    let client = &bed.net.client().ns;
    let target = bed.target("snat", Family::V4, 80);
    let stage = |server: &str| {
        let told = balancer.lbctl(&["pool", "remove-server", "v4", server, "--stage"]).expect("a stage");
        assert!(told.contains("and is not in use as it is"), "{told}");
    };
    let pending = || balancer.lbctl(&["diff"]).expect("a diff").lines().count();
    for round in ["discard", "commit"] {
        stage("s3");
        stage("s2");
        assert_eq!(pending(), 2, "{round}");
        let tally = client::requests(client, target, 60).all_answered("nothing has changed");
        assert_eq!(tally.servers(), ["s1", "s2", "s3"]);
        let refused = balancer.lbctl(&["vip", "remove", "snat_v6"]).expect_err("not by the way");
        assert!(refused.contains("was changed and is not in use as it is"), "{refused}");
        let _ = balancer.lbctl(&[round]).unwrap_or_else(|error| panic!("{round}: {error}"));
        assert!(balancer.lbctl(&["diff"]).expect("a diff").ends_with("is in use as it is"), "{round}");
        if round == "discard" {
            assert_eq!(file(&balancer), config.text());
            let _ = balancer.lbctl(&["discard"]).expect("nothing to discard is no failure");
        }
    }
    let tally = client::requests(client, target, 60).all_answered("one server");
    assert_eq!(tally.servers(), ["s1"]);
}
