//! A stream as the client's side of a request.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{fields, load::Load};
use crate::{
    http::{From, Lines, Side, SideFault, may_trail, with_date},
    io::{Channel, Inbox, Window},
    wire::{Answer, Fields, Framing, Known, Piece, Sink},
};

/// Pieces of an answer that wait are joined up to so many bytes.
const JOINED: usize = 4 * 1024;

/// How an answer ends.
enum Last {
    Data,
    Trailers(HeaderMap),
}

/// A stream.
pub(super) struct H2 {
    body: Inbox,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    pending: VecDeque<Bytes>,
    waiting: usize,
    last: Option<Last>,
    written: u64,
    /// Whether the answer has no body whatever its head says.
    pub(super) is_head: bool,
    /// Whether an answer of 2xx would mean that a tunnel is open.
    pub(super) is_tunnel: bool,
    /// Whether the same of CONNECT: the stream goes on behind such an answer.
    pub(super) is_connect: bool,
    /// Whether the stream is of no more use.
    broken: bool,
    window: Window,
    /// What the streams of the connection amount to.
    load: Arc<Load>,
}

impl H2 {
    /// One of the streams that amount to `load`.
    pub(super) fn new(body: RecvStream, ended: bool, respond: SendResponse<Bytes>, load: Arc<Load>) -> Self {
        Self {
            body: Inbox::new(body, ended),
            respond,
            send: None,
            pending: VecDeque::new(),
            waiting: 0,
            last: None,
            written: 0,
            is_head: false,
            is_tunnel: false,
            is_connect: false,
            broken: false,
            window: Window::of_client(Arc::clone(load.windows())),
            load,
        }
    }

    /// Shows the client that the answer is not whole.
    pub(super) fn reset(&mut self) {
        match &mut self.send {
            Some(send) => send.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Answers what is no request (RFC 9113 §8.1.1).
    pub(super) fn refuse(&mut self) {
        self.load.add_malformed();
        self.respond.send_reset(Reason::PROTOCOL_ERROR);
    }

    /// The stream as a connection of another protocol, when the answer has said that it is.
    pub(super) fn take_channel(&mut self) -> Option<Channel> {
        let send = self.send.take()?;
        Some(Channel::new(std::mem::take(&mut self.body), send, std::mem::take(&mut self.window)))
    }

    /// Sends a head. A stream that is gone takes none: that is seen when it is flushed.
    fn respond(&mut self, status: u16, headers: HeaderMap, ended: bool) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        *response.headers_mut() = headers;
        match self.respond.send_response(response, ended) {
            Ok(send) => self.send = Some(send),
            Err(_) => self.broken = true,
        }
        // For progress to be seen.
        self.written += 1;
    }

    fn lost() -> io::Error {
        io::ErrorKind::ConnectionReset.into()
    }
}

/// Leaves out what only the handshake of HTTP/1.1 has (RFC 8441 §5).
struct WithoutHandshake(fields::Map);

impl Sink for WithoutHandshake {
    fn line(&mut self, name: &[u8], value: &[u8]) {
        if !name.eq_ignore_ascii_case(b"sec-websocket-accept") {
            self.0.line(name, value);
        }
    }
}

impl Side for H2 {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, SideFault>> {
        loop {
            match ready!(self.body.poll_data(context)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => return Poll::Ready(Ok(Piece::Data(data))),
                Some(Err(_)) => return Poll::Ready(Err(SideFault::Gone)),
                None => break,
            }
        }
        Poll::Ready(match ready!(self.body.poll_trailers(context)) {
            Ok(Some(map)) => fields::trailers(&map).map(Piece::Trailers).map_err(|fault| {
                self.load.add_malformed();
                SideFault::Fault(fault)
            }),
            Ok(None) => Ok(Piece::End),
            Err(_) => Err(SideFault::Gone),
        })
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.body.poll_ahead(context);
        match &mut self.send {
            Some(send) => send.poll_reset(context).map(drop),
            None => self.respond.poll_reset(context).map(drop),
        }
    }

