//! Listening sockets: opened here, or handed over by a process that had them before.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Listening sockets by their address, one for each worker, that nobody accepts from yet.
#[derive(Debug, Default)]
pub struct Listeners {
    by_address: BTreeMap<SocketAddr, Vec<TcpListener>>,
}

impl Listeners {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes a listening socket over that another process has opened.
    ///
    /// # Errors
    /// Where the socket cannot tell its address, or cannot be made non-blocking.
    pub fn hand_over(&mut self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.by_address.entry(listener.local_addr()?).or_default().push(listener);
        Ok(())
    }

    /// The one socket for an address, if it was handed over.
    pub(super) fn given(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.by_address.remove(&address)?.pop()
    }

    /// The sockets for an address: those that were handed over, opened where there are none. A worker for
    /// which there is none shares that of another.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn take(&mut self, address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
        let mut listeners = self.by_address.remove(&address).unwrap_or_default();
        if listeners.is_empty() {
            return (0..workers).map(|_| open(address)).collect();
        }
        // More than workers: the kernel spreads connections over all of them, so each must be listened to.
        while listeners.len() < workers {
            let shared = listeners[listeners.len() % workers.max(1) % listeners.len()].try_clone()?;
            listeners.push(shared);
        }
        Ok(listeners)
    }
}

/// Opens a listening socket beside others for the same address: the kernel spreads connections over them.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // Each family has its own listeners: what is listened for is what was asked for.
        socket.set_only_v6(true)?;
    }
    // An address that is not on this host yet: it may be, after a failover.
    if address.is_ipv4() {
        let _ = socket.set_freebind_v4(true);
    } else {
        let _ = socket.set_freebind_v6(true);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
