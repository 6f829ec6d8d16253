//! The configurations that were in use, numbered, in a folder; and the note that the last one has yet to be confirmed.
//!
//! ```text
//! /var/lib/lb/history/41.toml      a file as it was when it came into use
//! /var/lib/lb/history/unconfirmed  the number to go back to, while a confirmation is waited for
//! /var/lib/lb/history/discarded    what was in the file last that was discarded
//! ```

use std::{
    fs::{self, File, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Where it is unless `--history` says otherwise.
pub const DEFAULT: &str = "/var/lib/lb/history";

/// How many configurations are kept.
const KEPT: usize = 50;

/// A configuration that was in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Its number; later ones have larger ones.
    pub number: u32,
    /// When it came into use, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// How many lines it has.
    pub lines: usize,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct History(PathBuf);

impl History {
    /// In this folder, which need not exist yet.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// All that is kept, the oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |number: u32| {
            let path = self.file(number);
            let changed = fs::metadata(&path).ok()?.modified().ok()?;
            let time = changed.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let lines = fs::read_to_string(path).ok()?.lines().count();
            Some(Entry { number, time, lines })
        };
        self.numbers().into_iter().filter_map(entry).collect()
    }

    /// Keeps a configuration that is in use now, unless it is the one kept last; gives its number. The oldest ones
    /// go.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, text: &str) -> io::Result<u32> {
        let numbers = self.numbers();
        let last = numbers.last().copied();
        if let Some(last) = last
            && fs::read_to_string(self.file(last)).is_ok_and(|kept| kept == text)
        {
            return Ok(last);
        }
        let number = last.map_or(1, |last| last + 1);
        fs::create_dir_all(&self.0)?;
        replace(&self.file(number), text, 0o600)?;
        for old in numbers.iter().rev().skip(KEPT - 1) {
            // What cannot be removed is tried again next time.
            let _ = fs::remove_file(self.file(*old));
        }
        Ok(number)
    }

    /// Keeps a text that was never in use and is to go, until the next one; gives its file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_aside(&self, text: &str) -> io::Result<PathBuf> {
        let file = self.0.join("discarded");
        fs::create_dir_all(&self.0)?;
        replace(&file, text, 0o600)?;
        Ok(file)
    }

    /// The text of a configuration.
    ///
    /// # Errors
    /// When there is none of this number; says which there are.
    pub fn text(&self, number: u32) -> Result<String, String> {
        fs::read_to_string(self.file(number)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let numbers = self.numbers();
                match (numbers.first(), numbers.last()) {
                    (Some(first), Some(last)) => {
                        format!("there is no configuration {number}; {first} to {last} are kept")
                    }
                    _ => format!("no configurations are kept in {}", self.0.display()),
                }
            }
            _ => format!("cannot read {}: {error}", self.file(number).display()),
        })
    }

    /// The number of a text, if it is kept; the last one of several.
    #[must_use]
    pub fn number_of(&self, text: &str) -> Option<u32> {
        let is_it = |number: &u32| fs::read_to_string(self.file(*number)).is_ok_and(|kept| kept == text);
        self.numbers().into_iter().rev().find(is_it)
    }

    /// Notes that a confirmation is waited for, and what to go back to without one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn wait_for_confirmation(&self, number: u32) -> io::Result<()> {
        replace(&self.marker(), &number.to_string(), 0o600)
    }

    /// Takes the note away.
    pub fn confirmed(&self) {
        match fs::remove_file(self.marker()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!("cannot remove {}: {error}", self.marker().display());
            }
            _ => {}
        }
    }

    /// For a start: if the one before ended while a confirmation was waited for, puts the configuration before back into
    /// `file`. Gives its number.
    ///
    /// # Errors
    /// When that fails.
    pub fn settle(&self, file: &Path) -> Result<Option<u32>, String> {
        let Ok(note) = fs::read_to_string(self.marker()) else { return Ok(None) };
        let Ok(number) = note.trim().parse() else {
            self.confirmed();
            return Ok(None);
        };
        let text = self.text(number)?;
        write(file, &text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        self.confirmed();
        Ok(Some(number))
    }

    fn file(&self, number: u32) -> PathBuf {
        self.0.join(format!("{number}.toml"))
    }

    fn marker(&self) -> PathBuf {
        self.0.join("unconfirmed")
    }

    /// The numbers of all that is kept, in order.
    fn numbers(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        let number = |name: &str| name.strip_suffix(".toml")?.parse().ok();
        let mut numbers: Vec<u32> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Gives a configuration file another text, in one step; who may read it stays as it is. Where it is a link, what that
/// leads to is replaced.
///
/// # Errors
/// When the system refuses.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let file = fs::canonicalize(file)?;
    let mode = fs::metadata(&file)?.permissions().mode();
    replace(&file, text, mode)
}

fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = File::create(&beside)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_use_is_kept_by_number_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::at(&folder.path().join("lb/history"));
        assert!(history.entries().is_empty());
        assert!(history.text(1).unwrap_err().starts_with("no configurations are kept"));
        assert_eq!((history.keep("a\n").unwrap(), history.keep("a\n").unwrap()), (1, 1));
        assert_eq!(history.keep("b\n").unwrap(), 2);
        assert_eq!(history.text(1).unwrap(), "a\n");
        assert_eq!((history.number_of("a\n"), history.number_of("c\n")), (Some(1), None));
        let aside = history.set_aside("never used\n").unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), "never used\n");
        assert_eq!(history.entries().len(), 2, "it has no number");
        for number in 3..=60 {
            assert_eq!(history.keep(&format!("{number}\n")).unwrap(), number);
        }
        let entries = history.entries();
        assert_eq!((entries.len(), entries[0].number, entries[0].lines), (KEPT, 11, 1));
        assert_eq!(history.text(2).unwrap_err(), "there is no configuration 2; 11 to 60 are kept");
    }

    #[test]
    fn a_start_goes_back_to_what_was_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::at(folder.path());
        let file = folder.path().join("lb.conf");
        fs::write(&file, "new").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let before = history.keep("old").unwrap();
        history.keep("new").unwrap();
        assert_eq!(history.settle(&file), Ok(None));
        history.wait_for_confirmation(before).unwrap();
        assert_eq!(history.settle(&file), Ok(Some(before)));
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(history.settle(&file), Ok(None));
    }
}
