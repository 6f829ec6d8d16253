//! Everything one does with this repository, as `cargo xtask <command>`:
//!
//! | command | what it does |
//! |---|---|
//! | `setup` | finds the tools that are needed and installs those that are missing |
//! | `build-ebpf` | builds the kernel programs, `target/bpf/{lb,decap}.o` |
//! | `build` | builds `target/release/{lb-user,lbctl,l7-proxy}`, the kernel programs inside `lb-user` |
//! | `test [host\|bpf\|netns\|all]` | runs the tests; root only where a test needs it |
//! | `check` | formatting, clippy for host and kernel, documentation, dependencies |
//! | `verify` | loads every kernel program and prints what the verifier made of it; with `--kernels` on other kernels, too |
//! | `bench [e2e\|l7\|scale]` | measures what a packet costs, the balancer and the proxy against others, and the daemon with many VIPs |
//! | `demo` | shows the balancer at work in network namespaces |
//! | `run -- ARGUMENTS` | builds `lb-user` and runs it as root |
//!
//! Every command but `setup` first makes sure that its own tools are there; `--no-setup` leaves that out.
//! This crate depends on no crate of the product, so that it can build even where they do not.

mod build_ebpf;
mod check;
mod kernels;
mod next;
mod run;
mod setup;
mod shell;
mod tally;
mod test;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use setup::Purpose;

/// Everything one does with this repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
    /// Do not look for missing tools first
    #[arg(long, global = true)]
    no_setup: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Find the tools that are needed and install those that are missing
    Setup,
    /// Build the kernel programs: target/bpf/{lb,decap}.o
    BuildEbpf,
    /// Build target/release/{lb-user,lbctl,l7-proxy}, with the kernel program inside lb-user
    Build,
    /// Run the tests
    Test(test::Options),
    /// Check formatting, lints, documentation and dependencies
    Check,
    /// Load every kernel program and print verified instructions, JIT bytes and stack
    Verify(run::Verify),
    /// Measure what a packet costs; "bench --help" tells more
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show the balancer at work in network namespaces
    Demo,
    /// Build lb-user and run it as root
    Run {
        /// Arguments of lb-user
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace, which anyhow's own report would add: what failed is a tool, not this code.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(Arguments { command, no_setup }: Arguments) -> Result<()> {
    let prepare = |purposes: &[Purpose]| if no_setup { Ok(()) } else { setup::ensure(purposes) };
    match command {
        Action::Setup => setup::report(),
        Action::BuildEbpf => {
            prepare(&[Purpose::Build])?;
            build_ebpf::object().map(drop)
        }
        Action::Build => {
            prepare(&[Purpose::Build])?;
            build_ebpf::binaries().map(drop)
        }
        Action::Test(options) => {
            prepare(options.purposes())?;
            test::test(&options)
        }
        Action::Check => {
            prepare(&[Purpose::Build, Purpose::Check])?;
            check::check()
        }
        Action::Verify(options) => {
            prepare(options.purposes())?;
            run::verify(&options)
        }
        Action::Bench { arguments } => {
            let is = |name| arguments.iter().any(|argument| argument == name);
            prepare(if is("l7") {
                &[Purpose::Build, Purpose::Network, Purpose::Compare, Purpose::Proxy]
            } else if is("e2e") {
                &[Purpose::Build, Purpose::Network, Purpose::Compare]
            } else if is("scale") {
                &[Purpose::Build, Purpose::Network]
            } else {
                &[Purpose::Build]
            })?;
            run::bench(&arguments)
        }
        Action::Demo => {
            prepare(&[Purpose::Build, Purpose::Network])?;
            run::demo()
        }
        Action::Run { arguments } => {
            prepare(&[Purpose::Build])?;
            run::daemon(&arguments)
        }
    }
}
