//! The thread that writes the log.

use std::{
    io, mem,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Heap, Log, sink::Sink};

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
        // Of workers that send lines themselves, those are left that came at their end.
        if end || !matches!(sink, Sink::Syslog(_)) {
            for worker in &log.workers {
                worker.swap(&mut heap);
                log.lost(sink.write(&mut heap));
            }
        }
        if end {
            return;
        }
    }
}
