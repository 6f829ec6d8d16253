//! Measures what a packet costs. `cargo xtask bench` builds and runs this as root.

use std::{env, fs, io::Write as _, path::PathBuf, process::ExitCode, thread, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use lb_tests::bench::{
    bed::{self, Bed},
    case::{self, Case, Mode},
    measure, report,
};

/// Names the file with the bench's own kernel programs; set by `cargo xtask bench`.
const OBJECT: &str = "LB_BENCH_OBJECT";

/// Measures what a packet costs in the kernel program as lb-user loads it.
///
/// Costs are net of the harness and told in U: what it costs to push 20 bytes and fill them, on the same
/// machine in the same round. Cases are named MODE-FAMILY/PACKETS/FLOWS, with /tagged, /N-vips, /N-servers.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Options {
    /// All cases, not only those of the goals; takes about an hour
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
    /// Processor to run on [default: the last one]
    #[arg(long)]
    cpu: Option<usize>,
    /// Also write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
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
    let (outcomes, failures) = measure::measure(&object, &cases, options.rounds.into(), |line| {
        eprint!("\r\x1b[K{line}");
        let _ = std::io::stderr().flush();
    })?;
    eprintln!("\r\x1b[Ktook {:.0} s", begin.elapsed().as_secs_f64());
    for (case, error) in &failures {
        eprintln!("not measured: {case}: {error:#}");
    }
    let measured = outcomes.first().context("no case could be measured")?;
    let programs = Bed::new(&measured.case.service)?.programs()?;
    println!("{}\n{}", report::programs(&programs), report::table(&outcomes));
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&report::json(&programs, &outcomes))?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    ensure!(failures.is_empty(), "{} cases were not measured; see above", failures.len());
    Ok(())
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
