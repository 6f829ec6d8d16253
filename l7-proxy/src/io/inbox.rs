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
#[derive(Debug, Default)]
pub struct Inbox {
    /// None where it was taken.
    body: Option<RecvStream>,
    /// What was taken before anybody wanted it, and the last of it, which grows.
    ahead: VecDeque<Bytes>,
    last: BytesMut,
    /// How it ended, behind what is there.
    end: Option<Result<(), h2::Error>>,
}

impl Inbox {
    /// A stream whose head has come; `ended` where nothing else will, not even trailers.
    #[must_use]
    pub fn new(body: RecvStream, ended: bool) -> Self {
        // Most requests have no body: nobody is asked for it again.
        let end = ended.then_some(Ok(()));
        Self { body: Some(body), ahead: VecDeque::new(), last: BytesMut::new(), end }
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
                None => ready!(self.poll_next(context)),
            };
            match next {
                Some(Ok(data)) => data,
                other => return Poll::Ready(other),
            }
        };
        // What is taken is passed on, or waits to be.
        if let Some(body) = &mut self.body {
            let _ = body.flow_control().release_capacity(data.len());
        }
        Poll::Ready(Some(Ok(data)))
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| body.poll_data(context))
    }

    /// Takes what has come, while nobody wants it. The other side may send no more for that.
    pub fn poll_ahead(&mut self, context: &mut Context<'_>) {
        while self.end.is_none() {
            match self.poll_next(context) {
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
        self.body.as_mut().map_or(Poll::Ready(Ok(None)), |body| body.poll_trailers(context))
    }
}
