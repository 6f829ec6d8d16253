//! A receiver of syslog, by UDP.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    process,
};

use nix::time::{ClockId, clock_gettime};

use super::{Heap, lines};

/// A socket, and whom it sends to.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: UdpSocket,
    receiver: SocketAddr,
    /// The begin of each message, with the last one behind it; how long it is, and of which millisecond.
    message: Vec<u8>,
    head: usize,
    at: Option<u64>,
}

impl Syslog {
    pub(super) fn open(receiver: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr =
            if receiver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        // Nobody waits for the log.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, receiver, message: Vec::new(), head: 0, at: None })
    }

    pub(super) fn receiver(&self) -> SocketAddr {
        self.receiver
    }

    /// Sends each line in a message of its own, and gives how many are lost.
    pub(super) fn send(&mut self, heap: &Heap) -> usize {
        self.begin(millis());
        let mut lost = 0;
        for line in heap.lines() {
            self.message.truncate(self.head);
            self.message.extend_from_slice(line);
            // A receiver that is not there is no error, for the socket is not connected to it.
            lost += usize::from(self.socket.send_to(&self.message, self.receiver).is_err());
        }
        lost
    }

    /// RFC 5424 §6: facility local0, severity informational. Made once for all messages of a tick of the clock.
    fn begin(&mut self, now: u64) {
        if self.at != Some(now) {
            self.message.clear();
            self.message.extend_from_slice(b"<134>1 ");
            lines::timestamp(&mut self.message, now);
            self.message.extend_from_slice(format!(" - l7-proxy {} - - ", process::id()).as_bytes());
            (self.head, self.at) = (self.message.len(), Some(now));
        }
    }
}

/// Milliseconds since 1970, as coarse as the kernel's ticks are.
fn millis() -> u64 {
    // Every Linux has it. Neither number is negative.
    let time = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).expect("a clock");
    time.tv_sec() as u64 * 1_000 + time.tv_nsec() as u64 / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn heap(lines: &[&str]) -> Heap {
        let mut heap = Heap::default();
        for line in lines {
            heap.text.extend_from_slice(line.as_bytes());
            heap.text.push(b'\n');
            heap.ends.push(heap.text.len());
        }
        heap
    }

    #[test]
    fn each_line_is_a_message() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut syslog = Syslog::open(receiver.local_addr().unwrap()).unwrap();
        for lines in [&["first", "", "third"][..], &["fourth"], &[]] {
            assert_eq!(syslog.send(&heap(lines)), 0);
            for line in lines {
                let mut piece = [0; 1024];
                let length = receiver.recv(&mut piece).unwrap();
                let came = str::from_utf8(&piece[..length]).unwrap();
                let end = format!("Z - l7-proxy {} - - {line}", process::id());
                assert!(came.starts_with("<134>1 20") && came.ends_with(&end), "{came}");
            }
        }
    }

    #[test]
    fn the_time_is_that_of_sending() {
        let mut syslog = Syslog::open(([127, 0, 0, 1], 9).into()).unwrap();
        let mut time = |at| {
            syslog.begin(at);
            String::from_utf8_lossy(&syslog.message[7..31]).into_owned()
        };
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(1), "1970-01-01T00:00:00.001Z");
        assert_eq!(time(1_234), "1970-01-01T00:00:01.234Z");
        assert!(millis() > 1_700_000_000_000);
    }

    #[test]
    fn lines_that_cannot_be_sent_are_counted() {
        let mut syslog = Syslog::open(([127, 0, 0, 1], 9).into()).unwrap();
        // Longer than any datagram.
        let long = "x".repeat(70_000);
        assert_eq!(syslog.send(&heap(&["short", &long, &long])), 2);
    }
}
