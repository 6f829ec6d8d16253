//! One probe of one server: IO only, no memory of earlier probes.
//!
//! Whatever happens ends within the timeout and as an [`Outcome`] in words, and whatever a server sends takes no more
//! memory than `MOST`. Trouble that this host is to blame for (no file descriptors, no memory, no local port left, a
//! file that cannot be read) is told apart from trouble of the server, lest a host short of descriptors declare every
//! server dead.

mod files;
mod http;
mod icmp;
mod mysql;
mod redis;
mod script;
mod talk;
mod tcp;
mod tls;
mod udp;

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

pub(crate) use self::files::read_now;
use self::tls::Certificates;
use super::{Outcome, Subject};
use crate::model::Check;

/// No probe keeps more of what a server says, in bytes.
const MOST: usize = 64 * 1024;

/// Probes servers; a trait so that the runner can be tested without a network.
pub trait Prober: Send + Sync + 'static {
    /// Probes once.
    fn probe(&self, subject: &Subject) -> impl Future<Output = Outcome> + Send;
}

/// The prober that really opens connections.
#[derive(Debug, Default)]
pub struct Network {
    /// Where relative paths of passwords and certificates start.
    folder: PathBuf,
    certificates: Certificates,
    /// The address of this host to come from; `None` for the kernel's choice.
    source: Option<IpAddr>,
}

/// Where a probe goes, and where it comes from.
#[derive(Clone, Copy, Debug)]
struct Peer {
    address: SocketAddr,
    source: Option<IpAddr>,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { address, source: None }
    }
}

impl Network {
    /// A prober for a configuration in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ..Self::default() }
    }

    /// The same, coming from an address of this host.
    #[must_use]
    pub fn with_source(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// Probes an address once.
    pub async fn once(&self, address: SocketAddr, check: &Check, limit: Duration) -> Outcome {
        match timeout(limit, self.ask(address, check, limit)).await {
            Ok(Ok(found)) => Outcome::Success(found),
            Ok(Err(outcome)) => outcome,
            Err(_) => Outcome::Failure(format!("no answer within {limit:?}")),
        }
    }

    async fn ask(&self, address: SocketAddr, check: &Check, limit: Duration) -> Result<String, Outcome> {
        let address = Peer { address, source: self.source };
        match check {
            Check::Tcp => tcp::probe(address).await,
            Check::Tls { host, trust } => {
                let connector = self.certificates.connector(&self.folder, trust, &[]).await?;
                tls::probe(address, &connector, host.as_deref()).await
            }
            Check::Http(check) => {
                let connector = match &check.tls {
                    None => None,
                    Some(trust) => {
                        Some(self.certificates.connector(&self.folder, trust, &[b"http/1.1"]).await?)
                    }
                };
                http::probe(address, check, connector.as_ref()).await
            }
            Check::Redis(check) => {
                let password = match &check.password {
                    None => None,
                    Some(password) => Some(files::password(&self.folder, password).await?),
                };
                redis::probe(address, password.as_deref(), check.master).await
            }
            Check::Mysql { user } => mysql::probe(address, user.as_deref()).await,
            Check::Script(steps) => script::probe(address, steps).await,
            Check::Udp { send, reply } => udp::probe(address, send, reply.as_deref(), limit).await,
            Check::Icmp => icmp::probe(address.address.ip()).await,
            Check::None => Ok("not checked".into()),
        }
    }
}

impl Prober for Network {
    async fn probe(&self, subject: &Subject) -> Outcome {
        self.once(subject.address, &subject.check, subject.timeout).await
    }
}

/// Opens a connection; trouble comes back in words.
async fn connect(peer: impl Into<Peer>) -> Result<TcpStream, Outcome> {
    let Peer { address, source } = peer.into();
    let connected = async {
        let Some(source) = source else { return TcpStream::connect(address).await };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(source, 0))?;
        socket.connect(address).await
    };
    connected.await.map_err(|error| trouble(&error))
}

/// The server's fault.
fn failure(why: impl Into<String>) -> Outcome {
    Outcome::Failure(why.into())
}

/// What a server said, on one line and not too much of it.
fn quote(said: &[u8]) -> String {
    const LONGEST: usize = 80;
    let shown = said[..said.len().min(LONGEST)].escape_ascii();
    let more = if said.len() > LONGEST { "…" } else { "" };
    format!("\"{shown}\"{more}")
}

/// Text of a server as part of a sentence: printable, on one line and not too much of it.
fn plain(said: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(&said[..said.len().min(LONGEST)]).into_owned();
    text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect::<String>().trim().to_owned()
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
        (_, ErrorKind::ConnectionRefused) => failure("connection refused"),
        (_, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => failure("connection reset by the server"),
        (_, ErrorKind::HostUnreachable) => failure("host unreachable"),
        (_, ErrorKind::NetworkUnreachable) => failure("this host has no route to it"),
        (_, ErrorKind::PermissionDenied) => {
            failure("a packet filter or route of this host forbids the probe")
        }
        (_, ErrorKind::TimedOut) => failure("no answer: the connection timed out"),
        _ => failure(error.to_string()),
    }
}

#[cfg(test)]
mod conversations;
#[cfg(test)]
mod scripted;

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

    #[test]
    fn what_a_server_says_stays_on_one_line() {
        assert_eq!(quote(b"220 hi\r\n\0\xff"), r#""220 hi\r\n\x00\xff""#);
        assert_eq!(quote(&[b'x'; 100]), format!("\"{}\"…", "x".repeat(80)));
        assert_eq!(plain(b" gr\xc3\xbcn\r\n\x1b[31m "), "grün   [31m");
    }
}
