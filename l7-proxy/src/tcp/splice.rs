//! Passes bytes between two sockets without taking them out of the kernel (splice(2)): for flows that come in
//! large pieces, where copying is most of the work.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// Bytes that a pipe holds, if the kernel lets it: less costs throughput, and users without privileges have no
/// more than 64 MB in all their pipes.
const ROOM: usize = 1024 * 1024;

/// Empty pipes that each worker keeps.
const KEPT: usize = 16;

/// Where less came at once, copying costs no more.
const FEW: usize = 16 * 1024;

thread_local! {
    static EMPTY: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
}

/// One direction of a flow.
#[derive(Debug, Default)]
pub(super) struct Splice {
    /// Held while something is in it.
    pipe: Option<Pipe>,
}

/// What came of a step.
pub(super) enum Step {
    /// So many bytes were passed on.
    Passed(usize),
    /// The source has finished.
    End,
    /// Little comes now, or there is no pipe to be had: copy again. Nothing is left behind.
    Few,
}

/// Which side failed.
pub(super) enum Failed {
    Source(io::Error),
    Target(io::Error),
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(pipe) = EMPTY.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Where users may not have so much, it is smaller.
        let _ = fcntl_setpipe_size(&write, ROOM);
        Ok(Self { read, write, filled: 0 })
    }

    fn give_back(self) {
        EMPTY.with_borrow_mut(|empty| {
            if empty.len() < KEPT {
                empty.push(self);
            }
        });
    }
}

impl Splice {
    /// Takes a step; both sockets are asked until they have nothing to give or take.
    pub(super) fn poll(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<Result<Step, Failed>> {
        if self.pipe.is_none() {
            let Ok(mut pipe) = Pipe::take() else { return Poll::Ready(Ok(Step::Few)) };
            let filled = poll_move(from, Interest::READABLE, context, || {
                splice(from, None, &pipe.write, None, ROOM, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
            });
            match filled {
                Poll::Ready(Ok(filled @ 1..)) => pipe.filled = filled,
                other => {
                    pipe.give_back();
                    return other.map(|end| end.map(|_| Step::End).map_err(Failed::Source));
                }
            }
            self.pipe = Some(pipe);
        }
        let mut passed = 0;
        while let Some(pipe) = &mut self.pipe {
            let moved = poll_move(to, Interest::WRITABLE, context, || {
                splice(&pipe.read, None, to, None, pipe.filled, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
            });
            match moved {
                Poll::Pending if passed > 0 => break,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Target(error))),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(Failed::Target(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(moved)) => {
                    pipe.filled -= moved;
                    passed += moved;
                }
            }
            if pipe.filled == 0
                && let Some(pipe) = self.pipe.take()
            {
                pipe.give_back();
            }
        }
        Poll::Ready(Ok(Step::Passed(passed)))
    }

    /// Whether so little was passed that copying would do, and nothing waits.
    pub(super) fn is_for_few(&self, passed: usize) -> bool {
        passed < FEW && self.pipe.is_none()
    }
}

/// Moves bytes from or to a socket when it is ready for that.
fn poll_move(
    socket: &TcpStream,
    interest: Interest,
    context: &mut Context<'_>,
    moves: impl Fn() -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(if interest.is_readable() {
            socket.poll_read_ready(context)
        } else {
            socket.poll_write_ready(context)
        })?;
        match socket.try_io(interest, || Ok(moves()?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            moved => return Poll::Ready(moved),
        }
    }
}
