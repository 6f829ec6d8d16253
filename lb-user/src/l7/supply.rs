//! Makes sockets that may have the address of a client (`source = "client"`), for a proxy that may not make them.
//!
//! Each proxy has a thread that answers it and ends with it, so that nobody waits for whatever the keeper does just now. What
//! the proxy can do with them is what the configuration wants: to connect to servers from another address.

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    thread::{self, JoinHandle},
};

use l7_spec::{Channel, MOST_FILES, SocketsGiven, SocketsWanted};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

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
