//! An archive in the format of POSIX (ustar, IEEE Std 1003.1-1988): as little of it as files in one folder take.

/// Bytes are counted in blocks of these.
const BLOCK: usize = 512;

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// Adds a file that only its owner may read. `name` is ASCII, at most 100 bytes; `time` in seconds since 1970.
    ///
    /// # Panics
    /// When the name is longer.
    pub fn add(&mut self, name: &str, time: u64, content: &[u8]) {
        self.0.extend_from_slice(&header(name, time, content.len() as u64));
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        // Two empty blocks are the end.
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

fn header(name: &str, time: u64, size: u64) -> [u8; BLOCK] {
    assert!(name.len() <= 100, "{name:?} is too long for an archive");
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    // Mode, owner, group; size and time; then the place of the checksum, which counts as spaces.
    put(100, b"0000600\x000000000\x000000000\x00");
    put(124, format!("{size:011o}\0{time:011o}\0        0").as_bytes());
    put(257, b"ustar\x0000root");
    put(297, b"root");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn tar_unpacks_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::default();
        let files: [(&str, Vec<u8>); 4] = [
            ("bundle/empty", Vec::new()),
            ("bundle/small.txt", b"hello\n".to_vec()),
            ("bundle/block", vec![b'x'; 512]),
            ("bundle/large", (0..100_000).map(|number| number as u8).collect()),
        ];
        for (name, content) in &files {
            archive.add(name, 1_795_219_831, content);
        }
        let file = folder.path().join("bundle.tar");
        fs::write(&file, archive.finish()).unwrap();
        let output =
            Command::new("tar").arg("-xvvf").arg(&file).arg("-C").arg(folder.path()).output().unwrap();
        let told =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stderr.is_empty(), "{told}");
        assert!(told.contains("-rw------- root/root") && told.contains("2026-11-"), "{told}");
        for (name, content) in &files {
            assert_eq!(&fs::read(folder.path().join(name)).unwrap(), content, "{name}");
        }
    }
}
