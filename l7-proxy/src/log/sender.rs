//! Sends a worker's lines to a receiver of syslog, as a task of that worker.
//!
//! A datagram is sent or lost at once, so there is nobody to wait for, as there is with a file. By a thread of its own, that shares
//! a processor with the worker, everybody would stand still each time that thread has its turn; and one thread would have to send
//! what all workers write. The task has its turn when all had theirs who were ready before the first line came: what is written by
//! then goes out together.

use std::sync::{Arc, atomic::Ordering::Acquire};

use super::{Heap, Log, sink::Sink};
use crate::spec::LogTarget;

/// Lines that are sent at a time; then others have a turn.
const AT_ONCE: usize = 16;

/// Sends what `worker` writes, whenever that is for syslog. It ends only where there is no such worker.
pub async fn send(log: Arc<Log>, worker: usize) {
    let mut sender = Sender { log: &log, worker, heap: Heap::default(), sink: Sink::Nowhere, of: None };
    let Some(own) = log.workers.get(worker) else { return };
    loop {
        own.some.notified().await;
        while sender.send(AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
}

/// A worker's lines on their way. What is left when it is dropped is sent then.
struct Sender<'a> {
    log: &'a Log,
    worker: usize,
    heap: Heap,
    sink: Sink,
    /// The [`Log::changes`] that the sink was opened after.
    of: Option<u64>,
}

impl Sender<'_> {
    /// Sends so many lines at most, and gives whether others wait.
    fn send(&mut self, most: usize) -> bool {
        if self.of != Some(self.log.changes.load(Acquire)) {
            let (target, since) = self.log.target();
            let syslog = target.filter(|target| matches!(target, LogTarget::Syslog(_)));
            (self.sink, self.of) = (Sink::open(syslog.as_ref()), Some(since));
        }
        let Sink::Syslog(syslog) = &mut self.sink else { return false };
        if self.heap.waiting() == 0 {
            self.log.workers[self.worker].swap(&mut self.heap);
        }
        self.log.lost(syslog.send(&mut self.heap, most));
        self.heap.waiting() > 0
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        self.send(usize::MAX);
    }
}
