//! Measures what a packet costs. `cargo xtask bench` builds and runs this as root.

use std::{
    env, fs,
    io::Write as _,
    panic,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use lb_tests::{
    bench::{
        bed::{self, Bed},
        case::{self, Case, Mode},
        e2e, l7, measure, report, scale,
    },
    privilege,
};

/// Names the file with the bench's own kernel programs; set by `cargo xtask bench`.
const OBJECT: &str = "LB_BENCH_OBJECT";

/// Measures what a packet costs in the kernel program as lb-user loads it.
///
/// Costs are net of the harness and told in U: what it costs to push 20 bytes and fill them, on the same
/// machine in the same round. Cases are named MODE-FAMILY/PACKETS/FLOWS, with /tagged, /N-vips, /N-servers.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Action>,
    /// All cases, not only those of the goals; takes hours
    #[arg(long)]
    full: bool,
    /// Only cases whose name fits, of all there are; "*" stands for any characters; may be repeated
    #[arg(long, value_name = "GLOB")]
    case: Vec<String>,
    /// Print the names of the cases and end
    #[arg(long)]
    list: bool,
    /// Rounds over all cases
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Take U for this many nanoseconds, or "measured": for what pushing 20 bytes costs here. The goals were set
    /// where it cost 26; processors differ more in that than in what the programs cost
    #[arg(long, value_name = "NS", default_value = "26", value_parser = unit)]
    unit: Unit,
    /// Processor to run on [default: the last one]
    #[arg(long)]
    cpu: Option<usize>,
    /// Also write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Measure the balancer (snat) against HAProxy and nftables, in network namespaces
    E2e {
        /// Rounds over all contenders
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// Seconds that each measurement takes
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
        /// Also write everything that was measured to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Measure l7-proxy against HAProxy: processor time for a request, latency, memory
    L7(L7),
    /// Measure what a configuration of many VIPs costs lb-user: check, start, a change, memory
    Scale {
        /// VIPs, each with five servers
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=4_000))]
        vips: u16,
        /// Also write everything that was measured to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

