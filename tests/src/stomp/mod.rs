//! STOMP 1.2, the protocol of message brokers, as far as its clients need it: frames, heart-beats, a [`Client`] and a
//! [`Broker`].

use std::{
    io::{self, Read, Write},
    time::{Duration, Instant},
};

mod broker;

pub use broker::Broker;

/// How often both sides say that they are there, in milliseconds.
const BEAT: u64 = 100;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its first line.
    pub command: String,
    /// Header lines, in order. `content-length` is made when it is sent.
    pub headers: Vec<(String, String)>,
    /// What follows.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame with these header lines.
    #[must_use]
    pub fn new(command: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { command: command.to_owned(), headers, body: body.into() }
    }

    /// A header line.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn bytes(&self) -> Vec<u8> {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let head = format!("{}\n{lines}content-length:{}\n\n", self.command, self.body.len());
        [head.as_bytes(), &self.body, b"\0"].concat()
    }

    /// Takes the first frame from what has arrived; `None` while it is not whole. Line ends before it are heart-beats,
    /// and are counted.
    fn take(arrived: &mut Vec<u8>, beats: &mut usize) -> Option<Self> {
        let early = arrived.iter().take_while(|&&byte| byte == b'\n').count();
        arrived.drain(..early);
        *beats += early;
        let end = arrived.windows(2).position(|bytes| bytes == b"\n\n")?;
        let head = String::from_utf8_lossy(&arrived[..end]).into_owned();
        let mut lines = head.lines();
        let command = lines.next()?.to_owned();
        let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (length, headers): (Vec<_>, Vec<_>) =
            lines.filter_map(pair).partition(|(name, _)| name == "content-length");
        let rest = &arrived[end + 2..];
        let length = match length.first().and_then(|(_, length)| length.parse().ok()) {
            Some(length) => length,
            None => rest.iter().position(|&byte| byte == 0)?,
        };
        let body = rest.get(..length)?.to_vec();
        rest.get(length)?;
        arrived.drain(..end + 2 + length + 1);
        Some(Self { command, headers, body })
    }
}

/// A client of a broker, over whatever connection. Reading from it must end after some milliseconds without anything.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    arrived: Vec<u8>,
    beats: usize,
    beaten: Instant,
}

impl<S: Read + Write> Client<S> {
    /// Says hello; gives the broker's answer, too.
    ///
    /// # Errors
    /// What came instead.
    pub fn connect(stream: S, host: &str, limit: Duration) -> Result<(Self, Frame), String> {
        let mut client = Self { stream, arrived: Vec::new(), beats: 0, beaten: Instant::now() };
        let beat = format!("{BEAT},{BEAT}");
        client.send(&Frame::new(
            "CONNECT",
            &[("accept-version", "1.2"), ("host", host), ("heart-beat", &beat)],
            "",
        ))?;
        let hello = client.expect("CONNECTED", limit)?;
        Ok((client, hello))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// What the connection said.
    pub fn send(&mut self, frame: &Frame) -> Result<(), String> {
        self.write(&frame.bytes())
    }

    /// Says goodbye, and waits for the answer to it and for the end.
    ///
    /// # Errors
    /// When another comes, or none.
    pub fn disconnect(mut self, limit: Duration) -> Result<(), String> {
        self.send(&Frame::new("DISCONNECT", &[("receipt", "bye")], ""))?;
        let receipt = self.expect("RECEIPT", limit)?;
        if receipt.header("receipt-id") != Some("bye") {
            return Err(format!("{receipt:?} is no answer to DISCONNECT"));
        }
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if !self.more()? {
                return Ok(());
            }
        }
        Err("the broker does not end the connection".to_owned())
    }

    /// The next frame, which must be of this kind; keeps up heart-beats until it comes.
    ///
    /// # Errors
    /// What came instead.
    pub fn expect(&mut self, command: &str, limit: Duration) -> Result<Frame, String> {
        let until = Instant::now() + limit;
        loop {
            if let Some(frame) = Frame::take(&mut self.arrived, &mut self.beats) {
                return if frame.command == command {
                    Ok(frame)
                } else {
                    Err(format!("{frame:?}, no {command}"))
                };
            }
            if Instant::now() > until {
                return Err(format!("no {command} comes"));
            }
            if !self.more()? {
                return Err(format!("the end, no {command}"));
            }
        }
    }

    /// Does nothing but keep up heart-beats until the broker has sent so many.
    ///
    /// # Errors
    /// When it does not.
    pub fn rest(&mut self, beats: usize, limit: Duration) -> Result<(), String> {
        let (until, enough) = (Instant::now() + limit, self.beats + beats);
        while self.beats < enough {
            if Instant::now() > until || !self.more()? {
                return Err(format!("{} heart-beats of {enough}", self.beats));
            }
            if let Some(frame) = Frame::take(&mut self.arrived, &mut self.beats) {
                return Err(format!("{frame:?} comes unasked"));
            }
        }
        Ok(())
    }

    /// Reads what there is, and says that it is there when it is time to. `false` at the end.
    fn more(&mut self) -> Result<bool, String> {
        if self.beaten.elapsed() >= Duration::from_millis(BEAT / 2) {
            self.write(b"\n")?;
        }
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.arrived.extend_from_slice(&buffer[..length]);
                Ok(true)
            }
            Err(error) if is_silence(&error) => Ok(true),
            Err(error) => Err(format!("receive: {error}")),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.beaten = Instant::now();
        let written = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        written.map_err(|error| format!("send: {error}"))
    }
}

/// Whether nothing has come for a while, and nothing else has happened.
fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_and_beats_between_them_are_counted() {
        let frames = [
            Frame::new("SEND", &[("destination", "/queue/a"), ("receipt", "1")], "with\0and\n\nwithin"),
            Frame::new("RECEIPT", &[("receipt-id", "1")], ""),
        ];
        let mut bytes = [b"\n\n", &frames[0].bytes()[..], b"\n", &frames[1].bytes()].concat();
        let mut beats = 0;
        for frame in &frames {
            assert_eq!(Frame::take(&mut bytes, &mut beats).as_ref(), Some(frame));
        }
        assert_eq!((bytes.len(), beats), (0, 3));
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let frame = Frame::new("MESSAGE", &[("subscription", "0")], "hello");
        let whole = frame.bytes();
        for length in 0..whole.len() {
            let mut bytes = whole[..length].to_vec();
            assert_eq!(Frame::take(&mut bytes, &mut 0), None, "{length} bytes");
            assert_eq!(bytes.len(), length);
        }
    }
}
