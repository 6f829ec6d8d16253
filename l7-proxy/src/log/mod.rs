//! The log of requests and connections: a line for each. Workers never wait for it: each puts lines into a heap of its own, and
//! what comes when the heap is full is dropped and counted. Files, which may have one wait, are written by a thread of its own;
//! to a receiver of syslog each worker sends its lines itself.

mod lines;
mod record;
mod syslog;
mod writer;

pub use record::{Asked, Record, Served, Stopwatch};
pub use writer::Writer;

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::Thread,
    time::{Duration, Instant},
};

use tracing::warn;

use self::syslog::Syslog;
use crate::spec::{Log as Settings, LogFormat, LogTarget};

/// Where workers put their lines.
#[derive(Debug)]
pub struct Log {
    workers: Box<[Mutex<OfWorker>]>,
    settings: Mutex<Settings>,
    /// How often the settings were set: who has opened something by them opens it anew.
    changes: AtomicU64,
    /// Whether anything is to be written at all: `format` as a number, [`BY_WORKERS`], and above that how many lines may wait.
    wanted: AtomicU64,
    dropped: AtomicU64,
    /// The thread that writes.
    writer: OnceLock<Thread>,
}

/// In [`Log::wanted`]: workers send lines themselves.
const BY_WORKERS: u64 = 1 << 7;

/// So many lines are sent by a worker at once, or fetched by the thread that writes: more would keep everybody else from their work
/// for too long.
const AT_ONCE: usize = 16;
const MANY: usize = 32;

/// Between two times that a receiver which cannot be had is told of.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// What a worker has written, and where it sends it if it does that itself.
#[derive(Debug, Default)]
struct OfWorker {
    heap: Heap,
    syslog: Option<Syslog>,
    /// After which of the [`Log::changes`] that was opened, and when it was told last that it could not be.
    opened: u64,
    complained: Option<Instant>,
    /// How often it was sent.
    sent: u64,
}

impl OfWorker {
    /// Sends all lines, if they are for syslog; gives how many are lost.
    fn send(&mut self, log: &Log) -> usize {
        if self.heap.ends.is_empty() {
            return 0;
        }
        if self.opened != log.changes.load(Acquire) {
            let (target, since) = log.target();
            // What is for a file since a moment is not ours any more.
            let Some(LogTarget::Syslog(receiver)) = target else { return 0 };
            self.open(receiver, since);
        }
        let lost = match &mut self.syslog {
            Some(syslog) => syslog.send(&self.heap),
            None => self.heap.ends.len(),
        };
        self.heap.clear();
        self.sent += 1;
        lost
    }

    /// Opens a receiver, unless it is the one that is open. That it cannot be is told of now and then, and tried again.
    fn open(&mut self, receiver: SocketAddr, since: u64) {
        let same = self.syslog.take().filter(|syslog| syslog.receiver() == receiver);
        match same.map_or_else(|| Syslog::open(receiver), Ok) {
            Ok(syslog) => (self.syslog, self.opened) = (Some(syslog), since),
            Err(error) => {
                if self.complained.is_none_or(|last| last.elapsed() > COMPLAINTS) {
                    warn!("syslog to {receiver}: lines of the log of requests are lost: {error}");
                    self.complained = Some(Instant::now());
                }
            }
        }
    }
}

/// Lines that wait.
#[derive(Debug, Default)]
struct Heap {
    text: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Heap {
    /// The lines without their ends.
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.text[begin..end - 1])
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

impl Log {
    /// A log that nobody wants yet.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Mutex::default()).collect(),
            settings: Mutex::default(),
            changes: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            writer: OnceLock::new(),
        }
    }

    /// Changes what is written.
    pub fn set(&self, settings: &Settings) {
        let format = match settings.format {
            LogFormat::Json => 1,
            LogFormat::Haproxy => 2,
        };
        let wanted = match &settings.to {
            None => 0,
            Some(LogTarget::Syslog(_)) => format | BY_WORKERS,
            Some(LogTarget::Stdout | LogTarget::File(_)) => format,
        };
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone_from(settings);
        self.changes.fetch_add(1, Release);
        self.wanted.store(wanted | u64::from(settings.queue.max(1)) << 8, Relaxed);
    }

    /// Where lines go, and since which change of the settings at least.
    fn target(&self) -> (Option<LogTarget>, u64) {
        let since = self.changes.load(Acquire);
        (self.settings.lock().unwrap_or_else(PoisonError::into_inner).to.clone(), since)
    }

    /// Lines that were dropped because too many waited or could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn lost(&self, lines: usize) {
        if lines > 0 {
            self.dropped.fetch_add(lines as u64, Relaxed);
        }
    }

    /// Writes a line about what `record` tells. On the worker's own thread.
    pub fn write(&self, worker: usize, record: &Record<'_>) {
        let wanted = self.wanted.load(Relaxed);
        if wanted & 0xff == 0 {
            return;
        }
        let most = usize::try_from(wanted >> 8).unwrap_or(usize::MAX);
        let Some(mut own) = self.of(worker) else { return };
        let heap = &mut own.heap;
        if heap.ends.len() >= most {
            return self.lost(1);
        }
        if wanted & !BY_WORKERS & 0xff == 1 {
            lines::json(&mut heap.text, record);
        } else {
            lines::haproxy(&mut heap.text, record);
        }
        heap.ends.push(heap.text.len());
        let waiting = heap.ends.len();
        if wanted & BY_WORKERS != 0 {
            if waiting >= AT_ONCE.min(most) {
                self.lost(own.send(self));
            }
        } else if waiting == MANY
            && let Some(writer) = self.writer.get()
        {
            drop(own);
            writer.unpark();
        }
    }

    /// Sends what a worker has written, where that is for syslog: a datagram goes out or is lost at once, so there is nobody to wait
    /// for, as there is with a file. To be told by the worker when it has nothing else to do.
    pub fn flush(&self, worker: usize) {
        if self.wanted.load(Relaxed) & BY_WORKERS != 0
            && let Some(mut own) = self.of(worker)
        {
            self.lost(own.send(self));
        }
    }

    /// The same for a worker that has sent nothing since it had `sent` so often, or has ended (`all`); how often that is now.
    fn flush_stale(&self, worker: usize, sent: u64, all: bool) -> u64 {
        let Some(mut own) = self.of(worker) else { return sent };
        if all || own.sent == sent {
            self.lost(own.send(self));
        }
        own.sent
    }

    fn of(&self, worker: usize) -> Option<MutexGuard<'_, OfWorker>> {
        Some(self.workers.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
