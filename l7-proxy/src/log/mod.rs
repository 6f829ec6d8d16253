//! The log of requests and connections: a line for each, written by a thread of its own. Workers never wait
//! for it: each puts lines into a heap of its own that the writer fetches, and what comes when the heap is full
//! is dropped and counted.

mod lines;
mod record;
mod writer;

pub use record::{Asked, Record, Served, Stopwatch};
pub use writer::Writer;

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::Thread,
};

use crate::spec::{Log as Settings, LogFormat};

/// Where workers put their lines.
#[derive(Debug)]
pub struct Log {
    heaps: Box<[Mutex<Heap>]>,
    settings: Mutex<Settings>,
    /// Whether anything is to be written at all; `format` as a number.
    wanted: AtomicU64,
    dropped: AtomicU64,
    /// The thread that writes.
    writer: OnceLock<Thread>,
}

/// So many lines are fetched at once: more would keep a receiver, and whoever shares a processor with it or with the writer, from
/// other work for as long as many requests take.
const MANY: usize = 32;

/// Lines of one worker that wait.
#[derive(Debug, Default)]
struct Heap {
    text: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Log {
    /// A log that nobody wants yet.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            heaps: (0..workers).map(|_| Mutex::default()).collect(),
            settings: Mutex::default(),
            wanted: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            writer: OnceLock::new(),
        }
    }

    /// Changes what is written.
    pub fn set(&self, settings: &Settings) {
        let wanted = match (&settings.to, settings.format) {
            (None, _) => 0,
            (Some(_), LogFormat::Json) => 1,
            (Some(_), LogFormat::Haproxy) => 2,
        };
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone_from(settings);
        self.wanted.store(wanted | u64::from(settings.queue.max(1)) << 8, Relaxed);
    }

    /// Lines that were dropped because too many waited or could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Writes a line about what `record` tells.
    pub fn write(&self, worker: usize, record: &Record<'_>) {
        let wanted = self.wanted.load(Relaxed);
        if wanted & 0xff == 0 {
            return;
        }
        let most = usize::try_from(wanted >> 8).unwrap_or(usize::MAX);
        let Some(heap) = self.heaps.get(worker) else { return };
        let mut heap = heap.lock().unwrap_or_else(PoisonError::into_inner);
        if heap.ends.len() >= most {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        if wanted & 0xff == 1 {
            lines::json(&mut heap.text, record);
        } else {
            lines::haproxy(&mut heap.text, record);
        }
        let end = heap.text.len();
        heap.ends.push(end);
        if heap.ends.len() == MANY
            && let Some(writer) = self.writer.get()
        {
            drop(heap);
            writer.unpark();
        }
    }
}
