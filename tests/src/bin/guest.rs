//! The init of the kernels that `cargo xtask verify --kernels` boots: mounts what programs expect, loads
//! modules, runs what `/jobs` asks for, says how each ended, switches the machine off.
//!
//! `/jobs` has a line for each thing to do: `module FILE` or `run NAME PROGRAM ARGUMENTS…`. Everything said
//! goes to the second serial port; the first belongs to the kernel. Lines of this program begin with
//! `guest:`, and xtask knows them by heart (`xtask/src/kernels/report.rs`):
//!
//! ```text
//! guest: runs RELEASE
//! guest: begin NAME
//! guest: end NAME WHAT-BECAME-OF-IT
//! guest: done
//! ```

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    path::Path,
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot},
    termios::tcdrain,
};

/// The second serial port.
const PORT: &str = "/dev/ttyS1";

/// What is mounted where; devices come first, for the port is among them.
const MOUNTS: [(&str, &str); 6] = [
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("guest: this is the init of a virtual machine; `cargo xtask verify --kernels` starts it");
        return ExitCode::FAILURE;
    }
    // What fails before there is a port goes to the kernel's, which the init was given.
    if let Err(error) = work() {
        eprintln!("guest: {error:#}");
    }
    // Returns only if it fails; the end of the init then makes the kernel panic, which ends the machine too.
    let _ = reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

fn work() -> Result<()> {
    for (kind, place) in MOUNTS {
        fs::create_dir_all(place)?;
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {kind} at {place}"))?;
    }
    // Where some programs look for what lies in /run.
    fs::create_dir_all("/var")?;
    symlink("/run", "/var/run")?;
    let mut port = File::options().write(true).open(PORT).with_context(|| format!("cannot open {PORT}"))?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    writeln!(port, "guest: runs {}", release.trim())?;
    match jobs(&mut port) {
        Ok(()) => writeln!(port, "guest: done")?,
        Err(error) => writeln!(port, "guest: {error:#}")?,
    }
    // Or the machine would be off before the last lines are out.
    tcdrain(&port).context("the port does not send")
}

fn jobs(port: &mut File) -> Result<()> {
    let jobs = fs::read_to_string("/jobs").context("nothing to do: /jobs cannot be read")?;
    for line in jobs.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["module", file] => load(Path::new(file))?,
            ["run", name, program, ref arguments @ ..] => {
                writeln!(port, "guest: begin {name}")?;
                let ended = match run(port, program, arguments) {
                    Ok(status) => described(status),
                    Err(error) => format!("cannot start: {error:#}"),
                };
                writeln!(port, "guest: end {name} {ended}")?;
            }
            _ => bail!("no such job: {line:?}"),
        }
    }
    Ok(())
}

/// Loads a module that is not compressed, and needs none that is not loaded.
fn load(module: &Path) -> Result<()> {
    let file = File::open(module).with_context(|| format!("cannot open {}", module.display()))?;
    finit_module(&file, c"", 0).with_context(|| format!("the kernel refuses {}", module.display()))
}

fn run(mut port: &File, program: &str, arguments: &[&str]) -> Result<ExitStatus> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", "/bin")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(port.try_clone()?)
        .stderr(Stdio::piped())
        .spawn()?;
    // The standard output comes by lines of itself; these too must not end up amid other lines.
    for line in BufReader::new(child.stderr.take().expect("piped")).split(b'\n') {
        let mut line = line?;
        line.push(b'\n');
        port.write_all(&line)?;
    }
    Ok(child.wait()?)
}

/// `code 0`, `signal 9`.
fn described(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
