//! From the client to the server.

use std::task::{Context, Poll};

use super::{ENOUGH, End, Failure, Running, Up, text};
use crate::{
    http::{Side, SideFault},
    server::Connection,
    wire::{Framing, Piece},
};

impl<S: Side> Running<'_, S> {
    /// Passes on what can be of the request; whether anything could.
    pub(super) fn request(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        self.asks = false;
        while matches!(self.up, Up::Body | Up::Flush) {
            // The head and what is there of the body go out in one write.
            while self.up == Up::Body && self.x.connection.output.waiting() < ENOUGH {
                match self.x.side.poll_piece(context) {
                    Poll::Pending => {
                        self.asks = true;
                        break;
                    }
                    Poll::Ready(Ok(piece)) => self.put_piece(piece)?,
                    Poll::Ready(Err(SideFault::Gone)) => return Err(self.failure(Failure::ClientGone)),
                    Poll::Ready(Err(SideFault::Fault(fault))) => {
                        return Err(self.failure(Failure::ClientFault(fault)));
                    }
                }
                moved = true;
            }
            if self.x.connection.output.is_empty() {
                if self.up == Up::Flush {
                    self.up = Up::Done;
                    moved = true;
                }
                break;
            }
            let Connection { stream, output, .. } = &mut *self.x.connection;
            match output.poll_flush(stream, context) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(_)) => {
                    self.up = Up::Off;
                    self.server_keeps = false;
                    output.clear();
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    fn put_piece(&mut self, piece: Piece) -> Result<(), End> {
        let chunked = matches!(self.x.intent.framing, Framing::Chunked | Framing::UntilClose);
        let output = &mut self.x.connection.output;
        self.x.told.taken |= !matches!(piece, Piece::End);
        match piece {
            Piece::Data(data) => {
                self.x.told.received += data.len() as u64;
                if self.x.service.limits.body_bytes.is_some_and(|most| self.x.told.received > most) {
                    return Err(self.failure(Failure::TooLarge));
                }
                if chunked {
                    text::chunk_begin(output.text(), data.len());
                    output.put(data);
                    output.text().extend_from_slice(b"\r\n");
                } else {
                    output.put(data);
                }
                return Ok(());
            }
            Piece::Trailers(fields) if chunked => {
                output.text().extend_from_slice(b"0\r\n");
                text::put_trailers(output.text(), &fields);
            }
            Piece::End if chunked => output.text().extend_from_slice(b"0\r\n\r\n"),
            Piece::Trailers(_) | Piece::End => {}
        }
        self.up = Up::Flush;
        Ok(())
    }
}
