//! Clients: `h2load` for requests, a few lines of our own for WebSockets.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{case::Case, contender::Ports, server::SOCKET_KEY};
use crate::{folder::Folder, netns::Netns, process};

/// Longer than anything takes that goes well.
const LIMIT: Duration = Duration::from_secs(120);

/// WebSockets at a time.
const SOCKETS: usize = 1_000;

/// Messages through each of them.
const MESSAGES: usize = 20;

/// Bytes of a message, with the frame around it.
const MESSAGE: usize = 128;

/// What clients ask for.
#[derive(Clone, Debug)]
pub struct Load {
    /// Requests altogether.
    pub requests: usize,
    connections: usize,
    /// Requests at a time on each connection.
    streams: usize,
    tls: bool,
    http2: bool,
    path: &'static str,
    /// Requests in a second; as many as go through unless given.
    rate: Option<f64>,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Requests in a second.
    pub per_second: f64,
    /// One in a hundred took longer, in microseconds. Not a number unless there was a rate.
    pub p99: f64,
}

impl Load {
    /// What this case is about, if that is requests.
    #[must_use]
    pub fn of(case: Case) -> Option<Self> {
        let small = Self {
            requests: 20_000,
            connections: 32,
            streams: 1,
            tls: false,
            http2: false,
            path: "/app/1k",
            rate: None,
        };
        Some(match case {
            Case::H1Small => small,
            Case::H1Large => Self { requests: 8_000, path: "/app/64k", ..small },
            Case::TlsH1 => Self { tls: true, ..small },
            Case::TlsH2 => Self { tls: true, http2: true, connections: 8, streams: 10, ..small },
            Case::TlsNew => Self { tls: true, requests: 1_000, connections: 1_000, ..small },
            Case::P99 | Case::Abused(_) => Self { rate: Some(1_000.0), ..small },
            Case::WebSocket | Case::Idle | Case::AbuseHeld => return None,
        })
    }

    /// So many times fewer requests.
    #[must_use]
    pub fn fewer(mut self, times: usize) -> Self {
        self.requests /= times;
        self.connections = self.connections.min(self.requests);
        self
    }

    /// At so many requests in a second.
    #[must_use]
    pub fn at(mut self, rate: f64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// One connection with one request at a time, so often: what happens then always happens in the same order.
    #[must_use]
    pub fn alone(mut self, requests: usize) -> Self {
        // A connection for each request, where that is what it is about.
        self.connections = if self.connections == self.requests { requests } else { 1 };
        self.requests = requests;
        self.streams = 1;
        self
    }

    /// Has it done.
    ///
    /// # Errors
    /// When any request is not answered with 2xx.
    pub fn drive(&self, ns: &Netns, folder: &Folder, ports: &Ports) -> Result<Done> {
        let mut command = ns.command("h2load");
        command.args(["-t1", "-c", &self.connections.to_string(), "-m", &self.streams.to_string()]);
        command.args(["-n", &self.requests.to_string()]);
        let times = folder.file("times");
        if let Some(rate) = self.rate {
            // Lines are added to a file that is there.
            let _ = fs::remove_file(&times);
            command.args(["--rps", &(rate / self.connections as f64).to_string(), "--log-file"]).arg(&times);
        }
        if !self.http2 {
            command.arg("--h1");
        }
        let (scheme, port) = if self.tls { ("https", ports.tls) } else { ("http", ports.plain) };
        command.arg(format!("{scheme}://127.0.0.1:{port}{}", self.path));
        let output = process::output("h2load", &mut command, LIMIT);
        let said = String::from_utf8_lossy(&output.stdout);
        let (good, per_second) = read(&said).with_context(|| format!("h2load says: {said}"))?;
        ensure!(good == self.requests, "{good} of {} requests were answered: {said}", self.requests);
        let p99 = match self.rate {
            Some(_) => p99(&fs::read_to_string(&times)?).context("h2load took no times")?,
            None => f64::NAN,
        };
        Ok(Done { per_second, p99 })
    }
}

/// Answers with a status of 2xx, and requests in a second.
fn read(said: &str) -> Option<(usize, f64)> {
    let good = said.lines().find_map(|line| line.strip_prefix("status codes: "))?;
    let good = good.split_once(" 2xx")?.0.parse().ok()?;
    let rate = said.lines().find(|line| line.starts_with("finished in "))?;
    let rate = rate.split(", ").find_map(|part| part.strip_suffix(" req/s"))?.parse().ok()?;
    Some((good, rate))
}

/// Of `h2load`'s file of times, whose third column is microseconds.
fn p99(text: &str) -> Option<f64> {
    let mut times: Vec<f64> = text.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).copied()
}

/// Sends messages through a thousand WebSockets and reads them again; gives how many.
///
/// # Errors
/// When one does not come back as it was sent.
pub fn web_sockets(port: u16) -> Result<usize> {
    let mut streams = (0..SOCKETS).map(|_| open(port)).collect::<io::Result<Vec<_>>>()?;
    for number in 0..MESSAGES {
        for (stream, socket) in streams.iter_mut().zip(0..) {
            stream.write_all(&message(number, socket)).context("a message cannot be sent")?;
        }
        for (stream, socket) in streams.iter_mut().zip(0..) {
            let mut came = [0; MESSAGE];
            stream.read_exact(&mut came).context("a message does not come back")?;
            ensure!(came == message(number, socket), "a message came back as another");
        }
    }
    Ok(SOCKETS * MESSAGES)
}

/// A binary frame with a mask of zeros (RFC 6455 §5.2), different for each message.
fn message(number: usize, socket: usize) -> [u8; MESSAGE] {
    let mut frame = [0; MESSAGE];
    // FIN and opcode 2; masked, and a length in two bytes. MESSAGE less these eight.
    frame[..4].copy_from_slice(&[0x82, 0x80 | 126, 0, (MESSAGE - 8) as u8]);
    for (at, byte) in frame[8..].iter_mut().enumerate() {
        *byte = (at * 7 + number * 31 + socket) as u8;
    }
    frame
}

/// Opens a WebSocket.
fn open(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let request = format!(
        "GET /app/socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {SOCKET_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        Ok(stream)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_h2load_says() {
        let said = "finished in 1.50s, 13333.40 req/s, 14.2MB/s\n\
                    requests: 20000 total, 20000 started, 20000 done, 20000 succeeded, 0 failed\n\
                    status codes: 19999 2xx, 0 3xx, 1 4xx, 0 5xx\n";
        assert_eq!(read(said), Some((19_999, 13_333.40)));
        assert_eq!(read("finished in 12.58ms, 0.00 req/s, 0B/s\n"), None);
    }

    #[test]
    fn of_a_hundred_times_the_last_is_the_p99() {
        let times: String = (1..=100).rev().map(|time| format!("17\t200\t{time}\n")).collect();
        assert_eq!(p99(&times), Some(100.0));
        assert_eq!(p99(""), None);
    }

    #[test]
    fn a_message_is_a_frame_of_its_length() {
        let frame = message(3, 5);
        assert_eq!(usize::from(u16::from_be_bytes([frame[2], frame[3]])), frame.len() - 8);
        assert_ne!(frame, message(4, 5));
        assert_ne!(frame, message(3, 6));
    }
}
