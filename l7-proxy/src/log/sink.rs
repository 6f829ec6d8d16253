//! Where lines of the log go.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::{SocketAddr, UdpSocket},
    process,
    time::SystemTime,
};

use tracing::warn;

use super::{Heap, lines};
use crate::spec::LogTarget;

/// An opened target.
pub(super) enum Sink {
    Nowhere,
    Stdout,
    File(File),
    Syslog(Syslog),
}

impl Sink {
    /// Opens a target. One that cannot be opened is told of, and is nowhere.
    pub(super) fn open(target: Option<&LogTarget>) -> Self {
        let opened = match target {
            None => return Self::Nowhere,
            Some(LogTarget::Stdout) => return Self::Stdout,
            Some(LogTarget::File(path)) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(Self::File)
                .map_err(|error| format!("{}: {error}", path.display())),
            Some(LogTarget::Syslog(receiver)) => Syslog::open(*receiver)
                .map(Self::Syslog)
                .map_err(|error| format!("syslog to {receiver}: {error}")),
        };
        opened.unwrap_or_else(|error| {
            warn!("the log of requests cannot be opened, lines are lost: {error}");
            Self::Nowhere
        })
    }

    /// Writes all lines of a heap, which is empty then, and gives how many of them are lost.
    pub(super) fn write(&mut self, heap: &mut Heap) -> usize {
        let lines = heap.waiting();
        let written = match self {
            Self::Syslog(syslog) => return syslog.send(heap, usize::MAX),
            _ if lines == 0 => return 0,
            Self::Nowhere => {
                heap.clear();
                return lines;
            }
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&heap.text).and_then(|()| out.flush())
            }
            Self::File(file) => file.write_all(&heap.text),
        };
        heap.clear();
        written.map_or_else(
            |error| {
                warn!("the log of requests cannot be written: {error}");
                lines
            },
            |()| 0,
        )
    }
}

/// A receiver of syslog, by UDP.
pub(super) struct Syslog {
    socket: UdpSocket,
    receiver: SocketAddr,
    /// What every message has behind its time.
    tag: Vec<u8>,
    message: Vec<u8>,
}

impl Syslog {
    fn open(receiver: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr =
            if receiver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        // Nobody waits for the log.
        socket.set_nonblocking(true)?;
        let tag = format!(" - l7-proxy {} - - ", process::id()).into_bytes();
        Ok(Self { socket, receiver, tag, message: Vec::new() })
    }

    /// Sends so many lines of a heap at most, and gives how many of them are lost.
    pub(super) fn send(&mut self, heap: &mut Heap, most: usize) -> usize {
        // RFC 5424 §6: facility local0, severity informational.
        self.message.clear();
        self.message.extend_from_slice(b"<134>1 ");
        lines::timestamp(&mut self.message, SystemTime::now());
        self.message.extend_from_slice(&self.tag);
        let head = self.message.len();
        let mut lost = 0;
        for _ in 0..most {
            let Some(line) = heap.next() else { break };
            self.message.truncate(head);
            self.message.extend_from_slice(line);
            // A receiver that is not there is no error, for the socket is not connected to it.
            lost += usize::from(self.socket.send_to(&self.message, self.receiver).is_err());
        }
        if heap.waiting() == 0 {
            heap.clear();
        }
        lost
    }
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
    fn each_line_is_a_message_and_some_may_wait() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut syslog = Syslog::open(receiver.local_addr().unwrap()).unwrap();
        let mut heap = heap(&["first", "", "third"]);
        let came = || {
            let mut piece = [0; 1024];
            let length = receiver.recv(&mut piece).unwrap();
            String::from_utf8(piece[..length].to_vec()).unwrap()
        };
        assert_eq!(syslog.send(&mut heap, 2), 0);
        let first = came();
        assert!(first.starts_with("<134>1 20") && first.ends_with(" - - first"), "{first}");
        assert!(came().ends_with(" - - "));
        assert_eq!(heap.waiting(), 1);
        assert_eq!(syslog.send(&mut heap, usize::MAX), 0);
        assert!(came().ends_with(" - - third"));
        assert!(heap.text.is_empty() && heap.waiting() == 0, "it can be filled again");
    }

    #[test]
    fn lines_that_cannot_be_sent_are_counted() {
        let mut syslog = Syslog::open(([127, 0, 0, 1], 9).into()).unwrap();
        // Longer than any datagram.
        let long = "x".repeat(70_000);
        assert_eq!(syslog.send(&mut heap(&["short", &long, &long]), usize::MAX), 2);
        let mut full = Sink::File(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let mut heap = heap(&["one", "two"]);
        assert_eq!((full.write(&mut heap), heap.waiting()), (2, 0));
    }
}
