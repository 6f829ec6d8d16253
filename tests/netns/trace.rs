//! What operators see of packets: `lbctl trace` of those that pass, `lbctl why` of one that might.

use std::{collections::BTreeMap, net::SocketAddr, process::Command, time::Duration};

use lb_tests::{
    address::Family,
    client,
    daemon::{Balancer, binary},
    folder::Folder,
    needs_balancer,
    process::{self, Running},
    wait,
};
use lb_user::{
    snapshot::Health,
    trace::{Line, Sighting, Why},
};
use rustix::process::Signal;

use crate::bed::{Bed, vip_name};

const LIMIT: Duration = Duration::from_secs(15);
const BEGINS: &str = "packets are watched";
const ENDS: &str = "packets are no longer watched";

/// A running `lbctl trace`.
struct Watch(Running);

impl Watch {
    /// Starts it, and waits until the kernel program reports.
    #[track_caller]
    fn start(balancer: &Balancer<'_>, arguments: &[&str]) -> Self {
        let before = count(balancer, BEGINS);
        let mut command = Command::new(binary("lbctl"));
        command.arg("--socket").arg(balancer.installation().socket()).arg("trace").args(arguments);
        let running = Running::start("lbctl trace", &mut command);
        wait::until_true(LIMIT, "the watch to begin", || count(balancer, BEGINS) > before);
        Self(running)
    }

    /// Waits until a packet was shown that satisfies `look`, then ends it as an operator does; gives all packets.
    #[track_caller]
    fn stop_after(mut self, what: &str, look: impl Fn(&Sighting) -> bool) -> Vec<Sighting> {
        wait::until_true(LIMIT, what, || packets(&self.0.stdout()).iter().any(&look));
        self.0.signal(Signal::INT);
        let (status, _) = self.0.wait(LIMIT);
        assert!(status.success(), "lbctl trace ended with {status} after Ctrl-C");
        packets(&self.0.stdout())
    }
}

/// How often the daemon has said something.
fn count(balancer: &Balancer<'_>, what: &str) -> usize {
    balancer.log().matches(what).count()
}

/// The packets in lines of JSON; the last line may be half written.
fn packets(text: &str) -> Vec<Sighting> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    lines
        .map(|line| match line {
            Line::Packet(seen) => *seen,
            Line::Lost { lost } => panic!("{lost} packets were lost"),
        })
        .collect()
}

#[test]
fn trace_shows_each_packet_of_a_connection_with_its_server_and_nothing_else() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat", "dr"], 80, ""));
    for family in Family::BOTH {
        for mode in ["snat", "dr"] {
            let (vip, target) = (vip_name(mode, family), bed.target(mode, family, 80));
            let client = bed.net.client();
            let watch = Watch::start(&balancer, &["-o", "json", "vip", &vip, "and", "tcp", "and", "forward"]);
            let tally = client::requests(&client.ns, target, 10).all_answered(&vip);
            // Not of this VIP, and so not to be seen.
            let other = if mode == "dr" { "snat" } else { "dr" };
            let _ = client::requests(&client.ns, bed.target(other, family, 80), 3).all_answered(other);
            let marker = client.ns.run(|| client::request(target, client::REQUEST)).expect("an answer");
            let syns = |seen: &Sighting| flags(seen) == "S";
            let eleventh = |packets: &[Sighting]| packets.iter().filter(|seen| syns(seen)).count() == 11;
            wait::until_true(LIMIT, "eleven connections", || eleventh(&packets(&watch.0.stdout())));
            let seen = watch.stop_after("a packet", |_| true);

            let mut by_server = BTreeMap::<String, usize>::new();
            for packet in &seen {
                assert_eq!((packet.vip.as_deref(), packet.verdict.as_str()), (Some(vip.as_str()), "forward"));
                assert_eq!(packet.reason, None);
                let ends = packet.packet.as_ref().expect("a packet").ends;
                let server = packet.server.clone().expect("a server");
                let address = bed.net.servers.iter().find(|host| host.name == server).expect("ours").address;
                if packet.reply {
                    assert_eq!(mode, "snat", "only there replies pass the balancer");
                    let leaves = packet.leaves.expect("a translation");
                    let from = SocketAddr::new(leaves.source, leaves.source_port);
                    assert_eq!((ends.source, from), (address.of(family), target));
                    continue;
                }
                assert_eq!(SocketAddr::new(ends.destination, ends.destination_port), target);
                match mode {
                    "dr" => assert_eq!((packet.change.as_deref(), packet.leaves), (Some("link"), None)),
                    _ => {
                        assert_eq!(packet.change.as_deref(), Some("translate"));
                        assert_eq!(packet.leaves.map(|leaves| leaves.destination), Some(address.of(family)));
                    }
                }
                if syns(packet) {
                    assert!(packet.entered, "{packet:?}");
                    assert_eq!(
                        packet.slot.as_ref().and_then(|slot| slot.server.clone()),
                        Some(server.clone())
                    );
                    *by_server.entry(server).or_default() += 1;
                }
            }
            let mut expected = tally.by_server;
            *expected.entry(marker).or_default() += 1;
            assert_eq!(by_server, expected, "{vip}: connections by server");
            assert_eq!(seen.iter().any(|seen| seen.reply), mode == "snat");
        }
    }
}

