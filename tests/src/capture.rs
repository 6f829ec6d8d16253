//! What was on the wire: `tcpdump` writes, [`crate::frame`] reads.
//!
//! When a capture is stopped, a marker frame is sent over the watched device, and everything before the
//! marker is in the file: "no such frame was seen" then means that there was none.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddrV6, UdpSocket},
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketType, netdevice::name_to_index, socket},
    process::Signal,
};

use crate::{
    folder::Folder,
    frame::{Frame, Transport, read_pcap},
    process::Running,
    topology::Tap,
    wait,
};

/// Everybody on the wire; nobody answers on the discard port.
const MARKER: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const MARKER_PORT: u16 = 9;

/// A running capture. Its file is kept when the test fails.
#[derive(Debug)]
pub struct Capture<'a> {
    tap: Tap<'a>,
    tcpdump: Running,
    folder: Folder,
}

impl<'a> Capture<'a> {
    /// Starts capturing frames that match a `tcpdump` filter. Frames from now on are seen.
    ///
    /// # Panics
    /// When `tcpdump` does not start.
    #[track_caller]
    #[must_use]
    pub fn start(tap: Tap<'a>, filter: &str) -> Self {
        let folder = Folder::new();
        let marked = format!("({filter}) or (ip6 dst {MARKER} and udp dst port {MARKER_PORT})");
        let mut command = tap.ns.command("tcpdump");
        // Headers only, so that 16 MiB of buffer hold tens of thousands of frames. Written as root: the
        // default user of tcpdump may not write into the folder.
        let options = ["-n", "-U", "--immediate-mode", "-s", "160", "-B", "16384", "-Z", "root"];
        command.args(["-i", &tap.device]).args(options).arg("-w");
        let mut tcpdump = Running::start("tcpdump", command.arg(folder.file("frames.pcap")).arg(marked));
        tcpdump.wait_for_line(Duration::from_secs(10), "listening on");
        Self { tap, tcpdump, folder }
    }

    /// Stops and gives all TCP and UDP frames in the order they were seen. The folder, too: while it lives and
    /// the test fails, the capture file stays.
    ///
    /// # Panics
    /// When frames were lost, or the file cannot be read.
    #[track_caller]
    pub fn stop(mut self) -> (Vec<Frame>, Folder) {
        self.send_marker();
        let path = self.folder.file("frames.pcap");
        wait::until(Duration::from_secs(10), "a capture to reach its marker", || {
            let frames = read(&fs::read(&path).map_err(|error| error.to_string())?)?;
            if frames.iter().any(is_marker) { Ok(()) } else { Err(format!("{} frames", frames.len())) }
        });
        self.tcpdump.signal(Signal::INT);
        let (_, log) = self.tcpdump.wait(Duration::from_secs(10));
        assert!(log.contains("\n0 packets dropped by kernel"), "the capture is not complete: {log}");
        let mut frames = read(&fs::read(&path).expect("the capture file")).expect("a capture file");
        frames.retain(|frame| !is_marker(frame));
        (frames, self.folder)
    }

    fn send_marker(&self) {
        self.tap.host.run(|| {
            let any = socket(AddressFamily::INET6, SocketType::DGRAM, None).expect("a socket");
            let index = name_to_index(&any, "eth0").expect("the index of eth0");
            let sender = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("bind a UDP port");
            let marker = SocketAddrV6::new(MARKER, MARKER_PORT, 0, index);
            sender.send_to(b"end of capture", marker).expect("send the marker");
        });
    }
}

fn read(file: &[u8]) -> Result<Vec<Frame>, String> {
    Ok(read_pcap(file)?.into_iter().filter_map(Frame::parse).collect())
}

fn is_marker(frame: &Frame) -> bool {
    frame.dst == MARKER && frame.dst_port == MARKER_PORT && frame.transport == Transport::Udp
}
