//! `cargo xtask verify --kernels`: what other kernels make of the kernel programs.
//!
//! Each kernel is one of Debian's, booted in an emulated machine whose whole file system is made here. There
//! the programs are loaded and the packet tests run. A kernel too old for us must be refused by `lb-user`.

mod cpio;
mod fetch;
mod image;
mod machine;
mod report;

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use self::{fetch::Kernel, image::Job, machine::Machine, report::Report};
use crate::{build_ebpf, shell, tally::Tally};

/// How long a machine may take: several times what the slowest took on two busy processors.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// Lines shown of what went wrong; the rest is in a file.
const SHOWN: usize = 100;

/// Characters shown of each of them.
const WIDTH: usize = 200;

/// Jobs of the guest.
const VERIFY: &str = "verify";
const TESTS: &str = "tests";
const REFUSAL: &str = "lb-user";

/// A kernel of Debian's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// Too old: `lb-user` must say so
    #[value(name = "5.10")]
    TooOld,
    /// The older stable one
    #[value(name = "6.1")]
    Older,
    /// The stable one
    #[value(name = "6.12")]
    Stable,
    /// The newest that is packaged for stable
    Newest,
}

impl Choice {
    /// The suite of Debian that has it.
    fn suite(self) -> &'static str {
        match self {
            Self::TooOld => "bullseye",
            Self::Older => "bookworm",
            Self::Stable => "trixie",
            Self::Newest => "trixie-backports",
        }
    }
}

/// What a kernel made of it.
struct Verdict {
    /// `uname -r`.
    release: String,
    /// Kernel programs and their verified instructions.
    programs: Vec<(String, String)>,
    /// Tests, where they ran.
    tally: Option<Tally>,
    /// In a word: `ok`, `refused` (as it must be), `FAILED`.
    result: &'static str,
    time: Duration,
}

/// Boots each of the kernels, all when none is named, and prints a table; fails if one fails. `runner` has arguments
/// for the tests; without, none run.
pub(crate) fn verify(choices: &[Choice], anew: bool, runner: Option<&[String]>) -> Result<()> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "only kernels for x86_64 are fetched, and this machine is another"
    );
    let choices = if choices.is_empty() { Choice::value_variants() } else { choices };
    let tests = match runner {
        Some(arguments) => Some(tests(arguments)?),
        None => build_ebpf::binaries_and_tests().map(|_| None)?,
    };
    fs::create_dir_all(fetch::folder())?;
    let (mut verdicts, mut problems) = (Vec::new(), Vec::new());
    for choice in choices {
        let suite = choice.suite();
        let tried = fetch::kernel(suite, anew).and_then(|kernel| examine(*choice, kernel, tests.as_ref()));
        match tried {
            Ok(verdict) => verdicts.push(verdict),
            Err(error) => {
                eprintln!("error: {suite}: {error:#}");
                problems.push(suite);
            }
        }
    }
    print(&verdicts);
    let failed = verdicts.iter().filter(|verdict| verdict.result == FAILED).map(|verdict| &*verdict.release);
    problems.extend(failed);
    if !problems.is_empty() {
        bail!("not as it should be: {}", problems.join(", "));
    }
    Ok(())
}

const OK: &str = "ok";
const REFUSED: &str = "refused";
const FAILED: &str = "FAILED";

/// Boots a kernel and judges what it says.
fn examine(choice: Choice, kernel: Kernel, tests: Option<&Job>) -> Result<Verdict> {
    let start = Instant::now();
    let file = |ending: &str| fetch::folder().join(format!("{}.{ending}", choice.suite()));
    let (initrd, console, log) = (file("initrd"), file("console.log"), file("log"));
    let jobs = jobs(choice, tests)?;
    fs::write(&initrd, image::pack(&kernel, &shell::release().join("guest"), &jobs)?)?;
    eprintln!("kernels: booting {}", kernel.release);
    let machine = Machine { image: &kernel.image, initrd: &initrd, console: &console };
    let output = machine.run(PATIENCE, |line| {
        if line.starts_with("guest: ") {
            eprintln!("kernels: {:>5.0} s  {line}", start.elapsed().as_secs_f64());
        }
    })?;
    fs::write(&log, output.lines.join("\n"))?;
    let report = Report::of(output.lines.iter().map(String::as_str));
    let complaint = match () {
        () if output.cut => Some(format!("cut off after {} s", PATIENCE.as_secs())),
        () if !output.complaint.is_empty() => Some(output.complaint),
        () if !report.complete => Some("ended before its jobs were done".to_owned()),
        () => None,
    };
    if let Some(complaint) = &complaint {
        eprintln!("\n{}: {complaint}; the end of what it said:", kernel.release);
        show(report.other.iter().map(String::as_str));
        let said = fs::read(&console).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<_> = said.lines().collect();
        show(lines[lines.len().saturating_sub(SHOWN / 2)..].iter().copied());
    }
    let judged = if choice == Choice::TooOld { refused(&report) } else { passed(&report, tests.is_some()) };
    let result = if complaint.is_some() { FAILED } else { judged };
    if result == FAILED {
        eprintln!("\nall of it: {}, {}", log.display(), console.display());
    }
    let programs = report.job(VERIFY).map(|job| {
        job.programs().into_iter().map(|(name, count)| (name.to_owned(), count.to_owned())).collect()
    });
    Ok(Verdict {
        release: report.release.clone().unwrap_or(kernel.release),
        programs: programs.unwrap_or_default(),
        tally: report.job(TESTS).map(report::Done::tally),
        result,
        time: start.elapsed(),
    })
}