fn flags(seen: &Sighting) -> &str {
    seen.packet.as_ref().and_then(|packet| packet.flags.as_deref()).unwrap_or_default()
}

#[test]
fn a_dropped_packet_is_seen_with_its_reason_and_trace_ends_when_it_has_seen_enough() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    bed.servers.iter().for_each(|server| server.close(80));
    for server in &bed.servers {
        let _ = balancer.wait_health(LIMIT, &vip_name("snat", Family::V4), server.name(), Health::Down);
    }
    let Watch(mut watch) = Watch::start(&balancer, &["-o", "json", "--count", "1", "reason", "no-server"]);
    let target = bed.target("snat", Family::V4, 80);
    let refused = bed.net.client().ns.run(|| client::request(target, Duration::from_millis(300)));
    assert!(refused.is_err());
    let (status, _) = watch.wait(LIMIT);
    assert!(status.success());
    let seen = packets(&watch.stdout());
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].verdict.as_str(), seen[0].reason.as_deref()), ("drop", Some("no-server")));
    assert_eq!((seen[0].server.as_deref(), seen[0].out.as_deref()), (None, None));
    wait::until_true(LIMIT, "the watch to end", || count(&balancer, ENDS) == 1);
}

#[test]
fn one_watches_at_a_time_and_a_watch_ends_with_its_client_however_that_ends() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    let Watch(mut first) = Watch::start(&balancer, &[]);
    let refusal = balancer.lbctl(&["trace"]).expect_err("somebody watches already");
    assert!(refusal.contains("somebody watches already"), "{refusal}");
    first.signal(Signal::KILL);
    let _ = first.wait(LIMIT);
    wait::until_true(LIMIT, "the watch to end", || count(&balancer, ENDS) == 1);
    let shown = balancer.lbctl(&["trace", "--duration", "1", "port", "1"]).expect("nobody watches");
    assert_eq!(shown, "", "nothing has port 1");
    wait::until_true(LIMIT, "the watch to end", || count(&balancer, ENDS) == 2);
    for (arguments, message) in [
        (&["trace", "hots", "1.2.3.4"][..], "\"hots\" is not understood"),
        (&["trace", "vip", "nobody"], "there is no VIP \"nobody\"; there are snat_v4, snat_v6"),
        (&["why", "10.0.0.1:1", "[::1]:2"], "one is IPv4, the other IPv6"),
        (&["why", "10.0.0.1:1", "10.0.0.2:2", "udp", "--established"], "which UDP does not have"),
    ] {
        let refusal = balancer.lbctl(arguments).expect_err("a refusal");
        assert!(refusal.contains(message), "{arguments:?}: {refusal}");
    }
}

#[test]
fn why_names_the_server_that_then_gets_the_connection() {
    needs_balancer!();
    const TUPLES: usize = 100;
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat", "dr"], 80, ""));
    let client = bed.net.client();
    // A generator of its own, the same each time: Knuth's, with the high bits used.
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u16
    };
    for mode in ["snat", "dr"] {
        let mut servers = BTreeMap::<String, usize>::new();
        for number in 0..TUPLES {
            let family = Family::BOTH[number % 2];
            let target = bed.target(mode, family, 80);
            let source = client.address.at(family, 10_000 + random() % 20_000);
            let why = ask(&balancer, source, target, &[]);
            assert_eq!(why.result.verdict, "forward", "{why:?}");
            let answered = client.ns.run(|| client::request_between(source, target, client::REQUEST));
            let answered = answered.unwrap_or_else(|error| panic!("{source} to {target}: {error}"));
            assert_eq!(why.result.server.as_deref(), Some(answered.as_str()), "{mode}, {source}: {why:?}");
            *servers.entry(answered).or_default() += 1;
        }
        assert_eq!(servers.len(), 3, "{mode}: {servers:?}");
    }
    // Nothing that was asked about was entered anywhere: there are the flows of real connections only.
    let target = bed.target("snat", Family::V4, 80);
    let before = balancer.status().reasons;
    let never = client.address.at(Family::V4, 9_999);
    for _ in 0..3 {
        assert!(ask(&balancer, never, target, &[]).result.entered, "a flow that is still unknown");
    }
    let none = ask(&balancer, never, target, &["--established"]);
    assert_eq!(none.result.reason.as_deref(), Some("no-flow"));
    let changed = |reason: &str| {
        let packets = |reasons: &[lb_user::snapshot::ReasonCount]| {
            reasons.iter().find(|count| count.reason == reason).map(|count| count.packets)
        };
        (packets(&before), packets(&balancer.status().reasons))
    };
    assert_eq!(changed("no-flow").0, changed("no-flow").1, "a question is no packet");
}

