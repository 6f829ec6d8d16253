//! Bodies in chunks (RFC 9112 §7.1), read as they come.

use super::{Fault, Fields, fields::Blanks, is_token_byte};

/// Lines after the last chunk may be so long altogether.
pub const MOST_TRAILER_BYTES: usize = 8 * 1024;

/// Lines after the last chunk may be so many.
const MOST_TRAILERS: usize = 32;

/// A chunk's extensions may be so long. They are dropped: nobody uses them, and they are not passed on.
const MOST_EXTENSION_BYTES: usize = 1024;

/// Bytes of extensions and blanks that a body may have beyond its bytes of data: else a client keeps us busy with
/// what reaches nobody.
const MOST_IDLE_BYTES: u64 = 16 * 1024;

/// What of a chunked body was read so far.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    state: State,
    /// Bytes of extensions and blanks that no data made up for.
    idle: u64,
    /// Whether extensions may be anything, and blanks may pad a size.
    lenient: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before or within a chunk's size, with so many digits.
    #[default]
    Start,
    Size {
        size: u64,
        digits: u8,
    },
    /// Within blanks behind the size.
    Blank {
        size: u64,
    },
    /// Within extensions.
    Extension {
        size: u64,
        bytes: usize,
        part: Part,
    },
    /// The LF of that line is next.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// CR, then LF after a chunk's data.
    DataCr,
    DataLf,
    /// The line that is not complete begins here, and so far was looked.
    Trailers {
        line: usize,
        scanned: usize,
    },
    Done,
}

/// What of an extension came last (RFC 9112 §7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The semicolon, or blanks behind it.
    Begin,
    Name,
    /// Blanks behind a name.
    NameEnd,
    /// The equals sign, or blanks behind it.
    Equals,
    Value,
    Quoted,
    /// A backslash in a quoted string.
    Escape,
    QuotedEnd,
    /// Blanks behind a value.
    ValueEnd,
}

/// What is at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes are of the framing and were understood.
    Skip(usize),
    /// So many bytes are of the body.
    Data(usize),
    /// So many bytes are the lines after the last chunk, with their empty line: the body is over.
    Trailers(usize),
    /// More is needed.
    More,
}

impl Chunks {
    /// Chunks of a server: some pad their sizes, and extensions of their own making go no further.
    pub(super) fn of_answer() -> Self {
        Self { lenient: true, ..Self::default() }
    }

    /// Whether the body is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Looks at what comes next. The caller takes away what the step says was understood.
    pub(super) fn step(&mut self, buffer: &[u8]) -> Result<Step, Fault> {
        if buffer.is_empty() && self.state != State::Done {
            return Ok(Step::More);
        }
        match self.state {
            State::Done => Ok(Step::Trailers(0)),
            State::Data { left } => {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let left = left - take as u64;
                self.idle = self.idle.saturating_sub(take as u64);
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                Ok(Step::Data(take))
            }
            State::Trailers { line, scanned } => self.trailers(buffer, line, scanned),
            _ => {
                let mut used = 0;
                while used < buffer.len()
                    && !matches!(self.state, State::Data { .. } | State::Trailers { .. })
                {
                    self.state = self.state.after(buffer[used], self.lenient)?;
                    used += 1;
                    self.idle +=
                        u64::from(matches!(self.state, State::Extension { .. } | State::Blank { .. }));
                }
                if self.idle > MOST_IDLE_BYTES { Err(Fault::Chunk) } else { Ok(Step::Skip(used)) }
            }
        }
    }

    /// Looks for the empty line. What can become no trailers is told at once, not when it is complete.
    fn trailers(&mut self, buffer: &[u8], mut line: usize, scanned: usize) -> Result<Step, Fault> {
        let from = scanned.saturating_sub(1);
        for at in memchr::memchr2_iter(b'\r', b'\n', &buffer[from..]).map(|at| from + at) {
            match buffer[at] {
                b'\r' if buffer.get(at + 1).is_none_or(|&next| next == b'\n') => {}
                b'\n' if at > 0 && buffer[at - 1] == b'\r' => {
                    if at < scanned {
                        continue;
                    }
                    if at == line + 1 && at <= MOST_TRAILER_BYTES {
                        self.state = State::Done;
                        return Ok(Step::Trailers(at + 1));
                    }
                    line = at + 1;
                }
                _ => return Err(Fault::Trailers),
            }
        }
        self.state = State::Trailers { line, scanned: buffer.len() };
        if buffer.len() > MOST_TRAILER_BYTES { Err(Fault::Trailers) } else { Ok(Step::More) }
    }
}

