//! Somebody who takes lines of a log: a syslog receiver over UDP.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::netns::Netns;

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// A receiver; it ends on drop.
#[derive(Debug)]
pub struct Receiver {
    lines: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens in a namespace.
    ///
    /// # Panics
    /// When the port cannot be had.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &Netns, address: SocketAddr) -> Self {
        let socket = ns.run(|| UdpSocket::bind(address)).expect("the port of a syslog receiver");
        socket.set_read_timeout(Some(LOOK)).expect("a time limit");
        let (lines, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicBool::new(false)));
        let (kept, told) = (Arc::clone(&lines), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut datagram = vec![0; 64 * 1024];
            while !told.load(Relaxed) {
                if let Ok(length) = socket.recv(&mut datagram) {
                    let line = String::from_utf8_lossy(&datagram[..length]).into_owned();
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        });
        Self { lines, stop, thread: Some(thread) }
    }

    /// What has come so far, a message each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
