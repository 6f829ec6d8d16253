//! One run of a virtual machine: qemu, emulating a processor in software, for hardware help is not to be had
//! everywhere.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::shell;

/// The emulator.
const QEMU: &str = "qemu-system-x86_64";

/// What a machine is made of.
pub(super) struct Machine<'a> {
    /// The kernel.
    pub(super) image: &'a Path,
    /// Its file system.
    pub(super) initrd: &'a Path,
    /// Where to put what the kernel says.
    pub(super) console: &'a Path,
}

/// What a machine has left behind.
pub(super) struct Output {
    /// What came by the second serial port.
    pub(super) lines: Vec<String>,
    /// Whether it was cut off because it took too long.
    pub(super) cut: bool,
    /// What qemu itself complained about.
    pub(super) complaint: String,
}

impl Machine<'_> {
    /// Runs until it switches itself off, or until `patience` ends; shows each line to `see`.
    pub(super) fn run(&self, patience: Duration, mut see: impl FnMut(&str)) -> Result<Output> {
        let end = Instant::now() + patience;
        let complaints = self.console.with_extension("qemu.log");
        let errors = fs::File::create(&complaints)?;
        let mut command = self.command();
        let qemu = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut qemu = Running(qemu.spawn().with_context(|| format!("cannot start {QEMU}"))?);
        let stdout = qemu.0.stdout.take().expect("piped");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                // A serial line ends like a typewriter's.
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut lines = Vec::new();
        let cut = loop {
            match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    see(&line);
                    lines.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        };
        // Ends the machine where it did not end itself.
        drop(qemu);
        let complaint = fs::read_to_string(&complaints).unwrap_or_default().trim().to_owned();
        Ok(Output { lines, cut, complaint })
    }

    fn command(&self) -> Command {
        // Hours of emulation must not be in the way of whoever works here.
        let mut command = shell::command("nice");
        command.args(["-n", "10", QEMU, "-accel", "tcg", "-smp", "2", "-m", "2G"]);
        // Without cmpxchg16b: qemu 7.2 now and then loses the flags when emulating it, and kernels die of that.
        command.args(["-cpu", "max,-cx16"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-serial").arg(format!("file:{}", self.console.display()));
        command.args(["-serial", "stdio"]);
        command.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initrd);
        // A kernel that panics restarts at once, which ends the machine.
        command.args(["-append", "console=ttyS0 panic=-1"]);
        command
    }
}

/// A process that does not outlive this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
