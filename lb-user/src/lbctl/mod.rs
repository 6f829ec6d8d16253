//! The operator's command `lbctl`: asks a running lb-user over its admin socket and shows the answer.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | lb-user answered, whatever the answer says about servers; what was asked for is done |
//! | 1 | lb-user refused, e.g. a configuration with mistakes, or its answer was not understood |
//! | 2 | wrong usage |
//! | 3 | lb-user cannot be reached: it is not running, or this user may not ask it |
//! | 4 | what was waited for has not come in time |

pub mod client;
pub mod conn;
pub mod file;
pub mod output;
pub mod pcapng;
pub mod pool;
pub mod server;
pub mod status;
pub mod table;
pub mod trace;
pub mod units;
pub mod vip;
pub mod why;
pub mod yaml;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use serde::de::DeserializeOwned;

use self::{
    client::Failure,
    output::{Format, Output, print, render, wants_colour},
};
use crate::{admin::DEFAULT_SOCKET, snapshot::Snapshot};

const EXIT_CODES: &str = "\
Exit codes: 0 lb-user answered; 1 it refused, or its answer was not understood;
2 wrong usage; 3 lb-user cannot be reached (not running, or no permission);
4 what was waited for has not come in time.";

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
        #[command(flatten)]
        output: Output,
    },
    /// List, show, enable and disable VIPs.
    #[command(after_help = EXIT_CODES, subcommand)]
    Vip(vip::Word),
    /// List and show pools.
    #[command(after_help = EXIT_CODES, subcommand)]
    Pool(pool::Word),
    /// List and end connections.
    #[command(after_help = EXIT_CODES, subcommand)]
    Conn(conn::Word),
    /// Take a server out of service for the time being, put it back, or give it another weight.
    #[command(after_help = EXIT_CODES, subcommand)]
    Server(server::Word),
    /// Show what becomes of packets, as they pass.
    ///
    /// One line for each: when and where it came, the packet, what became of it, its VIP and slot, its flow, its server,
    /// and how it was changed. Costs a little for every packet while it runs.
    #[command(after_help = EXIT_CODES)]
    Trace(trace::Options),
    /// Say what would become of a packet, and why, without sending it.
    #[command(after_help = EXIT_CODES)]
    Why(why::Options),
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

/// Runs the command with the arguments of the process. Wrong usage ends the process with code 2.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.socket, &arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("lbctl: {failure}");
            ExitCode::from(match failure {
                Failure::Answer(_) => 1,
                Failure::Usage(_) => 2,
                Failure::Reach(_) => 3,
                Failure::TimeUp(_) => 4,
            })
        }
    }
}

fn run(socket: &Path, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Status { output } => output.show(|format| status(socket, format)),
        Command::Vip(word) => vip::run(socket, word),
        Command::Pool(word) => pool::run(socket, word),
        Command::Server(word) => server::run(socket, word),
        Command::Conn(word) => conn::run(socket, word),
        Command::Trace(options) => {
            if let Some(problem) = options.problem() {
                Arguments::command().error(clap::error::ErrorKind::ValueValidation, problem).exit();
            }
            trace::run(socket, options)
        }
        Command::Why(options) => print(&why::run(socket, options)?),
        Command::Reload => print(&file::reload(socket)?),
        Command::Diff => print(&file::diff(socket)?),
        Command::Commit { confirm } => print(&file::commit(socket, *confirm)?),
        Command::Confirm => print(&file::confirm(socket)?),
        Command::History => print(&file::history(socket)?),
        Command::Rollback { number } => print(&file::rollback(socket, *number)?),
    }
}

fn status(socket: &Path, format: Format) -> Result<String, Failure> {
    // As it came, so that nothing is left out that this lbctl does not know.
    let body = client::get(socket, "/v1/status")?;
    let value: serde_json::Value = understood(&body)?;
    match format {
        Format::Json => Ok(body),
        Format::Yaml => render(format, &value, |_| String::new()),
        Format::Table | Format::Wide => {
            Ok(status::render(&understood(&body)?, format == Format::Wide, wants_colour()))
        }
    }
}

/// What lb-user says of itself now.
fn status_of(socket: &Path) -> Result<Snapshot, Failure> {
    understood(&client::get(socket, "/v1/status")?)
}

fn understood<T: DeserializeOwned>(body: &str) -> Result<T, Failure> {
    serde_json::from_str(body).map_err(|error| {
        Failure::Answer(format!(
            "the answer of lb-user was not understood ({error}); is lbctl {} of the same version?",
            env!("CARGO_PKG_VERSION")
        ))
    })
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
            assert_eq!((output.output, output.watch), (format, None), "{line}");
        }
        for line in [
            "lbctl server drain web/s1",
            "lbctl server drain */s1 --wait",
            "lbctl server drain web/s1 --wait 10m",
            "lbctl server halt web/s1",
            "lbctl server weight web/s1 0",
            "lbctl server weight web/s1 file",
            "lbctl vip list -o yaml --watch",
            "lbctl vip show web --watch 5 -o wide",
            "lbctl vip disable *",
            "lbctl vip add dns --address 10.0.0.1 --port 53 --protocol udp --set algorithm=first --dry-run",
            "lbctl vip clone aodh --name aodh2 --port 18042 --confirm 60s",
            "lbctl vip remove aodh",
            "lbctl pool add-server web s9 10.0.0.9 --weight 50 --backup",
            "lbctl pool remove-server web s9",
            "lbctl conn list --vip web --server s1 --client 10.0.0.0/8 --limit 7 -o json",
            "lbctl conn kill --server web/s1",
            "lbctl conn kill --all",
            "lbctl pool list",
            "lbctl pool show web -o json",
            "lbctl status -o wide --watch",
        ] {
            Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "lbctl",
            "lbctl stats",
            "lbctl status -o xml",
            "lbctl status --watch 0",
            "lbctl status extra",
            "lbctl trace --count 0",
            "lbctl why 10.0.0.1 10.0.0.2:80",
            "lbctl why ::1:80 [::2]:80",
            "lbctl why 10.0.0.1:1 10.0.0.2:80 sctp",
            "lbctl server off web/s1",
            "lbctl server drain",
            "lbctl server drain s1",
            "lbctl server drain --wait web/s1",
            "lbctl server weight web/s1",
            "lbctl server weight web/s1 65536",
            "lbctl server weight web/s1 -1",
            "lbctl vip",
            "lbctl vip show",
            "lbctl conn list --limit 0",
            "lbctl conn kill",
            "lbctl conn kill --all --vip web",
            "lbctl vip clone aodh",
            "lbctl vip remove aodh --dry-run --confirm 1m",
            "lbctl vip add dns --address here",
            "lbctl pool add-server web s9",
            "lbctl reload lb.toml",
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
