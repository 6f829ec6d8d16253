//! Stands in for a proxy in tests of those who look after one: it says yes, and what it was asked.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use l7_spec::{Ask, CONTROL_VERSION, Channel, Memory, Problem, Reply, Status};

use super::proxy::Proxy;

const LIMIT: Duration = Duration::from_secs(10);

/// The proxy's side.
pub(super) struct Fake {
    pub(super) asked: mpsc::Receiver<Ask>,
    /// Whom it may ask for sockets.
    pub(super) supply: Arc<Mutex<Option<OwnedFd>>>,
    /// A process ends when this does.
    process: Arc<Mutex<Option<ChildStdin>>>,
}

impl Fake {
    /// All that it was asked since it was last looked.
    pub(super) fn asked(&self) -> Vec<Ask> {
        self.asked.try_iter().collect()
    }

    /// Waits until it is asked something.
    pub(super) fn until_asked(&self, what: &str, is: impl Fn(&Ask) -> bool) {
        let until = Instant::now() + LIMIT;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match self.asked.recv_timeout(left) {
                Ok(ask) if is(&ask) => return,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        panic!("it was not asked {what}");
    }

    /// Its last client has gone.
    pub(super) fn end(&self) {
        drop(self.process.lock().unwrap().take());
    }
}

/// A proxy with this number that ends when it is told to, and not gently. It objects to everything it is to serve if
/// `objects`.
pub(super) fn proxy(pid: u32, objects: bool) -> (Proxy, Fake) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let fake_process = Arc::new(Mutex::new(process.stdin.take()));
    let supply = Arc::new(Mutex::new(None));
    let (tell, asked) = mpsc::channel();
    let fake = Fake { asked, supply: Arc::clone(&supply), process: Arc::clone(&fake_process) };
    thread::spawn(move || {
        let mut channel = Channel::new(theirs, None).unwrap();
        while let Ok(Some((ask, files))) = channel.receive::<Ask>() {
            let reply = match &ask {
                Ask::Hello => Reply::Hello {
                    control: CONTROL_VERSION,
                    version: String::new(),
                    pid,
                    program: None,
                    workers: 1,
                },
                Ask::HandBack => Reply::Listeners { addresses: Vec::new(), last: true },
                Ask::Memory => Reply::Memory(Memory::default()),
                Ask::Status => Reply::Status(Status::default()),
                Ask::Serve(_) if objects => Reply::Wrong(vec![Problem::new("workers", "are too few")]),
                _ => Reply::Done,
            };
            if let Ask::Supply = ask {
                *supply.lock().unwrap() = files.into_iter().next();
            }
            if let Ask::End { gently: false, .. } = ask {
                drop(fake_process.lock().unwrap().take());
            }
            // Whoever asked may have given up, and whoever looks may have seen enough.
            let _ = (tell.send(ask), channel.send(&reply, &[]));
        }
    });
    let mut proxy = Proxy::greet(ours).unwrap();
    proxy.child = Some(process);
    (proxy, fake)
}
