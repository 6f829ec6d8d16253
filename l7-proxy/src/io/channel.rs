//! A stream of HTTP/2 as a connection of bytes: WebSockets over HTTP/2 (RFC 8441), CONNECT.

use std::{
    fmt::Debug,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Inbox, Window};

/// Bytes that are sent at once.
const MOST: usize = 16 * 1024;

/// A stream.
#[derive(Debug)]
pub struct Channel {
    body: Inbox,
    send: SendStream<Bytes>,
    window: Window,
    rest: Bytes,
    ended: bool,
    /// What the stream holds as long as it lasts.
    held: Option<Arc<dyn Debug + Send + Sync>>,
}

impl Channel {
    /// A stream whose heads have passed.
    #[must_use]
    pub fn new(body: Inbox, send: SendStream<Bytes>, window: Window) -> Self {
        Self { body, send, window, rest: Bytes::new(), ended: false, held: None }
    }

    /// The same, which holds something as long as it lasts.
    #[must_use]
    pub fn holding(mut self, held: Arc<dyn Debug + Send + Sync>) -> Self {
        self.held = Some(held);
        self
    }

    /// Takes what has come while nobody reads; ready when the other side has reset the stream, or is gone.
    pub fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.body.poll_ahead(context);
        self.send.poll_reset(context).map(drop)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // A tunnel that is cut is not one that has ended (RFC 9113 §8.5).
        if !self.ended {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

fn lost(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.body.poll_data(context)) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) => return Poll::Ready(Err(lost(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..taken]);
        self.rest.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Self { window, send, .. } = &mut *self;
        let piece = bytes.len().min(MOST);
        let taken = ready!(window.poll_room(send, piece, piece, context))?;
        let part = window.part(Bytes::copy_from_slice(&bytes[..taken]));
        send.send_data(part, false).map_err(lost)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.ended = true;
            self.send.send_data(Bytes::new(), true).map_err(lost)?;
        }
        Poll::Ready(Ok(()))
    }
}
