//! What outlives the daemon: killed, restarted or replaced, it loses no packet and no fact (R24, R51).

use lb_tests::{
    address::Family,
    client,
    daemon::{Installation, attached_program, find_server, find_vip},
    needs_balancer,
    streams::{Chat, Steady, Streams},
    topology::Layout,
};
use lb_user::{plan::Admin, snapshot::Health};

use crate::{
    bed::{Bed, vip_name},
    config::Config,
};

const MODES: [&str; 2] = ["snat", "dr"];

fn config(bed: &Bed) -> Config {
    bed.config(&MODES, 80, "").vip(
        "udp",
        bed.net.vip(205).of(Family::V4),
        "80",
        "snat",
        "v4",
        "protocol = \"udp\"\nhealth = { port = 80 }",
    )
}

fn installation<'a>(bed: &'a Bed, config: &Config) -> Installation<'a> {
    Installation::new(&bed.net.lb.ns, &["eth0"], config.text()).xdp_mode("native").option("--keep-forwarding")
}

#[test]
fn ten_restarts_and_ten_kills_lose_no_connection_no_stream_and_no_datagram() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let mut balancer = installation(&bed, &config(&bed)).start();
    let _ = balancer.wait_all_up();
    balancer.lbctl(&["server", "drain", "snat_v4/s3"]).expect("drain s3");
    let client = &bed.net.client().ns;
    let targets = MODES.map(|mode| bed.target(mode, Family::V4, 80));
    let streams = targets.map(|target| Streams::start(client, target, 50));
    let steady = targets.map(|target| Steady::start(client, target, 150));
    let chat = Chat::start(client, bed.net.vip(205).at(Family::V4, 80));
    let mut before = balancer.status();
    for round in 0..20 {
        let installation = if round % 2 == 0 { balancer.stop().0 } else { balancer.kill() };
        assert!(attached_program(&bed.net.lb.ns, "eth0").is_some(), "round {round}: the program is gone");
        balancer = installation.start();
        let after = balancer.status();
        for vip in &before.vips {
            let now = find_vip(&after, &vip.name);
            let grown = now.traffic.packets_in >= vip.traffic.packets_in
                && now.traffic.connections >= vip.traffic.connections;
            assert!(grown, "round {round}, VIP {}: {:?} after {:?}", vip.name, now.traffic, vip.traffic);
            for server in &vip.servers {
                let now = find_server(now, &server.name);
                let facts = (now.health, now.since, now.state);
                assert_eq!(facts, (Health::Up, server.since, server.state), "round {round}: {}", vip.name);
            }
        }
        for (old, new) in before.reasons.iter().zip(&after.reasons) {
            assert!(new.packets >= old.packets, "round {round}: {new:?} after {old:?}");
        }
        streams.iter().for_each(|streams| streams.wait_for_echoes(2));
        before = after;
    }
    let drained = find_server(find_vip(&before, "snat_v4"), "s3").state;
    assert_eq!(drained, Admin::Drain);
    for (streams, mode) in streams.iter().zip(MODES) {
        streams.unbroken_except(None);
        assert_eq!(streams.reports().len(), 50, "{mode}");
    }
    for (steady, mode) in steady.into_iter().zip(MODES) {
        steady.wait_for_outcomes(1_000);
        let outcomes = steady.finish();
        let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.answer.as_ref().err()).collect();
        assert!(failed.is_empty(), "{mode}: {} of {} failed: {:?}", failed.len(), outcomes.len(), failed[0]);
    }
    assert_eq!(chat.finish_after(1_000), 0, "datagrams lost");
}

#[test]
fn what_changed_in_the_file_while_it_was_away_is_done_and_nothing_else() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = installation(&bed, &config(&bed)).start();
    let _ = balancer.wait_all_up();
    let client = &bed.net.client().ns;
    let streams = MODES.map(|mode| Streams::start(client, bed.target(mode, Family::V4, 80), 30));
    let (installation, _) = balancer.stop();
    let three = config(&bed);
    let two: Vec<_> = three.text().lines().filter(|line| !line.contains("\"s3\"")).collect();
    // Connections also keep the ports that new ones are no longer given.
    installation.configure(&format!("snat_ports = \"20000-20999\"\n{}", two.join("\n")));
    let balancer = installation.start();
    let status = balancer.wait_all_up();
    assert_eq!(find_vip(&status, "snat_v4").servers.len(), 2);
    streams.iter().for_each(|streams| streams.wait_for_echoes(20));
    streams.iter().for_each(|streams| streams.unbroken_except(Some("s3")));
    let answers = client::requests(client, bed.target("dr", Family::V4, 80), 60);
    assert_eq!(answers.all_answered("dr").servers(), ["s1", "s2"]);
}

#[test]
fn cleanup_takes_away_what_a_kept_program_needs() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let installation = installation(&bed, &config(&bed));
    let before = installation.footprint();
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    let (status, said) = balancer.installation().clean_up();
    assert!(!status.success() && said.contains("another lb-user (pid "), "not under a running one: {said}");
    let (installation, log) = balancer.stop();
    assert!(log.contains("the program goes on forwarding"), "{log}");
    let target = bed.target("snat", Family::V4, 80);
    let _ = client::requests(&bed.net.client().ns, target, 60).all_answered("without a daemon");
    let (status, said) = installation.clean_up();
    assert!(status.success(), "{said}");
    assert_eq!(installation.footprint(), before, "{said}");
}

#[test]
fn tables_laid_out_by_another_version_are_refused_by_name_and_go_on() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = installation(&bed, &config(&bed)).start();
    let _ = balancer.wait_all_up();
    let stream = Streams::start(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 5);
    let (installation, _) = balancer.stop();
    let state = std::fs::read_to_string(installation.state()).expect("the state");
    let other = state.replacen("\"layout\":1,", "\"layout\":4711,", 1);
    assert_ne!(other, state);
    std::fs::write(installation.state(), &other).expect("write the state");
    let (status, said) = installation.run_to_end();
    assert!(!status.success(), "{said}");
    assert!(said.contains("laid out its flow tables differently (version 4711, here 1)"), "{said}");
    assert!(said.contains("lb-user --cleanup"), "{said}");
    stream.wait_for_echoes(5);
    stream.unbroken_except(None);
    std::fs::write(installation.state(), &state).expect("write the state");
    let balancer = installation.start();
    stream.wait_for_echoes(5);
    stream.unbroken_except(None);
    assert!(balancer.log().contains("took over from the lb-user before"), "{}", balancer.log());
}

#[test]
fn without_its_file_a_program_at_work_is_replaced_and_says_what_is_lost() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let config = bed.config(&["snat"], 80, "");
    let balancer = installation(&bed, &config).start();
    let _ = balancer.wait_all_up();
    let installation = balancer.kill();
    std::fs::write(installation.state(), "{\"format\":").expect("damage the state");
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    let log = balancer.log();
    assert!(
        log.contains("state.json is damaged") && log.contains("does not say what its tables mean"),
        "{log}"
    );
    let target = bed.target("snat", Family::V4, 80);
    let _ = client::requests(&bed.net.client().ns, target, 60).all_answered(vip_name("snat", Family::V4));
}
