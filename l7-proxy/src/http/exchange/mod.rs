//! One request and its answer between a client and a server: both directions at once, in one task, with one
//! timer.

mod down;
mod text;
mod up;

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

pub(crate) use text::{chunk_begin, may_trail, put_trailers, status_line};

use super::{Client, Intent, Side};
use crate::{
    io::Deadline,
    model::{CookieLine, Service},
    server::{Connection, Live},
    wire::{Answer, Body, Fault, Framing, Scan},
};

/// What a server may have sent before it is flushed to the client, and the other way round.
pub(super) const ENOUGH: usize = 32 * 1024;

/// Answers that may precede the final one.
pub(crate) const MOST_INFORMATIONAL: u32 = 64;

/// How an exchange has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The answer was passed on in full.
    Complete {
        /// Whether the server's connection may carry another request; of HTTP/2, whether nothing more comes of this one.
        server_keeps: bool,
        /// Whether the whole request was passed on; what is left of it may still come from the client.
        request_done: bool,
    },
    /// The connection now is another protocol's; the answer that says so was put to the client's side.
    Switched,
    /// Nothing of the answer was passed on.
    Failed(Failure),
    /// The answer has broken off.
    Broken(Failure),
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client has gone.
    ClientGone,
    /// The client sent something malformed.
    ClientFault(Fault),
    /// The client did not send the body, or did not take the answer, in time.
    ClientSlow,
    /// The request's body is larger than the service takes.
    TooLarge,
    /// The server has ended the connection, or it broke.
    ServerGone,
    /// The server's answer is malformed.
    ServerFault(Fault),
    /// The server did not answer in time.
    ServerSlow,
    /// Nor did it tell a client that waits for that to send the body (RFC 9110 §10.1.1): either may be at fault.
    NoLeave,
    /// The server was halted, or an operator has ended the client's connection.
    Halted,
}

impl Failure {
    /// The status that tells the client.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::ClientGone => 400,
            Self::ClientFault(fault) => fault.status(),
            Self::ClientSlow => 408,
            Self::TooLarge => 413,
            Self::ServerGone | Self::ServerFault(_) => 502,
            Self::ServerSlow | Self::NoLeave => 504,
            Self::Halted => 503,
        }
    }

    /// Whether the server is to blame.
    #[must_use]
    pub fn is_servers(self) -> bool {
        matches!(self, Self::ServerGone | Self::ServerFault(_) | Self::ServerSlow)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Up {
    /// The body is passed on.
    Body,
    /// The body is over; the last of it waits to be written.
    Flush,
    Done,
    /// The server takes no more; its answer may be there nevertheless.
    Off,
}

#[derive(Debug)]
enum Down {
    Head(Scan),
    Body(Body),
    Flush,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    ClientWrite,
    RequestBody,
    /// For leave to send the body.
    Leave,
    Response,
    ResponseBody,
}

impl Phase {
    /// While a body is to come: who waits for leave to send it is not late with it.
    pub(super) fn of_body(waits: bool) -> Self {
        if waits { Self::Leave } else { Self::RequestBody }
    }

    /// For how long.
    pub(super) fn timeout(self, service: &Service) -> Duration {
        let timeouts = &service.timeouts;
        let timeout = match self {
            Self::ClientWrite => timeouts.client_write,
            Self::RequestBody => timeouts.request_body,
            Self::Leave | Self::Response => timeouts.response,
            Self::ResponseBody => timeouts.response_body,
        };
        timeout.get()
    }

    /// What it means that it was waited for in vain.
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::ClientWrite | Self::RequestBody => Failure::ClientSlow,
            Self::Leave => Failure::NoLeave,
            Self::Response | Self::ResponseBody => Failure::ServerSlow,
        }
    }
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange<'a, S> {
    /// The client's side.
    pub side: &'a mut S,
    /// The connection to the server, to which the request's head was put.
    pub connection: &'a mut Connection,
    /// Tells when the server is halted.
    pub live: &'a Live,
    /// On which thread this is.
    pub worker: usize,
    /// Memory for the answer's head.
    pub answer: &'a mut Answer,
    /// The timer of the client's connection.
    pub deadline: &'a mut Deadline,
    /// The service.
    pub service: &'a Service,
    /// The client.
    pub client: &'a Client,
    /// The request.
    pub intent: &'a Intent<'a>,
    /// The cookie to set, with the value that names the server.
    pub cookie: Option<(&'a CookieLine, &'a str)>,
    /// What is told about it afterwards.
    pub told: &'a mut Told,
}

