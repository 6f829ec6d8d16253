//! Running the tests: built as who you are, run as root only where a test needs it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    build_ebpf::{self, OBJECT_VARIABLE},
    next,
    run::BINARIES_VARIABLE,
    setup::Purpose,
    shell,
    tally::Tally,
};

/// Makes tests fail instead of skipping themselves.
const DENY_SKIPS_VARIABLE: &str = "LB_DENY_SKIPS";

/// Where fuzz targets are.
const FUZZED: [&str; 2] = ["lb-common/fuzz", "l7-proxy/fuzz"];

/// What the tests as root see of our environment.
const VARIABLES: [&str; 4] = [BINARIES_VARIABLE, DENY_SKIPS_VARIABLE, "RUST_BACKTRACE", "RUST_TEST_THREADS"];

/// Arguments of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Which tests
    #[arg(value_enum, default_value_t = Choice::All)]
    suite: Choice,
    /// Fail if a test is skipped
    #[arg(long)]
    deny_skips: bool,
    /// How long each fuzz target runs, in seconds
    #[arg(long, default_value_t = 5)]
    fuzz_seconds: u32,
    /// Arguments of the test runner, e.g. a part of a test's name; leaves fuzzing out
    #[arg(last = true)]
    runner: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// Tests that need neither root nor BPF, and a short run of each fuzz target
    Host,
    /// The kernel program with single packets; needs root
    Bpf,
    /// Parts of lb-user, then the whole balancer, in network namespaces; needs root
    Netns,
    /// All of them
    All,
}

impl Options {
    /// The tools the chosen tests need.
    pub(crate) fn purposes(&self) -> &'static [Purpose] {
        match self.suite {
            Choice::Host => &[Purpose::Wire, Purpose::Fuzz],
            Choice::Bpf => &[Purpose::Build],
            Choice::Netns => &[Purpose::Build, Purpose::Network],
            Choice::All => &[Purpose::Build, Purpose::Network, Purpose::Wire, Purpose::Fuzz],
        }
    }
}

/// Runs the chosen tests and prints a table of them; fails if a test did.
pub(crate) fn test(options: &Options) -> Result<()> {
    let chosen: &[&str] = match options.suite {
        Choice::Host => &["host", "fuzz"],
        Choice::Bpf => &["bpf"],
        Choice::Netns => &["root", "netns"],
        Choice::All => &["host", "fuzz", "root", "bpf", "netns"],
    };
    let mut rows = Vec::new();
    for &suite in chosen {
        if suite == "fuzz" && !options.runner.is_empty() {
            continue;
        }
        eprintln!("\n== {suite}");
        let start = Instant::now();
        let tally = match suite {
            "host" => host(options),
            "fuzz" => fuzz(options.fuzz_seconds),
            "root" => privileged(options),
            _ => deployed(suite, options),
        };
        let tally = tally.unwrap_or_else(|error| {
            // A suite that could not run at all must not look like one without tests.
            eprintln!("error: {error:#}");
            Tally { failed: 1, ..Tally::default() }
        });
        rows.push((suite, tally, start.elapsed()));
    }
    let total = summarise(&rows);
    if total.failed > 0 {
        bail!("{} failed", if total.failed == 1 { "a test" } else { "tests" });
    }
    if total == Tally::default() {
        bail!("no test ran: none has such a name");
    }
    if total.skipped > 0 && options.deny_skips {
        bail!("skipped tests are not allowed here (--deny-skips)");
    }
    Ok(())
}

fn summarise(rows: &[(&str, Tally, Duration)]) -> Tally {
    println!("\n{:<8} {:>8} {:>8} {:>8} {:>8}", "suite", "passed", "failed", "skipped", "seconds");
    let mut total = Tally::default();
    for (suite, tally, time) in rows {
        let Tally { passed, failed, skipped } = tally;
        println!("{suite:<8} {passed:>8} {failed:>8} {skipped:>8} {:>8.0}", time.as_secs_f64());
        total += *tally;
    }
    println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    total
}

/// What a plain `cargo test` runs.
fn host(options: &Options) -> Result<Tally> {
    let mut cargo = shell::cargo(["test", "--no-fail-fast", "--"]);
    counted(cargo.args(&options.runner).env(DENY_SKIPS_VARIABLE, flag(options.deny_skips)))
}

