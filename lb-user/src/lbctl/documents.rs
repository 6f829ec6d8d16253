//! Completions for shells and manual pages, of `lbctl` and of `lb-user`: made of the same description of the command line
//! that reads it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{client::Failure, output::print};
use crate::admin::openapi;

/// Which shell.
#[derive(Clone, Copy, Debug, Args)]
pub struct Completions {
    /// For this shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Where manual pages go.
#[derive(Clone, Debug, Args)]
pub struct Man {
    /// Write a page for each command into this folder, e.g. /usr/local/share/man/man1; else the first one to standard
    /// output.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Prints a script that has a shell complete commands.
///
/// # Errors
/// When it cannot be written.
pub fn completions(mut command: Command, wanted: Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(wanted.shell, &mut command, name, &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes manual pages.
///
/// # Errors
/// When they cannot be written.
pub fn man(command: Command, wanted: &Man) -> Result<(), Failure> {
    match &wanted.dir {
        Some(folder) => {
            let cannot = |error: io::Error| {
                Failure::Answer(format!("cannot write manual pages to {}: {error}", folder.display()))
            };
            let pages = write_pages(command, folder).map_err(cannot)?;
            print(&format!("{pages} pages in {}\n", folder.display()))
        }
        None => {
            let mut page = Vec::new();
            let made = clap_mangen::Man::new(command).render(&mut page);
            made.map_err(|error| Failure::Answer(format!("cannot make the page: {error}")))?;
            print(&String::from_utf8_lossy(&page))
        }
    }
}

/// A page for a command, and one for each below it: `lbctl.1`, `lbctl-vip.1`, `lbctl-vip-list.1`. Gives how many.
fn write_pages(command: Command, folder: &Path) -> io::Result<usize> {
    fn pages(command: &Command) -> usize {
        1 + command.get_subcommands().map(pages).sum::<usize>()
    }
    fs::create_dir_all(folder)?;
    let count = pages(&command);
    clap_mangen::generate_to(command, folder)?;
    Ok(count)
}

/// Prints what can be asked of lb-user over HTTP.
///
/// # Errors
/// When it cannot be written.
pub fn openapi() -> Result<(), Failure> {
    let document = serde_json::to_string_pretty(openapi::document());
    print(&(document.map_err(|error| Failure::Answer(error.to_string()))? + "\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::lbctl::Arguments;

    #[test]
    fn every_command_has_a_page_that_says_what_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let pages = write_pages(Arguments::command(), folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), pages);
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        for command in Arguments::command().get_subcommands() {
            assert!(read(&format!("lbctl-{}.1", command.get_name())).contains(".SH NAME"));
        }
        let drain = read("lbctl-server-drain.1");
        assert!(drain.contains("no new connections") && drain.contains("wait"), "{drain}");
        assert!(read("lbctl.1").contains("Exit codes"));
    }

    #[test]
    fn shells_complete_commands_at_every_level() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "lbctl", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["drain", "clone", "selfsign", "dry-run"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
