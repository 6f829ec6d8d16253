//! How requests are taken from a connection of HTTP/1.x, and answers put to it.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::h1::{Coding, H1, MOST_AHEAD, ROOM_BODY, ROOM_HEAD};
use crate::{
    http::{From, Lines, Side, SideFault, chunk_begin, put_trailers, status_line, with_date},
    io::fill,
    wire::{Answer, Body, Fault, Fields, Framing, Known, Method, Piece, Sink, Version, put_number},
};

impl H1 {
    /// What says how long the connection and the body last.
    fn put_framing(&mut self, lines: &Lines<'_>, framing: Framing) {
        let chunks = self.version != Version::V1_0;
        let switched = self.method == Method::Connect && (200..300).contains(&lines.status());
        let length = match lines.from {
            // What a GET would have got is said to HEAD, and with 304 (RFC 9110 §8.6).
            From::Server(answer) => answer.fields.first(Known::ContentLength),
            From::Page(_) => None,
        };
        let out = self.output.text();
        self.coding = match framing {
            Framing::None if switched || matches!(lines.status(), 100..=199 | 204) => Coding::Nothing,
            Framing::None => {
                match length {
                    Some(length) => out.line(b"content-length", length),
                    None if self.method == Method::Head || lines.status() == 304 => {}
                    None => out.line(b"content-length", b"0"),
                }
                Coding::Nothing
            }
            Framing::Length(length) => {
                out.extend_from_slice(b"content-length: ");
                put_number(out, length);
                out.extend_from_slice(b"\r\n");
                if self.method == Method::Head { Coding::Nothing } else { Coding::Plain }
            }
            Framing::Chunked | Framing::UntilClose if chunks => {
                out.line(b"transfer-encoding", b"chunked");
                Coding::Chunked
            }
            Framing::Chunked | Framing::UntilClose => {
                self.keeps = false;
                if self.method == Method::Head { Coding::Nothing } else { Coding::UntilClose }
            }
        };
        if switched {
            out.extend_from_slice(b"\r\n");
            return;
        }
        if let (426, From::Server(answer)) = (lines.status(), lines.from) {
            // RFC 9110 §15.5.22: what would be spoken instead belongs to the answer.
            answer.fields.all(Known::Upgrade).for_each(|upgrade| out.line(b"upgrade", upgrade));
        }
        // A client that still waits for leave to send its body may do so or not (RFC 9110 §10.1.1).
        self.keeps &= self.continued || self.body.is_done();
        // A tunnel that was refused may be followed by what was meant for it.
        self.keeps &= self.method != Method::Connect && !self.entry.is_closing();
        let connection: &[u8] = match (self.keeps, self.version, lines.status()) {
            (false, _, 426) => b"close, upgrade",
            (false, ..) => b"close",
            (true, Version::V1_0, _) => b"keep-alive",
            (true, _, 426) => b"upgrade",
            (true, ..) => b"",
        };
        if !connection.is_empty() {
            out.line(b"connection", connection);
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Side for H1 {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, SideFault>> {
        loop {
            match self.body.take(&mut self.input) {
                Ok(Some(piece)) => return Poll::Ready(Ok(piece)),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(SideFault::Fault(fault))),
            }
            if self.ended {
                return Poll::Ready(Err(SideFault::Fault(Fault::Truncated)));
            }
            let room = match self.body {
                Body::Length(left) => usize::try_from(left).unwrap_or(ROOM_BODY).clamp(1_024, ROOM_BODY),
                _ => ROOM_BODY / 4,
            };
            match fill(&mut self.stream, &mut self.input, room, context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(SideFault::Gone)),
            }
        }
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let room = if self.body.is_done() { ROOM_HEAD } else { MOST_AHEAD };
        while !self.ended && self.input.len() < MOST_AHEAD {
            match fill(&mut self.stream, &mut self.input, room, context) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn informational(&mut self, lines: &Lines<'_>) {
        // HTTP/1.0 knows none (RFC 9110 §15.2).
        if self.version == Version::V1_0 {
            return;
        }
        self.continued |= lines.status() == 100;
        let out = self.output.text();
        status_line(out, lines.status(), lines.reason());
        lines.write(out, None);
        out.extend_from_slice(b"\r\n");
    }

    fn switched(&mut self, lines: &Lines<'_>, answer: &Answer) {
        let out = self.output.text();
        status_line(out, lines.status(), lines.reason());
        lines.write(out, None);
        // As the server said: what is negotiated is none of our business (R33).
        for (known, name, value) in answer.fields.iter() {
            if matches!(known, Known::Upgrade | Known::Connection) {
                out.line(name, value);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn head(&mut self, lines: &Lines<'_>, body: Framing) {
        let out = self.output.text();
        status_line(out, lines.status(), lines.reason());
        with_date(|date| lines.write(out, Some(date)));
        self.put_framing(lines, body);
    }

    fn data(&mut self, data: Bytes) {
        match self.coding {
            Coding::Nothing => {}
            Coding::Plain | Coding::UntilClose => self.output.put(data),
            Coding::Chunked => {
                chunk_begin(self.output.text(), data.len());
                self.output.put(data);
                self.output.text().extend_from_slice(b"\r\n");
            }
        }
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        if self.coding == Coding::Chunked {
            let out = self.output.text();
            out.extend_from_slice(b"0\r\n");
            match trailers {
                Some(fields) => put_trailers(out, fields),
                None => out.extend_from_slice(b"\r\n"),
            }
        }
        self.coding = Coding::Nothing;
    }

    fn waiting(&self) -> usize {
        self.output.waiting()
    }

    fn written(&self) -> u64 {
        self.output.total()
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_flush(&mut self.stream, context)
    }
}
