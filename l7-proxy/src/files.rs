//! The files that specifications name: those of this machine, or those that were handed over.
//!
//! A proxy that `lb-user` looks after has no right to read private keys. It is given what is in the files, and then
//! looks at no others: which of the two it is holds for the whole process, as with a file system of its own.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What changes with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64, i64, i64, u64);

/// A file that was handed over.
#[derive(Debug)]
struct Given {
    contents: Result<Arc<[u8]>, String>,
    /// Another one each time.
    number: u64,
}

static GIVEN: OnceLock<RwLock<BTreeMap<PathBuf, Given>>> = OnceLock::new();

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// From now on there are only files that are handed over.
pub fn only_given() {
    let _ = GIVEN.set(RwLock::default());
}

/// Hands a file over, or says why it cannot be read. Without [`only_given`] nobody would look at it: it is dropped.
pub fn give(path: PathBuf, contents: Result<Vec<u8>, String>) {
    if let Some(given) = GIVEN.get() {
        let given_now = Given { contents: contents.map(Arc::from), number: NUMBER.fetch_add(1, Relaxed) };
        given.write().unwrap_or_else(PoisonError::into_inner).insert(path, given_now);
    }
}

/// Forgets the files that were handed over and are not in `needed`.
pub fn keep(needed: &[PathBuf]) {
    if let Some(given) = GIVEN.get() {
        given.write().unwrap_or_else(PoisonError::into_inner).retain(|path, _| needed.contains(path));
    }
}

/// The contents of a file.
///
/// # Errors
/// Why they cannot be had.
pub fn read(path: &Path) -> io::Result<Arc<[u8]>> {
    let Some(given) = GIVEN.get() else { return fs::read(path).map(Arc::from) };
    match given.read().unwrap_or_else(PoisonError::into_inner).get(path).map(|file| &file.contents) {
        Some(Ok(contents)) => Ok(Arc::clone(contents)),
        Some(Err(why)) => Err(io::Error::other(why.clone())),
        None => Err(io::Error::other("it was not handed over")),
    }
}

/// What a file looks like without reading it; `None` where there is none.
#[must_use]
pub fn stamp(path: &Path) -> Option<Stamp> {
    let Some(given) = GIVEN.get() else {
        let file = fs::metadata(path).ok()?;
        return Some(Stamp(file.ino(), file.mtime(), file.mtime_nsec(), file.len()));
    };
    let given = given.read().unwrap_or_else(PoisonError::into_inner);
    given.get(path).map(|file| Stamp(file.number, 0, 0, 0))
}
