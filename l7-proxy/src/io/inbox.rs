//! What comes on a stream of HTTP/2.
//!
//! In the h2 crate each frame that waits there is hundreds of bytes of memory, whatever it has of its own. It therefore bounds
//! them for a connection, and ends that, with all its streams, when they are more: one stream that nobody takes tiny messages
//! of would be the end of all others. Here they are joined, and only their bytes count, which the stream's window bounds.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;

/// Pieces that have less are joined, up to so many bytes or a few more.
const SMALL: usize = 4 * 1024;

/// The receiving side of a stream.
#[derive(Debug)]
pub struct Inbox {
    body: RecvStream,
    /// What was taken before anybody wanted it, and the last of it, which grows.
    ahead: VecDeque<Bytes>,
    last: BytesMut,
    /// How it ended, behind what is there.
    end: Option<Result<(), h2::Error>>,
}

impl Inbox {
    /// A stream whose head has come.
    #[must_use]
    pub fn new(body: RecvStream) -> Self {
        // Most requests have no body: nobody is asked for it again.
        let end = body.is_end_stream().then_some(Ok(()));
        Self { body, ahead: VecDeque::new(), last: BytesMut::new(), end }
    }

    /// The next bytes; none at the end. The other side may send as many again.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let data = if let Some(first) = self.ahead.pop_front() {
            first
        } else if !self.last.is_empty() {
            std::mem::take(&mut self.last).freeze()
        } else {
            let next = match self.end.take() {
                Some(end) => end.err().map(Err),
                None => ready!(self.body.poll_data(context)),
            };
            match next {
                Some(Ok(data)) => data,
                other => return Poll::Ready(other),
            }
        };
        // What is taken is passed on, or waits to be.
        let _ = self.body.flow_control().release_capacity(data.len());
        Poll::Ready(Some(Ok(data)))
    }

    /// Takes what has come, while nobody wants it. The other side may send no more for that.
    pub fn poll_ahead(&mut self, context: &mut Context<'_>) {
        while self.end.is_none() {
            match self.body.poll_data(context) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(data))) => self.keep(data),
                Poll::Ready(Some(Err(error))) => self.end = Some(Err(error)),
                Poll::Ready(None) => self.end = Some(Ok(())),
            }
        }
    }

    fn keep(&mut self, data: Bytes) {
        let is_small = data.len() < SMALL;
        if is_small {
            self.last.extend_from_slice(&data);
        }
        if self.last.len() >= SMALL || !(is_small || self.last.is_empty()) {
            self.ahead.push_back(std::mem::take(&mut self.last).freeze());
        }
        if !is_small {
            self.ahead.push_back(data);
        }
    }

    /// The trailers, behind the end.
    pub fn poll_trailers(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        self.body.poll_trailers(context)
    }
}
