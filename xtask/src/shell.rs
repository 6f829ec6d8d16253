//! Running other programs: where they are found, where they run, what is said about them.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    // Joining an absolute path replaces the folder before it.
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Where `cargo build --release` puts binaries.
pub(crate) fn release() -> PathBuf {
    target().join("release")
}

/// A program that is to run in the workspace.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace()).env("PATH", search_path());
    command
}

/// Cargo, the one that runs us.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// A program that is to run as root, through `sudo` where we are not; `keep` names the environment
/// variables it shall see.
pub(crate) fn root_command(program: &OsStr, keep: &[&str]) -> Result<Command> {
    let runner = root_runner(keep)?;
    let mut words = runner.iter().map(OsString::as_os_str).chain([program]);
    let mut command = command(words.next().expect("at least the program"));
    command.args(words);
    Ok(command)
}

/// What to write before a program so that it runs as root: nothing, or `sudo` with its options.
pub(crate) fn root_runner(keep: &[&str]) -> Result<Vec<OsString>> {
    if is_root() {
        return Ok(Vec::new());
    }
    let Some(sudo) = find("sudo") else {
        bail!("this needs root, and there is no `sudo`; run the command as root");
    };
    let keep = (!keep.is_empty()).then(|| format!("--preserve-env={}", keep.join(",")).into());
    Ok([sudo.into()].into_iter().chain(keep).collect())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // The files of a process belong to its effective user.
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The file of a program, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// `PATH`, the folder `cargo install` writes to, and the folders of tools for administrators, which an
/// ordinary user's `PATH` lacks on Debian.
fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let more = cargo_home.map(|home| home.join("bin")).into_iter();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    // Joining fails only for a folder with a colon in its name, which PATH cannot hold.
    env::join_paths(env::split_paths(&path).chain(more).chain(system)).unwrap_or(path)
}

/// Says what runs, runs it, and fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", line(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs silently and gives what the program wrote to its standard output; fails with what it wrote to its
/// standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it, less the folder of the program.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = [name].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
