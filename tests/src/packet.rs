//! Frames for tests that hand them to the kernel program one by one: described field by field, and kept as a
//! capture file when a test fails.

use std::{env, fs, path::PathBuf, process};

pub use lb_testkit::draft::Draft;

/// Writes frames to a capture file that Wireshark and `tcpdump -r` read, below the system's folder for
/// temporary files; gives its path.
///
/// # Panics
/// When it cannot be written.
#[must_use]
pub fn save(name: &str, frames: &[impl AsRef<[u8]>]) -> PathBuf {
    let path = env::temp_dir().join(format!("lbt-{}-{name}.pcap", process::id()));
    fs::write(&path, capture(frames)).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    path
}

/// Keeps this thread on one CPU: what a kernel program keeps for each CPU is then one thing.
///
/// # Panics
/// When the kernel will not have it.
pub fn stay_on_this_cpu() {
    let mut here = rustix::thread::CpuSet::new();
    here.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &here).expect("a thread may choose its CPU");
}

/// The bytes of such a file. All frames have the time 0.
fn capture(frames: &[impl AsRef<[u8]>]) -> Vec<u8> {
    const ETHERNET: u32 = 1;
    let mut file = Vec::new();
    // Magic number, version 2.4, time zone, accuracy, longest frame.
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0x1_0000, ETHERNET] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let length = (frame.as_ref().len() as u32).to_le_bytes();
        file.extend([[0; 4], [0; 4], length, length].as_flattened());
        file.extend(frame.as_ref());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::capture;
    use crate::frame::read_pcap;

    #[test]
    fn what_is_saved_can_be_read() {
        let frames = [&b"one"[..], b"", b"three"];
        assert_eq!(read_pcap(&capture(&frames)), Ok(frames.to_vec()));
    }
}
