//! What is told about a request or connection.

use std::time::{Duration, Instant, SystemTime};

use crate::{
    http::{Client, Intent},
    model::Service,
    wire::Version,
};

/// When things happened.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    /// When the request's head was complete (mode `tcp`: when the connection was accepted).
    pub start: Instant,
    /// When a connection to a server was had.
    pub reached: Option<Instant>,
    /// When the head of the server's answer came.
    pub answered: Option<Instant>,
}

impl Stopwatch {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), reached: None, answered: None }
    }
}

/// The server that served, or was to.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// Name of its pool.
    pub pool: &'a str,
    /// Its name; none where no server was reached.
    pub server: Option<&'a str>,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Method.
    pub method: &'a [u8],
    /// Host and port, as the client said.
    pub authority: &'a [u8],
    /// Path and query.
    pub path: &'a [u8],
    /// Version of HTTP.
    pub version: Version,
}

impl<'a> Asked<'a> {
    /// What `intent` asks for.
    #[must_use]
    pub fn of(intent: &Intent<'a>) -> Self {
        let asked = &intent.asked;
        Self { method: asked.method, authority: asked.authority, path: asked.path, version: intent.version }
    }
}

/// A request, or a connection of mode `tcp`.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The service.
    pub service: &'a Service,
    /// The client.
    pub client: &'a Client,
    /// What was asked for; none for mode `tcp` and for what was no request.
    pub request: Option<Asked<'a>>,
    /// The name of the field that made it malformed, where it was one and HTTP/2 has it answered by a reset.
    pub malformed: Option<&'a str>,
    /// Who served it; none where we answered ourselves.
    pub served: Option<Served<'a>>,
    /// Status of the answer; 0 where none was given.
    pub status: u16,
    /// Bytes that came from the client: of the request's body, or of the connection.
    pub received: u64,
    /// Bytes that went to the client, framing included.
    pub sent: u64,
    /// Other servers that were tried.
    pub retries: u8,
    /// When things happened.
    pub times: Stopwatch,
    /// How long it took altogether.
    pub took: Duration,
    /// How it ended: two letters as HAProxy has them, who ended it (`C`lient, `S`erver, `P`roxy, `-` nobody)
    /// and in which phase (`R`equest, `Q`ueue, `C`onnect, `H`ead, `D`ata, `-` none).
    pub ended: [u8; 2],
}

impl Record<'_> {
    /// When it began, on the wall.
    pub(super) fn began(&self) -> SystemTime {
        let now = SystemTime::now();
        now.checked_sub(self.took).unwrap_or(now)
    }

    /// Milliseconds until a server was reached, until it answered, and altogether.
    pub(super) fn milliseconds(&self) -> (Option<u128>, Option<u128>, u128) {
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from).as_millis();
        let reached = self.times.reached.map(|reached| since(self.times.start, reached));
        let answered = self
            .times
            .answered
            .map(|answered| since(self.times.reached.unwrap_or(self.times.start), answered));
        (reached, answered, self.took.as_millis())
    }
}
