//! From the server to the client.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use bytes::Buf;

use super::{Down, ENOUGH, End, Failure, MOST_INFORMATIONAL, Running, Up};
use crate::{
    http::{From, Lines, Side, handshake, keeps_alive},
    io::fill,
    server::Connection,
    wire::{Body, Fault, Fields, Framing, Known, Method, Piece, Scan, Version, answer_framing},
};

/// Room that is made for what is read at once: of heads, and of bodies that are longer. What a client does not take stays here:
/// after that as much as a frame of HTTP/2 has, and then twice as much with each read.
const ROOM_HEAD: usize = 8 * 1024;
const ROOM_FRAME: usize = 16 * 1024;
pub(super) const ROOM_BODY: usize = 64 * 1024;

impl<S: Side> Running<'_, S> {
    /// Passes on what can be of the answer; whether anything could.
    pub(super) fn answer(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        loop {
            let enough = self.x.side.waiting() >= ENOUGH || matches!(self.down, Down::Flush);
            if !enough && self.take_answer()? {
                moved = true;
                continue;
            }
            if self.x.side.waiting() > 0 || matches!(self.down, Down::Flush) {
                match self.x.side.poll_flush(context) {
                    Poll::Pending => {
                        self.room = ROOM_FRAME;
                        return Ok(moved);
                    }
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(_)) => return Err(self.failure(Failure::ClientGone)),
                }
                if matches!(self.down, Down::Flush) {
                    let server_keeps =
                        self.server_keeps && self.up == Up::Done && self.x.connection.input.is_empty();
                    return Err(End::Complete { server_keeps, request_done: self.up == Up::Done });
                }
                if enough {
                    continue;
                }
            }
            let room = match &self.down {
                Down::Body(Body::Length(left)) => {
                    usize::try_from(*left).unwrap_or(ROOM_BODY).clamp(1_024, self.room)
                }
                Down::Body(_) => ROOM_FRAME,
                _ => ROOM_HEAD,
            };
            let Connection { stream, input, .. } = &mut *self.x.connection;
            match fill(stream, input, room, context) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Ok(0)) => self.server_ended()?,
                Poll::Ready(Ok(_)) => self.x.told.answered = true,
                Poll::Ready(Err(_)) => return Err(self.failure(Failure::ServerGone)),
            }
            self.room = (2 * self.room).min(ROOM_BODY);
            moved = true;
        }
    }

    /// Takes a step in what is there of the answer; whether there was one to take.
    fn take_answer(&mut self) -> Result<bool, End> {
        match &mut self.down {
            Down::Head(scan) => {
                if self.x.connection.input.is_empty() {
                    return Ok(false);
                }
                let end = match scan.end(&self.x.connection.input, &self.x.service.head) {
                    Ok(Some(end)) => end,
                    Ok(None) => return Ok(false),
                    Err(fault) => return Err(self.failure(Failure::ServerFault(fault))),
                };
                self.head(end).map_err(|fault| self.failure(Failure::ServerFault(fault)))?;
                self.x.connection.input.advance(end);
                if self.switched { Err(End::Switched) } else { Ok(true) }
            }
            Down::Body(body) => match body.take(&mut self.x.connection.input) {
                Ok(None) => Ok(false),
                Ok(Some(Piece::Data(data))) => {
                    self.x.side.data(data);
                    // The end is known without reading on where a length says so.
                    if body.is_done() {
                        self.x.side.end(None);
                        self.down = Down::Flush;
                    }
                    Ok(true)
                }
                Ok(Some(Piece::End)) => {
                    self.x.side.end(None);
                    self.down = Down::Flush;
                    Ok(true)
                }
                Ok(Some(Piece::Trailers(fields))) => {
                    self.x.side.end(Some(&fields));
                    self.down = Down::Flush;
                    Ok(true)
                }
                Err(fault) => Err(self.failure(Failure::ServerFault(fault))),
            },
            Down::Flush => Ok(false),
        }
    }

    /// A head of an answer came, so long.
    fn head(&mut self, end: usize) -> Result<(), Fault> {
        let x = &mut self.x;
        x.answer.parse(&x.connection.input[..end], &x.service.head)?;
        let status = x.answer.status;
        let set_cookie = x
            .cookie
            .filter(|_| status == 101 || status >= 200)
            .map(|(line, value)| line.set(value, x.client.secure));
        let lines = Lines {
            from: From::Server(x.answer),
            service: x.service,
            client: x.client,
            intent: Some(x.intent),
            set_cookie: set_cookie.as_deref(),
            server: Some(x.connection.server),
        };
        if status == 101 {
            // Nobody may switch before it has the whole request, or without having been asked (RFC 9110 §7.8).
            if x.intent.upgrade.is_none() || !matches!(self.up, Up::Done) {
                return Err(Fault::StartLine);
            }
            if x.intent.version == Version::V2 && !handshake::opens(x.answer, x.intent.asked.fields) {
                return Err(Fault::StartLine);
            }
            x.told.status = 101;
            x.told.head_at = Some(Instant::now());
            x.side.switched(&lines, x.answer);
            self.switched = true;
            return Ok(());
        }
        if status < 200 {
            self.informational += 1;
            if self.informational > MOST_INFORMATIONAL {
                return Err(Fault::StartLine);
            }
            x.side.informational(&lines);
            self.down = Down::Head(Scan::default());
            return Ok(());
        }
        let framing = answer_framing(x.intent.method, x.answer)?;
        x.told.status = status;
        x.told.head_at = Some(Instant::now());
        self.server_keeps &=
            keeps_alive(x.answer.version, &x.answer.fields) && framing != Framing::UntilClose;
        x.connection.kept_for = keeps_for(&x.answer.fields);
        x.side.head(&lines, framing);
        self.switched = x.intent.method == Method::Connect && (200..300).contains(&status);
        self.down = match framing {
            Framing::None => {
                x.side.end(None);
                Down::Flush
            }
            framing => Down::Body(Body::of_answer(framing)),
        };
        Ok(())
    }

    /// The server has ended the connection.
    fn server_ended(&mut self) -> Result<(), End> {
        self.server_keeps = false;
        let is_whole = match &mut self.down {
            Down::Body(body) => body.cut().is_ok(),
            _ => false,
        };
        if !is_whole {
            return Err(self.failure(Failure::ServerGone));
        }
        self.x.side.end(None);
        self.down = Down::Flush;
        Ok(())
    }
}

/// For how many milliseconds a server keeps a connection that waits, if it says so. Sooner or later it would
/// end it while a request is on its way.
fn keeps_for(fields: &Fields) -> Option<u64> {
    let timeout = fields.elements(Known::KeepAlive).find_map(|element| element.strip_prefix(b"timeout="))?;
    std::str::from_utf8(timeout).ok()?.parse::<u64>().ok()?.checked_mul(1_000)
}
