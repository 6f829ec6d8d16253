//! One request and its answer between a client, whichever HTTP it speaks, and a server that speaks HTTP/2
//! (RFC 9113): a stream of a connection that is shared with others.

mod down;
mod head;
mod up;

use std::{
    future::poll_fn,
    net::SocketAddr,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, SendStream, client::ResponseFuture, client::SendRequest};

use super::{
    Client, End, Failure, Intent, Side, Told,
    exchange::{ENOUGH, Phase},
};
use crate::{
    io::{Channel, Deadline, Inbox, Window},
    model::{CookieLine, Service},
    server::Live,
    wire::{Answer, Fault, Framing, Method},
};

/// One request and its answer.
pub(super) struct Over2<'a, S> {
    pub(super) side: &'a mut S,
    pub(super) live: &'a Live,
    pub(super) worker: usize,
    pub(super) answer: &'a mut Answer,
    pub(super) deadline: &'a mut Deadline,
    pub(super) service: &'a Service,
    pub(super) client: &'a Client,
    pub(super) intent: &'a Intent<'a>,
    pub(super) cookie: Option<(&'a CookieLine, &'a str)>,
    pub(super) server: SocketAddr,
    pub(super) told: &'a mut Told,
}

/// What becomes of the request's body.
enum Up {
    /// It is passed on.
    Body,
    /// It was, or there is none.
    Done,
    /// The server takes no more of it.
    Off,
}

/// What is to come of the answer.
enum Down {
    Head(ResponseFuture),
    Body(Inbox),
    Flush,
}

/// An exchange under way.
struct Running<'a, S> {
    x: Over2<'a, S>,
    send: SendStream<Bytes>,
    window: Window,
    up: Up,
    /// Whether the client's side will tell when more of the body comes.
    asks: bool,
    /// What came of the body and was not sent.
    pending: Bytes,
    down: Down,
    /// Bytes of the body that are to come, where its length was said.
    left: Option<u64>,
    /// Whether the server may still send frames of an answer that has no body.
    left_open: bool,
    /// Whether the stream is to become a tunnel.
    tunnel: bool,
    informational: u32,
    /// Bytes that heads of the answer may still have.
    room_for_heads: usize,
    sent: u64,
    phase: Option<Phase>,
}

impl<S: Side> Over2<'_, S> {
    /// Runs it to its end. `text` is the request's head as it would be written to a server of HTTP/1.1. Where the
    /// stream has become a tunnel, it is given back.
    pub(super) async fn run(
        self,
        mut requests: SendRequest<Bytes>,
        text: &[u8],
        secure: bool,
        tunnel: bool,
    ) -> (End, Option<Channel>) {
        let halted = self.live.until_halted(self.worker);
        let mut halted = std::pin::pin!(halted);
        let Some(request) = head::request(text, self.intent, secure, tunnel) else {
            return (End::Failed(Failure::ClientFault(Fault::Target)), None);
        };
        let tunnel = tunnel || self.intent.method == Method::Connect;
        let ended = self.intent.framing == Framing::None && !tunnel;
        let Ok((response, send)) = requests.send_request(request, ended) else {
            return (End::Failed(Failure::ServerGone), None);
        };
        // From here on the server may have it, unless it says that it has not.
        self.told.sent = true;
        let mut running = Running {
            asks: false,
            room_for_heads: self.service.head.bytes,
            up: if self.intent.framing == Framing::None { Up::Done } else { Up::Body },
            x: self,
            send,
            window: Window::default(),
            pending: Bytes::new(),
            down: Down::Head(response),
            left: None,
            left_open: false,
            tunnel,
            informational: 0,
            sent: 0,
            phase: None,
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
        let Running { send, window, down, .. } = running;
        match (end, down) {
            (End::Switched, Down::Body(body)) => (end, Some(Channel::new(body, send, window))),
            _ => (end, None),
        }
    }
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
    fn progress(&self) -> (u64, u64, u64, u32) {
        (self.sent, self.x.told.received, self.x.side.written(), self.informational)
    }

    fn phase(&self) -> Phase {
        match (&self.down, &self.up) {
            (Down::Flush, _) => Phase::ClientWrite,
            _ if self.x.side.waiting() > 0 => Phase::ClientWrite,
            (Down::Body(_), _) => Phase::ResponseBody,
            (Down::Head(_), Up::Body) if self.pending.is_empty() => {
                Phase::of_body(self.x.intent.waits && self.informational == 0 && !self.x.told.taken)
            }
            (Down::Head(_), _) => Phase::Response,
        }
    }

    fn failure(&self, failure: Failure) -> End {
        if matches!(self.down, Down::Head(_)) { End::Failed(failure) } else { End::Broken(failure) }
    }

    /// What an error of the stream means.
    fn lost(&mut self, error: &h2::Error) -> End {
        // RFC 9113 §8.7: it says that nothing was done with it. Of GOAWAY only those streams are told here that come behind
        // the last one that was looked at (§6.8), whatever it was sent for.
        let is_untouched =
            error.is_remote() && (error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away());
        if is_untouched && matches!(self.down, Down::Head(_)) {
            self.x.told.sent = false;
        } else if error.is_remote() && error.is_reset() {
            // It was looked at, and this is what came of it.
            self.x.told.answered = true;
        }
        self.failure(Failure::ServerGone)
    }
}
