//! One probe of one server: IO only, no memory of earlier probes.
//!
//! Whatever happens ends within the timeout and as an [`Outcome`] in words. Trouble that this host is to
//! blame for (no file descriptors, no memory, no local port left) is told apart from trouble of the
//! server, lest a host short of descriptors declare every server dead.

mod http;
mod tcp;

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use super::{Outcome, Target};
use crate::model::Check;

/// Probes servers; a trait so that the runner can be tested without a network.
pub trait Prober: Send + Sync + 'static {
    /// Probes a target once.
    fn probe(&self, target: &Target) -> impl Future<Output = Outcome> + Send;
}

/// The prober that really opens connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network;

impl Prober for Network {
    async fn probe(&self, target: &Target) -> Outcome {
        match &target.check.check {
            Check::Tcp => tcp::probe(target.address, target.check.timeout).await,
            Check::Http { path, expect } => {
                http::probe(target.address, path, expect, target.check.timeout).await
            }
            Check::None => Outcome::Success("not checked".into()),
        }
    }
}

/// Opens a connection; trouble comes back in words.
async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, Outcome> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(trouble(&error)),
        Err(_) => Err(no_answer(limit)),
    }
}

/// Nothing came within the time the operator allowed.
fn no_answer(limit: Duration) -> Outcome {
    Outcome::Failure(format!("no answer within {limit:?}"))
}

/// `errno` values for which the standard library has no stable name; the same on all Linux machines.
mod errno {
    /// All file descriptors of the system are in use.
    pub(super) const ENFILE: i32 = 23;
    /// All file descriptors of this process are in use.
    pub(super) const EMFILE: i32 = 24;
    /// No memory for network buffers.
    pub(super) const ENOBUFS: i32 = 105;
}

/// Says whose trouble an IO error is.
fn trouble(error: &io::Error) -> Outcome {
    match (error.raw_os_error(), error.kind()) {
        (Some(errno::EMFILE | errno::ENFILE), _) => {
            Outcome::Inconclusive("this host has too many open files".into())
        }
        (Some(errno::ENOBUFS), _) | (_, ErrorKind::OutOfMemory) => {
            Outcome::Inconclusive("this host is out of memory for sockets".into())
        }
        (_, ErrorKind::AddrNotAvailable) => {
            Outcome::Inconclusive("this host has no free local port or address for the probe".into())
        }
        (_, ErrorKind::ConnectionRefused) => Outcome::Failure("connection refused".into()),
        (_, ErrorKind::ConnectionReset) => Outcome::Failure("connection reset by the server".into()),
        (_, ErrorKind::HostUnreachable) => Outcome::Failure("host unreachable".into()),
        (_, ErrorKind::NetworkUnreachable) => Outcome::Failure("this host has no route to it".into()),
        (_, ErrorKind::PermissionDenied) => {
            Outcome::Failure("a packet filter or route of this host forbids the probe".into())
        }
        (_, ErrorKind::TimedOut) => Outcome::Failure("no answer: the connection timed out".into()),
        _ => Outcome::Failure(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_trouble_it_is() {
        for (errno, server_is_blamed) in [
            (111, true),  // ECONNREFUSED
            (104, true),  // ECONNRESET
            (113, true),  // EHOSTUNREACH
            (101, true),  // ENETUNREACH
            (110, true),  // ETIMEDOUT
            (1, true),    // EPERM
            (13, true),   // EACCES
            (24, false),  // EMFILE
            (23, false),  // ENFILE
            (105, false), // ENOBUFS
            (12, false),  // ENOMEM
            (99, false),  // EADDRNOTAVAIL
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let blamed = matches!(trouble(&error), Outcome::Failure(_));
            assert_eq!(blamed, server_is_blamed, "{error}");
        }
    }
}
