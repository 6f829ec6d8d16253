//! The text of a configuration file: reads it, and sees when it changes.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;
use tokio::time::sleep;

/// Far more than thousands of VIPs and servers take, in bytes.
const LARGEST: u64 = 16 << 20;

/// The text of a configuration file. What may let its reader wait, as a pipe does, is refused: nothing else would be done
/// meanwhile.
///
/// # Errors
/// When it cannot be read, is too large, or no file.
pub fn read_file(path: &Path) -> io::Result<String> {
    let no_waiting = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(no_waiting).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    read(file)
}

/// The same of whatever can be read, as a pipe can: for who has nothing else to do.
///
/// # Errors
/// When it cannot be read, or is too large.
pub fn read_text(path: &Path) -> io::Result<String> {
    read(File::open(path)?)
}

/// Not of a device that never ends.
fn read(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(text)
}

/// How often a file that is watched is looked at. It is read once it has not changed between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file that is looked at now and then.
pub(super) struct Watched {
    file: Option<PathBuf>,
    /// When it was changed and how large it was, as of the last reading and of the last look.
    known: Option<(SystemTime, u64)>,
    seen: Option<(SystemTime, u64)>,
}

impl Watched {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        let mut watched = Self { file, known: None, seen: None };
        watched.known = watched.look();
        watched.seen = watched.known;
        watched
    }

    fn look(&self) -> Option<(SystemTime, u64)> {
        let metadata = fs::metadata(self.file.as_ref()?).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    /// Waits until the file is another, and has stayed that for a while.
    pub(super) async fn changed(&mut self) {
        if self.file.is_none() {
            return std::future::pending().await;
        }
        loop {
            sleep(LOOK_EVERY).await;
            let now = self.look();
            let still = now == self.seen;
            self.seen = now;
            if still && now.is_some() && now != self.known {
                self.known = now;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read_and_nobody_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (file, pipe, link) =
            (folder.path().join("lb.toml"), folder.path().join("pipe"), folder.path().join("link"));
        fs::write(&file, "a = 1").unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_file(&file).unwrap(), "a = 1");
        assert_eq!(read_file(&link).unwrap(), "a = 1");
        for other in [&*pipe, folder.path(), Path::new("/dev/zero")] {
            assert_eq!(read_file(other).unwrap_err().to_string(), "it is no ordinary file", "{other:?}");
        }
        assert!(read_text(Path::new("/dev/zero")).unwrap_err().to_string().contains("larger than"));
    }
}
