//! `cargo xtask bench scale`: what a configuration of many VIPs costs the daemon: its check, its start, one change of one
//! server, its memory, and the processor time that it takes to check all servers. One machine stands for all servers, so
//! that health checks have somebody to ask.

use std::{
    fmt::Write as _,
    fs, hint,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_user::snapshot::Health;
use serde_json::json;

use crate::{
    address::Family,
    daemon::{Balancer, Installation, binary},
    process,
    server::Server,
    topology::{Layout, Topology},
};

/// Servers of each VIP.
const SERVERS: usize = 5;

/// Changes that the median is taken of.
const CHANGES: usize = 9;

/// For so long it is looked how much of a processor a daemon takes that has nothing to do but to check its servers: each
/// of them once.
const REST: Duration = INTERVAL;

/// Time between two checks of a server.
const INTERVAL: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Clone, Debug)]
pub struct Figures {
    /// VIPs, each with a pool of five servers.
    pub vips: usize,
    /// `lb-user --check`.
    pub check: Duration,
    /// From the start until `lbctl` has an answer.
    pub start: Duration,
    /// `lbctl reload` of a file in which one server has another weight: the median.
    pub reload: Duration,
    /// `lbctl server drain` of one server: the median.
    pub drain: Duration,
    /// Part of one processor that it takes while nothing changes.
    pub rest: f64,
    /// Resident memory that is the process's own, in bytes.
    pub own: u64,
    /// Resident memory that it shares with the kernel: the flow tables, and the program's file.
    pub shared: u64,
}

/// Measures with so many VIPs.
///
/// # Errors
/// When the daemon refuses something.
pub fn run(vips: usize) -> Result<Figures> {
    let net = Topology::build(Layout { servers: 1, ..Layout::default() });
    let host = &net.servers[0];
    net.lb.ns.ip(&format!("route add 10.100.0.0/16 via {}", host.address.of(Family::V4)));
    host.ns.ip("route add local 10.100.0.0/16 dev lo");
    let _server = Server::start(&host.ns, &host.name, &[80], false);

    let installation = Installation::new(&net.lb.ns, &["eth0"], &config(vips, 100)).xdp_mode("native");
    let mut command = net.lb.ns.command(binary("lb-user"));
    command.args(["--check", "--config"]).arg(installation.config());
    let (check, output) = timed(|| process::output("lb-user --check", &mut command, Duration::from_secs(60)));
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let (start, balancer) = timed(|| installation.start());
    // What a start leaves to be done, such as the first checks of all servers, and rings that settle.
    balancer.wait_for(Duration::from_secs(90), "all servers to be up", |status| {
        let servers = status.vips.iter().flat_map(|vip| &vip.servers);
        let left = servers.filter(|server| server.health != Health::Up).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} are not")) }
    });
    quiet(&balancer);
    let before = ticks(&balancer);
    std::thread::sleep(REST);
    let rest = (ticks(&balancer) - before) as f64 / TICKS_IN_A_SECOND / REST.as_secs_f64();
    let reload = median(|number| {
        balancer.installation().configure(&config(vips, 50 + number));
        lbctl(&balancer, &["reload"])
    })?;
    let words = ["drain", "ready"];
    let drain = median(|number| lbctl(&balancer, &["server", words[number % 2], "v0/s0"]))?;
    // Free memory is given back ten seconds after something was planned.
    std::thread::sleep(Duration::from_secs(12));
    let status = fs::read_to_string(format!("/proc/{}/status", balancer.id()))?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim_end_matches(" kB").trim().parse::<u64>().ok())
            .map_or(0, |kib| kib << 10)
    };
    let shared = bytes("RssFile:") + bytes("RssShmem:");
    Ok(Figures { vips, check, start, reload, drain, rest, own: bytes("RssAnon:"), shared })
}

