//! The main job, to watch: `cargo xtask demo`. A client reaches three servers through the balancer in every
//! mode and family; then a server loses its power, traffic moves, it returns and traffic returns.
//!
//! Ends with 0 only if everything was as it should be. All of it happens in network namespaces that are
//! gone afterwards.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    panic,
    process::ExitCode,
    time::{Duration, Instant},
};

use lb_tests::{
    address::Family,
    client,
    daemon::{self, Balancer, find_server, find_vip},
    privilege,
    server::Server,
    streams::{Outcome, Steady},
    topology::{Host, Layout, Topology},
    wait,
};
use lb_user::snapshot::Health;

/// Modes and the host number of their VIPs.
const MODES: [(&str, u8); 3] = [("snat", 200), ("nat", 201), ("dr", 202)];
/// Requests per mode and family.
const REQUESTS: usize = 300;
/// Requests per second during the drill.
const RATE: u32 = 100;
/// Nothing here may take longer to happen.
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Some(why) = privilege::obstacle() {
        eprintln!("The demo cannot run here: {why}.");
        return ExitCode::FAILURE;
    }
    if let Some(path) = daemon::missing_binary() {
        eprintln!("The demo needs {}; `cargo xtask demo` builds it.", path.display());
        return ExitCode::FAILURE;
    }
    // Whatever is not as it should be panics with a sentence; where in this file is of no interest.
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("an unknown reason");
        eprintln!("\nTHE DEMO FAILED: {message}");
    }));
    match panic::catch_unwind(demo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn demo() {
    let net = Topology::build(Layout::default());
    net.servers_reply_through_balancer();
    for (family, number) in Family::BOTH.into_iter().map(|family| (family, MODES[2].1)) {
        net.servers_accept(net.vip(number).of(family));
    }
    let servers: Vec<_> =
        net.servers.iter().map(|host| Server::start(&host.ns, &host.name, &[80], false)).collect();
    introduce(&net);
    let balancer = Balancer::start(&net.lb.ns, &["eth0"], &config(&net));
    let _ = balancer.wait_all_up();
    for interface in balancer.assert_native() {
        println!(
            "lb-user runs on {}: XDP mode {}, program id {}.",
            interface.name, interface.xdp_mode, interface.program_id
        );
    }
    every_way(&net);
    drill(&net, &balancer);
    let (installation, _) = balancer.stop();
    let programs = installation.footprint().programs;
    assert_eq!(programs, [None], "lb-user left its XDP program behind");
    println!("\nlb-user was stopped and took its program and addresses with it. All is well.");
    drop(servers);
}

fn introduce(net: &Topology) {
    let show =
        |host: &Host| println!("  {:<3} {:<14} {}", host.name, host.address.v4.to_string(), host.address.v6);
    println!(
        "Five machines, each a network namespace, on one switch: a client, the balancer, three servers.\n"
    );
    net.clients.iter().chain([&net.lb]).chain(&net.servers).for_each(show);
    println!();
}

/// One VIP per mode and family, checked five times a second so that the drill is short.
fn config(net: &Topology) -> String {
    let mut text = String::from("[health]\ncheck = \"tcp\"\ninterval = \"200ms\"\nrise = 2\nfall = 3\n");
    for family in Family::BOTH {
        let _ = writeln!(text, "[pool.{}]\nservers = [", pool(family));
        for host in &net.servers {
            let _ = writeln!(
                text,
                "  {{ name = \"{}\", address = \"{}\" }},",
                host.name,
                host.address.of(family)
            );
        }
        text.push_str("]\n");
        for (mode, number) in MODES {
            let (pool, address) = (pool(family), net.vip(number).of(family));
            let _ = writeln!(
                text,
                "[vip.{mode}_{pool}]\naddress = \"{address}\"\nport = 80\nmode = \"{mode}\"\npool = \"{pool}\""
            );
        }
    }
    text
}

fn pool(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

/// The table: requests in every mode and family, and who answered.
fn every_way(net: &Topology) {
    println!("\n{REQUESTS} requests in each mode and family, each over a new connection:\n");
    println!("  mode  family  VIP               sent  answered    s1    s2    s3");
    for (mode, number) in MODES {
        for family in Family::BOTH {
            let target = net.vip(number).at(family, 80);
            let tally = client::requests(&net.client().ns, target, REQUESTS);
            let by = |server: &str| tally.by_server.get(server).copied().unwrap_or_default();
            let (sent, answered) = (tally.sent, tally.answered());
            println!(
                "  {mode:<4}  {family:<6}  {:<16}  {sent:>4}  {answered:>8}  {:>4}  {:>4}  {:>4}",
                target.to_string(),
                by("s1"),
                by("s2"),
                by("s3")
            );
            assert_eq!(
                tally.servers(),
                ["s1", "s2", "s3"],
                "{mode} over {family}: not all servers took part"
            );
            let _ = tally.all_answered(format!("{mode} over {family}"));
        }
    }
}

/// A server dies under traffic and returns.
fn drill(net: &Topology, balancer: &Balancer<'_>) {
    let target: SocketAddr = net.vip(MODES[0].1).at(Family::V4, 80);
    let (victim, vip) = (&net.servers[1], "snat_v4");
    println!(
        "\nFailure drill: {RATE} requests per second to {target} (snat), health checks every 0.2 s, 3 failures are DOWN.\n"
    );
    let steady = Steady::start(&net.client().ns, target, RATE);
    let start = Instant::now();
    let say = |what: &str| println!("  {:>5.2} s  {what}", start.elapsed().as_secs_f64());
    wait_for_answers(&steady, start);
    say(&format!("traffic flows: {}", shares(&steady.outcomes())));

    let cut = Instant::now();
    net.unplug(victim);
    say(&format!("{} loses its power: its cable is out of the switch", victim.name));
    let status = balancer.wait_health(LIMIT, vip, &victim.name, Health::Down);
    let noticed = Instant::now();
    say(&format!("lb-user counts it as down: {}", find_server(find_vip(&status, vip), &victim.name).reason));
    let moved = wait_for_answers(&steady, noticed);
    say(&format!("traffic has moved: {}", shares(&moved)));
    assert!(
        moved.iter().all(|outcome| outcome.answer.is_ok()),
        "requests failed after the failure was known"
    );

    net.plug(victim);
    say(&format!("{} has power again", victim.name));
    let _ = balancer.wait_health(LIMIT, vip, &victim.name, Health::Up);
    let returned = Instant::now();
    say("lb-user counts it as up");
    wait::until_true(LIMIT, "the returned server to serve", || {
        let outcomes = steady.outcomes();
        outcomes.iter().any(|o| o.sent > returned && o.answer.as_deref() == Ok(victim.name.as_str()))
    });
    say(&format!("traffic has returned: {}", shares(&wait_for_answers(&steady, returned))));
    report(&steady.finish(), cut, noticed);
}

/// Waits for a second's worth of requests sent after `since` and gives them.
fn wait_for_answers(steady: &Steady, since: Instant) -> Vec<Outcome> {
    wait::until(LIMIT, "a second of traffic", || {
        let mut outcomes = steady.outcomes();
        outcomes.retain(|outcome| outcome.sent > since);
        let enough = outcomes.len() >= usize::try_from(RATE).unwrap_or(usize::MAX);
        if enough { Ok(outcomes) } else { Err(format!("{} requests", outcomes.len())) }
    })
}

fn shares(outcomes: &[Outcome]) -> String {
    let mut count = BTreeMap::<&str, usize>::new();
    for outcome in outcomes {
        *count.entry(outcome.answer.as_deref().unwrap_or("failed")).or_default() += 1;
    }
    let parts: Vec<_> = count.into_iter().map(|(who, count)| format!("{who} {count}")).collect();
    parts.join(", ")
}

fn report(outcomes: &[Outcome], cut: Instant, noticed: Instant) {
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.answer.is_err()).collect();
    let last =
        failed.iter().map(|outcome| outcome.sent.saturating_duration_since(cut)).max().unwrap_or_default();
    println!(
        "\n  {} requests, {} failed, all of them to the dead server before it was noticed;\n  \
         the last one that failed was sent {:.2} s after the power cut.",
        outcomes.len(),
        failed.len(),
        last.as_secs_f64()
    );
    for outcome in failed {
        assert!(outcome.done > cut, "a request failed before the power cut: {:?}", outcome.answer);
        assert!(outcome.sent < noticed, "a request failed after the failure was known: {:?}", outcome.answer);
    }
}
