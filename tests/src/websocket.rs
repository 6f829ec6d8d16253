//! WebSockets (RFC 6455) as far as tests need them: frames, the greeting, and what a server does that takes part.

use std::{
    io::{self, Read, Write},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;

/// Text (RFC 6455 §5.6).
pub const TEXT: u8 = 1;
/// The end (§5.5.1).
pub const CLOSE: u8 = 8;
/// Is anybody there (§5.5.2)?
pub const PING: u8 = 9;
/// Yes (§5.5.3).
pub const PONG: u8 = 10;

/// Pause between two frames of a log stream.
const PAUSE: Duration = Duration::from_millis(10);

/// A frame, its mask taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether a message ends with it.
    pub last: bool,
    /// What it is.
    pub opcode: u8,
    /// What is in it.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A message of one frame.
    #[must_use]
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { last: true, opcode, payload: payload.into() }
    }

    /// As bytes, masked as those of clients must be (§5.3) or not.
    #[must_use]
    pub fn bytes(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.last) << 7 | self.opcode];
        let masked = u8::from(mask.is_some()) << 7;
        match (u8::try_from(self.payload.len()), u16::try_from(self.payload.len())) {
            (Ok(length @ ..126), _) => bytes.push(masked | length),
            (_, Ok(length)) => {
                bytes.push(masked | 126);
                bytes.extend(length.to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend((self.payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.into_iter().flatten());
        let mask = mask.unwrap_or_default();
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// Takes the first frame from what has arrived; `None` while it is not whole.
    #[must_use]
    pub fn take(arrived: &mut Vec<u8>) -> Option<Self> {
        let (&first, &second) = (arrived.first()?, arrived.get(1)?);
        let number = |at: usize, length: usize| {
            let bytes = arrived.get(at..at + length)?;
            Some(bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)))
        };
        let (length, head) = match second & 0x7f {
            126 => (number(2, 2)?, 4),
            127 => (number(2, 8)?, 10),
            length => (length.into(), 2),
        };
        let (mask, head) = match second & 0x80 {
            0 => ([0; 4], head),
            _ => (*arrived.get(head..)?.first_chunk::<4>()?, head + 4),
        };
        let payload = arrived.get(head..head + length)?;
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        arrived.drain(..head + length);
        Some(Self { last: first & 0x80 != 0, opcode: first & 0x0f, payload })
    }
}

/// What a server answers to a key (§4.2.2).
#[must_use]
pub fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    hash.as_ref().chunks(3).map(base64).collect()
}

/// Up to three bytes as four characters (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let all = (0..3).fold(0, |all, at| all << 8 | usize::from(bytes.get(at).copied().unwrap_or(0)));
    let digit = |at: usize| {
        if at <= bytes.len() { char::from(DIGITS[all >> (18 - 6 * at) & 63]) } else { '=' }
    };
    (0..4).map(digit).collect()
}

/// Time by the clock of this process, by which those at both ends of a connection measure what lies between them.
#[must_use]
pub fn clock() -> Duration {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed()
}

/// The frame of a log stream with this number, with the time it is sent.
fn line_of_log(number: u64) -> Frame {
    Frame::new(TEXT, format!("{number} {}", clock().as_micros()))
}

/// Number of a frame of a log stream, and how long it was under way. `None` for another frame.
#[must_use]
pub fn read_line_of_log(frame: &Frame) -> Option<(u64, Duration)> {
    let (number, sent) = str::from_utf8(&frame.payload).ok()?.split_once(' ')?;
    let sent = Duration::from_micros(sent.parse().ok()?);
    Some((number.parse().ok()?, clock().checked_sub(sent)?))
}

/// A server's side of a log stream: a line every ten milliseconds, until the client is gone.
pub(crate) fn stream(mut to: impl Write) -> io::Result<()> {
    let begin = Instant::now();
    for number in 0_u32.. {
        to.write_all(&line_of_log(number.into()).bytes(None))?;
        thread::sleep((begin + PAUSE * (number + 1)).saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// A server that sends every message back, until the client ends it.
pub(crate) fn echo(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut arrived = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        while let Some(mut frame) = Frame::take(&mut arrived) {
            match frame.opcode {
                PING => frame.opcode = PONG,
                PONG => continue,
                _ => {}
            }
            to.write_all(&frame.bytes(None))?;
            if frame.opcode == CLOSE {
                return Ok(());
            }
        }
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            more => arrived.extend_from_slice(&buffer[..more]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_standard_says() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_of_every_length_come_out_as_they_went_in_and_not_before_they_are_whole() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for mask in [None, Some([1, 2, 3, 255])] {
                let frame = Frame::new(TEXT, vec![b'x'; length]);
                let mut bytes = frame.bytes(mask);
                let last = bytes.pop().expect("a frame has a head");
                assert_eq!(Frame::take(&mut bytes), None);
                bytes.extend([last, 0x89]);
                assert_eq!(Frame::take(&mut bytes), Some(frame));
                assert_eq!(bytes, [0x89], "what follows stays");
            }
        }
    }

    #[test]
    fn a_server_sends_back_answers_pings_and_ends() {
        let sent =
            [Frame::new(TEXT, "a"), Frame::new(PING, "b"), Frame::new(CLOSE, ""), Frame::new(TEXT, "c")];
        let bytes: Vec<u8> = sent.iter().flat_map(|frame| frame.bytes(Some([9; 4]))).collect();
        let mut back = Vec::new();
        echo(&bytes[..], &mut back).expect("nothing fails");
        let frames: Vec<_> = std::iter::from_fn(|| Frame::take(&mut back)).collect();
        assert_eq!(frames, [Frame::new(TEXT, "a"), Frame::new(PONG, "b"), Frame::new(CLOSE, "")]);
    }
}
