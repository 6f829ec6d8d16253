//! Watches the files of certificates, and has them read again when they change.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::Current;

/// How often files are looked at. A change that is noticed by its time stamp, however files are replaced, is
/// worth more than one that is noticed at once.
const EVERY: Duration = Duration::from_secs(1);

/// The thread that watches; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Files {
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Files {
    /// Starts to watch.
    pub(super) fn start(current: Arc<Current>) -> io::Result<Self> {
        let ended: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let told = Arc::clone(&ended);
        let thread = thread::Builder::new().name("files".into()).spawn(move || {
            loop {
                let guard = told.0.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = told.1.wait_timeout_while(guard, EVERY, |ended| !*ended);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
                for service in &current.ready().services {
                    if let Some(tls) = &service.tls {
                        tls.refresh(&service.name);
                    }
                }
            }
        })?;
        Ok(Self { ended, thread: Some(thread) })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        *self.ended.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
