//! The operator's command `lbctl`: asks a running lb-user over its admin socket and shows the answer.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | lb-user answered, whatever the answer says about servers; what was asked for is done |
//! | 1 | lb-user refused, e.g. a configuration with mistakes, or its answer was not understood |
//! | 2 | wrong usage |
//! | 3 | lb-user cannot be reached: it is not running, or this user may not ask it |
//! | 4 | what was waited for has not come in time |
//! | 5 | `verify` or `probe` has found something that does not answer |

pub mod api;
pub mod bundle;
pub mod cert;
pub mod client;
pub mod conn;
pub mod documents;
pub mod explain;
pub mod file;
pub mod output;
pub mod pcapng;
pub mod place;
pub mod pool;
pub mod probe;
pub mod server;
pub mod sockets;
pub mod status;
pub mod table;
pub mod tar;
pub mod terms;
pub mod token;
pub mod trace;
pub mod units;
pub mod verify;
pub mod vip;
pub mod why;
pub mod yaml;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use serde::de::DeserializeOwned;

use self::{
    api::Api,
    client::{At, Failure},
    output::{Format, Output, print, render, wants_colour},
    terms::Terms,
};
use crate::{admin::DEFAULT_SOCKET, snapshot::Snapshot};

const EXIT_CODES: &str = "\
Exit codes: 0 lb-user answered; 1 it refused, or its answer was not understood;
2 wrong usage; 3 lb-user cannot be reached (not running), or the user or token may not;
4 what was waited for has not come in time; 5 something does not answer (verify, probe).";

/// Asks a running lb-user, the load balancer daemon, over its admin socket.
#[derive(Debug, Parser)]
#[command(name = "lbctl", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Arguments {
    /// lb-user's admin socket.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(flatten)]
    elsewhere: api::Options,
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
    /// List, show, add, clone, remove, enable and disable VIPs.
    #[command(after_help = EXIT_CODES, subcommand)]
    Vip(vip::Word),
    /// List and show pools; add servers to them, and remove some.
    #[command(after_help = EXIT_CODES, subcommand)]
    Pool(pool::Word),
    /// Take a server out of service for the time being, put it back, or give it another weight.
    #[command(after_help = EXIT_CODES, subcommand)]
    Server(server::Word),
    /// List and end connections.
    #[command(after_help = EXIT_CODES, subcommand)]
    Conn(conn::Word),
    /// Read the configuration file again, and say what changed. With mistakes in it nothing is changed, and all of them
    /// are told.
    #[command(after_help = EXIT_CODES)]
    Reload {
        /// On which terms.
        #[command(flatten)]
        terms: Terms,
    },
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
        /// On which terms.
        #[command(flatten)]
        terms: Terms,
    },
    /// Put the configuration file back as it is in use.
    #[command(after_help = EXIT_CODES)]
    Discard {
        /// On which terms.
        #[command(flatten)]
        terms: Terms,
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
        /// On which terms.
        #[command(flatten)]
        terms: Terms,
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
    /// Open every VIP as a client would, and say which answer.
    ///
    /// Each port is asked what the VIP's health check asks its servers, else whether a connection opens. The balancer cannot
    /// use its own VIPs: look from another host's point of view, e.g. a network namespace with an interface of its own.
    #[command(after_help = EXIT_CODES)]
    Verify(verify::Options),
    /// Say how each server is reached from here: route, next hop's MAC, TCP, TLS.
    #[command(after_help = EXIT_CODES)]
    Probe(probe::Options),
    /// List the ports on which the programs of the balancer listen.
    #[command(after_help = EXIT_CODES)]
    Sockets(sockets::Options),
    /// Gather what is needed to find out what is wrong, without passwords and keys, in one file.
    #[command(after_help = EXIT_CODES)]
    SupportBundle(bundle::Options),
    /// Explain a key of the configuration file.
    #[command(after_help = EXIT_CODES)]
    Explain(explain::Options),
    /// Make certificates.
    #[command(after_help = EXIT_CODES, subcommand)]
    Cert(cert::Word),
    /// Make and list tokens for lb-user --api.
    #[command(after_help = EXIT_CODES, subcommand)]
    Token(token::Word),
    /// Print a script that has a shell complete lbctl's commands.
    #[command(after_help = EXIT_CODES)]
    Completions(documents::Completions),
    /// Write lbctl's manual pages.
    #[command(after_help = EXIT_CODES)]
    Man(documents::Man),
    /// Print what can be asked of lb-user over HTTP, as an OpenAPI document.
    #[command(after_help = EXIT_CODES)]
    Openapi,
}

/// Runs the command with the arguments of the process. Wrong usage ends the process with code 2.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.at().and_then(|at| run(&at, &arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("lbctl: {failure}");
            ExitCode::from(match failure {
                Failure::Answer(_) => 1,
                Failure::Usage(_) => 2,
                Failure::Reach(_) | Failure::NotAllowed(_) => 3,
                Failure::TimeUp(_) => 4,
                Failure::Unwell(_) => 5,
            })
        }
    }
}