    fn informational(&mut self, lines: &Lines<'_>) {
        let mut map = fields::Map(HeaderMap::new());
        lines.write(&mut map, None);
        let mut response = Response::new(());
        if let Ok(status) = StatusCode::from_u16(lines.status()) {
            *response.status_mut() = status;
            *response.headers_mut() = map.0;
            let _ = self.respond.send_informational(response);
        }
    }

    fn switched(&mut self, lines: &Lines<'_>, _: &Answer) {
        let mut map = WithoutHandshake(fields::Map(HeaderMap::new()));
        lines.write(&mut map, None);
        self.respond(200, map.0.0, false);
    }

    fn head(&mut self, lines: &Lines<'_>, body: Framing) {
        let mut map = fields::Map(HeaderMap::new());
        with_date(|date| lines.write(&mut map, Some(date)));
        if self.is_connect && matches!(lines.status(), 200..=299) {
            return self.respond(lines.status(), map.0, false);
        }
        let length = match (body, lines.from) {
            (Framing::Length(length), _) => Some(HeaderValue::from(length)),
            (Framing::None, From::Server(answer)) if self.is_head || lines.status() == 304 => answer
                .fields
                .first(Known::ContentLength)
                .and_then(|length| HeaderValue::from_bytes(length).ok()),
            (Framing::None, _) if !matches!(lines.status(), 100..=199 | 204 | 304) => {
                Some(HeaderValue::from(0))
            }
            _ => None,
        };
        if let Some(length) = length {
            map.0.insert(header::CONTENT_LENGTH, length);
        }
        // A server that answers the wish for a tunnel like any other request has not opened it.
        let status = match lines.status() {
            200..=299 if self.is_tunnel => 502,
            status => status,
        };
        let ended = body == Framing::None || self.is_head;
        self.respond(status, map.0, ended);
        if ended {
            self.is_head = true;
        }
    }

    fn data(&mut self, data: Bytes) {
        if self.is_head || data.is_empty() {
            return;
        }
        self.waiting += data.len();
        match self.pending.back_mut() {
            // Each is a frame of its own.
            Some(last) if last.len() + data.len() <= JOINED => {
                let last_one = std::mem::take(last).try_into_mut();
                let mut joined = last_one.unwrap_or_else(|last| BytesMut::from(&last[..]));
                joined.extend_from_slice(&data);
                *last = joined.freeze();
            }
            _ => self.pending.push_back(data),
        }
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        if self.is_head {
            return;
        }
        let mut map = fields::Map(HeaderMap::new());
        let lines = trailers.into_iter().flat_map(Fields::iter);
        lines
            .filter(|(known, name, _)| may_trail(*known, name))
            .for_each(|(_, name, value)| map.line(name, value));
        self.last = Some(if map.0.is_empty() { Last::Data } else { Last::Trailers(map.0) });
        self.waiting += 1;
    }

    fn waiting(&self) -> usize {
        self.waiting
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(Self::lost()));
        }
        let Some(send) = &mut self.send else { return Poll::Ready(Ok(())) };
        while let Some(first) = self.pending.front_mut() {
            // Without the end, which takes none.
            let bytes = self.waiting - usize::from(self.last.is_some());
            let room = ready!(self.window.poll_room(send, first.len(), bytes, context))?;
            let part = self.window.part(first.split_to(room));
            if first.is_empty() {
                self.pending.pop_front();
            }
            self.waiting -= part.len();
            self.written += part.len() as u64;
            let is_last = self.pending.is_empty() && matches!(self.last, Some(Last::Data));
            if is_last {
                self.last = None;
                self.waiting -= 1;
            }
            send.send_data(part, is_last).map_err(|_| Self::lost())?;
        }
        if let Some(last) = self.last.take() {
            self.waiting -= 1;
            let sent = match last {
                Last::Data => send.send_data(Bytes::new(), true),
                Last::Trailers(map) => send.send_trailers(map),
            };
            sent.map_err(|_| Self::lost())?;
        }
        Poll::Ready(Ok(()))
    }
}
