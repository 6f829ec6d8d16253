//! The operator's command `lbctl`: asks a running lb-user over its admin socket and shows the answer.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | lb-user answered, whatever the answer says about servers; what was asked for is done |
//! | 1 | lb-user refused, e.g. a configuration with mistakes, or its answer was not understood |
//! | 2 | wrong usage |
//! | 3 | lb-user cannot be reached: it is not running, or this user may not ask it |

pub mod client;
pub mod file;
pub mod pcapng;
pub mod status;
pub mod table;
pub mod trace;
pub mod units;
pub mod why;

use std::{
    env,
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use serde::de::DeserializeOwned;

use self::client::Failure;
use crate::{
    admin::{DEFAULT_SOCKET, ServerChange, ServerRequest},
    plan::Admin,
    snapshot::Snapshot,
};

const EXIT_CODES: &str = "\
Exit codes: 0 lb-user answered; 1 it refused, or its answer was not understood;
2 wrong usage; 3 lb-user cannot be reached (not running, or no permission).";

/// Asks a running lb-user, the load balancer daemon, over its admin socket.
#[derive(Debug, Parser)]
#[command(name = "lbctl", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Arguments {
    /// lb-user's admin socket.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show VIPs and their servers: health with its reason, traffic, and packets dropped by reason.
    #[command(after_help = EXIT_CODES)]
    Status {
        /// `table` for people (rounded numbers), `json` for programs (exact ones).
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Show what becomes of packets, as they pass.
    ///
    /// One line for each: when and where it came, the packet, what became of it, its VIP and slot, its flow, its server,
    /// and how it was changed. Costs a little for every packet while it runs.
    #[command(after_help = EXIT_CODES)]
    Trace(trace::Options),
    /// Say what would become of a packet, and why, without sending it.
    #[command(after_help = EXIT_CODES)]
    Why(why::Options),
    /// Take a server out of service for the time being, or put it back; kept over reloads and restarts, not over boots.
    #[command(after_help = EXIT_CODES)]
    Server {
        /// `drain`: no new flows, old ones go on. `halt`: old ones end at once, too. `ready`: back to service.
        #[arg(value_parser = state)]
        state: Admin,
        /// VIP and server by their names; `*/NAME` for a server in all its VIPs.
        #[arg(value_name = "VIP/SERVER")]
        server: String,
    },
    /// Read the configuration file again, and say what changed. With mistakes in it nothing is changed, and all of them
    /// are told.
    #[command(after_help = EXIT_CODES)]
    Reload,
    /// Say what a reload would change.
    #[command(after_help = EXIT_CODES)]
    Diff,
    /// Reload, and go back to what was in use before unless it is confirmed in time.
    ///
    /// Going back also puts the file back as it was; what it said is kept in the history.
    #[command(after_help = EXIT_CODES)]
    Commit {
        /// How long to wait for `lbctl confirm`, e.g. 60s or 5m. Without it this is a reload.
        #[arg(long, value_name = "TIME", value_parser = file::seconds)]
        confirm: Option<u64>,
    },
    /// Keep what was committed.
    #[command(after_help = EXIT_CODES)]
    Confirm,
    /// List the configurations that were in use.
    #[command(after_help = EXIT_CODES)]
    History,
    /// Write a configuration of the history into the file, and use it.
    #[command(after_help = EXIT_CODES)]
    Rollback {
        /// Its number in `lbctl history`.
        number: u32,
    },
}

fn state(word: &str) -> Result<Admin, String> {
    [Admin::Drain, Admin::Halt, Admin::Ready]
        .into_iter()
        .find(|state| state.to_string() == word)
        .ok_or_else(|| "choose drain, halt or ready".into())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Runs the command with the arguments of the process. Wrong usage ends the process with code 2.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Command::Status { output } => status(&arguments, *output).and_then(|text| print(&text)),
        Command::Trace(options) => {
            if let Some(problem) = options.problem() {
                Arguments::command().error(clap::error::ErrorKind::ValueValidation, problem).exit();
            }
            trace::run(&arguments.socket, options)
        }
        Command::Server { state, server } => {
            server_state(&arguments, *state, server).and_then(|text| print(&text))
        }
        Command::Reload => file::reload(&arguments.socket).and_then(|text| print(&text)),
        Command::Diff => file::diff(&arguments.socket).and_then(|text| print(&text)),
        Command::Commit { confirm } => {
            file::commit(&arguments.socket, *confirm).and_then(|text| print(&text))
        }
        Command::Confirm => file::confirm(&arguments.socket).and_then(|text| print(&text)),
        Command::History => file::history(&arguments.socket).and_then(|text| print(&text)),
        Command::Rollback { number } => {
            file::rollback(&arguments.socket, *number).and_then(|text| print(&text))
        }
        Command::Why(options) => why::run(&arguments.socket, options).and_then(|text| print(&text)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("lbctl: {failure}");
            ExitCode::from(match failure {
                Failure::Answer(_) => 1,
                Failure::Usage(_) => 2,
                Failure::Reach(_) => 3,
            })
        }
    }
}

