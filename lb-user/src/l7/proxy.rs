//! A proxy that runs: what it is asked, over its socket.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

use l7_spec::{Ask, CONTROL_VERSION, Channel, MOST_FILES, Reply};
use rustix::process::{Signal, pidfd_send_signal};

use super::{
    found::has_ended,
    supply::{self, Supply},
};

/// An answer that takes longer does not come any more.
const PATIENCE: Duration = Duration::from_secs(15);

/// A proxy that runs.
#[derive(Debug)]
pub(super) struct Proxy {
    channel: Channel,
    /// Whether an answer of its did not come: those that come later would be taken for others.
    is_lost: bool,
    /// Whom it asks for sockets that may have the address of a client, where it has to.
    pub(super) supply: Supply,
    /// `None` where another process has started it.
    pub(super) child: Option<Child>,
    /// Refers to the process, whoever may have its number later; of those that another process has started.
    pub(super) process: Option<OwnedFd>,
    /// Its number among the system's processes.
    pub(super) pid: u32,
    /// Device and inode of its program.
    pub(super) program: Option<(u64, u64)>,
    /// Threads that serve.
    pub(super) workers: usize,
    /// Whether it understands what it is told.
    pub(super) understands: bool,
}

impl Proxy {
    /// Waits until a process that was just started answers.
    pub(super) fn reach(socket: &Path, mut child: Child) -> io::Result<Self> {
        // It listens from the start: the socket was made before the process.
        match UnixStream::connect(socket).and_then(Self::greet) {
            Ok(proxy) => Ok(Self { pid: child.id(), child: Some(child), ..proxy }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub(super) fn greet(stream: UnixStream) -> io::Result<Self> {
        let channel = Channel::new(stream, Some(PATIENCE))?;
        let mut proxy = Self {
            channel,
            is_lost: false,
            supply: Supply::default(),
            child: None,
            process: None,
            pid: 0,
            program: None,
            workers: 1,
            understands: true,
        };
        match proxy.ask(&Ask::Hello)? {
            Reply::Hello { control, pid, program, workers, .. } => {
                Ok(Self { pid, program, workers, understands: control == CONTROL_VERSION, ..proxy })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// When none comes: this proxy is of no use any more, and nobody waits for it again.
    pub(super) fn ask(&mut self, ask: &Ask) -> io::Result<Reply> {
        self.ask_with(ask, &[])
    }

    fn ask_with(&mut self, ask: &Ask, files: &[BorrowedFd<'_>]) -> io::Result<Reply> {
        if self.is_lost {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let reply = self.channel.send(ask, files).and_then(|()| self.reply());
        self.is_lost = reply.is_err();
        reply
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let (reply, _) = self.channel.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(reply)
    }

    /// Hands a file over.
    pub(super) fn give_file(&mut self, path: &Path, contents: &Result<Vec<u8>, String>) -> io::Result<()> {
        let announced = contents.as_ref().map(|contents| contents.len() as u64).map_err(Clone::clone);
        self.channel.send(&Ask::File { path: path.to_owned(), contents: announced }, &[])?;
        if let Ok(contents) = contents {
            self.channel.send_bytes(contents)?;
        }
        self.reply().map(drop)
    }

    /// Hands copies of listening sockets over; gives what is wrong with them, if anything is.
    pub(super) fn give_sockets(&mut self, sockets: &[(SocketAddr, &TcpListener)]) -> io::Result<()> {
        for some in sockets.chunks(MOST_FILES) {
            let addresses = some.iter().map(|(address, _)| *address).collect();
            let files: Vec<_> = some.iter().map(|(_, socket)| socket.as_fd()).collect();
            self.channel.send(&Ask::Listeners(addresses), &files)?;
            match self.reply()? {
                Reply::Done => {}
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }

    /// Sees to it that it has whom to ask for sockets that may have the address of a client, where it needs such.
    ///
    /// # Errors
    /// When it does not answer. What this process is short of is no fault of the proxy: it is tried again.
    pub(super) fn keep_supplied(&mut self, now: Instant) -> io::Result<()> {
        if self.is_lost {
            return Ok(());
        }
        match self.supply.renewed(now, self.pid, supply::start) {
            Some(of_proxy) => self.ask_with(&Ask::Supply, &[of_proxy.as_fd()]).map(drop),
            None => Ok(()),
        }
    }

    /// Copies of its listening sockets.
    pub(super) fn sockets(&mut self) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
        let mut sockets = Vec::new();
        self.channel.send(&Ask::HandBack, &[])?;
        loop {
            match self.channel.receive()?.ok_or(io::ErrorKind::UnexpectedEof)? {
                (Reply::Listeners { addresses, last }, files) => {
                    let listeners = files.into_iter().map(TcpListener::from);
                    sockets.extend(addresses.into_iter().zip(listeners));
                    if last {
                        return Ok(sockets);
                    }
                }
                (other, _) => return Err(unexpected(&other)),
            }
        }
    }

    /// Whether it has ended; in words.
    pub(super) fn ended(&mut self) -> Option<String> {
        match &mut self.child {
            Some(child) => child.try_wait().ok().flatten().map(|status| status.to_string()),
            None => {
                let process = self.process.as_ref()?;
                has_ended(process, Duration::ZERO).then(|| "it is gone".into())
            }
        }
    }

    /// Waits for its end, but not beyond `until`.
    pub(super) fn wait(&mut self, until: Instant) -> bool {
        while self.ended().is_none() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        } else if let Some(process) = &self.process {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        self.wait(Instant::now() + Duration::from_secs(5));
    }
}

fn unexpected(reply: &Reply) -> io::Error {
    match reply {
        Reply::Wrong(problems) => io::Error::other(super::lines(&super::objections(problems))),
        other => io::Error::other(format!("l7-proxy answered {other:?}")),
    }
}
