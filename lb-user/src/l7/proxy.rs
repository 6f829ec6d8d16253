//! A proxy that runs: what it is asked, over its socket.

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Child,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use l7_spec::{Ask, CONTROL_VERSION, Channel, MOST_FILES, Reply, Span};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tracing::warn;

use super::supply;
use crate::listeners;

/// An answer that takes longer does not come any more.
const PATIENCE: Duration = Duration::from_secs(15);

/// No two supplies of sockets are given to a proxy within this time.
const BETWEEN_SUPPLIES: Duration = Duration::from_secs(1);

/// A proxy that runs.
#[derive(Debug)]
pub(super) struct Proxy {
    channel: Channel,
    /// Whether an answer of its did not come: those that come later would be taken for others.
    is_lost: bool,
    /// What answers it when it asks for sockets, and since when.
    supply: Option<(JoinHandle<()>, Instant)>,
    /// `None` where another process has started it.
    child: Option<Child>,
    /// Refers to the process, whoever may have its number later; of those that another process has started.
    process: Option<OwnedFd>,
    /// Its number among the system's processes.
    pub(super) pid: u32,
    /// Device and inode of its program.
    pub(super) program: Option<(u64, u64)>,
    /// Threads that serve.
    pub(super) workers: usize,
    /// Whether it understands what it is told.
    pub(super) understands: bool,
}

/// A proxy that a former lb-user has left, with its listening sockets.
#[derive(Debug)]
pub struct Found {
    pub(super) proxy: Proxy,
    pub(super) sockets: Vec<(SocketAddr, TcpListener)>,
}

impl Found {
    /// The kernel's numbers of its listening sockets.
    #[must_use]
    pub fn sockets(&self) -> HashSet<u64> {
        self.sockets.iter().filter_map(|(_, socket)| super::sockets::number(socket)).collect()
    }
}

/// Looks for a proxy that a former lb-user has left.
///
/// # Errors
/// When there is one that cannot be spoken to.
pub fn find(socket: &Path) -> io::Result<Option<Found>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut proxy = Proxy::greet(stream)?;
    proxy.process = Some(process(proxy.pid)?);
    let sockets = proxy.sockets()?;
    Ok(Some(Found { proxy, sockets }))
}

/// Where else a proxy may be spoken to, if a former lb-user was killed while it put one in another's place: the next one, and
/// the former one.
pub(super) fn other_sockets(socket: &Path) -> [PathBuf; 2] {
    [socket.with_extension("next.sock"), socket.with_extension("former.sock")]
}

/// Where one that lets its last clients finish is spoken to.
pub(super) fn leaving_socket(socket: &Path, pid: u32) -> PathBuf {
    socket.with_extension(format!("{LEAVING}{pid}.sock"))
}

const LEAVING: &str = "leaving-";

/// All sockets beside the usual one that there are: of those that take a place or have left one.
pub(super) fn left_sockets(socket: &Path) -> Vec<PathBuf> {
    let stem = socket.file_stem().unwrap_or_default().to_string_lossy();
    let prefix = format!("{stem}.{LEAVING}");
    let folder = std::fs::read_dir(socket.parent().unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    let leaving = folder.filter(|file| file.file_name().to_string_lossy().starts_with(&prefix));
    let others = other_sockets(socket).into_iter().filter(|path| path.exists());
    others.chain(leaving.map(|file| file.path())).collect()
}

/// Refers to the process with this number, if it can be a proxy: what has no privileges says which it is.
fn process(pid: u32) -> io::Result<OwnedFd> {
    let wrong = || io::Error::other(format!("process {pid} is no l7-proxy"));
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(wrong)?;
    let process = pidfd_open(id, PidfdFlags::empty())?;
    // Looked at once it is certain whose number it is.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next());
    let can_be = value("Name:") == Some("l7-proxy") && value("Uid:").is_some_and(|uid| uid != "0");
    if can_be { Ok(process) } else { Err(wrong()) }
}

/// The sockets of the proxies that are spoken to at `socket` or were begun beside it, by the kernel's numbers: without
/// disturbing whoever speaks to them.
#[must_use]
pub fn sockets_at(socket: &Path) -> HashSet<u64> {
    let [next, _] = other_sockets(socket);
    // The kernel keeps the name that a socket was made with.
    listeners::held_beside(&[socket, &next])
}

/// Ends at once every proxy that holds one of these sockets and cannot be spoken to any more.
pub fn kill_holders(sockets: &HashSet<u64>) {
    if sockets.is_empty() {
        return;
    }
    for pid in holders(sockets) {
        if let Ok(process) = process(pid) {
            warn!("l7-proxy (pid {pid}) cannot be spoken to and is ended, with its connections");
            let _ = pidfd_send_signal(&process, Signal::KILL);
            // Its sockets go with it, a moment later.
            let _ = has_ended(&process, Duration::from_secs(2));
        }
    }
}

/// Whether a process has ended, or does within this time.
fn has_ended(process: &OwnedFd, within: Duration) -> bool {
    let mut wait = [PollFd::new(process, PollFlags::IN)];
    let within = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: 0 };
    poll(&mut wait, Some(&within)).is_ok_and(|ended| ended > 0)
}

/// The numbers of processes that hold one of these sockets, as far as we may look.
fn holders(sockets: &HashSet<u64>) -> Vec<u32> {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let number = |folder: &std::fs::DirEntry| folder.file_name().to_str()?.parse::<u32>().ok();
    let holds = |folder: &std::fs::DirEntry| {
        listeners::sockets_of(&folder.path()).is_ok_and(|held| !held.is_disjoint(sockets))
    };
    folders.filter(holds).filter_map(|folder| number(&folder)).collect()
}

/// Ends a proxy that a former lb-user has left; gives its number.
///
/// # Errors
/// When there is one that cannot be spoken to.
pub fn end_left(socket: &Path) -> io::Result<Option<u32>> {
    let mut ended = None;
    for socket in [socket.to_owned()].into_iter().chain(left_sockets(socket)) {
        if let Some(Found { mut proxy, sockets }) = find(&socket)? {
            drop(sockets);
            let within = Span::from_secs(10);
            let _ = proxy.ask(&Ask::End { within, gently: false });
            if !proxy.wait(Instant::now() + within.get() + Duration::from_secs(1)) {
                proxy.kill();
            }
            ended = Some(proxy.pid);
        }
        let _ = std::fs::remove_file(socket);
    }
    Ok(ended)
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

    fn greet(stream: UnixStream) -> io::Result<Self> {
        let channel = Channel::new(stream, Some(PATIENCE))?;
        let mut proxy = Self {
            channel,
            is_lost: false,
            supply: None,
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

    /// Has it ask for sockets that may have the address of a client.
    pub(super) fn give_supply(&mut self) -> io::Result<()> {
        let (of_proxy, thread) = supply::start()?;
        self.supply = Some((thread, Instant::now()));
        self.ask_with(&Ask::Supply, &[of_proxy.as_fd()]).map(drop)
    }

    /// Does so again where it has nobody any more whom it could ask.
    pub(super) fn renew_supply(&mut self) -> io::Result<()> {
        let is_over = |(thread, since): &(JoinHandle<()>, Instant)| {
            thread.is_finished() && since.elapsed() >= BETWEEN_SUPPLIES
        };
        if self.is_lost || !self.supply.as_ref().is_some_and(is_over) {
            return Ok(());
        }
        warn!("l7-proxy (pid {}) has lost whom it asks for sockets; it gets somebody else", self.pid);
        self.give_supply()
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