fn status(arguments: &Arguments, output: Format) -> Result<String, Failure> {
    let body = client::get(&arguments.socket, "/v1/status")?;
    match output {
        Format::Json => Ok(body),
        Format::Table => Ok(status::render(&understood::<Snapshot>(&body)?, wants_colour())),
    }
}

fn understood<T: DeserializeOwned>(body: &str) -> Result<T, Failure> {
    serde_json::from_str(body).map_err(|error| {
        Failure::Answer(format!(
            "the answer of lb-user was not understood ({error}); is lbctl {} of the same version?",
            env!("CARGO_PKG_VERSION")
        ))
    })
}

fn server_state(arguments: &Arguments, state: Admin, server: &str) -> Result<String, Failure> {
    let Some((vip, server)) = server.split_once('/') else {
        let message =
            format!("{server:?} is not VIP/SERVER; write both names, or \"*/{server}\" for all VIPs");
        return Err(Failure::Usage(message));
    };
    let request = ServerRequest { vip: vip.into(), server: server.into(), state };
    let body = serde_json::to_string(&request).map_err(|error| Failure::Answer(error.to_string()))?;
    let changes: Vec<ServerChange> = understood(&client::post(&arguments.socket, "/v1/server", body)?)?;
    Ok(changes.iter().map(|change| format!("{}/{}: {}\n", change.vip, change.server, change.state)).collect())
}

/// Colours are for terminals, unless the user said no (<https://no-color.org>).
fn wants_colour() -> bool {
    io::stdout().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        // Whoever reads, e.g. `head`, has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::Answer(format!("cannot write the answer: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        Arguments::command().debug_assert();
        for (line, socket, format) in [
            ("lbctl status", DEFAULT_SOCKET, Format::Table),
            ("lbctl status -o json", DEFAULT_SOCKET, Format::Json),
            ("lbctl --socket /tmp/s status --output table", "/tmp/s", Format::Table),
            ("lbctl status --socket /tmp/s -ojson", "/tmp/s", Format::Json),
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.socket, PathBuf::from(socket), "{line}");
            let Command::Status { output } = arguments.command else { panic!("{line}") };
            assert_eq!(output, format, "{line}");
        }
        for (word, expected) in [("drain", Admin::Drain), ("halt", Admin::Halt), ("ready", Admin::Ready)] {
            let arguments = Arguments::try_parse_from(["lbctl", "server", word, "web/s1"]).unwrap();
            let Command::Server { state, server } = arguments.command else { panic!("{word}") };
            assert_eq!((state, server.as_str()), (expected, "web/s1"));
        }
        for line in [
            "lbctl",
            "lbctl stats",
            "lbctl status -o yaml",
            "lbctl status extra",
            "lbctl trace --count 0",
            "lbctl why 10.0.0.1 10.0.0.2:80",
            "lbctl why ::1:80 [::2]:80",
            "lbctl why 10.0.0.1:1 10.0.0.2:80 sctp",
            "lbctl server off web/s1",
            "lbctl server drain",
            "lbctl reload lb.toml",
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
