//! The companion proxy for the virtual services that the kernel cannot forward: HTTP, and TCP whose TLS ends
//! at the balancer.

use std::{
    io::{IsTerminal as _, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use l7_proxy::{
    front::Closing,
    model::check,
    process::{Control, Engine, Listeners, confine},
    server::transparent,
    spec::{Problem, Span, Spec},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, level_filters::LevelFilter, warn};
use tracing_subscriber::EnvFilter;

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
    #[arg(long, value_name = "FILE", required_unless_present = "control")]
    spec: Option<PathBuf>,
    /// Only say what is wrong with it
    #[arg(long, requires = "spec")]
    check: bool,
    /// Serve what lb-user says, over the listening Unix socket that is standard input
    #[arg(long, conflicts_with = "spec")]
    control: bool,
    /// Threads that serve then, 1 to 1024; as many as there are processors unless given
    #[arg(long, requires = "control", value_name = "NUMBER")]
    workers: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter(&std::env::var("L7_PROXY_LOG").unwrap_or_default()))
        .init();
    // Each connection of a client may take another to a server. Who may not have more goes on with what there is.
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    match &arguments.spec {
        Some(file) => alone(file, arguments.check),
        None => looked_after(arguments.workers),
    }
}

/// What is logged: what the user wants. Unless that is said in so many words, not what rustls and h2 think of clients, who could
/// fill disks with it: each greeting that names an address where a name belongs is a warning, and so is each rapid reset.
fn filter(wanted: &str) -> EnvFilter {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(wanted);
    let quiet = ["rustls", "h2"].into_iter().filter(|library| !wanted.contains(library));
    quiet.fold(filter, |filter, library| {
        filter.add_directive(format!("{library}=error").parse().expect("a directive"))
    })
}

/// Serves what a file says.
fn alone(file: &Path, check_only: bool) -> ExitCode {
    let spec = match read(file) {
        Ok(spec) => spec,
        Err(problems) => return tell(file, &problems),
    };
    if check_only {
        return match check(&spec, None) {
            Ok(_) => ExitCode::SUCCESS,
            Err(problems) => tell(file, &problems),
        };
    }
    let engine = match Engine::start(&spec, Listeners::none()) {
        Ok(engine) => engine,
        Err(problems) => return tell(file, &problems),
    };
    info!("serving {} services with {} workers", spec.services.len(), engine.workers());
    let ended = runtime().and_then(|runtime| {
        runtime.block_on(async {
            follow(file, &engine).await?;
            finish(&engine, None, None).await;
            Ok(())
        })
    });
    match ended {
        Ok(()) => end(engine),
        Err(error) => cannot(&format!("cannot follow signals: {error}")),
    }
}

/// Serves what `lb-user` says, without a right to anything but what it hands over.
fn looked_after(workers: Option<usize>) -> ExitCode {
    close_inherited();
    // So that no program that might be started could have more rights either. Older kernels are no reason to stop.
    let _ = rustix::thread::set_no_new_privs(true);
    let _ = rustix::thread::set_name(c"l7-proxy");
    // Private keys are in its memory: no other process of its user may look, and no core is dumped.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    l7_proxy::files::only_given();
    if let Err(problem) = confine() {
        warn!("not confined as it should be: {problem}");
    }
    if let Err(error) = transparent::only_given() {
        return cannot(&format!("cannot start: {error}"));
    }
    let socket = rustix::stdio::stdin().try_clone_to_owned().map(UnixListener::from);
    let is_listening = |socket: &UnixListener| socket.local_addr().is_ok();
    let control = match socket {
        Ok(socket) if is_listening(&socket) => Control::start(socket),
        Ok(_) => return cannot("--control is for lb-user: standard input must be a listening Unix socket"),
        Err(error) => Err(error),
    };
    let engine = Engine::start(&Spec { workers, ..Spec::default() }, Listeners::none());
    match (control, engine) {
        (Ok(mut control), Ok(engine)) => {
            let ended = runtime().and_then(|runtime| {
                runtime.block_on(async {
                    let how = obey(&mut control, &engine).await?;
                    finish(&engine, how, Some(&mut control)).await;
                    Ok(())
                })
            });
            match ended {
                Ok(()) => end(engine),
                Err(error) => cannot(&format!("cannot follow signals: {error}")),
            }
        }
        (Err(error), _) => cannot(&format!("cannot start: {error}")),
        (_, Err(problems)) => tell(Path::new("lb-user"), &problems),
    }
}

/// Closes what whoever started `lb-user` had open, and handed on without knowing. (Kernels before 5.9 cannot; they are older
/// than any that `lb-user` runs on.)
fn close_inherited() {
    // SAFETY: called before this process has opened anything but the standard streams, 0 to 2: nothing owns these files.
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn cannot(what: &str) -> ExitCode {
    error!("{what}");
    ExitCode::from(CANNOT)
}

/// Lets open connections finish. They have the time that the specification gives them, unless told otherwise. Questions are
/// still answered: who is left, that some are to go, and that this is the end: an `lb-user` that has not asked for it starts
/// another process.
async fn finish(engine: &Engine, how: Option<(Span, Closing)>, mut control: Option<&mut Control>) {
    let (timeout, how) = how.map_or_else(
        || (engine.current().ready().drain.timeout.get(), Closing::Soon),
        |(within, how)| (within.get(), how),
    );
    let open = engine.connections();
    if open > 0 {
        info!("ending: {open} connections have {} s to finish", timeout.as_secs());
    }
    engine.close(how);
    let mut until = Instant::now() + timeout;
    while engine.connections() > 0 && Instant::now() < until {
        let told = async {
            match &mut control {
                Some(control) => control.answer(engine).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = told => if let Some((within, how)) = told {
                // In more of a hurry than before.
                until = until.min(Instant::now() + within.get());
                engine.close(how);
            },
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
}

/// Ends, with what is still open.
fn end(engine: Engine) -> ExitCode {
    let served = !engine.current().ready().services.is_empty();
    match engine.end() {
        // Who only said what is wrong with a configuration has nothing to tell of its end.
        0 if !served => {}
        0 => info!("ended"),
        left => warn!("ended with {left} connections open"),
    }
    ExitCode::SUCCESS
}

/// Answers `lb-user` until it, or a signal, says that this is the end; and how, if it says so.
async fn obey(control: &mut Control, engine: &Engine) -> std::io::Result<Option<(Span, Closing)>> {
    let mut end = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // It says nothing here, and would end the process.
    let mut again = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = again.recv() => {}
            told = control.answer(engine) => if told.is_some() {
                return Ok(told);
            },
            _ = end.recv() => return Ok(None),
            _ = interrupt.recv() => return Ok(None),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_do_wrong_in_tls_is_not_logged_unless_wanted() {
        assert_eq!(filter("").to_string(), "rustls=error,h2=error,info");
        assert_eq!(filter("debug").to_string(), "rustls=error,h2=error,debug");
        assert_eq!(filter("warn,rustls=trace").to_string(), "rustls=trace,h2=error,warn");
    }
}
