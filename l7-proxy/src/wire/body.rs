//! Reads a message's body out of a buffer that fills.

use bytes::{Bytes, BytesMut};

use super::{
    Chunks, Fault, Fields, Framing,
    chunks::{Step, read_trailers},
};

/// What of a body is still to come.
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Done,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// All that comes.
    UntilClose,
}

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes of it; never none.
    Data(Bytes),
    /// Lines after the last chunk; the body is over.
    Trailers(Fields),
    /// The body is over.
    End,
}

impl From<Framing> for Body {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl Body {
    /// The body of an answer. Its chunks are read with more patience than a client's: they are written anew, and
    /// nobody is fooled by how a server of ours writes them.
    #[must_use]
    pub fn of_answer(framing: Framing) -> Self {
        match framing {
            Framing::Chunked => Self::Chunked(Chunks::of_answer()),
            other => other.into(),
        }
    }

    /// Whether the body is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes the next piece out of `buffer`; `None` where more must be read first.
    ///
    /// # Errors
    /// Where the chunks are malformed.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, Fault> {
        match self {
            Self::Done => Ok(Some(Piece::End)),
            Self::Length(0) => {
                *self = Self::Done;
                Ok(Some(Piece::End))
            }
            _ if buffer.is_empty() => Ok(None),
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= take as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Some(Piece::Data(buffer.split_to(take).freeze())))
            }
            Self::UntilClose => Ok(Some(Piece::Data(buffer.split().freeze()))),
            Self::Chunked(chunks) => loop {
                match chunks.step(buffer)? {
                    Step::More => return Ok(None),
                    Step::Skip(bytes) => drop(buffer.split_to(bytes)),
                    Step::Data(bytes) => return Ok(Some(Piece::Data(buffer.split_to(bytes).freeze()))),
                    Step::Trailers(bytes) => {
                        // What is refused is no end: nothing may follow it.
                        let fields = read_trailers(&buffer.split_to(bytes))?;
                        *self = Self::Done;
                        return Ok(Some(if fields.is_empty() {
                            Piece::End
                        } else {
                            Piece::Trailers(fields)
                        }));
                    }
                }
            },
        }
    }

    /// What the end of the connection means: the end of a body that lasts so long, else a body cut short.
    ///
    /// # Errors
    /// [`Fault::Truncated`].
    pub fn cut(&mut self) -> Result<(), Fault> {
        match self {
            Self::Done | Self::UntilClose | Self::Length(0) => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Fault::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body that comes in pieces of `step` bytes: its bytes, its trailers, and what is left.
    fn read(framing: Framing, text: &[u8], step: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Fault> {
        read_as(Body::from(framing), text, step)
    }

    fn read_as(mut body: Body, text: &[u8], step: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Fault> {
        let (mut buffer, mut data) = (BytesMut::new(), Vec::new());
        let mut rest = text;
        loop {
            match body.take(&mut buffer)? {
                Some(Piece::Data(bytes)) => data.extend_from_slice(&bytes),
                Some(Piece::Trailers(fields)) => return Ok((data, fields.len(), [&buffer, rest].concat())),
                Some(Piece::End) => return Ok((data, 0, [&buffer, rest].concat())),
                None if rest.is_empty() => return Err(Fault::Truncated),
                None => {
                    let (now, later) = rest.split_at(step.min(rest.len()));
                    buffer.extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    #[test]
    fn chunks_are_read_however_they_are_cut() {
        let text = b"5;a=b\r\nhello\r\n1 ;a ; b = \"c\\\" ;d\";e\r\n \r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\nGET";
        for step in 1..text.len() {
            let (data, trailers, rest) = read(Framing::Chunked, text, step).unwrap();
            assert_eq!(data, b"hello 0123456789");
            assert_eq!((trailers, rest), (2, b"GET".to_vec()));
        }
        let (data, trailers, rest) = read(Framing::Chunked, b"0\r\n\r\nX", 9).unwrap();
        assert_eq!((data.len(), trailers, rest), (0, 0, b"X".to_vec()));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for odd in [
            &b"x\r\n"[..],
            b"\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloX0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"1000000000000000\r\n",
            b"5;\x01\r\n",
            b" 5\r\nhello\r\n",
            b"5\r\rhello",
            b"5 \r\nhello",
            b"5;\r\nhello",
            b"5;a;\r\nhello",
            b"5;a=\r\nhello",
            b"5;a \r\nhello",
            b"5;a=b \r\nhello",
            b"5;a b\r\nhello",
            b"5;a[=b\r\nhello",
            b"5;a=\"b\r\nhello",
            b"5;a=\"b\"c\r\nhello",
        ] {
            assert_eq!(
                read(Framing::Chunked, odd, 1).unwrap_err(),
                Fault::Chunk,
                "{}",
                String::from_utf8_lossy(odd)
            );
        }
        for odd in [
            &b"0\r\n A: b\r\n\r\n"[..],
            b"0\r\nA\r\n\r\n",
            // What cannot become trailers any more is told at once.
            b"0\r\nA: b\n",
            b"0\r\n\n",
            b"0\r\n\rX",
            b"0\r\nA: b\rX",
        ] {
            assert_eq!(read(Framing::Chunked, odd, 1).unwrap_err(), Fault::Trailers);
        }
        let endless = [b"0\r\nA: ".as_slice(), &[b'a'; 9_000]].concat();
        assert_eq!(read(Framing::Chunked, &endless, 100).unwrap_err(), Fault::Trailers);
        let extended = [b"5;".as_slice(), &[b'a'; 2_000]].concat();
        assert_eq!(read(Framing::Chunked, &extended, 100).unwrap_err(), Fault::Chunk);
        let padded = [b"5".as_slice(), &[b' '; 20_000]].concat();
        assert_eq!(read(Framing::Chunked, &padded, 100).unwrap_err(), Fault::Chunk);
    }

    #[test]
    fn a_server_may_pad_the_sizes_of_its_chunks() {
        let text = b"5  \r\nhello\r\n1;; odd [\r\n!\r\n0 \r\n\r\n";
        let (data, ..) = read_as(Body::of_answer(Framing::Chunked), text, 3).unwrap();
        assert_eq!(data, b"hello!");
        let odd = read_as(Body::of_answer(Framing::Chunked), b"5;\x01\r\n", 1);
        assert_eq!(odd.unwrap_err(), Fault::Chunk);
    }

    #[test]
    fn a_length_is_kept_to() {
        assert_eq!(read(Framing::Length(3), b"abcd", 2).unwrap(), (b"abc".to_vec(), 0, b"d".to_vec()));
        assert_eq!(read(Framing::Length(5), b"abcd", 2).unwrap_err(), Fault::Truncated);
        assert_eq!(Body::Length(1).cut(), Err(Fault::Truncated));
        assert_eq!(Body::UntilClose.cut(), Ok(()));
    }
}
