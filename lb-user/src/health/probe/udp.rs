//! The UDP probe: a datagram, and the answer if there is to be one.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tokio::{net::UdpSocket, time::timeout};

use super::{Outcome, Peer, failure, quote, talk::find, trouble};

/// Without an expected answer, a port is taken for open after this long without the news that it is closed.
const SILENCE: Duration = Duration::from_secs(1);

/// What is read of an answer, in bytes.
const LONGEST: usize = 4_096;

/// Sends a datagram; the whole probe is to end within `limit`.
pub(super) async fn probe(
    peer: impl Into<Peer>,
    send: &[u8],
    reply: Option<&[u8]>,
    limit: Duration,
) -> Result<String, Outcome> {
    let Peer { address, source } = peer.into();
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((source.unwrap_or(any), 0)).await.map_err(|error| in_words(&error))?;
    // Only what comes from there, and the news that the port is closed.
    socket.connect(address).await.map_err(|error| in_words(&error))?;
    socket.send(send).await.map_err(|error| in_words(&error))?;
    let mut answer = vec![0; LONGEST];
    let heard = socket.recv(&mut answer);
    let length = match reply {
        Some(_) => heard.await,
        // Half of the time allowed, because silence is the good answer here.
        None => match timeout(SILENCE.min(limit / 2), heard).await {
            Ok(heard) => heard,
            Err(_) => return Ok("the port is not reported closed".into()),
        },
    };
    answer.truncate(length.map_err(|error| in_words(&error))?);
    match reply {
        Some(reply) if find(&answer, reply).is_none() => {
            Err(failure(format!("the answer is {}, expected {}", quote(&answer), quote(reply))))
        }
        _ => Ok("answered".into()),
    }
}

fn in_words(error: &std::io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused => failure("port unreachable: nothing listens there"),
        _ => trouble(error),
    }
}