/// VIPs with a pool each; the first server of the first has this weight.
fn config(vips: usize, weight: usize) -> String {
    let seconds = INTERVAL.as_secs();
    let mut text = format!(
        "[health]\ninterval = \"{seconds}s\"\nfall = 10\n[vip_defaults]\nmode = \"snat\"\nport = 80\n"
    );
    for vip in 0..vips {
        let _ = writeln!(text, "[pool.p{vip}]\nservers = [");
        for server in 0..SERVERS {
            let number = vip * SERVERS + server;
            let weight = if number == 0 { weight } else { 100 };
            let (high, low) = (number / 250, number % 250 + 1);
            let _ = writeln!(
                text,
                "  {{ name = \"s{server}\", address = \"10.100.{high}.{low}\", weight = {weight} }},"
            );
        }
        let (high, low) = (vip / 250, vip % 250 + 1);
        let _ = writeln!(text, "]\n[vip.v{vip}]\naddress = \"10.200.{high}.{low}\"\npool = \"p{vip}\"");
    }
    text
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begin = Instant::now();
    let done = hint::black_box(work());
    (begin.elapsed(), done)
}

/// The median of the times that the commands take which are made for numbers.
fn median(change: impl Fn(usize) -> Command) -> Result<Duration> {
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let mut command = change(number);
        // It gives up by itself when it has no answer.
        let (time, output) = timed(|| command.output());
        let output = output?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        times.push(time);
    }
    times.sort();
    Ok(times[CHANGES / 2])
}

fn lbctl(balancer: &Balancer<'_>, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("lbctl"));
    command.arg("--socket").arg(balancer.installation().socket()).args(arguments);
    command
}

/// Waits until the daemon takes a tenth of a processor at most.
fn quiet(balancer: &Balancer<'_>) {
    let mut last = ticks(balancer);
    crate::wait::until(Duration::from_secs(60), "the daemon to rest", || {
        std::thread::sleep(Duration::from_secs(1));
        let now = ticks(balancer);
        let spent = now - std::mem::replace(&mut last, now);
        if spent <= 10 { Ok(()) } else { Err(format!("{spent} of 100 ticks in a second")) }
    });
}

/// What the kernel counts processor time in (`USER_HZ`, the same on all Linux machines).
const TICKS_IN_A_SECOND: f64 = 100.0;

/// Processor time that the daemon has taken so far, in user space and in the kernel.
fn ticks(balancer: &Balancer<'_>) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", balancer.id())).unwrap_or_default();
    let behind = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    behind.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// The figures as lines, with what they may be.
#[must_use]
pub fn table(figures: &Figures) -> String {
    let Figures { vips, check, start, reload, drain, rest, own, shared } = figures;
    let checks = (vips * SERVERS) as u64 / INTERVAL.as_secs();
    let millis = |time: &Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let rows = [
        ("check", millis(check), "1,000 ms"),
        ("start", millis(start), "3,000 ms"),
        ("reload, one server changed", millis(reload), "50 ms"),
        ("drain of one server", millis(drain), "50 ms"),
        (&format!("{checks} checks a second"), format!("{:.1} % of a CPU", 100.0 * rest), ""),
        ("memory of its own", mib(*own), ""),
        ("memory shared with the kernel", mib(*shared), ""),
        ("memory", mib(own + shared), "200 MB"),
    ];
    let mut text = format!("{vips} VIPs, {} servers{:>22}{:>12}\n", vips * SERVERS, "is", "goal");
    for (what, is, goal) in rows {
        let _ = writeln!(text, "{what:<30}{is:>16}{goal:>12}");
    }
    text
}

/// The same for programs.
#[must_use]
pub fn json(figures: &Figures) -> serde_json::Value {
    let Figures { vips, check, start, reload, drain, rest, own, shared } = figures;
    json!({
        "vips": vips,
        "servers": vips * SERVERS,
        "check_seconds": check.as_secs_f64(),
        "start_seconds": start.as_secs_f64(),
        "reload_seconds": reload.as_secs_f64(),
        "drain_seconds": drain.as_secs_f64(),
        "processors_at_rest": rest,
        "own_bytes": own,
        "shared_bytes": shared,
    })
}
