//! The loop on a thread of its own. The kernel lets who replaces a ring wait until all CPUs have left the old one, and to plan
//! for thousands of servers takes milliseconds: health checks and who asks for something need not wait for that too.

use std::{
    io,
    thread::{self, JoinHandle},
};

use tokio::{runtime::Builder, sync::oneshot};

/// A loop that runs. Dropping it ends it, between two of its rounds.
#[derive(Debug)]
pub struct Apart {
    thread: Option<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl Apart {
    /// Runs a loop that ends by itself only if something is amiss.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ends, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Dropped when it ends, however it does.
            let _ends = ends;
            let runtime = Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime that only has a clock needs nothing of the system").block_on(async {
                tokio::select! {
                    // Whoever is to stop it may be gone.
                    _ = stopped => {}
                    () = work => {}
                }
            });
        })?;
        Ok(Self { thread: Some(thread), stop: Some(stop), ended })
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it has panicked.
    pub async fn ended(mut self) {
        // Nothing is sent.
        let _ = (&mut self.ended).await;
        self.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    fn join(&mut self) -> thread::Result<()> {
        drop(self.stop.take());
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // That it panicked has been told.
        let _ = self.join();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    };

    use super::*;

    /// Notes that it was dropped.
    struct Dropped(Arc<AtomicBool>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }

    #[test]
    fn it_has_ended_when_its_handle_is_gone() {
        let dropped = Dropped(Arc::default());
        let gone = Arc::clone(&dropped.0);
        let apart = Apart::run("loop", async move {
            let _dropped = dropped;
            std::future::pending::<()>().await;
        });
        assert!(!gone.load(SeqCst));
        drop(apart.unwrap());
        assert!(gone.load(SeqCst));
    }

    #[tokio::test]
    async fn its_end_is_seen_and_so_is_its_panic() {
        Apart::run("loop", async {}).unwrap().ended().await;
        let bad = Apart::run("loop", async { panic!("a bug") }).unwrap();
        let outcome = tokio::spawn(bad.ended()).await;
        assert!(outcome.unwrap_err().is_panic());
    }
}