impl State {
    fn after(self, byte: u8, lenient: bool) -> Result<Self, Fault> {
        match (self, byte) {
            (Self::Start, _) if byte.is_ascii_hexdigit() => Ok(Self::Size { size: hex(byte), digits: 1 }),
            // Fifteen digits cannot overflow, and no chunk is longer.
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < 15 => {
                Ok(Self::Size { size: size << 4 | hex(byte), digits: digits + 1 })
            }
            (Self::Size { size, .. }, b'\r') => Ok(Self::SizeEnd { size }),
            (Self::Blank { size } | Self::Extension { size, .. }, b'\r') if lenient => {
                Ok(Self::SizeEnd { size })
            }
            (Self::Size { size, .. } | Self::Blank { size }, b';') => {
                Ok(Self::Extension { size, bytes: 0, part: Part::Begin })
            }
            (Self::Size { size, .. } | Self::Blank { size }, b' ' | b'\t') => Ok(Self::Blank { size }),
            (Self::Extension { size, part, .. }, b'\r') if part.may_be_last() => Ok(Self::SizeEnd { size }),
            (Self::Extension { size, bytes, part }, 0x20..=0x7e | 0x80.. | b'\t')
                if bytes < MOST_EXTENSION_BYTES =>
            {
                let part = if lenient { part } else { part.after(byte).ok_or(Fault::Chunk)? };
                Ok(Self::Extension { size, bytes: bytes + 1, part })
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Ok(Self::Trailers { line: 0, scanned: 0 }),
            (Self::SizeEnd { size }, b'\n') => Ok(Self::Data { left: size }),
            (Self::DataCr, b'\r') => Ok(Self::DataLf),
            (Self::DataLf, b'\n') => Ok(Self::Start),
            _ => Err(Fault::Chunk),
        }
    }
}

impl Part {
    /// What a byte that may be in a value makes of it; none where it is out of place.
    fn after(self, byte: u8) -> Option<Self> {
        let is_blank = matches!(byte, b' ' | b'\t');
        match (self, byte) {
            (Self::Quoted, b'"') => Some(Self::QuotedEnd),
            (Self::Quoted, b'\\') => Some(Self::Escape),
            (Self::Quoted | Self::Escape, _) => Some(Self::Quoted),
            (Self::Begin | Self::NameEnd | Self::Equals | Self::ValueEnd, _) if is_blank => Some(self),
            (Self::Name, _) if is_blank => Some(Self::NameEnd),
            (Self::Value | Self::QuotedEnd, _) if is_blank => Some(Self::ValueEnd),
            (Self::Name | Self::NameEnd, b'=') => Some(Self::Equals),
            (Self::Name | Self::NameEnd | Self::Value | Self::QuotedEnd | Self::ValueEnd, b';') => {
                Some(Self::Begin)
            }
            (Self::Begin | Self::Name, _) if is_token_byte(byte) => Some(Self::Name),
            (Self::Equals, b'"') => Some(Self::Quoted),
            (Self::Equals | Self::Value, _) if is_token_byte(byte) => Some(Self::Value),
            _ => None,
        }
    }

    fn may_be_last(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::QuotedEnd)
    }
}

fn hex(digit: u8) -> u64 {
    u64::from(char::from(digit).to_digit(16).unwrap_or(0))
}

/// Reads the lines after the last chunk, as [`Step::Trailers`] found them.
pub(super) fn read_trailers(text: &[u8]) -> Result<Fields, Fault> {
    let mut fields = Fields::default();
    fields.text.extend_from_slice(text);
    let mut start = 0;
    while let Some(newline) = memchr::memchr(b'\n', &text[start..]) {
        let end = start + newline;
        if newline == 0 || text[end - 1] != b'\r' {
            return Err(Fault::Trailers);
        }
        if end - 1 > start {
            if fields.len() == MOST_TRAILERS {
                return Err(Fault::Trailers);
            }
            fields.parse_line(start, end - 1, Blanks::Refused).map_err(|_| Fault::Trailers)?;
        }
        start = end + 1;
    }
    Ok(fields)
}
