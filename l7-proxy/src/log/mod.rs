//! The log of requests and connections: a line for each. Workers never wait for it: each puts lines into a heap of its own, and
//! what comes when the heap is full is dropped and counted. Files, which may have one wait, are written by a thread of its own;
//! to a receiver of syslog each worker sends its lines itself.

mod lines;
mod record;
mod sender;
mod sink;
mod writer;

pub use record::{Asked, Record, Served, Stopwatch};
pub use sender::send;
pub use writer::Writer;

use std::{
    mem,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::Thread,
};

use tokio::sync::Notify;

use crate::spec::{Log as Settings, LogFormat, LogTarget};

/// Where workers put their lines.
#[derive(Debug)]
pub struct Log {
    workers: Box<[OfWorker]>,
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

/// So many lines are fetched at once by the thread that writes.
const MANY: usize = 32;

/// What a worker has written.
#[derive(Debug, Default)]
struct OfWorker {
    heap: Mutex<Heap>,
    /// Told when there is something that the worker itself is to send.
    some: Notify,
}

impl OfWorker {
    /// Takes all lines there are, for an empty heap.
    fn swap(&self, heap: &mut Heap) {
        mem::swap(heap, &mut self.heap.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Lines that wait.
#[derive(Debug, Default)]
struct Heap {
    text: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
    /// So many of them are taken.
    taken: usize,
}

impl Heap {
    fn waiting(&self) -> usize {
        self.ends.len() - self.taken
    }

    /// Takes a line, without its end.
    fn next(&mut self) -> Option<&[u8]> {
        let end = *self.ends.get(self.taken)?;
        let begin = self.taken.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.taken += 1;
        Some(&self.text[begin..end - 1])
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.taken = 0;
    }
}

impl Log {
    /// A log that nobody wants yet.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| OfWorker::default()).collect(),
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
        let Some(own) = self.workers.get(worker) else { return };
        let mut heap = own.heap.lock().unwrap_or_else(PoisonError::into_inner);
        if heap.ends.len() >= most {
            return self.lost(1);
        }
        if wanted & 0x7f == 1 {
            lines::json(&mut heap.text, record);
        } else {
            lines::haproxy(&mut heap.text, record);
        }
        let end = heap.text.len();
        heap.ends.push(end);
        let many = heap.ends.len() == MANY;
        drop(heap);
        if wanted & BY_WORKERS != 0 {
            own.some.notify_one();
        } else if many && let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}
