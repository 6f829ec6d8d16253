//! From the server to the client.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use h2::RecvStream;
use http::Response;

use super::{Down, ENOUGH, End, Failure, Running, Up, head};
use crate::{
    http::{From, Lines, MOST_INFORMATIONAL, Side, handshake},
    io::Inbox,
    wire::{Fault, Framing, HeadLimits, Method, answer_framing},
};

/// The lines of an answer, while the client's side is put to.
macro_rules! lines {
    ($x:expr, $set_cookie:expr) => {
        Lines {
            from: From::Server($x.answer),
            service: $x.service,
            client: $x.client,
            intent: Some($x.intent),
            set_cookie: $set_cookie,
            server: Some($x.server),
        }
    };
}

impl<S: Side> Running<'_, S> {
    /// Passes on what can be of the answer; whether anything could.
    pub(super) fn answer(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        loop {
            // Heads are in no window: all that come are taken, and few may.
            let enough = match self.down {
                Down::Head(_) => false,
                Down::Body(_) => self.x.side.waiting() >= ENOUGH,
                Down::Flush => true,
            };
            if !enough && self.take_answer(context)? {
                moved = true;
                continue;
            }
            if self.x.side.waiting() == 0 && !matches!(self.down, Down::Flush) {
                return Ok(moved);
            }
            match self.x.side.poll_flush(context) {
                Poll::Pending => {
                    if let Down::Body(body) = &mut self.down {
                        body.poll_ahead(context);
                    }
                    return Ok(moved);
                }
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(_)) => return Err(self.failure(Failure::ClientGone)),
            }
            if matches!(self.down, Down::Flush) {
                let request_done = matches!(self.up, Up::Done);
                return Err(End::Complete { server_keeps: !self.left_open, request_done });
            }
            if !enough {
                return Ok(moved);
            }
        }
    }

    /// Takes a step in what is there of the answer; whether there was one to take.
    fn take_answer(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        match &mut self.down {
            Down::Head(response) => {
                if let Poll::Ready(Some(Ok(early))) = response.poll_informational(context) {
                    self.x.told.answered = true;
                    self.informational += 1;
                    // RFC 9113 §8.6: nobody switches protocols in HTTP/2, and a client of HTTP/1.1 would.
                    if self.informational > MOST_INFORMATIONAL || early.status() == 101 {
                        return Err(self.failure(Failure::ServerFault(Fault::StartLine)));
                    }
                    self.take_head(&early)?;
                    let x = &mut self.x;
                    x.side.informational(&lines!(x, None));
                    return Ok(true);
                }
                match Pin::new(response).poll(context) {
                    Poll::Pending => Ok(false),
                    Poll::Ready(Ok(response)) => {
                        self.x.told.answered = true;
                        self.head(response)
                    }
                    Poll::Ready(Err(error)) => Err(self.lost(&error)),
                }
            }
            Down::Body(body) => match body.poll_data(context) {
                Poll::Pending => Ok(false),
                Poll::Ready(Some(Ok(data))) => {
                    if let Some(left) = &mut self.left {
                        match left.checked_sub(data.len() as u64) {
                            Some(rest) => *left = rest,
                            None => return Err(self.failure(Failure::ServerFault(Fault::Length))),
                        }
                    }
                    if !data.is_empty() {
                        self.x.side.data(data);
                    }
                    Ok(true)
                }
                Poll::Ready(Some(Err(_))) => Err(self.failure(Failure::ServerGone)),
                Poll::Ready(None) => match body.poll_trailers(context) {
                    Poll::Pending => Ok(false),
                    Poll::Ready(Ok(_)) if self.left.is_some_and(|left| left > 0) => {
                        Err(self.failure(Failure::ServerFault(Fault::Length)))
                    }
                    Poll::Ready(Ok(trailers)) => {
                        let trailers = trailers.map(|map| head::fields(&map, &self.x.service.head));
                        let trailers = trailers.transpose();
                        let trailers = trailers.map_err(|fault| self.failure(Failure::ServerFault(fault)))?;
                        self.x.side.end(trailers.as_ref());
                        self.down = Down::Flush;
                        Ok(true)
                    }
                    Poll::Ready(Err(_)) => Err(self.failure(Failure::ServerGone)),
                },
            },
            Down::Flush => Ok(false),
        }
    }

    /// Takes a head over. All heads of an answer together are no larger than one may be.
    fn take_head(&mut self, response: &Response<impl Sized>) -> Result<(), End> {
        let limits = HeadLimits { bytes: self.room_for_heads, ..self.x.service.head };
        let taken = head::answer(response, self.x.answer, &limits);
        self.room_for_heads -= taken.map_err(|fault| self.failure(Failure::ServerFault(fault)))?;
        Ok(())
    }

    /// The head of the final answer has come.
    fn head(&mut self, response: Response<RecvStream>) -> Result<bool, End> {
        self.take_head(&response)?;
        let status = self.x.answer.status;
        let body = response.into_body();
        let ended = body.is_end_stream();
        let x = &mut self.x;
        x.told.status = status;
        x.told.head_at = Some(Instant::now());
        let set_cookie = x.cookie.map(|(line, value)| line.set(value, x.client.secure));
        if self.tunnel && (200..300).contains(&status) {
            if x.intent.method != Method::Connect {
                // A client of HTTP/1.1 is told in its own words (RFC 6455 §4.2.2).
                x.told.status = 101;
                handshake::shake_hands(x.answer, x.intent.asked.fields);
                x.side.switched(&lines!(x, set_cookie.as_deref()), x.answer);
            } else {
                x.side.head(&lines!(x, set_cookie.as_deref()), Framing::None);
            }
            self.down = Down::Body(Inbox::new(body, ended));
            return Err(End::Switched);
        }
        let framing = match answer_framing(x.intent.method, x.answer) {
            Ok(Framing::UntilClose) if ended => Framing::None,
            Ok(Framing::UntilClose) => Framing::Chunked,
            Ok(framing) => framing,
            Err(fault) => return Err(self.failure(Failure::ServerFault(fault))),
        };
        x.side.head(&lines!(x, set_cookie.as_deref()), framing);
        self.left = match framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        self.down = if framing == Framing::None {
            x.side.end(None);
            self.left_open = !ended;
            Down::Flush
        } else {
            Down::Body(Inbox::new(body, ended))
        };
        Ok(true)
    }
}
