//! A connection, plain or within TLS.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use super::Channel;

/// How long, and for how many bytes, a side that was told the end is listened to; and how many are read at a time.
pub const LINGERING: Duration = Duration::from_secs(2);
const MOST_LINGERING: usize = 1024 * 1024;
const ROOM_LINGERING: usize = 16 * 1024;

/// A connection of a client or to a server.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// Of a client, with TLS.
    Accepted(Box<server::TlsStream<TcpStream>>),
    /// To a server, with TLS.
    Connected(Box<client::TlsStream<TcpStream>>),
    /// A stream of HTTP/2 that has become a tunnel to a server.
    Channel(Box<Channel>),
}

impl Stream {
    /// The socket below, where it is this connection's alone.
    #[must_use]
    pub fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Accepted(tls) => Some(tls.get_ref().0),
            Self::Connected(tls) => Some(tls.get_ref().0),
            Self::Channel(_) => None,
        }
    }

    /// Sees to it that the end of the connection is a reset: who is at its other end should not take it for the
    /// end of what was to be said.
    pub fn break_off(&self) {
        if let Some(socket) = self.socket() {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Reads and forgets what the other side, which was told the end, still sends: it would be answered by a reset, and what was
    /// said last would be lost by that (RFC 9112 §9.6). For a while, and some bytes.
    pub async fn linger(&mut self, scratch: &mut BytesMut) {
        let mut left = MOST_LINGERING;
        let read = poll_fn(|context| {
            while left > 0 {
                scratch.clear();
                match fill(self, scratch, ROOM_LINGERING, context) {
                    Poll::Ready(Ok(read)) if read > 0 => left = left.saturating_sub(read),
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(LINGERING, read).await;
    }

    /// What was agreed upon within TLS.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Accepted(tls) => tls.get_ref().1.alpn_protocol(),
            Self::Connected(tls) => tls.get_ref().1.alpn_protocol(),
            Self::Plain(_) | Self::Channel(_) => None,
        }
    }
}

/// Hands a call on to whatever the stream is.
macro_rules! within {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Plain($inner) => $call,
            Stream::Accepted($inner) => $call,
            Stream::Connected($inner) => $call,
            Stream::Channel($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        within!(self, inner => Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        within!(self, inner => Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        within!(self, inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        within!(self, inner => Pin::new(inner).poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        within!(self, inner => Pin::new(inner).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(inner) => inner.is_write_vectored(),
            Self::Accepted(inner) => inner.is_write_vectored(),
            Self::Connected(inner) => inner.is_write_vectored(),
            Self::Channel(inner) => inner.is_write_vectored(),
        }
    }
}

/// Reads what has come into `buffer`, which gets `room` bytes where it has none left; how many came, 0 at the
/// end.
///
/// # Errors
/// What the socket says.
pub fn fill<S: AsyncRead + Unpin>(
    socket: &mut S,
    buffer: &mut BytesMut,
    room: usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.capacity() - buffer.len() < room / 4 {
        buffer.reserve(room);
    }
    // The future holds nothing between two polls: it may be made anew for each.
    pin!(socket.read_buf(buffer)).poll(context)
}
