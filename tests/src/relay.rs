//! The sending end of a tunnel without a balancer: a thread that takes what arrives for a VIP and sends it on
//! through the kernel's own raw and UDP sockets, which write the outer headers.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    num::NonZeroU32,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketType, recv, sendto, socket,
    sockopt::{Timeout, set_socket_timeout},
};

use crate::netns::Netns;

/// Kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IP in IP.
    Ip,
    /// GUE variant 1.
    Gue,
    /// GUE variant 0 with its four bytes.
    Gue0,
}

impl Kind {
    /// All of them, for loops.
    pub const ALL: [Self; 3] = [Self::Ip, Self::Gue, Self::Gue0];
}

/// The near end of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    kind: Kind,
    /// IP protocol number of what goes in.
    inner: u8,
    to: IpAddr,
    raw: Option<OwnedFd>,
    udp: Option<UdpSocket>,
}

impl Tunnel {
    /// Opens a tunnel from a namespace to an address, for packets of the same family as `inner`; GUE goes to
    /// port 6080.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    #[must_use]
    pub fn open(ns: &Netns, kind: Kind, to: IpAddr, inner: IpAddr) -> Self {
        let number = if inner.is_ipv4() { 4 } else { 41 };
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (mut raw, mut udp) = (None, None);
        ns.run(|| match kind {
            Kind::Ip => {
                let protocol = NonZeroU32::new(number).map(Protocol::from_raw);
                raw = Some(socket(family, SocketType::RAW, protocol).expect("a raw socket"));
            }
            Kind::Gue | Kind::Gue0 => udp = Some(UdpSocket::bind((any, 0)).expect("a UDP socket")),
        });
        Self { kind, inner: number as u8, to, raw, udp }
    }

    /// Sends a packet, from its IP header on, into the tunnel.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn send(&self, packet: &[u8]) {
        if let Some(raw) = &self.raw {
            sendto(raw, packet, SendFlags::empty(), &SocketAddr::new(self.to, 0)).expect("send IP in IP");
        }
        if let Some(udp) = &self.udp {
            let gue = [0, self.inner, 0, 0];
            let header = if self.kind == Kind::Gue0 { &gue[..] } else { &[] };
            udp.send_to(&[header, packet].concat(), (self.to, 6080)).expect("send GUE");
        }
    }
}

/// A running relay; stopped on drop.
#[derive(Debug)]
pub struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Sends everything that arrives in `ns` for `vip` through a tunnel to `server`. The packets must arrive one by
    /// one: receive offload on the interface is to be switched off.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &Netns, vip: IpAddr, kind: Kind, server: IpAddr) -> Self {
        let tunnel = Tunnel::open(ns, kind, server, vip);
        let ethertype: u16 = if vip.is_ipv4() { 0x0800 } else { 0x86dd };
        // In network byte order, from the network header on, from all interfaces: what the kernel would get.
        let arrivals = ns.run(|| {
            let protocol = NonZeroU32::new(ethertype.to_be().into()).map(Protocol::from_raw);
            socket(AddressFamily::PACKET, SocketType::DGRAM, protocol).expect("a packet socket")
        });
        set_socket_timeout(&arrivals, Timeout::Recv, Some(Duration::from_millis(50))).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = ns.spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                // A timeout, mostly.
                let Ok((_, length)) = recv(&arrivals, buffer.as_mut_slice(), RecvFlags::empty()) else {
                    continue;
                };
                let packet = &buffer[..length];
                if destination(packet) == Some(vip) {
                    tunnel.send(packet);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into()),
        6 => Some(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into()),
        _ => None,
    }
}
