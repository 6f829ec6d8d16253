//! A client's connection: reads heads and bodies, writes what waits, ends it with care.

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use crate::front::Entry;
use crate::{
    http::{Lines, Side},
    io::{Deadline, LINGERING, Out, Stream, fill},
    model::Service,
    wire::{Body, Fault, Framing, Method, Piece, Request, Scan, Version},
};

/// Bytes that are read of a request whose predecessor was not answered yet.
pub(super) const MOST_AHEAD: usize = 16 * 1024;

/// Memory for a head, before it is known to be longer than most are.
pub(super) const ROOM_HEAD: usize = 2 * 1024;

/// Memory for a piece of a body.
pub(super) const ROOM_BODY: usize = 32 * 1024;

/// How the body of an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
    /// None is: the request was HEAD, or the answer has none.
    #[default]
    Nothing,
    Plain,
    /// Until the connection ends.
    UntilClose,
    Chunked,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct H1 {
    pub(super) stream: Stream,
    pub(super) input: BytesMut,
    pub(super) output: Out,
    /// What is to come of the request's body.
    pub(super) body: Body,
    /// Whether the client was told to send it.
    pub(super) continued: bool,
    /// Whether another request is served after this one; answers say if not.
    pub(super) keeps: bool,
    /// Of the request.
    pub(super) version: Version,
    pub(super) method: Method,
    pub(super) coding: Coding,
    /// Whether the client has finished sending.
    pub(super) ended: bool,
    pub(super) entry: Arc<Entry>,
}

/// What came of waiting for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Its head.
    Head,
    /// Nothing: the client has gone, or was silent for too long.
    Nothing,
    /// Something that is refused.
    Fault(Fault),
    /// The beginning of a head, and no more in time.
    Slow,
    /// The service ends, and nothing of a request is there.
    Closing,
}

impl H1 {
    pub(super) fn new(stream: Stream, input: BytesMut, entry: Arc<Entry>) -> Self {
        Self {
            stream,
            input,
            output: Out::default(),
            body: Body::Done,
            continued: false,
            keeps: true,
            version: Version::V1_1,
            method: Method::Get,
            coding: Coding::Nothing,
            ended: false,
            entry,
        }
    }

    /// Waits for the head of a request.
    pub(super) async fn read_head(
        &mut self,
        request: &mut Request,
        service: &Service,
        deadline: &mut Deadline,
    ) -> Came {
        let mut scan = Scan::default();
        let mut began = false;
        deadline.set(service.timeouts.client_idle.get());
        let came = poll_fn(|context| {
            loop {
                if !self.input.is_empty() {
                    if !began {
                        began = true;
                        deadline.set(service.timeouts.request_header.get());
                    }
                    match scan.end(&self.input, &service.head) {
                        Err(fault) => return Poll::Ready(Came::Fault(fault)),
                        Ok(Some(end)) => {
                            let parsed = request.parse(&self.input[..end], &service.head);
                            self.input.advance(end);
                            return Poll::Ready(parsed.map_or_else(Came::Fault, |()| Came::Head));
                        }
                        Ok(None) => {}
                    }
                }
                let nothing = |input: &BytesMut| {
                    // Empty lines are nothing (RFC 9112 §2.2).
                    let blank = input.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
                    Poll::Ready(if blank { Came::Nothing } else { Came::Fault(Fault::Truncated) })
                };
                if self.ended {
                    return nothing(&self.input);
                }
                match fill(&mut self.stream, &mut self.input, ROOM_HEAD, context) {
                    Poll::Ready(Ok(0)) => {
                        self.ended = true;
                        return nothing(&self.input);
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Came::Nothing),
                    Poll::Pending => {
                        let late = if began { Came::Slow } else { Came::Nothing };
                        return deadline.poll(context).map(|()| late);
                    }
                }
            }
        })
        .await;
        deadline.clear();
        came
    }

    /// Whether bytes of a next request are there already.
    pub(super) fn has_more(&self) -> bool {
        !self.input.is_empty()
    }

    /// Puts an answer of our own.
    pub(super) fn put_page(&mut self, lines: &Lines<'_>, body: &Bytes) {
        let has_body = !body.is_empty() && !matches!(lines.status(), 204 | 304);
        self.head(lines, if has_body { Framing::Length(body.len() as u64) } else { Framing::None });
        if has_body {
            self.data(body.clone());
        }
        self.end(None);
    }

    /// Writes what waits, within the time that a client has for taking it.
    pub(super) async fn flush(&mut self, timeout: Duration, deadline: &mut Deadline) -> io::Result<()> {
        let mut before = self.output.total();
        deadline.set(timeout);
        let flushed = poll_fn(|context| {
            let polled = self.output.poll_flush(&mut self.stream, context);
            if polled.is_pending() {
                if self.output.total() != before {
                    before = self.output.total();
                    deadline.set(timeout);
                }
                return deadline.poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()));
            }
            polled
        })
        .await;
        deadline.clear();
        flushed
    }

    /// Reads a rest of a body that is short enough to be thrown away; whether that was all of it.
    pub(super) async fn skip_body(&mut self, most: u64, timeout: Duration, deadline: &mut Deadline) -> bool {
        if matches!(self.body, Body::Length(left) if left > most) {
            return false;
        }
        deadline.set(timeout);
        let mut skipped = 0;
        let done = poll_fn(|context| {
            loop {
                match self.poll_piece(context) {
                    Poll::Ready(Ok(Piece::Data(data))) => {
                        skipped += data.len() as u64;
                        if skipped > most {
                            return Poll::Ready(false);
                        }
                    }
                    Poll::Ready(Ok(_)) => return Poll::Ready(true),
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return deadline.poll(context).map(|()| false),
                }
            }
        })
        .await;
        deadline.clear();
        done
    }

    /// Sees to it that the end of the connection is not taken for the end of an answer without a length.
    pub(super) fn break_off(&mut self) {
        if self.coding == Coding::UntilClose {
            self.stream.break_off();
        }
    }

    /// Ends the connection while nothing is under way: TLS says that this is all.
    pub(super) async fn shut(&mut self) {
        let _ = tokio::time::timeout(LINGERING, self.stream.shutdown()).await;
    }

    /// Ends the connection in a way that does not cut off the answer.
    pub(super) async fn close(&mut self) {
        if tokio::time::timeout(LINGERING, self.stream.shutdown()).await.is_ok() && !self.ended {
            self.stream.linger(&mut self.input).await;
        }
    }
}
