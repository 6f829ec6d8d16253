//! The first and only file system of a booted kernel: our init, what it is to run, and the libraries of both.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{cpio::Archive, fetch::Kernel};
use crate::shell;

/// Programs that the harness of package `lb-tests` calls or looks for.
const TOOLS: [&str; 3] = ["ip", "ethtool", "tcpdump"];

/// Where the init, `tests/src/bin/guest.rs`, reads what to do.
const JOBS: &str = "/jobs";

/// A program to run in the guest.
#[derive(Clone)]
pub(super) struct Job {
    /// What the guest calls it when it begins and ends.
    pub(super) name: &'static str,
    /// Its file on this machine.
    pub(super) program: PathBuf,
    /// Its arguments, without blanks.
    pub(super) arguments: Vec<String>,
}

/// Packs what a kernel needs to do these jobs.
pub(super) fn pack(kernel: &Kernel, init: &Path, jobs: &[Job]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    // The kernel opens it for the init before anything is mounted.
    archive.device(Path::new("/dev/console"), (5, 1));
    let mut order = String::new();
    for module in &kernel.modules {
        let place = Path::new("/modules").join(module.file_name().context("a module without a name")?);
        archive.file(&place, &read(module)?);
        let _ = writeln!(order, "module {}", place.display());
    }
    let mut programs = vec![init.to_owned()];
    archive.file(Path::new("/init"), &read(init)?);
    for Job { name, program, arguments } in jobs {
        let place = format!("/bin/{name}");
        archive.file(Path::new(&place), &read(program)?);
        programs.push(program.clone());
        let _ = writeln!(order, "run {name} {place} {}", arguments.join(" "));
    }
    archive.file(Path::new(JOBS), order.as_bytes());
    for tool in TOOLS {
        let program = shell::find(tool).with_context(|| format!("the program `{tool}` is missing"))?;
        archive.file(&Path::new("/bin").join(tool), &read(&program)?);
        programs.push(program);
    }
    for library in libraries(&programs)? {
        archive.file(&library, &read(&library)?);
    }
    Ok(archive.finish())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The shared libraries that programs are linked with, and their loader.
fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let said = shell::output(shell::command("ldd").args(programs))?;
    Ok(said.lines().filter_map(library).map(PathBuf::from).collect())
}

/// The file in a line of `ldd`: `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld.so (0x…)`.
fn library(line: &str) -> Option<&str> {
    // The names of the programs stand at the start of lines.
    line.strip_prefix(['\t', ' '])?.split_whitespace().find(|word| word.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::library;

    #[test]
    fn a_library_is_a_path_behind_a_blank() {
        assert_eq!(library("/bin/ip:"), None);
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert_eq!(library("\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)"), Some("/lib/x/libc.so.6"));
        assert_eq!(library("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)"), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(library("\tstatically linked"), None);
    }
}
