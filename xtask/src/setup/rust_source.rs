//! The source of the standard library. rustup has it; where rustup's server cannot be reached, Debian's
//! package `rust-src` of exactly the compiler's version holds the same files and serves as well.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{add_component, debian, rustc};
use crate::shell;

/// Suites that may have the package, the likeliest first: the pinned compiler is in the first one.
const SUITES: [&str; 4] = ["trixie-backports", "trixie", "forky", "sid"];

/// Where Debian machines keep the keys of the archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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
    if !Path::new(KEYRING).exists() {
        bail!("no keys of the Debian archive on this machine (package debian-archive-keyring)");
    }
    let mirrors = mirrors();
    if mirrors.is_empty() {
        bail!("the apt sources of this machine name no Debian mirror");
    }
    let apt = Apt::new(work)?;
    for mirror in &mirrors {
        for suite in SUITES {
            match apt.version(mirror, suite, release) {
                Ok(Some(version)) => {
                    eprintln!("setup: unpacking Debian's rust-src {version} of {suite}");
                    return place(
                        &apt.download(&version)?.join(format!("rustc-{release}/library")),
                        destination,
                    );
                }
                Ok(None) => eprintln!("setup: no rust-src {release} in {suite}"),
                Err(error) => eprintln!("setup: {suite}: {error:#}"),
            }
        }
    }
    bail!("no suite of {} has rust-src {release}", mirrors.join(", "))
}

/// The Debian mirrors of this machine's own apt sources.
fn mirrors() -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.push("/etc/apt/sources.list".into());
    files.sort();
    let mut mirrors = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => debian::mirrors_of_stanzas(&text),
            Some("list") => debian::mirrors_of_lines(&text),
            _ => continue,
        };
        mirrors.extend(found);
    }
    debian::without_repeats(mirrors)
}

/// apt with sources, lists and cache of its own, so that those of the system stay as they are. Needs no root.
struct Apt<'a> {
    work: &'a Path,
}

impl<'a> Apt<'a> {
    fn new(work: &'a Path) -> Result<Self> {
        fs::create_dir_all(work.join("lists/partial"))?;
        fs::create_dir_all(work.join("cache/archives/partial"))?;
        let folder = work.display();
        let configuration = format!(
            "Dir::Etc::SourceList \"{folder}/sources.list\";\n\
             Dir::Etc::SourceParts \"/dev/null\";\n\
             Dir::Etc::PreferencesParts \"/dev/null\";\n\
             Dir::State::Lists \"{folder}/lists\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             APT::Update::Error-Mode \"any\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"1\";\n\
             Acquire::http::Timeout \"20\";\n\
             Acquire::https::Timeout \"20\";\n\
             APT::Sandbox::User \"root\";\n"
        );
        fs::write(work.join("apt.conf"), configuration)?;
        Ok(Self { work })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = shell::command(program);
        command.current_dir(self.work).env("APT_CONFIG", self.work.join("apt.conf"));
        command
    }

    /// The version of rust-src in a suite that is of this release of Rust.
    fn version(&self, mirror: &str, suite: &str, release: &str) -> Result<Option<String>> {
        let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(self.work.join("sources.list"), source)?;
        shell::output(self.command("apt-get").args(["update", "--quiet=2"]))?;
        let table = shell::output(self.command("apt-cache").args(["madison", "rust-src"]))?;
        Ok(debian::version_of_release(&table, release).map(str::to_owned))
    }

    /// Downloads and unpacks the package; gives the folder its sources are in.
    fn download(&self, version: &str) -> Result<PathBuf> {
        shell::run(self.command("apt-get").args(["download", "--quiet=2", &format!("rust-src={version}")]))?;
        let package = fs::read_dir(self.work)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get downloaded no package")?;
        let unpacked = self.work.join("unpacked");
        shell::run(self.command("dpkg-deb").arg("--extract").arg(package).arg(&unpacked))?;
        Ok(unpacked.join("usr/src"))
    }
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
