//! The thread that writes the log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    mem,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::warn;

use super::{Heap, Log};
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
    let mut sent = vec![0; log.workers.len()];
    loop {
        thread::park_timeout(EVERY);
        let (reopen, end) = {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            (mem::take(&mut told.reopen), told.end)
        };
        let (wanted, _) = log.target();
        if reopen || wanted != target {
            sink = Sink::open(wanted.as_ref());
            target = wanted;
        }
        for (worker, sent) in sent.iter_mut().enumerate() {
            if let Sink::Workers = sink {
                // Of one that is never idle, or has ended: others hardly ever wait for this thread.
                *sent = log.flush_stale(worker, *sent, end);
            } else if let Some(mut own) = log.of(worker) {
                mem::swap(&mut heap, &mut own.heap);
                drop(own);
                log.lost(sink.write(&heap));
                heap.clear();
            }
        }
        if end {
            return;
        }
    }
}

/// Where lines go.
enum Sink {
    Nowhere,
    /// Workers send them themselves.
    Workers,
    Stdout,
    File(File),
}

impl Sink {
    /// Opens a target. One that cannot be opened is told of, and is nowhere.
    fn open(target: Option<&LogTarget>) -> Self {
        let path = match target {
            None => return Self::Nowhere,
            Some(LogTarget::Stdout) => return Self::Stdout,
            Some(LogTarget::Syslog(_)) => return Self::Workers,
            Some(LogTarget::File(path)) => path,
        };
        OpenOptions::new().create(true).append(true).open(path).map_or_else(
            |error| {
                warn!("the log of requests cannot be opened, lines are lost: {}: {error}", path.display());
                Self::Nowhere
            },
            Self::File,
        )
    }

    /// Writes all lines of a heap; gives how many are lost.
    fn write(&mut self, heap: &Heap) -> usize {
        let lines = heap.ends.len();
        let written = match self {
            _ if lines == 0 => return 0,
            Self::Nowhere | Self::Workers => return lines,
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&heap.text).and_then(|()| out.flush())
            }
            Self::File(file) => file.write_all(&heap.text),
        };
        let Err(error) = written else { return 0 };
        warn!("the log of requests cannot be written: {error}");
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let heap = Heap { text: b"one\ntwo\n".to_vec(), ends: vec![4, 8] };
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(Sink::File(full).write(&heap), 2);
        assert_eq!(Sink::open(Some(&LogTarget::File("/nowhere/at/all".into()))).write(&heap), 2);
        let none = OpenOptions::new().write(true).open("/dev/null").unwrap();
        assert_eq!(Sink::File(none).write(&heap), 0);
    }
}
