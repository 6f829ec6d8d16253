//! The companion proxy for the virtual services that the kernel cannot forward: HTTP, and TCP whose TLS ends
//! at the balancer.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use l7_proxy::{
    model::check,
    process::{Engine, Listeners},
    spec::{Problem, Spec},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

/// `EX_CONFIG` of sysexits.h: what it was told is wrong.
const WRONG: u8 = 78;

/// `EX_OSERR`: this host cannot.
const CANNOT: u8 = 71;

/// Companion proxy of the load balancer for HTTP and TLS virtual services.
///
/// SIGHUP reads the specification again; SIGTERM ends the process when open requests are done.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// What to serve: a file in JSON
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
    /// Only say what is wrong with it
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
                .with_env_var("L7_PROXY_LOG")
                .from_env_lossy(),
        )
        .init();
    let spec = match read(&arguments.spec) {
        Ok(spec) => spec,
        Err(problems) => return tell(&arguments.spec, &problems),
    };
    if arguments.check {
        return match check(&spec, None) {
            Ok(_) => ExitCode::SUCCESS,
            Err(problems) => tell(&arguments.spec, &problems),
        };
    }
    let engine = match Engine::start(&spec, Listeners::none()) {
        Ok(engine) => engine,
        Err(problems) => return tell(&arguments.spec, &problems),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start: {error}");
            return ExitCode::from(CANNOT);
        }
    };
    info!("serving {} services with {} workers", spec.services.len(), engine.current().ready().workers);
    if let Err(error) = runtime.block_on(follow(&arguments.spec, &engine)) {
        error!("cannot follow signals: {error}");
        return ExitCode::from(CANNOT);
    }
    let timeout = engine.current().ready().drain.timeout.get();
    info!("ending: {} connections have {} s to finish", engine.connections(), timeout.as_secs());
    match engine.drain(timeout) {
        0 => info!("ended"),
        left => warn!("ended with {left} connections open"),
    }
    ExitCode::SUCCESS
}

/// Serves until the process is told to end.
async fn follow(file: &Path, engine: &Engine) -> std::io::Result<()> {
    let mut again = signal(SignalKind::hangup())?;
    let mut end = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = again.recv() => {
                match read(file).and_then(|spec| engine.apply(&spec, Listeners::none())) {
                    Ok(()) => info!("{} was read again", file.display()),
                    Err(problems) => {
                        for problem in problems {
                            error!("{}: {problem}", file.display());
                        }
                        error!("{} is wrong; what was served before still is", file.display());
                    }
                }
            }
            _ = end.recv() => break,
            _ = interrupt.recv() => return Ok(()),
        }
    }
    let grace = engine.current().ready().drain.grace.get();
    if grace > Duration::ZERO {
        engine.announce();
        info!("ending in {} s; /health says so already", grace.as_secs());
        tokio::select! {
            () = tokio::time::sleep(grace) => {}
            _ = end.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Spec, Vec<Problem>> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| vec![Problem::new("", format!("cannot read it: {error}"))])?;
    Spec::from_json(&text).map_err(|problem| vec![problem])
}

fn tell(file: &Path, problems: &[Problem]) -> ExitCode {
    let mut out = std::io::stderr().lock();
    for problem in problems {
        let _ = writeln!(out, "{}: {problem}", file.display());
    }
    ExitCode::from(WRONG)
}
