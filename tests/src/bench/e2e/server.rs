//! Servers that do as little as possible. The first byte of a connection says what for:
//!
//! | byte | answer |
//! |---|---|
//! | [`ONCE`] | one byte, and the end |
//! | [`MESSAGES`] | every message of [`MESSAGE`] bytes back, the first byte being part of the first one |
//! | [`BULK`] | bytes without end |
//! | none | the end: what a health probe does |

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use rustix::net::{Shutdown, shutdown};

use crate::netns::Netns;

/// Port of servers and VIP.
pub const PORT: u16 = 80;
/// "Answer once and close."
pub const ONCE: u8 = 1;
/// "Answer every message."
pub const MESSAGES: u8 = 2;
/// "Send as much as you can."
pub const BULK: u8 = 3;
/// Bytes of a message.
pub const MESSAGE: usize = 64;

/// Threads of a server, and so connections that it serves at once: more than clients ever have.
const THREADS: usize = 64;

/// A running server; it ends when this is dropped and its clients have closed.
#[derive(Debug)]
pub struct Server {
    ends: Arc<AtomicBool>,
    listener: Arc<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts it in a namespace.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn start(ns: &Netns) -> Self {
        let listener = ns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a free port"));
        let (listener, ends) = (Arc::new(listener), Arc::<AtomicBool>::default());
        let threads = (0..THREADS)
            .map(|_| {
                let (listener, ends) = (Arc::clone(&listener), Arc::clone(&ends));
                ns.spawn(move || serve(&listener, &ends))
            })
            .collect();
        Self { ends, listener, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // Wakes all who wait for a connection.
        let _ = shutdown(&self.listener, Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, ends: &AtomicBool) {
    while !ends.load(Ordering::Acquire) {
        if let Ok((stream, _)) = listener.accept() {
            // A client that goes away in the middle is no concern of ours.
            let _ = answer(stream);
        }
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    let length = stream.read(&mut message)?;
    match message[0] {
        _ if length == 0 => Ok(()),
        ONCE => stream.write_all(&[ONCE]),
        BULK => {
            let block = [BULK; 64 * 1024];
            loop {
                stream.write_all(&block)?;
            }
        }
        _ => {
            stream.read_exact(&mut message[length..])?;
            loop {
                stream.write_all(&message)?;
                stream.read_exact(&mut message)?;
            }
        }
    }
}