/// What was seen of an exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Whether a byte of the request went out to the server.
    pub sent: bool,
    /// Whether a byte of an answer came.
    pub answered: bool,
    /// Status of the final answer.
    pub status: u16,
    /// When its head came.
    pub head_at: Option<Instant>,
    /// Bytes of the request's body that came.
    pub received: u64,
    /// Whether any of it came, if only trailers: it cannot be sent again.
    pub taken: bool,
    /// Whether all of the request was handed to the kernel, for a server of HTTP/1.1.
    pub passed: bool,
}

impl<S: Side> Exchange<'_, S> {
    /// Runs it to its end.
    pub async fn run(self) -> End {
        let halted = self.live.until_halted(self.worker);
        let mut halted = std::pin::pin!(halted);
        let up = match self.intent.framing {
            Framing::None => Up::Flush,
            _ => Up::Body,
        };
        let before = self.connection.output.total();
        let mut running = Running {
            x: self,
            up,
            asks: false,
            down: Down::Head(Scan::default()),
            phase: None,
            server_keeps: true,
            switched: false,
            informational: 0,
            room: down::ROOM_BODY,
        };
        let end = poll_fn(|context| {
            let polled = running.poll(context);
            // Who ends the client's connection has this looked at once more.
            let told = polled.is_pending()
                && (running.x.client.guest.is_killed() || halted.as_mut().poll(context).is_ready());
            if told {
                return Poll::Ready(running.failure(Failure::Halted));
            }
            polled
        })
        .await;
        running.x.deadline.clear();
        let Exchange { told, connection, intent, .. } = &mut running.x;
        told.sent = connection.output.total() != before;
        // A client of HTTP/2 may not have said yet that there is no more than it has promised.
        let is_all = matches!(intent.framing, Framing::Length(length) if told.received == length);
        told.passed = running.up == Up::Done || (is_all && connection.output.is_empty());
        end
    }
}

/// An exchange under way.
struct Running<'a, S> {
    x: Exchange<'a, S>,
    up: Up,
    /// Whether the client's side will tell when more of the body comes.
    asks: bool,
    down: Down,
    phase: Option<Phase>,
    server_keeps: bool,
    switched: bool,
    informational: u32,
    /// Bytes of the answer's body that are read at once.
    room: usize,
}

impl<S: Side> Running<'_, S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let before = self.progress();
        loop {
            let moved = match self.request(context).and_then(|up| Ok(self.answer(context)? | up)) {
                Ok(moved) => moved,
                Err(end) => return Poll::Ready(end),
            };
            if !moved {
                break;
            }
        }
        if !self.asks && self.x.side.poll_idle(context).is_ready() {
            return Poll::Ready(self.failure(Failure::ClientGone));
        }
        let phase = self.phase();
        if self.phase != Some(phase) || before != self.progress() {
            self.phase = Some(phase);
            self.x.deadline.set(phase.timeout(self.x.service));
        }
        self.x.deadline.poll(context).map(|()| self.failure(phase.failure()))
    }

    /// A number that changes with everything that is read or written.
    fn progress(&self) -> (u64, u64, u64, usize) {
        let x = &self.x;
        (x.connection.output.total(), x.told.received, x.side.written(), x.connection.input.len())
    }

    fn phase(&self) -> Phase {
        match (&self.down, self.up) {
            (Down::Flush, _) => Phase::ClientWrite,
            _ if self.x.side.waiting() > 0 => Phase::ClientWrite,
            (Down::Body(_), _) => Phase::ResponseBody,
            (Down::Head(_), Up::Body) if self.x.connection.output.is_empty() => {
                Phase::of_body(self.x.intent.waits && self.informational == 0 && !self.x.told.taken)
            }
            (Down::Head(_), _) => Phase::Response,
        }
    }

    fn failure(&self, failure: Failure) -> End {
        if matches!(self.down, Down::Head(_)) { End::Failed(failure) } else { End::Broken(failure) }
    }
}
