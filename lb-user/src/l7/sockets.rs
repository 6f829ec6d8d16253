//! Listening sockets for the proxy: opened here, for ports below 1024 take privileges, and kept, so that clients wait while
//! there is no proxy.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, btree_map::Entry},
    io,
    net::{SocketAddr, TcpListener},
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with,
    sockopt::{
        set_ip_freebind, set_ipv6_freebind, set_ipv6_v6only, set_socket_reuseaddr, set_socket_reuseport,
    },
};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Listening sockets by address: several each, one for each thread of the proxy.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: BTreeMap<SocketAddr, Vec<TcpListener>>,
}

impl Sockets {
    /// What another process had.
    pub(super) fn adopt(&mut self, sockets: Vec<(SocketAddr, TcpListener)>) {
        for (address, socket) in sockets {
            self.open.entry(address).or_default().push(socket);
        }
    }

    /// Closes those that nobody wants. Who has a copy goes on with it.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<SocketAddr>) {
        self.open.retain(|address, _| wanted.contains(address));
    }

    /// Opens `count` sockets for an address, unless they are open.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(&mut self, address: SocketAddr, count: usize) -> io::Result<()> {
        if let Entry::Vacant(place) = self.open.entry(address) {
            place.insert((0..count.max(1)).map(|_| open(address)).collect::<io::Result<_>>()?);
        }
        Ok(())
    }

    /// The kernel's numbers of all of them.
    pub(super) fn numbers(&self) -> HashSet<u64> {
        self.open.values().flatten().filter_map(number).collect()
    }

    /// All that are open for these addresses.
    pub(super) fn of<'a>(
        &'a self,
        addresses: &'a BTreeSet<SocketAddr>,
    ) -> impl Iterator<Item = (SocketAddr, &'a TcpListener)> {
        let of = |address: &'a SocketAddr| {
            self.open.get(address).into_iter().flatten().map(move |socket| (*address, socket))
        };
        addresses.iter().flat_map(of)
    }
}

/// The kernel's number of a socket.
pub(super) fn number(socket: &TcpListener) -> Option<u64> {
    rustix::fs::fstat(socket).ok().map(|status| status.st_ino)
}

/// Opens a listening socket beside others for the same address: the kernel spreads connections over them.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    set_socket_reuseaddr(&socket, true)?;
    set_socket_reuseport(&socket, true)?;
    // The address of a VIP may be put up later, or be on the other balancer.
    if address.is_ipv4() {
        set_ip_freebind(&socket, true)?;
    } else {
        set_ipv6_v6only(&socket, true)?;
        set_ipv6_freebind(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn who_has_a_copy_goes_on_with_it() {
        let mut sockets = Sockets::default();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        assert!(sockets.open(address, 2).is_err(), "somebody listens there who does not share");
        drop(free);
        sockets.open(address, 2).unwrap();
        let wanted = BTreeSet::from([address]);
        let copies: Vec<_> = sockets.of(&wanted).map(|(_, socket)| socket.try_clone().unwrap()).collect();
        assert_eq!(copies.len(), 2);
        sockets.keep(&BTreeSet::new());
        assert_eq!(sockets.of(&wanted).count(), 0);
        TcpStream::connect(address).unwrap();
        drop(copies);
        assert!(TcpStream::connect(address).is_err());
        sockets.open("[2001:db8::1]:0".parse().unwrap(), 1).unwrap();
    }
}
