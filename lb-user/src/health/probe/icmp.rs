//! The ICMP probe: an echo request (RFC 792, RFC 4443 §4.1).
//!
//! Over a ping socket where the kernel lets us (`net.ipv4.ping_group_range`), else over a raw one. Which reply is
//! ours is told by random data in it, so both kinds are read alike.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use lb_common::wire::checksum;
use rustix::{
    io::Errno,
    net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto},
};
use tokio::net::UdpSocket;

use super::{Outcome, trouble};

const HEADER: usize = 8;
const DATA: usize = 16;

/// Types of an echo request and its reply.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// Waits for the echo.
pub(super) async fn probe(address: IpAddr) -> Result<String, Outcome> {
    let (socket, raw) = open(address).map_err(|error| match error {
        Errno::ACCESS | Errno::PERM => Outcome::Inconclusive(
            "this host may not send ICMP: it takes CAP_NET_RAW, or a group in net.ipv4.ping_group_range"
                .into(),
        ),
        error => trouble(&error.into()),
    })?;
    let in_words = |error: io::Error| trouble(&error);
    rustix::net::connect(&socket, &SocketAddr::new(address, 0)).map_err(|error| in_words(error.into()))?;
    // tokio has no type for such a socket, but send(2) and recv(2) are what they are for UDP.
    let socket = UdpSocket::from_std(socket.into()).map_err(in_words)?;

    let words = [0, 1].map(|half| RandomState::new().hash_one(half).to_ne_bytes());
    let mut data = [0; DATA];
    data.copy_from_slice(words.as_flattened());
    socket.send(&request(address, &data)).await.map_err(in_words)?;

    // With an IPv4 header of any length in front of it, if the socket is raw.
    let mut packet = [0; 60 + HEADER + DATA];
    loop {
        let length = socket.recv(&mut packet).await.map_err(in_words)?;
        let skip = if raw && address.is_ipv4() { usize::from(packet[0] & 15) * 4 } else { 0 };
        if packet[..length].get(skip..).is_some_and(|message| is_reply(address, message, &data)) {
            return Ok("echo reply".into());
        }
    }
}

/// A socket, and whether it is raw.
fn open(address: IpAddr) -> Result<(OwnedFd, bool), Errno> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let open = |kind, protocol: Protocol| {
        rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(protocol))
    };
    match open(SocketType::DGRAM, protocol) {
        Ok(socket) => Ok((socket, false)),
        Err(_) => Ok((open(SocketType::RAW, protocol)?, true)),
    }
}

/// An echo request. The kernel fills in the checksum over IPv6, and number and checksum for a ping socket.
fn request(address: IpAddr, data: &[u8; DATA]) -> Vec<u8> {
    let mut message = vec![if address.is_ipv4() { V4.0 } else { V6.0 }, 0, 0, 0, data[0], data[1], 0, 1];
    message.extend(data);
    if address.is_ipv4() {
        let sum = checksum::finish(checksum::sum(&message));
        message[2..4].copy_from_slice(&sum.to_ne_bytes());
    }
    message
}

fn is_reply(address: IpAddr, message: &[u8], data: &[u8; DATA]) -> bool {
    let reply = if address.is_ipv4() { V4.1 } else { V6.1 };
    message.first() == Some(&reply) && message.get(HEADER..) == Some(&data[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reply_with_our_data_counts() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let data = *b"0123456789abcdef";
        let mut message = request(address, &data);
        assert_eq!(checksum::finish(checksum::sum(&message)), 0, "the checksum is right");
        assert!(!is_reply(address, &message, &data), "our own request, as seen on loopback");
        message[0] = 0;
        assert!(is_reply(address, &message, &data));
        assert!(!is_reply(address, &message, b"0123456789abcdeF"));
        assert!(!is_reply(address, &message[..20], &data));
        assert!(!is_reply(address, &[], &data));
    }

    #[tokio::test]
    async fn loopback_answers_if_we_may_ask() {
        for address in ["127.0.0.1", "::1"] {
            match probe(address.parse().unwrap()).await {
                Ok(found) => assert_eq!(found, "echo reply"),
                Err(Outcome::Inconclusive(why)) => assert!(why.contains("CAP_NET_RAW"), "{why}"),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
