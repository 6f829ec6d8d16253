//! HTTP/1.1 as bytes (RFC 9112): heads, framing of bodies, chunks. Pure: no sockets, no clocks, no policy
//! beyond what the standard asks of everyone.
//!
//! It is strict where leniency is how requests are smuggled: a line ends with CR LF, a field name with its
//! colon, and a body has one length. What is refused is refused with a named [`Fault`], so that the answer, the
//! log and the counters can say why. That, informational answers, and answers to malformed requests that an
//! operator may word are also why hyper's connection is not used for HTTP/1.1: it repairs and hides them.

mod body;
mod bytes;
mod chunks;
mod fields;
mod framing;
mod head;
mod known;
mod target;

pub use body::{Body, Piece};
pub use bytes::{base64, is_token, is_token_byte};
pub use chunks::{Chunks, MOST_TRAILER_BYTES};
pub use fields::{Fields, Sink, put_number};
pub use framing::{Framing, answer_framing, request_framing};
pub use head::{Answer, HeadLimits, Method, Request, Scan, Version};
pub use known::Known;
pub use target::{Target, authority_is_valid, split_authority};

use std::fmt;

/// Why bytes are no HTTP message that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The first line is none of a request or an answer.
    StartLine,
    /// The first line has a word where the version should be.
    Protocol,
    /// The version is not 1.x.
    Version,
    /// A line does not end with CR LF, or has a CR elsewhere.
    LineEnd,
    /// A header line is not `name: value`, or has control characters.
    Field,
    /// A header line goes on in the next (obs-fold).
    Folded,
    /// The head is longer than the limit, or has more lines.
    HeadTooLarge,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The target is none of the forms of RFC 9112 §3.2 that its method may have.
    Target,
    /// `Host` is missing, there are several, or its value is none.
    Host,
    /// `Content-Length` is no number, or there are several that differ.
    Length,
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndEncoding,
    /// `Transfer-Encoding` does not say `chunked` once and last, or came with HTTP/1.0.
    Encoding,
    /// `Transfer-Encoding` says `chunked` last, and before it what nobody here understands.
    Coding,
    /// A chunk is not as RFC 9112 §7.1 says.
    Chunk,
    /// Lines after the last chunk are malformed, too many or too long.
    Trailers,
    /// `Expect` asks for something other than `100-continue`.
    Expectation,
    /// The connection ended within a message.
    Truncated,
}

impl Fault {
    /// The status of the answer to a request with this fault (RFC 9110 §15.5, RFC 6585 §5).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLarge => 431,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::Coding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }

    /// A short name, the same in log and counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::StartLine => "start-line",
            Self::Protocol => "protocol",
            Self::Version => "version",
            Self::LineEnd => "line-end",
            Self::Field => "field",
            Self::Folded => "folded-field",
            Self::HeadTooLarge => "head-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::Target => "target",
            Self::Host => "host",
            Self::Length => "content-length",
            Self::LengthAndEncoding => "length-and-encoding",
            Self::Encoding => "transfer-encoding",
            Self::Coding => "transfer-coding",
            Self::Chunk => "chunk",
            Self::Trailers => "trailers",
            Self::Expectation => "expectation",
            Self::Truncated => "truncated",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for Fault {}
