//! The archive a kernel unpacks as its first file system: cpio, format "newc", as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` describes it.

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive in the making. Everything belongs to root, and every file may be run.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// Adds an empty folder, and those it lies in.
    pub(super) fn folder(&mut self, path: &Path) {
        let mut name = String::new();
        for component in path.components() {
            let Component::Normal(word) = component else { continue };
            if !name.is_empty() {
                name.push('/');
            }
            name += &word.to_string_lossy();
            if self.folders.insert(name.clone()) {
                self.entry(&name, FOLDER, (0, 0), &[]);
            }
        }
    }

    /// Adds a file, and the folders it lies in.
    pub(super) fn file(&mut self, path: &Path, content: &[u8]) {
        self.placed(path, FILE, (0, 0), content);
    }

    /// Adds a character device with its two numbers, and the folders it lies in.
    pub(super) fn device(&mut self, path: &Path, numbers: (u32, u32)) {
        self.placed(path, CHARACTER_DEVICE, numbers, &[]);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn placed(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) {
        self.folder(path.parent().unwrap_or(Path::new("")));
        let name = path.to_string_lossy();
        self.entry(name.trim_start_matches('/'), mode, device, content);
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file of less than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a short name");
        let links = 1;
        // inode, mode, uid, gid, links, time of change, size, device of the file (2), device it is (2),
        // size of the name with its final zero, sum.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Names and contents end at a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Archive;

    /// Names, modes and contents, read as the format says.
    fn read(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut rest = archive;
        loop {
            assert_eq!(&rest[..6], b"070701");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&rest[6 + 8 * index..][..8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let content = (110 + name_size).next_multiple_of(4);
            let name = String::from_utf8(rest[110..110 + name_size - 1].to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((name, mode, rest[content..content + size].to_vec()));
            rest = &rest[(content + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn what_goes_in_can_be_read_and_folders_come_once_and_before_their_files() {
        let mut archive = Archive::default();
        archive.file(Path::new("/lib/x/a.so"), b"abcde");
        archive.file(Path::new("/lib/b.so"), b"");
        archive.device(Path::new("/dev/console"), (5, 1));
        let entries = read(&archive.finish());
        let names: Vec<_> = entries.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        let (folder, file, device) = (0o040_755, 0o100_755, 0o020_600);
        assert_eq!(
            names,
            [
                ("lib", folder),
                ("lib/x", folder),
                ("lib/x/a.so", file),
                ("lib/b.so", file),
                ("dev", folder),
                ("dev/console", device)
            ]
        );
        assert_eq!(entries[2].2, b"abcde");
    }
}
