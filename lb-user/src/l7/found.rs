//! Proxies that a former lb-user has left: they are found by their sockets, which lie beside each other.
//!
//! ```text
//! NAME.l7.sock               the one that serves
//! NAME.l7.next.sock          one that is about to take its place
//! NAME.l7.former.sock        one whose place another is about to take
//! NAME.l7.leaving-PID.sock   one that lets its last clients finish
//! ```

use std::{
    collections::HashSet,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use l7_spec::{Ask, Span};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::socket_peercred,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tracing::{info, warn};

use super::{proxy::Proxy, sockets::number};
use crate::listeners;

/// A proxy that a former lb-user has left, with its listening sockets.
#[derive(Debug)]
pub struct Found {
    pub(super) proxy: Proxy,
    pub(super) sockets: Vec<(SocketAddr, TcpListener)>,
    /// Sockets of another one, whose place it was to take or that was to take its.
    beside: HashSet<u64>,
}

impl Found {
    /// With its listening sockets.
    pub(super) fn of(mut proxy: Proxy) -> io::Result<Self> {
        let sockets = proxy.sockets()?;
        Ok(Self { proxy, sockets, beside: HashSet::new() })
    }

    /// The kernel's numbers of its listening sockets, and of those of another one that is about to go.
    #[must_use]
    pub fn sockets(&self) -> HashSet<u64> {
        let own = self.sockets.iter().filter_map(|(_, socket)| number(socket));
        own.chain(self.beside.iter().copied()).collect()
    }
}

/// Looks for a proxy that a former lb-user has left serving; from now on it is spoken to at `socket`. One that does not answer
/// is ended where that can be.
///
/// A former lb-user may have been killed while it put one in another's place, and then nobody is at `socket`: whose place was
/// to be taken still serves all and knows all, and it is not certain what the other was told.
///
/// # Errors
/// When there are only such as cannot be spoken to.
pub fn find(socket: &Path) -> io::Result<Option<Found>> {
    let [next, former] = other_sockets(socket);
    let (mut found, mut problem) = (None::<Found>, None);
    for place in [socket, &former, &next] {
        match (at_or_end(place), &mut found) {
            (Ok(None), _) => {}
            (Ok(Some(other)), Some(found)) => found.beside.extend(other.sockets()),
            (Ok(Some(one)), None) => {
                if place != socket {
                    info!(
                        "a former lb-user has not finished the replacement of l7-proxy (pid {})",
                        one.proxy.pid
                    );
                    fs::rename(place, socket)?;
                }
                found = Some(one);
            }
            (Err(error), _) => problem = Some(error),
        }
    }
    match (found, problem) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}

/// The proxy that is spoken to by this socket; one that does not answer is ended.
fn at_or_end(socket: &Path) -> io::Result<Option<Found>> {
    let Some(stream) = connect(socket)? else { return Ok(None) };
    // Whoever listens there, says the kernel, whether or not it answers.
    let peer = socket_peercred(&stream).ok().map(|peer| peer.pid.as_raw_nonzero().get().cast_unsigned());
    let found = meet(stream);
    if found.is_err()
        && let Some(pid) = peer
    {
        end_mute(pid);
    }
    found.map(Some)
}

/// The proxy that is spoken to by this socket.
///
/// # Errors
/// When there is one that cannot be spoken to.
pub(super) fn at(socket: &Path) -> io::Result<Option<Found>> {
    connect(socket)?.map(meet).transpose()
}

fn connect(socket: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(socket) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        stream => stream.map(Some),
    }
}

fn meet(stream: UnixStream) -> io::Result<Found> {
    let mut proxy = Proxy::greet(stream)?;
    proxy.process = Some(process(proxy.pid)?);
    Found::of(proxy)
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
    let folder = fs::read_dir(socket.parent().unwrap_or(Path::new("."))).into_iter().flatten().flatten();
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
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
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

/// Ends at once every proxy that holds one of these sockets and cannot be spoken to any more, as far as we may look: without
/// CAP_SYS_PTRACE, nobody else's files are shown.
pub fn kill_holders(sockets: &HashSet<u64>) {
    if !sockets.is_empty() {
        holders(sockets).into_iter().for_each(end_mute);
    }
}

/// Ends a proxy at once that cannot be spoken to, if it is one.
fn end_mute(pid: u32) {
    if let Ok(process) = process(pid) {
        warn!("l7-proxy (pid {pid}) cannot be spoken to and is ended, with its connections");
        let _ = pidfd_send_signal(&process, Signal::KILL);
        // Its sockets go with it, a moment later.
        let _ = has_ended(&process, Duration::from_secs(2));
    }
}

/// Whether a process has ended, or does within this time.
pub(super) fn has_ended(process: &OwnedFd, within: Duration) -> bool {
    let mut wait = [PollFd::new(process, PollFlags::IN)];
    let within = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: 0 };
    poll(&mut wait, Some(&within)).is_ok_and(|ended| ended > 0)
}

/// The numbers of processes that hold one of these sockets, as far as we may look.
fn holders(sockets: &HashSet<u64>) -> Vec<u32> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let number = |folder: &fs::DirEntry| folder.file_name().to_str()?.parse::<u32>().ok();
    let holds = |folder: &fs::DirEntry| {
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
        if let Some(Found { mut proxy, sockets, .. }) = at(&socket)? {
            drop(sockets);
            let within = Span::from_secs(10);
            let _ = proxy.ask(&Ask::End { within, gently: false });
            if !proxy.wait(Instant::now() + within.get() + Duration::from_secs(1)) {
                proxy.kill();
            }
            ended = Some(proxy.pid);
        }
        let _ = fs::remove_file(socket);
    }
    Ok(ended)
}
