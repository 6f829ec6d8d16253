//! Everything that is done to a balancer in a year, within a minute and under load: nothing fails, nothing breaks,
//! nothing is lost, and it grows no larger (R24, R51).

use std::{fs, net::SocketAddr, time::Duration};

use lb_tests::{
    address::Family,
    daemon::{Balancer, Installation},
    needs_balancer, needs_next_release,
    streams::{Chat, Steady, Streams},
};

use crate::{bed::Bed, config::Config};

/// How often each is done. `LB_TEST_FULL` is for the figures that were asked for.
struct Figures {
    changes: usize,
    restarts: usize,
    kills: usize,
    upgrades: usize,
    /// Reloads in a row that must leave it as small as a few do.
    reloads: usize,
}

fn figures() -> Figures {
    if std::env::var_os("LB_TEST_FULL").is_some() {
        Figures { changes: 50, restarts: 10, kills: 10, upgrades: 5, reloads: 1_000 }
    } else {
        Figures { changes: 12, restarts: 2, kills: 2, upgrades: 3, reloads: 100 }
    }
}

const MODES: [&str; 2] = ["snat", "dr"];

/// The server that comes and goes.
const MORTAL: usize = 2;

/// The configuration of a number: with an odd one there is a server less, and VIPs come and go.
fn config(bed: &Bed, number: usize) -> Config {
    let hosts = &bed.net.servers[..];
    let config = Config::new().pool("lasting", Family::V4, &hosts[..MORTAL]).pool(
        "all",
        Family::V4,
        if number.is_multiple_of(2) { hosts } else { &hosts[..MORTAL] },
    );
    let vip = |mode| bed.target(mode, Family::V4, 80).ip();
    let config = MODES.iter().fold(config, |config, mode| config.vip(mode, vip(mode), "80", mode, "all", ""));
    let udp = "protocol = \"udp\"\nhealth = { port = 80 }";
    let config = config.vip("udp", udp_target(bed).ip(), "80", "snat", "lasting", udp);
    (0..number % 4).fold(config, |config, place| {
        config.vip(&format!("more{place}"), vip("snat"), &format!("{}", 81 + place), "snat", "all", "")
    })
}

fn udp_target(bed: &Bed) -> SocketAddr {
    bed.net.vip(205).at(Family::V4, 80)
}

/// 300 new connections in a second, a hundred long ones, and datagrams.
struct Load {
    steady: [Steady; 2],
    streams: [Streams; 2],
    chat: Chat,
}

impl Load {
    /// `patience` is for an answer to a new connection.
    fn start(bed: &Bed, patience: Duration) -> Self {
        let client = &bed.net.client().ns;
        let targets = MODES.map(|mode| bed.target(mode, Family::V4, 80));
        let streams = targets.map(|target| Streams::start(client, target, 50));
        let steady = targets.map(|target| Steady::start_with(client, target, 150, patience));
        Self { steady, streams, chat: Chat::start(client, udp_target(bed)) }
    }

    /// Insists that nothing was harmed but the streams of the server that was taken away.
    #[track_caller]
    fn unharmed_after(&self, what: &str) {
        let mortal = format!("s{}", MORTAL + 1);
        for (streams, mode) in self.streams.iter().zip(MODES) {
            streams.wait_for_echoes(2);
            streams.unbroken_except(Some(&mortal));
            let left = streams.reports().iter().filter(|report| report.broken.is_none()).count();
            assert!(left > 10, "{mode}: {left} streams are left after {what}");
        }
        for (steady, mode) in self.steady.iter().zip(MODES) {
            none_failed(&steady.outcomes(), mode, what);
        }
    }

    #[track_caller]
    fn end(self) {
        for (steady, mode) in self.steady.into_iter().zip(MODES) {
            steady.wait_for_outcomes(500);
            none_failed(&steady.finish(), mode, "all");
        }
        assert_eq!(self.chat.finish_after(500), 0, "datagrams lost");
    }
}

#[track_caller]
fn none_failed(outcomes: &[lb_tests::streams::Outcome], mode: &str, what: &str) {
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.answer.as_ref().err()).collect();
    let (count, all) = (failed.len(), outcomes.len());
    assert!(
        failed.is_empty(),
        "{mode}: {count} of {all} connections failed by the end of {what}: {:?}",
        failed[0]
    );
}

fn installation<'a>(bed: &'a Bed, config: &Config) -> Installation<'a> {
    Installation::new(&bed.net.lb.ns, &["eth0"], config.text()).xdp_mode("native").option("--keep-forwarding")
}

/// A change as a careful operator makes it: who is to go has no new connections by then.
#[track_caller]
fn change(bed: &Bed, balancer: &Balancer<'_>, number: usize) {
    if number % 2 == 1 {
        balancer.server("drain", "*", &format!("s{}", MORTAL + 1));
    }
    let told = balancer.reload(config(bed, number).text());
    told.unwrap_or_else(|error| panic!("reload {number}: {error}"));
}

#[test]
fn changes_restarts_and_kills_under_load_harm_nothing() {
    needs_balancer!();
    let Figures { changes, restarts, kills, .. } = figures();
    let bed = Bed::for_all_modes(&[80, 81, 82, 83]);
    let mut balancer = installation(&bed, &config(&bed, 0)).start();
    let _ = balancer.wait_all_up();
    let load = Load::start(&bed, Duration::from_secs(1));
    for number in 1..=changes {
        change(&bed, &balancer, number);
        if number % 5 == 0 {
            load.unharmed_after(&format!("change {number}"));
        }
    }
    load.unharmed_after("all changes");
    for round in 1..=restarts + kills {
        let (what, left) =
            if round <= restarts { ("restart", balancer.stop().0) } else { ("kill", balancer.kill()) };
        balancer = left.start();
        load.unharmed_after(&format!("{what} {round}"));
    }
    load.end();
}

/// The next release has its flow records laid out differently (`xtask/src/next.rs`): every other upgrade is one to it, the
/// others back. A first packet that is held is sent again after a second.
#[test]
fn upgrades_that_translate_the_flow_tables_harm_nothing() {
    needs_balancer!();
    needs_next_release!();
    let bed = Bed::for_all_modes(&[80]);
    let mut balancer = installation(&bed, &config(&bed, 0)).start();
    let _ = balancer.wait_all_up();
    let load = Load::start(&bed, Duration::from_secs(4));
    for number in 1..=figures().upgrades {
        let program = ["lb-user", "next/lb-user"][number % 2];
        balancer = balancer.stop().0.program(program).start();
        let log = balancer.log();
        assert!(log.contains("took over from the lb-user before"), "{log}");
        let carried = log.lines().find_map(|line| line.split_once("differently: ")?.1.split_once(" flows"));
        let flows: usize = carried.expect("a translation").0.parse().expect("a number");
        assert!(flows >= 50, "{flows} flows were carried over\n{log}");
        load.unharmed_after(&format!("upgrade {number}"));
    }
    load.end();
}

/// Bytes of memory that a process has, `VmRSS` of proc(5).
pub(crate) fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes << 10
}

#[test]
fn reloads_leave_it_no_larger_than_a_few_did() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80, 81, 82, 83]);
    let balancer = bed.balance(&config(&bed, 0));
    (1..=10).for_each(|number| change(&bed, &balancer, number));
    let few = resident(balancer.id());
    (11..=figures().reloads).for_each(|number| change(&bed, &balancer, number));
    let many = resident(balancer.id());
    assert!(many <= few + few / 20, "{} KiB after 10 reloads, {} KiB after all", few >> 10, many >> 10);
}
