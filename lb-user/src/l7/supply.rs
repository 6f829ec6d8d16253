//! Makes sockets that may have the address of a client (`source = "client"`), for a proxy that may not make them.
//!
//! Each proxy has a thread that answers it and ends with it, so that nobody waits for whatever the keeper does just now. What
//! the proxy can do with them is what the configuration wants: to connect to servers from another address.

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use l7_spec::{Channel, MOST_FILES, SocketsGiven, SocketsWanted};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

/// A proxy does not get two of them within this time, and where none can be had, it is tried again after it.
const BETWEEN: Duration = Duration::from_secs(1);

/// Whom a proxy asks for sockets.
#[derive(Debug, Default)]
pub(super) struct Supply {
    /// Whether it needs anybody.
    wanted: bool,
    thread: Option<JoinHandle<()>>,
    /// When it was last tried to have somebody.
    tried: Option<Instant>,
    /// Whether it was said that nobody can be had.
    complained: bool,
}

impl Supply {
    /// From now on the proxy needs somebody.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Has `start` find somebody if the proxy needs that and has nobody (any more); gives the end that is for the proxy. Where
    /// nobody can be had now, this process is short of something, and the proxy serves on with what it has.
    pub(super) fn renewed(
        &mut self,
        now: Instant,
        pid: u32,
        start: impl FnOnce() -> io::Result<(UnixStream, JoinHandle<()>)>,
    ) -> Option<UnixStream> {
        let has_somebody = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        let was_just_tried = self.tried.is_some_and(|tried| now.duration_since(tried) < BETWEEN);
        if !self.wanted || has_somebody || was_just_tried {
            return None;
        }
        self.tried = Some(now);
        match start() {
            Ok((of_proxy, thread)) => {
                if self.thread.replace(thread).is_some() {
                    warn!("l7-proxy (pid {pid}) has lost whom it asks for sockets; it gets somebody else");
                }
                self.complained = false;
                Some(of_proxy)
            }
            Err(error) => {
                if !self.complained {
                    warn!(
                        "lb-user cannot make sockets for source \"client\" now ({error}), so l7-proxy (pid {pid}) gets none; \
                         trying again"
                    );
                }
                self.complained = true;
                None
            }
        }
    }
}

/// Starts to answer; gives the end that is for the proxy, and the thread, which ends when the proxy gets no more.
///
/// # Errors
/// When there can be no more threads or files.
pub(super) fn start() -> io::Result<(UnixStream, JoinHandle<()>)> {
    let (ours, of_proxy) = UnixStream::pair()?;
    // Between two questions there may be any time; the end of the proxy is the end of it.
    let channel = Channel::new(ours, None)?;
    let thread = thread::Builder::new().name("l7-sockets".into()).spawn(move || {
        // It ended meanwhile, whether or not it has read the last answer.
        let ended = |kind| matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        if let Err(error) = answer(channel)
            && !ended(error.kind())
        {
            warn!("l7-proxy gets no more sockets for source \"client\": {error}");
        }
    })?;
    Ok((of_proxy, thread))
}

fn answer(mut channel: Channel) -> io::Result<()> {
    while let Some((SocketsWanted { ipv6, count }, _)) = channel.receive()? {
        let (sockets, problem) = some(ipv6, count.min(MOST_FILES));
        let files: Vec<_> = sockets.iter().map(Socket::as_fd).collect();
        channel.send(&SocketsGiven { problem }, &files)?;
    }
    Ok(())
}

/// As many as there can be; and why they are not all.
fn some(ipv6: bool, count: usize) -> (Vec<Socket>, Option<String>) {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        match make(ipv6) {
            Ok(socket) => sockets.push(socket),
            Err(error) => return (sockets, Some(error.to_string())),
        }
    }
    (sockets, None)
}

fn make(ipv6: bool) -> io::Result<Socket> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if ipv6 {
        socket.set_ip_transparent_v6(true)?
    } else {
        socket.set_ip_transparent_v4(true)?
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who is gone at once, or as soon as the proxy is.
    fn somebody(stays: bool) -> io::Result<(UnixStream, JoinHandle<()>)> {
        if stays {
            return start();
        }
        let thread = thread::spawn(|| {});
        while !thread.is_finished() {
            thread::yield_now();
        }
        Ok((UnixStream::pair()?.1, thread))
    }

    #[test]
    fn who_is_gone_is_replaced_but_not_at_once_and_nobody_can_be_had_for_a_while() {
        let (mut supply, begin) = (Supply::default(), Instant::now());
        let at = |millis| begin + Duration::from_millis(millis);
        assert!(supply.renewed(at(0), 1, || panic!("nobody is wanted")).is_none());
        supply.want();
        let short = || Err(io::Error::from_raw_os_error(24));
        assert!(supply.renewed(at(0), 1, short).is_none());
        assert!(supply.renewed(at(999), 1, || panic!("not so soon")).is_none());
        assert!(supply.renewed(at(1_000), 1, short).is_none());
        assert!(supply.renewed(at(2_000), 1, || somebody(false)).is_some());
        assert!(supply.renewed(at(2_999), 1, || panic!("not so soon")).is_none());
        let last = supply.renewed(at(3_000), 1, || somebody(true));
        assert!(last.is_some());
        assert!(supply.renewed(at(9_000), 1, || panic!("there is somebody")).is_none());
    }

    #[test]
    fn sockets_come_with_the_right_to_any_address_while_the_proxy_is_there() {
        let (of_proxy, thread) = start().unwrap();
        let mut channel = Channel::new(of_proxy, Some(Duration::from_secs(10))).unwrap();
        channel.send(&SocketsWanted { ipv6: false, count: 2 }, &[]).unwrap();
        let (SocketsGiven { problem }, files) = channel.receive().unwrap().expect("an answer");
        if files.is_empty() {
            // Who is not root may not make them, and says so.
            assert!(problem.is_some());
        } else {
            assert_eq!((files.len(), problem), (2, None));
            assert!(files.into_iter().all(|file| Socket::from(file).ip_transparent_v4().unwrap()));
        }
        drop(channel);
        thread.join().unwrap();
    }
}