impl Arguments {
    /// Where lb-user is asked. What looks at the host that it runs on is of no use elsewhere.
    fn at(&self) -> Result<At, Failure> {
        let api::Options { api: Some(url), token_file: Some(token_file), ca } = &self.elsewhere else {
            return Ok(At::Socket(self.socket.clone()));
        };
        let here = match self.command {
            Command::Probe(_) => Some("probe"),
            Command::Sockets(_) => Some("sockets"),
            Command::SupportBundle(_) => Some("support-bundle"),
            _ => None,
        };
        if let Some(command) = here {
            let why =
                format!("lbctl {command} looks at the host that it runs on; run it there, without --api");
            return Err(Failure::Usage(why));
        }
        Ok(At::Api(Api::new(url, token_file, ca.as_deref())?))
    }
}

fn run(at: &At, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Status { output } => output.show(|format| status(at, format)),
        Command::Vip(word) => vip::run(at, word),
        Command::Pool(word) => pool::run(at, word),
        Command::Server(word) => server::run(at, word),
        Command::Conn(word) => conn::run(at, word),
        Command::Verify(options) => verify::run(at, options),
        Command::Explain(options) => explain::run(options),
        Command::Cert(word) => cert::run(word),
        Command::Token(word) => token::run(word),
        Command::SupportBundle(options) => bundle::run(at, options),
        Command::Completions(wanted) => documents::completions(Arguments::command(), *wanted),
        Command::Man(wanted) => documents::man(Arguments::command(), wanted),
        Command::Openapi => documents::openapi(),
        Command::Probe(options) => probe::run(at, options),
        Command::Sockets(options) => sockets::run(options),
        Command::Trace(options) => {
            if let Some(problem) = options.problem() {
                Arguments::command().error(clap::error::ErrorKind::ValueValidation, problem).exit();
            }
            trace::run(at, options)
        }
        Command::Why(options) => print(&why::run(at, options)?),
        Command::Reload { terms } => print(&file::reload(at, terms)?),
        Command::Diff => print(&file::diff(at)?),
        Command::Commit { confirm, terms } => print(&file::commit(at, *confirm, terms)?),
        Command::Discard { terms } => print(&file::discard(at, terms)?),
        Command::Confirm => print(&file::confirm(at)?),
        Command::History => print(&file::history(at)?),
        Command::Rollback { number, terms } => print(&file::rollback(at, *number, terms)?),
    }
}

fn status(at: &At, format: Format) -> Result<String, Failure> {
    // As it came, so that nothing is left out that this lbctl does not know.
    let body = client::get(at, "/v1/status")?;
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
fn status_of(at: &At) -> Result<Snapshot, Failure> {
    understood(&client::get(at, "/v1/status")?)
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
            "lbctl vip remove aodh --stage",
            "lbctl pool add-server web s9 10.0.0.9 --weight 50 --backup",
            "lbctl pool remove-server web s9",
            "lbctl conn list --vip web --server s1 --client 10.0.0.0/8 --limit 7 -o json",
            "lbctl conn kill --server web/s1",
            "lbctl conn kill --all",
            "lbctl verify web mail --netns client --source 10.0.0.9 --timeout 2s -o json",
            "lbctl probe web --tls --timeout 1s",
            "lbctl sockets -o json",
            "lbctl cert selfsign --fqdn lb.example --days 3650",
            "lbctl explain vip.mode",
            "lbctl support-bundle --out /tmp/bundle.tar",
            "lbctl completions zsh",
            "lbctl man --dir man",
            "lbctl server drain web/s1 --dry-run",
            "lbctl vip disable web --if-match 0123456789abcdef-01234567",
            "lbctl rollback 7 --dry-run",
            "lbctl openapi",
            "lbctl token new --role operator --name ci --days 90 --file t",
            "lbctl token list -o json",
            "lbctl --api https://lb:9443 --token-file t --ca ca.pem status",
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
            "lbctl token new --name ci",
            "lbctl token new --role root --name ci",
            "lbctl conn kill",
            "lbctl cert selfsign",
            "lbctl cert selfsign --fqdn lb.example --days 0",
            "lbctl conn kill --all --vip web",
            "lbctl vip clone aodh",
            "lbctl vip remove aodh --dry-run --confirm 1m",
            "lbctl vip remove aodh --stage --confirm 1m",
            "lbctl vip add dns --address here",
            "lbctl pool add-server web s9",
            "lbctl reload lb.toml",
            "lbctl --api https://lb:9443 status",
            "lbctl --api https://lb:9443 --token-file t --socket s status",
            "lbctl vip disable web --if-match not\"a\"tag",
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
