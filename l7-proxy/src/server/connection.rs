//! Connections to servers.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use bytes::BytesMut;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use super::{Ends, now, transparent};
use crate::{
    io::{Out, Stream},
    proxy_protocol,
    spec::{ProxyProtocolVersion, Source},
    tls::ToServers,
};

/// No server ends connections that were idle for as few milliseconds.
const HARDLY_IDLE: u64 = 250;

/// A connection to a server, with what was read ahead and what waits to be written.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub stream: Stream,
    /// What was read and not yet understood.
    pub input: BytesMut,
    /// What waits to be written.
    pub output: Out,
    /// The server's end.
    pub server: SocketAddr,
    /// The source address it was bound to.
    pub source: Option<IpAddr>,
    /// Requests it has carried.
    pub used: u32,
    /// When it was put back last, see [`super::now`].
    pub idle_since: u64,
    /// For how many milliseconds the server says that it keeps it (`Keep-Alive: timeout=`).
    pub kept_for: Option<u64>,
}

/// Why there is no connection to a server.
#[derive(Debug)]
pub enum ConnectError {
    /// It took too long.
    Timeout,
    /// The server or the way to it refuses.
    Refused(io::Error),
    /// This host has no port, file or right for it: another server would not help.
    Here(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("it did not answer in time"),
            Self::Refused(error) => write!(f, "{error}"),
            Self::Here(error) => write!(f, "this host cannot: {error}"),
        }
    }
}

/// The address that a connection for a client is to come from.
#[must_use]
pub(super) fn source_address(source: Source, ends: &Ends) -> Option<IpAddr> {
    match source {
        Source::Auto => None,
        Source::Vip => Some(ends.local.ip().to_canonical()),
        Source::Client => Some(ends.client.ip().to_canonical()),
        Source::Address(address) => Some(address),
    }
}

/// What is connected to.
#[derive(Debug)]
pub struct To<'a> {
    /// Address and port.
    pub server: SocketAddr,
    /// PROXY protocol that is spoken first.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// TLS that is spoken then.
    pub tls: Option<&'a ToServers>,
    /// Whether HTTP/2 is to be agreed upon within it.
    pub http2: bool,
}

/// Connects to a server. `source` and `ends` say where from.
///
/// # Errors
/// Why it could not.
pub async fn connect(to: &To<'_>, source: Source, ends: &Ends) -> Result<Connection, ConnectError> {
    let server = to.server;
    let address = source_address(source, ends).filter(|address| address.is_ipv4() == server.is_ipv4());
    let socket = socket(server, source, address).await.map_err(ConnectError::Here)?;
    let mut stream = match socket.connect(server).await {
        Err(error) if is_our_own(&error) => return Err(ConnectError::Here(error)),
        Err(error) => return Err(ConnectError::Refused(error)),
        Ok(stream) => stream,
    };
    if let Some(version) = to.proxy_protocol {
        let mut header = Vec::new();
        proxy_protocol::write(&mut header, version, ends);
        stream.write_all(&header).await.map_err(ConnectError::Refused)?;
    }
    let stream = match to.tls {
        None => Stream::Plain(stream),
        Some(tls) => Stream::Connected(tls.connect(stream, to.http2).await.map_err(ConnectError::Refused)?),
    };
    Ok(Connection::new(stream, server, address))
}

fn is_our_own(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied)
        || error.raw_os_error().is_some_and(|code| matches!(code, 11 | 23 | 24))
}

async fn socket(server: SocketAddr, source: Source, address: Option<IpAddr>) -> io::Result<TcpSocket> {
    let socket = if source == Source::Client && address.is_some() {
        transparent::socket(server.is_ipv6()).await?
    } else {
        Socket::new(Domain::for_address(server), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?
    };
    socket.set_tcp_nodelay(true)?;
    if let Some(address) = address {
        // The port is chosen when it is known which server: so each server may have all of them.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(address, 0).into())?;
    }
    let stream: std::net::TcpStream = socket.into();
    Ok(TcpSocket::from_std_stream(stream))
}

/// Looks at what has come, 0 at the end.
fn peek(socket: &TcpStream) -> io::Result<usize> {
    SockRef::from(socket).peek(&mut [std::mem::MaybeUninit::uninit(); 1])
}

impl Connection {
    /// A connection that was just made.
    #[must_use]
    pub fn new(stream: Stream, server: SocketAddr, source: Option<IpAddr>) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: Out::default(),
            server,
            source,
            used: 0,
            idle_since: now(),
            kept_for: None,
        }
    }

    /// Whether a request may be sent over it: the server has neither ended it nor sent anything unasked, which would pass
    /// for the answer to that request. The kernel is asked, for the runtime looks only when the worker has nothing to do.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let quiet = |socket| matches!(peek(socket), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.input.is_empty() && self.output.is_empty() && self.stream.socket().is_some_and(quiet)
    }

    /// Gives back memory that a connection that waits does not need.
    pub(super) fn forget_memory(&mut self) {
        const KEPT: usize = 16 * 1024;
        if self.input.capacity() > KEPT {
            self.input = BytesMut::new();
        }
    }

    /// Whether the server says that it does not end it yet, with a margin for what is under way; `None` where it
    /// says nothing.
    fn is_promised(&self) -> Option<bool> {
        self.kept_for.map(|kept_for| self.idle_for() < kept_for.saturating_sub(1_000).max(kept_for / 2))
    }

    /// Whether the server is not expected to end it just now.
    #[must_use]
    pub(super) fn is_fresh(&self) -> bool {
        self.is_promised().unwrap_or(true)
    }

    /// Whether what cannot be sent twice may be sent over it: the server has promised to keep it, or it has
    /// hardly been idle. To make a connection costs less than a request that nobody knows the fate of.
    #[must_use]
    pub(super) fn is_sure(&self) -> bool {
        self.is_promised().unwrap_or_else(|| self.idle_for() < HARDLY_IDLE)
    }

    /// For how many milliseconds it has waited.
    #[must_use]
    pub fn idle_for(&self) -> u64 {
        now().saturating_sub(self.idle_since)
    }
}
