//! Changes of the configuration that are looked at first, taken back, or gone back to (R24).

use std::{fs, time::Duration};

use lb_tests::{
    address::Family,
    daemon::{Balancer, Installation},
    needs_balancer,
    streams::Streams,
    topology::Layout,
    wait,
};

use lb_user::admin::audit;

use crate::{bed::Bed, config::Config};

const PATIENCE: Duration = Duration::from_secs(20);

struct Texts {
    three: String,
    two: String,
}

/// A VIP with three servers, and the same with two.
fn texts(bed: &Bed) -> Texts {
    let three: Config = bed.config(&["snat"], 80, "");
    let three = three.text().to_owned();
    let two: Vec<_> = three.lines().filter(|line| !line.contains("\"s3\"")).collect();
    Texts { two: two.join("\n"), three }
}

fn start<'a>(bed: &'a Bed, text: &str) -> Balancer<'a> {
    let balancer = Installation::new(&bed.net.lb.ns, &["eth0"], text).xdp_mode("native").start();
    let _ = balancer.wait_all_up();
    balancer
}

fn servers(balancer: &Balancer<'_>) -> usize {
    balancer.status().vips[0].servers.len()
}

fn file(balancer: &Balancer<'_>) -> String {
    fs::read_to_string(balancer.installation().config()).expect("the configuration file")
}

#[test]
fn diff_tells_in_the_files_words_and_changes_nothing() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let Texts { three, two } = texts(&bed);
    let balancer = start(&bed, &three);
    assert!(balancer.lbctl(&["diff"]).expect("diff").ends_with("lb.toml is in use as it is"));
    balancer.installation().configure(&format!("{two}\n[flows]\nlearn = \"1s\"\n"));
    let told = balancer.lbctl(&["diff"]).expect("diff");
    let lines: Vec<_> = told.lines().collect();
    let address = bed.net.servers[2].address.of(Family::V4);
    assert_eq!(lines[0], "+ flows: { learn = \"1s\" }");
    assert_eq!(lines[1], format!("- pool.v4.servers.s3: {{ address = \"{address}\" }}"));
    assert_eq!((lines.len(), servers(&balancer)), (3, 3));

    balancer.installation().configure(&two.replace("port = ", "prot = "));
    let refused = balancer.lbctl(&["diff"]).expect_err("a broken file");
    assert!(refused.contains("prot") && refused.contains("lb.toml:"), "{refused}");
    let refused = balancer.lbctl(&["reload"]).expect_err("a broken file");
    assert!(refused.contains("prot"), "{refused}");
    let status = balancer.lbctl(&["status"]).expect("status");
    assert!(status.contains("RELOAD FAILED") && status.contains("prot"), "{status}");
    assert_eq!(servers(&balancer), 3);
}

#[test]
fn what_is_not_confirmed_is_taken_back_file_and_all() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let Texts { three, two } = texts(&bed);
    let balancer = start(&bed, &three);
    let streams = Streams::start(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 20);
    balancer.installation().configure(&two);
    let told = balancer.lbctl(&["commit", "--confirm", "2s"]).expect("commit");
    assert!(told.contains("- pool.v4.servers.s3") && told.contains("lbctl confirm"), "{told}");
    assert_eq!(servers(&balancer), 2);
    let refused = balancer.lbctl(&["reload"]).expect_err("one thing after the other");
    assert!(refused.contains("has yet to be confirmed"), "{refused}");
    wait::until_true(PATIENCE, "the commit to be taken back", || servers(&balancer) == 3);
    assert_eq!(file(&balancer), three);
    assert!(balancer.log().contains("was not confirmed in time"), "{}", balancer.log());
    let refused = balancer.lbctl(&["confirm"]).expect_err("too late");
    assert!(refused.contains("nothing waits to be confirmed"), "{refused}");
    streams.wait_for_echoes(10);
    streams.unbroken_except(Some("s3"));
}

#[test]
fn what_is_confirmed_stays_and_can_still_be_gone_back_from() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let Texts { three, two } = texts(&bed);
    let balancer = start(&bed, &three);
    balancer.installation().configure(&two);
    let _ = balancer.lbctl(&["commit", "--confirm", "1h"]).expect("commit");
    let _ = balancer.lbctl(&["confirm"]).expect("confirm");
    let history = balancer.lbctl(&["history"]).expect("history");
    assert_eq!(history.lines().count(), 3, "{history}");
    let refused = balancer.lbctl(&["rollback", "9"]).expect_err("no such number");
    assert!(refused.contains("there is no configuration 9; 1 to 2 are kept"), "{refused}");

    balancer.installation().configure("# My work.\n");
    let refused = balancer.lbctl(&["rollback", "1"]).expect_err("it would be lost");
    assert!(refused.contains("was changed and is not in use as it is"), "{refused}");
    balancer.installation().configure(&two);
    let told = balancer.lbctl(&["rollback", "1"]).expect("rollback");
    assert!(told.contains("+ pool.v4.servers.s3"), "{told}");
    assert_eq!((servers(&balancer), file(&balancer)), (3, three));
}

#[test]
fn a_daemon_that_dies_before_the_confirmation_starts_with_what_was_before() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let Texts { three, two } = texts(&bed);
    let balancer = start(&bed, &three);
    balancer.installation().configure(&two);
    let _ = balancer.lbctl(&["commit", "--confirm", "1h"]).expect("commit");
    let balancer = balancer.kill().start();
    let _ = balancer.wait_all_up();
    assert_eq!((servers(&balancer), file(&balancer)), (3, three));
    assert!(balancer.log().contains("had not been confirmed"), "{}", balancer.log());
}

#[test]
fn a_file_that_is_watched_is_read_when_it_changes() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let Texts { three, two } = texts(&bed);
    let balancer = Installation::new(&bed.net.lb.ns, &["eth0"], &three)
        .xdp_mode("native")
        .option("--watch-config")
        .start();
    let _ = balancer.wait_all_up();
    balancer.installation().configure("# broken\n[");
    wait::until_true(PATIENCE, "the failure to be seen", || {
        balancer.status().last_reload.is_some_and(|last| last.problem.is_some())
    });
    assert_eq!(servers(&balancer), 3);
    balancer.installation().configure(&two);
    wait::until_true(PATIENCE, "the file to be read", || servers(&balancer) == 2);
}

#[test]
fn every_change_is_written_down_with_who_made_it() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let config = bed.config(&["snat"], 80, "");
    let installation =
        Installation::new(&bed.net.lb.ns, &["eth0"], config.text()).option("--log-format=json");
    let audit = installation.audit();
    let balancer = installation.start();
    let _ = balancer.lbctl(&["server", "drain", "snat_v4/s1"]).expect("drain");
    let _ = balancer.lbctl(&["server", "drain", "snat_v4/s9"]).expect_err("there is no such server");
    let _ = balancer.lbctl(&["status"]).expect("a question");
    let text = fs::read_to_string(audit).expect("the audit log");
    let records: Vec<audit::Record> =
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let [done, refused] = &records[..] else { panic!("two changes: {text}") };
    assert_eq!((done.what.as_str(), done.status), ("/v1/server", 200));
    assert!(matches!(done.who, audit::Who::User { uid: 0, pid: Some(_) }), "{text}");
    assert!(text.contains("\"state\":\"drain\""), "{text}");
    assert!(
        refused.status == 422 && refused.refused.as_deref().is_some_and(|why| why.contains("s9")),
        "{text}"
    );
    // What the log says is JSON as well, line by line.
    for line in balancer.log().lines() {
        let _: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
