//! Programs that are built here and run as root: `verify`, `demo`, `bench` and `lb-user` itself.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use crate::{
    build_ebpf,
    kernels::{self, Choice},
    setup::Purpose,
    shell,
};

/// Tells the programs of package `lb-tests` where the binaries under test are.
pub(crate) const BINARIES_VARIABLE: &str = "LB_BIN_DIR";

/// Arguments of `cargo xtask verify`.
#[derive(Args)]
pub(crate) struct Verify {
    /// Not on the running kernel but on others, booted under emulation, with the packet tests [default: all]
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0.., value_name = "KERNEL")]
    kernels: Option<Vec<Choice>>,
    /// Ask Debian for newer kernels of these series than were fetched before
    #[arg(long, requires = "kernels")]
    fetch: bool,
    /// Load the programs and leave the tests out: a minute instead of many
    #[arg(long, requires = "kernels")]
    no_tests: bool,
    /// Arguments of the test runner on other kernels, e.g. a part of a test's name
    #[arg(last = true, requires = "kernels", conflicts_with = "no_tests")]
    runner: Vec<String>,
}

impl Verify {
    /// The tools it needs.
    pub(crate) fn purposes(&self) -> &'static [Purpose] {
        if self.kernels.is_some() {
            &[Purpose::Build, Purpose::Network, Purpose::Kernels]
        } else {
            &[Purpose::Build]
        }
    }
}

/// Loads every kernel program and prints verified instructions, JIT bytes and stack.
pub(crate) fn verify(options: &Verify) -> Result<()> {
    match &options.kernels {
        Some(choices) => {
            let runner = (!options.no_tests).then_some(options.runner.as_slice());
            kernels::verify(choices, options.fetch, runner)
        }
        None => run_of_tests("verify"),
    }
}

/// Shows the balancer at work in network namespaces.
pub(crate) fn demo() -> Result<()> {
    run_of_tests("demo")
}

/// Tells `bench` where its kernel programs are.
const BENCH_VARIABLE: &str = "LB_BENCH_OBJECT";

/// Measures what a packet costs, with these arguments of the program `bench`.
pub(crate) fn bench(arguments: &[OsString]) -> Result<()> {
    let program = shell::release().join("bench");
    let mut command = shell::root_command(program.as_os_str(), &[BINARIES_VARIABLE, BENCH_VARIABLE])?;
    let object = build_ebpf::bench_object()?;
    build_ebpf::binaries_and_tests()?;
    command.env(BINARIES_VARIABLE, shell::release()).env(BENCH_VARIABLE, object);
    shell::run(command.args(arguments))
}

/// Builds `lb-user` and runs it.
pub(crate) fn daemon(arguments: &[OsString]) -> Result<()> {
    let program = shell::release().join("lb-user");
    let mut command = shell::root_command(program.as_os_str(), &[])?;
    build_ebpf::binaries()?;
    shell::run(command.args(arguments))
}

/// Builds the programs of package `lb-tests` and runs one of them as root.
fn run_of_tests(name: &str) -> Result<()> {
    let program = shell::release().join(name);
    // Asked first: that there is no way to become root should not be learnt after minutes of compiling.
    let mut command = shell::root_command(program.as_os_str(), &[BINARIES_VARIABLE])?;
    build_ebpf::binaries_and_tests()?;
    shell::run(command.env(BINARIES_VARIABLE, shell::release()))
}
