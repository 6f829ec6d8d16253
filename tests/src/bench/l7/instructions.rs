//! Instructions that l7-proxy takes for a request, counted by callgrind: what a change costs, to a few in a thousand, on a
//! machine that is busy with other things too.
//!
//! Each case is run with N requests and with 2 N, some times, and the difference is that of N requests: so the end does not count.
//! Nor does the start: counting begins after a few requests, when TLS has drawn its first random numbers (AWS-LC gathers
//! jitter for them, some 200 million instructions, give or take two). There is one connection with one request at a time, so
//! that things happen in the same order each time. Callgrind counts what the program does, and not the kernel.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{
    Scene,
    case::{Case, Way},
    contender::{Contender, Ports, Proxy},
    load::Load,
};
use crate::process::{Running, output};

/// Instructions for each request, by case.
pub type Counts = BTreeMap<String, u64>;

/// How much more than what is recorded is too much. Runs of one program differ by five in a thousand: whether an answer is
/// there already when it is looked for is up to the machine. In how many pieces a large one comes is as well, and differs by more:
/// the least of some runs counts.
const MARGIN: f64 = 0.02;
const RUNS: usize = 3;

/// Requests before it is counted.
const FIRST: usize = 4;

/// Longer than a start under callgrind takes.
const LIMIT: Duration = Duration::from_secs(120);

/// Counts these cases; those that are not about requests are left out.
///
/// # Errors
/// When l7-proxy does not start under callgrind or requests fail.
///
/// # Panics
/// When the harness cannot do its work.
pub fn count(cases: &[Case], mut progress: impl FnMut(&str)) -> Result<Counts> {
    let scene = Scene::new()?;
    let mut counts = Counts::new();
    for case in cases.iter().filter(|case| case.way() == Way::Requests) {
        progress(&format!("{case}"));
        let load = Load::of(*case).context("a case of requests")?;
        let requests = if *case == Case::TlsNew { 40 } else { 1_000 };
        let least = |times: usize| -> Result<u64> {
            let load = load.clone().alone(times * requests);
            (0..RUNS).try_fold(u64::MAX, |least, _| Ok(least.min(scene.instructions(&load)?)))
        };
        counts.insert(case.name().into(), least(2)?.saturating_sub(least(1)?) / requests as u64);
    }
    Ok(counts)
}

impl Scene {
    /// Instructions of a whole life of l7-proxy that has this to do.
    fn instructions(&self, load: &Load) -> Result<u64> {
        let file = self.folder.file("callgrind");
        let (program, arguments) = Contender::own().command(&self.folder, 0)?;
        let mut command = self.ns.command("valgrind");
        command.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", file.display()));
        let running = Running::start("l7-proxy under callgrind", command.arg(program).args(arguments));
        let mut proxy = Proxy { running, ports: Ports::of(0) };
        proxy.running.wait_for_line(LIMIT, "serving");
        self.drive(&proxy, &load.clone().alone(FIRST))?;
        begin(&proxy)?;
        self.drive(&proxy, load)?;
        proxy.running.signal(Signal::TERM);
        let (status, log) = proxy.running.wait(LIMIT);
        ensure!(status.success(), "l7-proxy under callgrind ended with {status}: {log}");
        let text = fs::read_to_string(&file).with_context(|| format!("callgrind wrote nothing: {log}"))?;
        total(&text).context("callgrind wrote no sum")
    }
}

/// Has callgrind count from here on.
fn begin(proxy: &Proxy) -> Result<()> {
    let mut command = Command::new("vgdb");
    command.arg(format!("--pid={}", proxy.running.id())).arg("zero");
    let said = output("vgdb", &mut command, LIMIT);
    ensure!(
        said.status.success(),
        "vgdb ended with {}: {}",
        said.status,
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(())
}

/// The sum over everything in callgrind's file.
fn total(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

/// What is recorded in a file.
///
/// # Errors
/// When it cannot be read.
pub fn recorded(file: &Path) -> Result<Counts> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

/// Puts what was counted into a file, beside what it has of other cases.
///
/// # Errors
/// When it cannot be written.
pub fn record(file: &Path, counts: &Counts) -> Result<()> {
    let mut all = if file.exists() { recorded(file)? } else { Counts::new() };
    all.extend(counts.clone());
    let text = serde_json::to_string_pretty(&all)? + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The counts as lines beside those that are recorded, and whether none is too large.
#[must_use]
pub fn compare(counts: &Counts, recorded: &Counts) -> (String, bool) {
    let mut text = format!("{:<12}{:>16}{:>12}{:>10}\n", "", "instructions", "recorded", "change");
    let mut good = true;
    for (case, &count) in counts {
        let Some(&before) = recorded.get(case) else {
            good = false;
            let _ = writeln!(text, "{case:<12}{count:>16}{:>12}", "nothing !");
            continue;
        };
        let change = count as f64 / before as f64 - 1.0;
        let much = change > MARGIN;
        good &= !much;
        let mark = if much { " !" } else { "" };
        let _ = writeln!(text, "{case:<12}{count:>16}{before:>12}{:>+9.1}%{mark}", change * 100.0);
    }
    (text, good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(count: u64) -> Counts {
        Counts::from([("h1-1k".to_owned(), count)])
    }

    #[test]
    fn two_in_a_hundred_are_let_pass() {
        assert!(compare(&counts(101_900), &counts(100_000)).1);
        assert!(!compare(&counts(102_100), &counts(100_000)).1);
        assert!(compare(&counts(50_000), &counts(100_000)).1);
        assert!(!compare(&counts(1), &Counts::new()).1, "nothing to compare with is no success");
    }

    #[test]
    fn reads_what_callgrind_writes() {
        assert_eq!(total("events: Ir\nfn=(1)\n16 4\ntotals: 1234567\n"), Some(1_234_567));
        assert_eq!(total("events: Ir\n"), None);
    }
}