/// Builds the packet tests; gives the job of running them.
fn tests(runner: &[String]) -> Result<Job> {
    let fixed = ["--color=never", "--test-threads=2"].map(str::to_owned);
    let arguments = fixed.into_iter().chain(runner.iter().cloned()).collect();
    Ok(Job { name: TESTS, program: build_ebpf::packet_tests()?, arguments })
}

/// What a kernel is to do.
fn jobs(choice: Choice, tests: Option<&Job>) -> Result<Vec<Job>> {
    let job = |name, program: PathBuf, arguments: &[&str]| Job {
        name,
        program,
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
    };
    let verify = job(VERIFY, shell::release().join("verify"), &[]);
    if choice != Choice::TooOld {
        return Ok([verify].into_iter().chain(tests.cloned()).collect());
    }
    // Something that could be balanced on, or that would be what is refused.
    let ip = shell::find("ip").context("the program `ip` is missing")?;
    let link = job("link", ip, &["link", "add", "name", "wire", "up", "type", "veth", "peer", "name", "far"]);
    let daemon = job(REFUSAL, shell::release().join("lb-user"), &["--iface", "wire"]);
    Ok(vec![verify, link, daemon])
}

/// Whether every program was loaded and every test passed, if they were to run; says what did not.
fn passed(report: &Report, tested: bool) -> &'static str {
    let mut good = true;
    for name in [VERIFY].into_iter().chain(tested.then_some(TESTS)) {
        let Some(job) = report.job(name) else {
            good = false;
            continue;
        };
        let nothing = name == TESTS && job.tally().passed == 0;
        if !job.succeeded() || nothing {
            good = false;
            let what = if nothing && job.succeeded() { "no test passed" } else { job.ending() };
            eprintln!("\n{}: {name}: {what}", report.release.as_deref().unwrap_or_default());
            show(job.essence(SHOWN));
        }
    }
    if good { OK } else { FAILED }
}

/// Whether `lb-user` refused to run, in one clear line; says what else it did. Whether the programs load does
/// not matter here.
fn refused(report: &Report) -> &'static str {
    if let Some(job) = report.job(VERIFY).filter(|job| !job.succeeded()) {
        eprintln!("\nwhat an old kernel lacks, for the record:");
        show(job.essence(SHOWN / 4));
    }
    let Some(job) = report.job(REFUSAL) else { return FAILED };
    let release = report.release.as_deref().unwrap_or_default();
    let line = format!("this host runs Linux {release}; lb-user needs");
    let clear = job.lines.last().is_some_and(|last| last.contains(&line) && last.ends_with("or newer"));
    eprintln!("\n{REFUSAL}: {}", job.ending());
    show(job.essence(SHOWN));
    if clear && job.ended.as_deref() == Some("code 1") { REFUSED } else { FAILED }
}

fn show<'a>(lines: impl IntoIterator<Item = &'a str>) {
    for line in lines {
        eprintln!("    {}", line.chars().take(WIDTH).collect::<String>());
    }
}

/// A column for each kernel, a row for each program.
fn print(verdicts: &[Verdict]) {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in verdicts.iter().flat_map(|verdict| &verdict.programs) {
        if !names.contains(&&**name) {
            names.push(name);
        }
    }
    let count = |verdict: &Verdict, name: &str| {
        let found = verdict.programs.iter().find(|(program, _)| program == name);
        found.map_or("-", |(_, count)| count).to_owned()
    };
    let tests = |verdict: &Verdict, number: fn(&Tally) -> u64| {
        verdict.tally.as_ref().map_or("-".to_owned(), |tally| number(tally).to_string())
    };
    let row = |title: &str, cell: &dyn Fn(&Verdict) -> String| {
        print!("{title:<24}");
        for verdict in verdicts {
            let width = verdict.release.len() + 2;
            print!("{:>width$}", cell(verdict));
        }
        println!();
    };
    println!();
    row("verified instructions", &|verdict| verdict.release.clone());
    for name in names {
        row(&format!("  {name}"), &|verdict| count(verdict, name));
    }
    if verdicts.iter().any(|verdict| verdict.tally.is_some()) {
        row("tests passed", &|verdict| tests(verdict, |tally| tally.passed));
        row("tests failed", &|verdict| tests(verdict, |tally| tally.failed));
        row("tests skipped", &|verdict| tests(verdict, |tally| tally.skipped));
    }
    row("seconds", &|verdict| format!("{:.0}", verdict.time.as_secs_f64()));
    row("result", &|verdict| verdict.result.to_owned());
}
