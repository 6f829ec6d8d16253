//! apt with sources, lists and cache of its own, so that those of the system stay as they are. Needs no root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::shell;

/// Where Debian machines keep the keys of the archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The private apt.
pub(crate) struct Apt {
    work: PathBuf,
    mirrors: Vec<String>,
}

impl Apt {
    /// In a folder of its own, for the Debian mirrors that this machine's own apt asks.
    pub(crate) fn new(work: &Path) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!("no keys of the Debian archive on this machine (package debian-archive-keyring)");
        }
        let mirrors = mirrors();
        if mirrors.is_empty() {
            bail!("the apt sources of this machine name no Debian mirror");
        }
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
        Ok(Self { work: work.to_owned(), mirrors })
    }

    /// The mirrors, the likeliest first.
    pub(crate) fn mirrors(&self) -> &[String] {
        &self.mirrors
    }

    /// Asks one suite of one mirror, and only that, from now on.
    pub(crate) fn select(&self, mirror: &str, suite: &str) -> Result<()> {
        let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(self.work.join("sources.list"), source)?;
        shell::output(self.command("apt-get").args(["update", "--quiet=2"])).map(drop)
    }

    /// What `apt-cache` says.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        shell::output(self.command("apt-cache").args(arguments))
    }

    /// Downloads a package, `name` or `name=version`, and unpacks it into a folder.
    pub(crate) fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let download = self.work.join("download");
        if download.exists() {
            fs::remove_dir_all(&download)?;
        }
        fs::create_dir_all(&download)?;
        let mut apt = self.command("apt-get");
        shell::run(apt.current_dir(&download).args(["download", "--quiet=2", package]))?;
        let file = fs::read_dir(&download)?.flatten().map(|entry| entry.path()).next();
        let file = file.context("apt-get downloaded no package")?;
        shell::run(self.command("dpkg-deb").arg("--extract").arg(file).arg(into))?;
        Ok(fs::remove_dir_all(&download)?)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = shell::command(program);
        command.current_dir(&self.work).env("APT_CONFIG", self.work.join("apt.conf"));
        command
    }
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
