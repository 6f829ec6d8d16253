//! Programs that are built here and run as root: `verify`, `demo` and `lb-user` itself.

use std::{ffi::OsString, path::Path};

use anyhow::Result;

use crate::{
    build_ebpf::{self, OBJECT_VARIABLE},
    shell,
};

/// Tells the programs of package `lb-tests` where the binaries under test are.
pub(crate) const BINARIES_VARIABLE: &str = "LB_BIN_DIR";

/// Loads every kernel program and prints verified instructions, JIT bytes and stack.
pub(crate) fn verify() -> Result<()> {
    let object = build_ebpf::object()?;
    run_of_tests("verify", &object)
}

/// Shows the balancer at work in network namespaces.
pub(crate) fn demo() -> Result<()> {
    let object = build_ebpf::binaries()?;
    run_of_tests("demo", &object)
}

/// Builds `lb-user` and runs it.
pub(crate) fn daemon(arguments: &[OsString]) -> Result<()> {
    build_ebpf::binaries()?;
    let program = shell::release().join("lb-user");
    shell::run(shell::root_command(program.as_os_str(), &[])?.args(arguments))
}

/// Builds a program of package `lb-tests` and runs it as root.
fn run_of_tests(name: &str, object: &Path) -> Result<()> {
    let mut cargo = shell::cargo(["build", "--release", "--package=lb-tests", "--bin", name]);
    shell::run(cargo.env(OBJECT_VARIABLE, object))?;
    let program = shell::release().join(name);
    let mut command = shell::root_command(program.as_os_str(), &[BINARIES_VARIABLE])?;
    shell::run(command.env(BINARIES_VARIABLE, shell::release()))
}