/// Each fuzz target for a while; one that comes to the end has passed.
fn fuzz(seconds: u32) -> Result<Tally> {
    let mut tally = Tally::default();
    for folder in FUZZED {
        tally += fuzz_in(folder, seconds)?;
    }
    Ok(tally)
}

fn fuzz_in(fuzzed: &str, seconds: u32) -> Result<Tally> {
    let folder = shell::workspace().join(fuzzed).join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    if names.is_empty() {
        bail!("no fuzz targets in {}", folder.display());
    }
    names.sort();
    let mut tally = Tally::default();
    for name in names {
        // The fuzzed code has no `unsafe`: a sanitizer would find nothing, and would need a nightly compiler.
        let mut cargo =
            shell::cargo(["fuzz", "run", "--sanitizer=none", "--fuzz-dir", fuzzed, "--target-dir"]);
        cargo
            .arg(shell::target().join("fuzz"))
            .arg(&name)
            // Only what was found, not every step towards it.
            .args(["--", "-verbosity=0"])
            .arg(format!("-max_total_time={seconds}"));
        match shell::run(&mut cargo) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                eprintln!("error: {error:#}");
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

/// What a part of `lb-user` does as root, as the tests of the host are built.
fn privileged(options: &Options) -> Result<Tally> {
    let mut cargo = shell::cargo(["test", "--test=root", "--"]);
    as_root(&mut cargo, options)?;
    counted(&mut cargo)
}

/// A test binary of package `lb-tests`, with the binaries as they are deployed.
fn deployed(suite: &str, options: &Options) -> Result<Tally> {
    if suite == "netns" {
        next::build()?;
    }
    let object = build_ebpf::binaries_and_tests()?;
    // Optimised like the binaries: the crates of `lb-user` are built already, and traffic comes faster.
    let mut cargo = shell::cargo(["test", "--release", "--package=lb-tests", "--test", suite, "--"]);
    cargo.env(OBJECT_VARIABLE, object).env(BINARIES_VARIABLE, shell::release());
    as_root(&mut cargo, options)?;
    counted(&mut cargo)
}

/// Has cargo build as who we are and run the tests as root.
fn as_root(cargo: &mut Command, options: &Options) -> Result<()> {
    // Three tests at a time: most wait for something most of the time, and those that measure time are not starved on a
    // small machine.
    cargo.args(&options.runner).env("RUST_TEST_THREADS", "3");
    cargo.env(DENY_SKIPS_VARIABLE, flag(options.deny_skips));
    match shell::root_runner(&VARIABLES) {
        Ok(runner) if runner.is_empty() => {}
        Ok(runner) => {
            let words: Vec<_> = runner.iter().map(|word| word.to_string_lossy()).collect();
            cargo.env(runner_variable()?, words.join(" "));
        }
        // Not an error: each test then says by itself that it was skipped.
        Err(error) => eprintln!("warning: {error:#}"),
    }
    Ok(())
}

fn flag(set: bool) -> &'static str {
    if set { "1" } else { "0" }
}

/// The environment variable that tells cargo how to start binaries of this machine.
fn runner_variable() -> Result<String> {
    let about = shell::output(shell::command("rustc").arg("-vV"))?;
    let host =
        about.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}

/// Runs `cargo test`, shows its output as it comes, and counts.
fn counted(command: &mut Command) -> Result<Tally> {
    let line = shell::line(command);
    eprintln!("$ {line}");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let (sender, lines) = mpsc::channel();
    let forward = |from: Box<dyn Read + Send>, show: fn(&str), sender: mpsc::Sender<String>| {
        thread::spawn(move || {
            for bytes in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&bytes).into_owned();
                show(&line);
                let _ = sender.send(line);
            }
        })
    };
    let stdout = child.stdout.take().expect("piped");
    let stderr = child.stderr.take().expect("piped");
    forward(Box::new(stdout), |line| println!("{line}"), sender.clone());
    forward(Box::new(stderr), |line| eprintln!("{line}"), sender);
    // Ends when both streams have ended, and with them the threads.
    let lines: Vec<String> = lines.iter().collect();
    let status = child.wait()?;
    let mut tally = Tally::of(lines.iter().map(String::as_str));
    if !status.success() && tally.failed == 0 {
        eprintln!("error: `{line}` failed ({status}) before all tests had run");
        tally.failed = 1;
    }
    Ok(tally)
}
