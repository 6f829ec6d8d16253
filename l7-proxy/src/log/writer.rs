//! The thread that writes the log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    net::{SocketAddr, UdpSocket},
    process,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use tracing::warn;

use super::{Heap, Log, lines};
use crate::spec::LogTarget;

/// How often lines are fetched, unless there are many.
const EVERY: Duration = Duration::from_millis(100);

/// The thread that writes the log, and a way to tell it something.
#[derive(Debug)]
pub struct Writer {
    told: Arc<Mutex<Told>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Told {
    reopen: bool,
    end: bool,
}

enum Sink {
    Nowhere,
    Stdout,
    File(File),
    /// The socket, the receiver, and what every message has behind its time.
    Syslog(UdpSocket, SocketAddr, Vec<u8>),
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(log: Arc<Log>) -> io::Result<Self> {
        let told: Arc<Mutex<Told>> = Arc::default();
        let (for_thread, of_thread) = (Arc::clone(&told), Arc::clone(&log));
        let thread = thread::Builder::new().name("log".into()).spawn(move || run(&of_thread, &for_thread))?;
        // A log has one writer.
        let _ = log.writer.set(thread.thread().clone());
        Ok(Self { told, thread: Some(thread) })
    }

    /// Opens the file again, and takes changed settings over.
    pub fn reopen(&self) {
        self.tell(|told| told.reopen = true);
    }

    /// Writes what waits and ends.
    pub fn end(&mut self) {
        self.tell(|told| told.end = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn tell(&self, what: impl FnOnce(&mut Told)) {
        what(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(log: &Log, told: &Mutex<Told>) {
    let mut target = None;
    let mut sink = Sink::Nowhere;
    let mut heap = Heap::default();
    loop {
        thread::park_timeout(EVERY);
        let (reopen, end) = {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut told.reopen), told.end)
        };
        let wanted = log.settings.lock().unwrap_or_else(PoisonError::into_inner).to.clone();
        if reopen || wanted != target {
            sink = open(wanted.as_ref());
            target = wanted;
        }
        for worker in &log.heaps {
            std::mem::swap(&mut heap, &mut worker.lock().unwrap_or_else(PoisonError::into_inner));
            if let Err(error) = sink.write(&heap) {
                log.dropped.fetch_add(heap.ends.len() as u64, Relaxed);
                warn!("the log of requests cannot be written: {error}");
            }
            heap.text.clear();
            heap.ends.clear();
        }
        if end {
            return;
        }
    }
}

fn open(target: Option<&LogTarget>) -> Sink {
    let opened = match target {
        None => return Sink::Nowhere,
        Some(LogTarget::Stdout) => return Sink::Stdout,
        Some(LogTarget::File(path)) => OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(Sink::File)
            .map_err(|error| format!("{}: {error}", path.display())),
        Some(LogTarget::Syslog(receiver)) => {
            let any: SocketAddr =
                if receiver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
            UdpSocket::bind(any)
                .map(|socket| {
                    let tag = format!(" - l7-proxy {} - - ", process::id()).into_bytes();
                    Sink::Syslog(socket, *receiver, tag)
                })
                .map_err(|error| format!("syslog to {receiver}: {error}"))
        }
    };
    opened.unwrap_or_else(|error| {
        warn!("the log of requests cannot be opened, lines are lost: {error}");
        Sink::Nowhere
    })
}

impl Sink {
    fn write(&mut self, heap: &Heap) -> io::Result<()> {
        if heap.text.is_empty() {
            return Ok(());
        }
        match self {
            Self::Nowhere => Ok(()),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&heap.text)?;
                out.flush()
            }
            Self::File(file) => file.write_all(&heap.text),
            Self::Syslog(socket, receiver, tag) => {
                // RFC 5424: facility local0, severity informational.
                let mut message = b"<134>1 ".to_vec();
                lines::timestamp(&mut message, SystemTime::now());
                message.extend_from_slice(tag);
                let head = message.len();
                let mut begin = 0;
                for &end in &heap.ends {
                    message.truncate(head);
                    message.extend_from_slice(&heap.text[begin..end - 1]);
                    begin = end;
                    // A receiver that is not there answers with an error to the next datagram: no reason to
                    // stop sending.
                    let _ = socket.send_to(&message, *receiver);
                }
                Ok(())
            }
        }
    }
}