/// Arguments of `bench l7`.
#[derive(Args)]
struct L7 {
    /// Rounds over all cases
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only cases whose name fits; "*" stands for any characters; may be repeated
    #[arg(long, value_name = "GLOB")]
    case: Vec<String>,
    /// Print the names of the cases and end
    #[arg(long)]
    list: bool,
    /// Measure against the l7-proxy in this file instead of HAProxy: what a change is worth
    #[arg(long, value_name = "FILE", conflicts_with = "instructions")]
    against: Option<PathBuf>,
    /// Count instructions for each request instead, under callgrind, and compare them with those that are recorded; fails
    /// when they are more by two in a hundred
    #[arg(long)]
    instructions: bool,
    /// Record the instructions that were counted
    #[arg(long, requires = "instructions")]
    record: bool,
    /// Also write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.command {
        None => micro(&options),
        Some(Action::E2e { rounds, seconds, json }) => end_to_end(*rounds, *seconds, json.as_deref()),
        Some(Action::L7(options)) => proxy(options),
        Some(Action::Scale { vips, json }) => many(*vips, json.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn micro(options: &Options) -> Result<()> {
    let cases = cases(options)?;
    if options.list {
        cases.iter().for_each(|case| println!("{case}"));
        return Ok(());
    }
    let object = env::var_os(OBJECT).context("run this by `cargo xtask bench`")?;
    let object = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let last = thread::available_parallelism()?.get() - 1;
    measure::stay_on(options.cpu.unwrap_or(last))?;
    // The loader of the kernel program starts a task for its log.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let _guard = runtime.enter();
    let begin = Instant::now();
    let (mut outcomes, failures) = measure::measure(&object, &cases, options.rounds.into(), tell)?;
    eprintln!("\r\x1b[Ktook {:.0} s", begin.elapsed().as_secs_f64());
    if let Unit::Given(unit) = options.unit {
        outcomes.iter_mut().for_each(|outcome| outcome.units.fill(unit));
    }
    for (case, error) in &failures {
        eprintln!("not measured: {case}: {error:#}");
    }
    let measured = outcomes.first().context("no case could be measured")?;
    let programs = Bed::new(&measured.case.service)?.programs()?;
    println!("{}\n{}", report::programs(&programs), report::table(&outcomes));
    if let Some(file) = &options.json {
        save(file, &report::json(&programs, &outcomes))?;
    }
    ensure!(failures.is_empty(), "{} cases were not measured; see above", failures.len());
    Ok(())
}

fn many(vips: u16, json: Option<&Path>) -> Result<()> {
    if let Some(why) = privilege::obstacle() {
        bail!("this cannot run here: {why}");
    }
    let figures = scale::run(vips.into())?;
    println!("{}", scale::table(&figures));
    json.map_or(Ok(()), |file| save(file, &scale::json(&figures)))
}

fn end_to_end(rounds: u16, seconds: u64, json: Option<&Path>) -> Result<()> {
    if let Some(why) = privilege::obstacle() {
        bail!("this cannot run here: {why}");
    }
    // The harness panics with a sentence when something is not as it should be; where is of no interest.
    panic::set_hook(Box::new(|info| {
        eprintln!("\nerror: {}", info.payload_as_str().unwrap_or("an unknown reason"));
    }));
    let rounds = e2e::run(rounds.into(), Duration::from_secs(seconds), tell);
    eprint!("\r\x1b[K");
    println!("{}", e2e::report::table(&rounds));
    json.map_or(Ok(()), |file| save(file, &e2e::report::json(&rounds)))
}

/// Where the instructions are recorded.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../l7-proxy/instructions.json");

fn proxy(options: &L7) -> Result<()> {
    let mut cases = l7::case::Case::ALL.to_vec();
    if !options.case.is_empty() {
        cases.retain(|case| options.case.iter().any(|pattern| case::fits(pattern, case.name())));
        ensure!(!cases.is_empty(), "no case is called so; --list prints all names");
    }
    if options.list {
        cases.iter().for_each(|case| println!("{case}"));
        return Ok(());
    }
    if let Some(why) = privilege::obstacle() {
        bail!("this cannot run here: {why}");
    }
    if options.instructions {
        let counts = l7::instructions::count(&cases, tell)?;
        eprint!("\r\x1b[K");
        if let Some(file) = &options.json {
            save(file, &serde_json::to_value(&counts)?)?;
        }
        let recorded = Path::new(RECORDED);
        if options.record {
            l7::instructions::record(recorded, &counts)?;
        }
        let (table, good) = l7::instructions::compare(&counts, &l7::instructions::recorded(recorded)?);
        println!("{table}");
        ensure!(good, "a request takes more instructions than are recorded; if it has to, add --record");
        return Ok(());
    }
    let findings = l7::run(&cases, options.rounds.into(), options.against.clone(), tell)?;
    eprint!("\r\x1b[K");
    println!("{}", l7::report::table(&findings));
    options.json.as_deref().map_or(Ok(()), |file| save(file, &l7::report::json(&findings)))
}

/// Shows what is going on, in a line that the next one overwrites.
fn tell(line: &str) {
    eprint!("\r\x1b[K{line}");
    let _ = std::io::stderr().flush();
}

fn save(file: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// What U is.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// What pushing 20 bytes costs on this machine.
    Measured,
    /// So many nanoseconds.
    Given(f64),
}

fn unit(text: &str) -> Result<Unit, String> {
    if text == "measured" {
        return Ok(Unit::Measured);
    }
    let unit = text.parse::<f64>().ok().filter(|unit| unit.is_finite() && *unit > 0.0);
    unit.map(Unit::Given).ok_or_else(|| "a number of nanoseconds above 0, or \"measured\", is needed".into())
}

fn cases(options: &Options) -> Result<Vec<Case>> {
    let mut cases = if options.full || !options.case.is_empty() { case::all() } else { case::chosen() };
    if !options.case.is_empty() {
        let fits = |case: &Case| options.case.iter().any(|pattern| case::fits(pattern, &case.to_string()));
        cases.retain(fits);
        ensure!(!cases.is_empty(), "no case is called so; --list --full prints all names");
    }
    for mode in Mode::ALL {
        if !bed::knows(mode) && cases.iter().any(|case| case.service.mode == mode) {
            eprintln!("mode {} is left out: this build does not know it", mode.name());
            cases.retain(|case| case.service.mode != mode);
        }
    }
    ensure!(!cases.is_empty(), "this build knows the mode of no case");
    Ok(cases)
}
