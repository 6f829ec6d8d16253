//! Files that checks need: passwords and certificates. Small, regular, and read by a thread that may wait for a disk.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;

use super::Outcome;
use crate::model::Password;

/// No file is larger, in bytes: that is some thousand certificates.
const LARGEST: u64 = 4 << 20;

/// The password itself.
pub(super) async fn password(folder: &Path, password: &Password) -> Result<String, Outcome> {
    let path = match password {
        Password::Text(text) => return Ok(text.clone()),
        Password::File(path) => folder.join(path),
    };
    let text = read(path.clone()).await?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Outcome::Inconclusive(format!("{} begins with no password", path.display()))),
    }
}

/// The text of a file; what is wrong with it is not the server's fault.
pub(super) async fn read(path: PathBuf) -> Result<String, Outcome> {
    let shown = path.display().to_string();
    let read = spawn_blocking(move || {
        String::from_utf8(read_now(&path)?).map_err(|_| io::Error::other("it is no text"))
    });
    let text = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    text.map_err(|error| Outcome::Inconclusive(format!("{shown} cannot be read: {error}")))
}

/// What is in a file, now.
///
/// # Errors
/// When it cannot be read, is too large, or no file.
pub(crate) fn read_now(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for somebody to write into it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_the_first_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "geheim \nmore\n").unwrap();
        fs::write(folder.path().join("empty"), "\n").unwrap();
        let of = |name: &str| Password::File(name.into());
        assert_eq!(password(folder.path(), &of("secret")).await, Ok("geheim ".into()));
        assert_eq!(password(folder.path(), &Password::Text("own".into())).await, Ok("own".into()));
        for (name, why) in
            [("empty", "begins with no password"), ("none", "cannot be read"), (".", "no regular file")]
        {
            let Err(Outcome::Inconclusive(said)) = password(folder.path(), &of(name)).await else {
                panic!("{name}")
            };
            assert!(said.contains(why), "{said}");
        }
    }
}
