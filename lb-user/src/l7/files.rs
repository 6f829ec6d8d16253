//! Reads the files that specifications name, for a proxy that has no right to; notices when they change.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// Larger than any file that is of use.
const LARGEST: u64 = 4 << 20;

/// What changes with a file: inode, time of change, length.
type Stamp = (u64, i64, i64, u64);

/// Which files were handed over, and what they looked like.
#[derive(Debug, Default)]
pub(super) struct Files {
    folder: PathBuf,
    given: BTreeMap<PathBuf, Option<Stamp>>,
}

/// What there is to hand over of a file: what is in it, or why that cannot be read.
pub(super) type Contents = Result<Vec<u8>, String>;

impl Files {
    /// Relative paths start at this folder.
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), given: BTreeMap::new() }
    }

    /// What has to be handed over of `wanted`, as it was not yet, or not as it is now. Others are forgotten.
    pub(super) fn news(&mut self, wanted: &[PathBuf]) -> Vec<(PathBuf, Contents)> {
        self.given.retain(|path, _| wanted.contains(path));
        let mut news = Vec::new();
        for path in wanted {
            let at = self.folder.join(path);
            // Looked at before it is read: if it changes meanwhile, it is read once more.
            let stamp = stamp(&at);
            if self.given.get(path) != Some(&stamp) {
                self.given.insert(path.clone(), stamp);
                news.push((path.clone(), read(&at).map_err(|error| error.to_string())));
            }
        }
        news
    }

    /// Another proxy has nothing of what was handed over.
    pub(super) fn forget(&mut self) {
        self.given.clear();
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
}

/// A pipe or a device would let everybody wait.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let no_waiting = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(no_waiting).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    let mut contents = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_handed_over_again_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (name, missing) = (PathBuf::from("a.pem"), PathBuf::from("missing.pem"));
        let put = |text: &str| {
            fs::write(folder.path().join("new"), text).unwrap();
            fs::rename(folder.path().join("new"), folder.path().join(&name)).unwrap();
        };
        put("one");
        let mut files = Files::of(folder.path());
        let wanted = [name.clone(), missing.clone()];
        let news = files.news(&wanted);
        assert_eq!(news[0], (name.clone(), Ok(b"one".to_vec())));
        assert!(news[1].1.as_ref().unwrap_err().contains("No such file"), "{news:?}");
        assert!(files.news(&wanted).is_empty());
        put("another");
        assert_eq!(files.news(&wanted), [(name.clone(), Ok(b"another".to_vec()))]);
        fs::remove_file(folder.path().join(&name)).unwrap();
        assert!(matches!(&files.news(&wanted)[..], [(_, Err(_))]), "that it is gone is news as well");
        files.forget();
        assert_eq!(files.news(&wanted).len(), 2);
        assert!(files.news(&["/dev".into()])[0].1.as_ref().unwrap_err().contains("no ordinary file"));
    }
}
