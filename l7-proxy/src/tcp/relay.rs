//! Passes bytes between two connections until both are over: half-closed ones stay open in the other
//! direction, an idle timer and a lifetime end what would last for ever. Nothing is kept for a connection that
//! is idle: bytes lie in memory that all connections of a worker share, and only what could not be passed on
//! at once gets memory of its own.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::splice::{Failed, Splice, Step};
use crate::io::{Channel, Deadline, Out, Stream};

/// Bytes that are read at once.
const ROOM: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; ROOM].into_boxed_slice());
}

/// Why a relay has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both sides have finished.
    Both,
    /// The client's connection broke.
    Client,
    /// The server's connection broke.
    Server,
    /// Nothing was sent for too long.
    Idle,
    /// It lasted as long as it may.
    Lifetime,
    /// It was told to end.
    Told,
}

impl Ended {
    /// Who ended it and when, as the log has it.
    #[must_use]
    pub fn letters(self) -> [u8; 2] {
        match self {
            Self::Both => *b"--",
            Self::Client => *b"CD",
            Self::Server => *b"SD",
            Self::Idle => *b"cD",
            Self::Lifetime => *b"LD",
            Self::Told => *b"KD",
        }
    }
}

/// How long a relay may last.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// As long as nothing is sent.
    pub idle: Duration,
    /// Altogether.
    pub until: Option<Instant>,
}

/// One side of a relay.
#[derive(Debug)]
pub struct Party<S> {
    /// The connection.
    pub stream: S,
    /// What came from it already.
    pub input: BytesMut,
    /// What is to be written to it before anything else.
    pub output: Out,
}

/// Bytes that were passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// From the client to the server.
    pub up: u64,
    /// From the server to the client.
    pub down: u64,
    /// Whether it ended with a reset: the other side should not take that for the end of what was to be said.
    pub reset: bool,
}

/// A connection that may be a socket and nothing else.
pub trait Plain {
    /// The socket, where what it carries is what is said.
    fn plain(&self) -> Option<&TcpStream>;

    /// Whether all of this ends with a socket, and breaks with it.
    fn is_socket(&self) -> bool {
        true
    }

    /// While nobody reads: takes what has come where it would cost more to leave it, and is ready when the other side is gone:
    /// what is seen of sockets only when they are read or written is told of streams.
    fn poll_idle(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Plain for Stream {
    fn is_socket(&self) -> bool {
        self.socket().is_some()
    }

    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            _ => None,
        }
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Channel(channel) => channel.poll_idle(context),
            _ => Poll::Pending,
        }
    }
}

impl<T: Plain> Plain for &mut T {
    fn is_socket(&self) -> bool {
        (**self).is_socket()
    }

    fn plain(&self) -> Option<&TcpStream> {
        (**self).plain()
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        (**self).poll_idle(context)
    }
}

impl Plain for Channel {
    fn is_socket(&self) -> bool {
        false
    }

    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Self::poll_idle(self, context)
    }
}

/// One direction.
struct Way {
    pending: BytesMut,
    /// In use while large pieces come and both sides are plain.
    splice: Option<Splice>,
    /// Whether its source will tell when more comes.
    reads: bool,
    ended: bool,
    /// Whether its source was reset: it has no end, unless it has said so itself within TLS.
    is_cut: bool,
    shut: bool,
    /// Whether its target was reset when it was told the end.
    is_refused: bool,
    flushed: bool,
    passed: u64,
}

/// What broke a direction.
struct Broken {
    of_source: bool,
    kind: io::ErrorKind,
}

impl Broken {
    /// `of_source` where it was read from.
    fn by(of_source: bool) -> impl Fn(io::Error) -> Self {
        move |error| Self { of_source, kind: error.kind() }
    }

    /// Whether it was more than TLS that ended without saying so, as many clients do.
    fn is_reset(&self) -> bool {
        self.kind != io::ErrorKind::UnexpectedEof
    }
}

/// Passes bytes on until both sides have finished, or one of the `times` or `told` ends it.
pub async fn relay<C, S>(
    client: &mut Party<C>,
    server: &mut Party<S>,
    times: Times,
    told: impl Future<Output = ()>,
    deadline: &mut Deadline,
) -> (Ended, Passed)
where
    C: AsyncRead + AsyncWrite + Plain + Unpin,
    S: AsyncRead + AsyncWrite + Plain + Unpin,
{
    let mut up = Way::new(std::mem::take(&mut client.input));
    let mut down = Way::new(std::mem::take(&mut server.input));
    let mut told = std::pin::pin!(told);
    let (mut seen, mut reset) = (None, false);
    let ended = poll_fn(|context| {
        // What was to be said before goes first.
        begin(&mut client.output, &mut client.stream, context, Ended::Client)?;
        begin(&mut server.output, &mut server.stream, context, Ended::Server)?;
        if server.output.is_empty() {
            match up.poll(&mut client.stream, &mut server.stream, down.shut, context) {
                Ok(()) => down.is_cut |= up.is_refused && server.stream.is_socket(),
                // A server may end without taking all (RFC 9113 §8.1): what it said wants to arrive all the same. Whether that was
                // all is seen by reading it, but of a socket: its reset is told once, and looks like an end from then on. Behind
                // an end it is a broken pipe.
                Err(Broken { of_source: false, kind }) => {
                    down.is_cut = server.stream.is_socket() && kind != io::ErrorKind::BrokenPipe;
                    up.give_up();
                }
                Err(broken) => {
                    reset = broken.is_reset();
                    return Poll::Ready(Err(Ended::Client));
                }
            }
        }
        if client.output.is_empty() {
            down.poll(&mut server.stream, &mut client.stream, false, context).map_err(|broken| {
                reset = broken.is_reset() || (broken.of_source && down.is_cut);
                if broken.of_source { Ended::Server } else { Ended::Client }
            })?;
        }
        if up.shut && down.shut {
            return Poll::Ready(Ok(Ended::Both));
        }
        if !up.reads && client.stream.poll_idle(context).is_ready() {
            reset = true;
            return Poll::Ready(Ok(Ended::Client));
        }
        // A server of HTTP/2 that has said all and waits for no more ends its stream so (RFC 9113 §8.1): what it said wants to
        // arrive first.
        if !down.reads && server.stream.poll_idle(context).is_ready() && down.shut {
            return Poll::Ready(Ok(Ended::Both));
        }
        let now = (up.passed, down.passed, client.output.total(), server.output.total(), up.shut, down.shut);
        if seen != Some(now) {
            seen = Some(now);
            let at = Instant::now() + times.idle;
            deadline.set_at(times.until.map_or(at, |until| until.min(at)));
        }
        if told.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(Ended::Told));
        }
        deadline.poll(context).map(|()| {
            let over = times.until.is_some_and(|until| Instant::now() >= until);
            Ok(if over { Ended::Lifetime } else { Ended::Idle })
        })
    })
    .await
    .unwrap_or_else(|ended: Ended| ended);
    deadline.clear();
    (ended, Passed { up: up.passed, down: down.passed, reset })
}

