//! Metrics as a monitoring system gets them.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use lb_tests::{
    address::Family, client, daemon::Installation, needs_balancer, netns::Netns, topology::Layout,
};

use crate::bed::Bed;

const ADDRESS: &str = "127.0.0.1:9100";

/// Asks for a path from within a namespace; gives head and body.
fn fetch(ns: &Netns, method: &str, path: &str) -> (String, String) {
    ns.run(|| {
        let mut stream = TcpStream::connect(ADDRESS).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("receive");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    })
}

fn value(text: &str, sample: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{sample} in {text}")).parse().expect("a whole number")
}

#[test]
fn metrics_tell_what_happened_and_go_on_over_a_restart() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let config = bed.config(&["snat"], 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text())
        .xdp_mode("native")
        .option("--keep-forwarding")
        .option(&format!("--metrics={ADDRESS}"));
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    let target = bed.target("snat", Family::V4, 80);
    let _ = client::requests(&bed.net.client().ns, target, 60).all_answered("snat");
    let (head, before) = fetch(&bed.net.lb.ns, "GET", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/openmetrics-text"), "{head}");
    assert!(before.ends_with("# EOF\n"), "{before}");
    let connections = "lb_vip_connections_total{vip=\"snat_v4\"}";
    assert_eq!(value(&before, connections), 60);
    assert_eq!(value(&before, "lb_server_up{vip=\"snat_v4\",server=\"s1\"}"), 1);
    assert!(fetch(&bed.net.lb.ns, "GET", "/v1/status").0.starts_with("HTTP/1.1 404 "));
    assert!(fetch(&bed.net.lb.ns, "POST", "/metrics").0.starts_with("HTTP/1.1 405 "));

    let balancer = balancer.stop().0.start();
    let _ = balancer.wait_all_up();
    let _ = client::requests(&bed.net.client().ns, target, 60).all_answered("snat");
    let (_, after) = fetch(&bed.net.lb.ns, "GET", "/metrics");
    assert_eq!(value(&after, connections), 120);
    let samples = before.lines().filter(|line| line.contains("_total") && !line.starts_with('#'));
    for (sample, old) in samples.filter_map(|line| line.rsplit_once(' ')) {
        // The process is another, and counts its own affairs anew.
        if !["process_", "lb_api_"].iter().any(|own| sample.starts_with(own)) {
            assert!(value(&after, sample) >= old.parse().expect("a whole number"), "{sample} went back");
        }
    }
}
