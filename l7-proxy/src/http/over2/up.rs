//! From the client to the server.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::{End, Failure, Running, Up, head};
use crate::{
    http::{Side, SideFault},
    wire::Piece,
};

/// Bytes that are sent at once.
const MOST: usize = 16 * 1024;

impl<S: Side> Running<'_, S> {
    /// Passes on what can be of the request; whether anything could.
    pub(super) fn request(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        self.asks = false;
        while matches!(self.up, Up::Body) {
            if !self.pending.is_empty() {
                match self.send(context) {
                    Poll::Pending => break,
                    Poll::Ready(taken) => {
                        moved = true;
                        if !taken {
                            self.up = Up::Off;
                        }
                    }
                }
                continue;
            }
            match self.x.side.poll_piece(context) {
                Poll::Pending => {
                    self.asks = true;
                    break;
                }
                Poll::Ready(Ok(piece)) => self.take(piece)?,
                Poll::Ready(Err(SideFault::Gone)) => return Err(self.failure(Failure::ClientGone)),
                Poll::Ready(Err(SideFault::Fault(fault))) => {
                    return Err(self.failure(Failure::ClientFault(fault)));
                }
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Sends what the stream's window has room for; `false` where the server takes no more.
    fn send(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let piece = self.pending.len();
        let Ok(room) = ready!(self.window.poll_room(&mut self.send, piece, piece.min(MOST), context)) else {
            return Poll::Ready(false);
        };
        let part = self.window.part(self.pending.split_to(room));
        self.sent += part.len() as u64;
        Poll::Ready(self.send.send_data(part, false).is_ok())
    }

    fn take(&mut self, piece: Piece) -> Result<(), End> {
        self.x.told.taken |= !matches!(piece, Piece::End);
        let sent = match piece {
            Piece::Data(data) => {
                self.x.told.received += data.len() as u64;
                if self.x.service.limits.body_bytes.is_some_and(|most| self.x.told.received > most) {
                    return Err(self.failure(Failure::TooLarge));
                }
                self.pending = data;
                return Ok(());
            }
            Piece::Trailers(fields) => match head::trailers(&fields) {
                map if map.is_empty() => self.send.send_data(Bytes::new(), true),
                map => self.send.send_trailers(map),
            },
            Piece::End => self.send.send_data(Bytes::new(), true),
        };
        self.up = if sent.is_ok() { Up::Done } else { Up::Off };
        Ok(())
    }
}
