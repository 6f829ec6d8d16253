//! The client's side of a request, whichever HTTP it speaks.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::Lines;
use crate::wire::{Answer, Fault, Fields, Framing, Piece};

/// Why nothing more comes from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideFault {
    /// What came is malformed.
    Fault(Fault),
    /// The connection, or the stream of it, has ended before the body did.
    Gone,
}

/// Where a request comes from and its answer goes to. What is put waits until it is flushed.
pub trait Side {
    /// The next piece of the request's body.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, SideFault>>;

    /// While nobody asks for the body: takes what has come where it would cost more to leave it, and is ready when the client
    /// has gone, so that nobody works for it any more. A client that has only finished sending has not gone.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Puts an answer that another one follows (1xx, but not 101).
    fn informational(&mut self, lines: &Lines<'_>);

    /// Puts the answer by which the connection becomes another protocol's.
    fn switched(&mut self, lines: &Lines<'_>, answer: &Answer);

    /// Puts the head of the answer, whose body is so long.
    fn head(&mut self, lines: &Lines<'_>, body: Framing);

    /// Puts a piece of the answer's body.
    fn data(&mut self, data: Bytes);

    /// Puts the end of the answer.
    fn end(&mut self, trailers: Option<&Fields>);

    /// Bytes that were put and not flushed.
    fn waiting(&self) -> usize;

    /// Bytes of the connection written so far.
    fn written(&self) -> u64;

    /// Writes what waits.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}