/// Writes what waits before the relay begins.
fn begin<S: AsyncWrite + Unpin>(
    output: &mut Out,
    stream: &mut S,
    context: &mut Context<'_>,
    ended: Ended,
) -> Result<(), Ended> {
    match output.poll_flush(stream, context) {
        Poll::Ready(Err(_)) => Err(ended),
        _ => Ok(()),
    }
}

impl Way {
    fn new(pending: BytesMut) -> Self {
        Self {
            pending,
            splice: None,
            reads: false,
            ended: false,
            is_cut: false,
            shut: false,
            is_refused: false,
            flushed: true,
            passed: 0,
        }
    }

    /// Its source has ended.
    fn end(&mut self, is_plain: bool) -> Result<(), Broken> {
        self.ended = true;
        let cut = Broken { of_source: true, kind: io::ErrorKind::ConnectionReset };
        if is_plain && self.is_cut { Err(cut) } else { Ok(()) }
    }

    /// Nothing more is passed on.
    fn give_up(&mut self) {
        self.pending.clear();
        self.splice = None;
        self.shut = true;
    }

    /// Passes on what can be. A client that was told that the server has ended (`told_all`) may leave without a word,
    /// within TLS as well: nothing breaks by it. A server may not: its answer may have been cut.
    fn poll<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        told_all: bool,
        context: &mut Context<'_>,
    ) -> Result<(), Broken>
    where
        R: AsyncRead + Plain + Unpin,
        W: AsyncWrite + Plain + Unpin,
    {
        self.reads = false;
        while !self.shut {
            match self.write(to, context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(Broken::by(false)(error)),
                Poll::Ready(Ok(())) => {}
            }
            if self.ended {
                match Pin::new(&mut *to).poll_shutdown(context) {
                    Poll::Pending => return Ok(()),
                    // That it is gone already is no failure: it has been told all. But it may have been cut itself.
                    Poll::Ready(end) => {
                        self.is_refused = end.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe);
                        self.shut = true;
                    }
                }
                continue;
            }
            if let (Some(splice), Some(source), Some(target)) = (&mut self.splice, from.plain(), to.plain()) {
                match splice.poll(source, target, context) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(Step::Passed(passed))) => {
                        self.passed += passed as u64;
                        if splice.is_for_few(passed) {
                            self.splice = None;
                        }
                    }
                    Poll::Ready(Ok(Step::End)) => self.end(true)?,
                    Poll::Ready(Ok(Step::Few)) => self.splice = None,
                    Poll::Ready(Err(Failed::Source(error))) => return Err(Broken::by(true)(error)),
                    Poll::Ready(Err(Failed::Target(error))) => return Err(Broken::by(false)(error)),
                }
                continue;
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *from).poll_read(context, &mut buffer)).map_err(Broken::by(true))?;
                self.pass(buffer.filled(), to, context).map_err(Broken::by(false))?;
                Poll::Ready(Ok::<_, Broken>(buffer.filled().len()))
            });
            match read {
                Poll::Pending => {
                    self.reads = true;
                    return match self.write(to, context) {
                        Poll::Ready(Err(error)) => Err(Broken::by(false)(error)),
                        _ => Ok(()),
                    };
                }
                Poll::Ready(Ok(0)) => self.end(from.plain().is_some())?,
                // As much as fits: there is likely to be more. What could not be passed on goes first.
                Poll::Ready(Ok(ROOM)) if from.plain().is_some() && to.plain().is_some() => {
                    self.splice = Some(Splice::default());
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(broken)) if told_all && broken.of_source && !broken.is_reset() => {
                    // The target is not told that this was all: nobody said so.
                    self.shut = true;
                }
                Poll::Ready(Err(broken)) => return Err(broken),
            }
        }
        Ok(())
    }

    /// Writes bytes that were just read; keeps what is not taken.
    fn pass<W: AsyncWrite + Unpin>(
        &mut self,
        mut bytes: &[u8],
        to: &mut W,
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        self.flushed &= bytes.is_empty();
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(context, bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.passed += written as u64;
                    bytes = &bytes[written..];
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what was kept, and gives its memory back.
    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            self.flushed = false;
            let written = ready!(Pin::new(&mut *to).poll_write(context, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.passed += written as u64;
            self.pending.advance(written);
        }
        if self.pending.capacity() > 0 {
            self.pending = BytesMut::new();
        }
        if !self.flushed {
            ready!(Pin::new(&mut *to).poll_flush(context))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}