#[test]
fn why_knows_connections_and_their_answers() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    let client = bed.net.client();
    for family in Family::BOTH {
        let target = bed.target("snat", family, 80);
        let stream = client.ns.run(|| client::connect(target, None, client::REQUEST)).expect("a connection");
        let source = stream.local_addr().expect("an address");
        let why = ask(&balancer, source, target, &["--established"]);
        assert!(why.result.in_table && !why.result.entered, "{why:?}");
        let leaves = why.result.leaves.expect("a translation");
        let server = SocketAddr::new(leaves.destination, leaves.destination_port);
        let answer =
            ask(&balancer, server, SocketAddr::new(leaves.source, leaves.source_port), &["--established"]);
        assert!(answer.result.reply, "{answer:?}");
        assert_eq!(answer.result.server, why.result.server);
        let back = answer.result.leaves.expect("a translation");
        let back = (
            SocketAddr::new(back.source, back.source_port),
            SocketAddr::new(back.destination, back.destination_port),
        );
        assert_eq!(back, (target, source));
        let table =
            balancer.lbctl(&["why", &source.to_string(), &target.to_string(), "tcp", "--established"]);
        let table = table.expect("an answer");
        assert!(table.contains("the flow tables know the flow") && table.ends_with("forward"), "{table}");
    }
}

#[track_caller]
fn ask(balancer: &Balancer<'_>, source: SocketAddr, target: SocketAddr, more: &[&str]) -> Why {
    let (source, target) = (source.to_string(), target.to_string());
    let arguments = [&["why", &source, &target, "tcp", "-o", "json"], more].concat();
    let text = balancer.lbctl(&arguments).unwrap_or_else(|error| panic!("{source} to {target}: {error}"));
    serde_json::from_str(&text).expect("an answer in JSON")
}

#[test]
fn a_capture_can_be_read_by_others() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    let folder = Folder::new();
    let file = folder.path().join("packets.pcapng");
    let before = count(&balancer, BEGINS);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" --socket \"$1\" trace -o pcapng --count 4 vip snat_v4 > \"$2\""]);
    command.arg(binary("lbctl")).arg(balancer.installation().socket()).arg(&file);
    let mut running = Running::start("lbctl trace", &mut command);
    wait::until_true(LIMIT, "the watch to begin", || count(&balancer, BEGINS) > before);
    let target = bed.target("snat", Family::V4, 80);
    let _ = client::requests(&bed.net.client().ns, target, 2).all_answered("snat");
    assert!(running.wait(LIMIT).0.success());

    let read = process::output("tcpdump", Command::new("tcpdump").arg("-nr").arg(&file), LIMIT);
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(text.lines().count(), 4, "{text}");
    let client = bed.net.client().address.of(Family::V4).to_string();
    let first = text.lines().next().expect("four lines");
    assert!(first.contains("Flags [S]") && !first.contains(&client), "the frame as it leaves: {first}");
    let bytes = std::fs::read(&file).expect("the capture");
    assert!(
        String::from_utf8_lossy(&bytes).contains("| new flow | server s"),
        "what was decided is the comment"
    );
    // Wireshark's own reader, where there is one.
    if Command::new("tshark").arg("-v").output().is_ok() {
        let comments = ["-T", "fields", "-e", "frame.comment"];
        let read =
            process::output("tshark", Command::new("tshark").arg("-nr").arg(&file).args(comments), LIMIT);
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        assert_eq!(text.lines().filter(|line| line.contains("| vip snat_v4")).count(), 4, "{text}");
    }
}
