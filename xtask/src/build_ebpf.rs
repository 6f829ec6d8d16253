//! Building: the kernel programs, and the binaries that carry them.
//!
//! The kernel programs are built by the pinned stable compiler. Compiling the core library for a target that
//! has no ready-made one is an unstable feature, so the compiler is told to act as its own bootstrap; nothing
//! else unstable is used. `bpf-linker` joins the pieces. Always optimised: the verifier sees what the
//! optimiser left, so another profile would be another program.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::shell;

/// Little-endian BPF, like every machine this project is meant for.
const TARGET: &str = "bpfel-unknown-none";

/// The environment variable that tells `lb-user/build.rs` which object to embed; the others lie beside it.
pub(crate) const OBJECT_VARIABLE: &str = "LB_EBPF_OBJECT";

/// What is deployed, and what tests and measures it.
pub(crate) const DEPLOYED_AND_TESTS: [&str; 3] = ["lb-user", "l7-proxy", "lb-tests"];

/// Builds the kernel programs of the product, the balancer's and that of `lb-user decap`, and gives the file of the
/// balancer's, always the same one.
pub(crate) fn object() -> Result<PathBuf> {
    object_in(shell::workspace(), &shell::target())
}

/// The same of another workspace, into another target folder.
pub(crate) fn object_in(workspace: &Path, target: &Path) -> Result<PathBuf> {
    object_of("decap", workspace, target)?;
    object_of("lb", workspace, target)
}

/// Builds the kernel programs that `cargo xtask bench` measures with, and gives their file.
pub(crate) fn bench_object() -> Result<PathBuf> {
    object_of("bench", shell::workspace(), &shell::target())
}

fn object_of(name: &str, workspace: &Path, target: &Path) -> Result<PathBuf> {
    let folder = folder(target);
    shell::run(kernel_cargo_into("build", &folder).args(["--bin", name]).current_dir(workspace))?;
    let built = folder.join(TARGET).join("release").join(name);
    let object = folder.join(name).with_extension("o");
    copy_if_changed(&built, &object)?;
    let bytes = fs::metadata(&object)?.len();
    eprintln!("kernel program: {} ({bytes} bytes)", object.display());
    Ok(object)
}

/// A cargo command upon the kernel programs, e.g. `build` or `clippy`, all with the same flags; all of them
/// unless one is named with `--bin`.
pub(crate) fn kernel_cargo(subcommand: &str) -> Command {
    kernel_cargo_into(subcommand, &folder(&shell::target()))
}

fn kernel_cargo_into(subcommand: &str, folder: &Path) -> Command {
    let mut cargo = shell::cargo([subcommand, "--package=lb-ebpf", "--features=bpf", "--release"]);
    cargo.args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"]).arg(folder);
    // aya reads types of the machine the object will run on, hence bpf_target_arch; map definitions and line
    // numbers in verifier logs come from BTF, which the linker makes of the debug information.
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Packet headers are not aligned, and the machines this runs on do not mind. Without this, LLVM loads
        // them byte by byte, and neither the stack nor the verifier's patience is enough.
        "-Ctarget-feature=+allows-misaligned-mem-access".into(),
        // The third instruction set (Linux 5.1): 32-bit arithmetic and jumps.
        "-Ctarget-cpu=v3".into(),
    ];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env("RUSTC_BOOTSTRAP", "1");
    // Whatever the caller wants for the rest: in the many parts of an incremental build functions are not inlined across
    // them, and the verifier refuses what comes of it.
    cargo.env("CARGO_INCREMENTAL", "0");
    cargo
}

/// Builds the kernel program, then `lb-user`, `lbctl` and `l7-proxy` for use; gives the kernel program.
pub(crate) fn binaries() -> Result<PathBuf> {
    let object = build_with(&["lb-user", "l7-proxy"])?;
    for name in ["lb-user", "lbctl", "l7-proxy"] {
        eprintln!("built {}", shell::release().join(name).display());
    }
    Ok(object)
}

/// As [`binaries`], and the programs of package `lb-tests`. All at once: cargo then settles the features of
/// shared dependencies for all of them, and compiles nothing twice.
pub(crate) fn binaries_and_tests() -> Result<PathBuf> {
    build_with(&DEPLOYED_AND_TESTS)
}

/// As [`binaries_and_tests`], and the packet tests; gives the binary of these.
pub(crate) fn packet_tests() -> Result<PathBuf> {
    let object = binaries_and_tests()?;
    let mut cargo = shell::cargo(["test", "--release", "--package=lb-tests", "--test=bpf", "--no-run"]);
    cargo.args(["--message-format=json-render-diagnostics"]).env(OBJECT_VARIABLE, object);
    let messages = shell::output(&mut cargo)?;
    let binary = messages.lines().find_map(test_binary);
    binary.map(PathBuf::from).context("cargo does not say where the packet tests are")
}

/// The file of a test, in cargo's message of having built it. Cargo builds the package's programs as well.
fn test_binary(message: &str) -> Option<&str> {
    // Paths are what cargo was told or made up itself; a quote in one would be strange indeed.
    let (_, rest) =
        message.split_once("\"executable\":\"").filter(|_| message.contains(r#""kind":["test"]"#))?;
    rest.split('"').next()
}

fn build_with(packages: &[&str]) -> Result<PathBuf> {
    let object = object()?;
    let mut cargo = shell::cargo(["build", "--release"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    shell::run(cargo.env(OBJECT_VARIABLE, &object))?;
    Ok(object)
}

/// The kernel program has a target folder of its own, so that its flags never rebuild the host's crates.
fn folder(target: &Path) -> PathBuf {
    target.join("bpf")
}

/// Leaves an equal file alone: its time of change decides whether `lb-user` is built again.
fn copy_if_changed(from: &PathBuf, to: &PathBuf) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::test_binary;

    #[test]
    fn cargo_says_where_a_test_is() {
        let test = r#"{"target":{"kind":["test"],"name":"bpf"},"filenames":["/t/bpf-1"],"executable":"/t/bpf-1","fresh":true}"#;
        assert_eq!(test_binary(test), Some("/t/bpf-1"));
        for other in [
            r#"{"target":{"kind":["bin"],"name":"demo"},"executable":"/t/demo","fresh":true}"#,
            r#"{"target":{"kind":["lib"],"name":"a"},"executable":null,"fresh":true}"#,
        ] {
            assert_eq!(test_binary(other), None);
        }
    }
}
