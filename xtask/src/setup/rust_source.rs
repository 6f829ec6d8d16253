//! The source of the standard library. rustup has it; where rustup's server cannot be reached, Debian's
//! package `rust-src` of exactly the compiler's version holds the same files and serves as well.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{add_component, apt::Apt, debian, rustc};
use crate::shell;

/// Suites that may have the package, the likeliest first: the pinned compiler is in the first one.
const SUITES: [&str; 4] = ["trixie-backports", "trixie", "forky", "sid"];

/// Whether the toolchain in this folder has the source.
pub(super) fn is_there(sysroot: &Path) -> bool {
    destination(sysroot).join("core/src/lib.rs").is_file()
}

/// Where cargo looks for it.
fn destination(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

/// Gets it from rustup, or else from Debian.
pub(super) fn install(sysroot: &Path) -> Result<()> {
    match add_component("rust-src") {
        Ok(()) if is_there(sysroot) => return Ok(()),
        Ok(()) => eprintln!("setup: rustup counts rust-src as installed, but it is not there"),
        Err(error) => eprintln!("setup: {error:#}"),
    }
    eprintln!("setup: looking for Debian's package of rust-src");
    let work = shell::target().join("setup");
    fs::create_dir_all(&work)?;
    let result = from_debian(&work, &destination(sysroot)).context("rust-src cannot be had from Debian");
    // Only downloads; an error here would hide the one above.
    let _ = fs::remove_dir_all(&work);
    result
}

fn from_debian(work: &Path, destination: &Path) -> Result<()> {
    let about = shell::output(rustc().arg("-vV"))?;
    let release = about
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .context("`rustc -vV` names no release")?;
    let apt = Apt::new(work)?;
    for mirror in apt.mirrors() {
        for suite in SUITES {
            match version(&apt, mirror, suite, release) {
                Ok(Some(version)) => {
                    eprintln!("setup: unpacking Debian's rust-src {version} of {suite}");
                    let unpacked = work.join("unpacked");
                    apt.unpack(&format!("rust-src={version}"), &unpacked)?;
                    return place(&unpacked.join(format!("usr/src/rustc-{release}/library")), destination);
                }
                Ok(None) => eprintln!("setup: no rust-src {release} in {suite}"),
                Err(error) => eprintln!("setup: {suite}: {error:#}"),
            }
        }
    }
    bail!("no suite of {} has rust-src {release}", apt.mirrors().join(", "))
}

/// The version of rust-src in a suite that is of this release of Rust.
fn version(apt: &Apt, mirror: &str, suite: &str, release: &str) -> Result<Option<String>> {
    apt.select(mirror, suite)?;
    let table = apt.ask(&["madison", "rust-src"])?;
    Ok(debian::version_of_release(&table, release).map(str::to_owned))
}

/// Copies the library beside its place and renames it, so that a cut leaves nothing that looks whole.
fn place(library: &Path, destination: &Path) -> Result<()> {
    let partial = destination.with_extension("partial");
    let parent = destination.parent().context("the toolchain has no folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot write to {}", parent.display()))?;
    for leftover in [partial.as_path(), destination] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).with_context(|| format!("cannot remove {}", leftover.display()))?;
        }
    }
    shell::run(shell::command("cp").arg("--recursive").arg(library).arg(&partial))?;
    fs::rename(&partial, destination).with_context(|| format!("cannot make {}", destination.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{destination, is_there, place};

    #[test]
    fn a_library_is_there_once_it_is_placed_and_replaces_half_of_one() {
        let root = std::env::temp_dir().join(format!("xtask-rust-source-{}", std::process::id()));
        let (library, sysroot) = (root.join("library"), root.join("sysroot"));
        fs::create_dir_all(library.join("core/src")).unwrap();
        fs::write(library.join("core/src/lib.rs"), "//! core").unwrap();
        let half = destination(&sysroot);
        fs::create_dir_all(half.join("alloc")).unwrap();
        assert!(!is_there(&sysroot));
        place(&library, &half).unwrap();
        assert!(is_there(&sysroot));
        assert!(!half.join("alloc").exists());
        fs::remove_dir_all(root).unwrap();
    }
}
