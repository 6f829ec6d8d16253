//! What is behind a proxy: a server of few instructions, and somebody who takes its log.
//!
//! The server answers `GET` by the end of the path, `/1k` and `/64k`, takes part in WebSockets by sending back every byte, and
//! reads nothing more once it is asked for [`STALLED`].

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
};

use crate::{netns::Netns, wait};

/// Port of the server, on all loopback addresses.
pub const PORT: u16 = 8_000;

/// Path of requests whose bodies are never read.
pub const STALLED: &str = "/app/stalled";

/// UDP port of whom log lines are sent to.
pub const LOG_PORT: u16 = 5_514;

/// The key and the answer to it that RFC 6455 §1.3 has for an example: nobody checks that a key is random.
pub const SOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const SOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Bytes of log lines that may wait.
const BUFFER: usize = 32 << 20;

/// Longest head of a request.
const HEAD: usize = 16 * 1024;

/// A running server; it ends when this is dropped.
pub struct Server {
    /// Dropped to end it.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Told when those who are asked for [`STALLED`] are to go.
    go: Arc<Notify>,
}

impl Server {
    /// Starts it in a namespace, with one thread.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn start(ns: &Netns, port: u16) -> Self {
        let listener = ns.run(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
        let listener = listener.expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not wait");
        let (end, ended) = oneshot::channel::<()>();
        let go = Arc::<Notify>::default();
        let told = Arc::clone(&go);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            runtime.expect("an event loop").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, told) => {}
                    _ = ended => {}
                }
            });
        });
        Self { end: Some(end), thread: Some(thread), go }
    }

    /// Resets whoever waits for [`STALLED`]. What a proxy has sent there stays in the kernel after its own end as well, for minutes
    /// and megabytes each, and a kernel that is short of memory for TCP has the next one keep more.
    pub fn leave_stalled(&self) {
        self.go.notify_waiters();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(listener: TcpListener, go: Arc<Notify>) {
    let answers: &'static [Vec<u8>; 2] = Box::leak(Box::new([1 << 10, 64 << 10].map(answer)));
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // A proxy that goes away in the middle is no concern of ours.
            let go = Arc::clone(&go);
            tokio::spawn(async move {
                let _ = serve(stream, answers, &go).await;
            });
        }
    }
}

fn answer(length: usize) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    text.extend(std::iter::repeat_n('x', length));
    text.into_bytes()
}

async fn serve(mut stream: TcpStream, answers: &[Vec<u8>; 2], go: &Notify) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut came = Vec::with_capacity(HEAD);
    loop {
        let Some(end) = end_of_head(&came) else {
            if came.len() >= HEAD || stream.read_buf(&mut came).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = &came[..end];
        if is_web_socket(head) {
            return echo(stream).await;
        }
        let asks_for =
            |path: &str| head[..line(head)].windows(path.len()).any(|word| word == path.as_bytes());
        if asks_for(STALLED) {
            go.notified().await;
            return Ok(());
        }
        let answer = &answers[usize::from(asks_for("/64k"))];
        stream.write_all(answer).await?;
        came.drain(..end);
    }
}

/// Where the head of a request ends that is there altogether.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4)
}

fn line(head: &[u8]) -> usize {
    head.iter().position(|&byte| byte == b'\r').unwrap_or(head.len())
}

fn is_web_socket(head: &[u8]) -> bool {
    let name = b"sec-websocket-key:";
    head.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name))
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {SOCKET_ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            length => stream.write_all(&piece[..length]).await?,
        }
    }
}

/// Takes and counts log lines that come by UDP, each in a datagram of its own.
pub struct Sink {
    lines: Arc<AtomicU64>,
}

impl Sink {
    /// Starts it in a namespace. Its thread ends with the process.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn start(ns: &Netns, port: u16) -> Self {
        let socket = ns.run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, port))).expect("a free port");
        // Lines come in bursts. Who may not have more has what is usual.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
        let lines = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&lines);
        thread::spawn(move || {
            let mut line = [0; 4096];
            while socket.recv(&mut line).is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { lines }
    }

    /// Lines so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Lines so far, once no more come.
    #[must_use]
    pub fn settled(&self) -> u64 {
        let mut last = self.lines();
        wait::until(Duration::from_secs(20), "the log to be written", || {
            thread::sleep(Duration::from_millis(50));
            let now = self.lines();
            if std::mem::replace(&mut last, now) == now { Ok(now) } else { Err(format!("{now} lines")) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_told_apart() {
        let head = b"GET /64k HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!(end_of_head(head), Some(head.len()));
        assert_eq!(end_of_head(&head[..head.len() - 1]), None);
        assert_eq!(line(head), 17);
        assert!(!is_web_socket(head));
        assert!(is_web_socket(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n"));
        assert!(answer(1024).ends_with(&[b'x'; 1024]));
    }
}
