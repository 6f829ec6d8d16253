//! How long things may take and how much of them there may be.

use serde::{Deserialize, Serialize};

use super::Span;

/// Times after which a service gives up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A client's connection without a request, between two and before the first.
    pub client_idle: Span,
    /// From the first byte of a request to the end of its head; then 408.
    pub request_header: Span,
    /// Between two pieces of a request's body that the client is expected to send; then 408.
    pub request_body: Span,
    /// A client that takes nothing of what is sent to it.
    pub client_write: Span,
    /// Until a connection to a server stands, TLS included; then another server is tried, then 503.
    pub connect: Span,
    /// From the end of the request to the head of the server's answer; then 504.
    pub response: Span,
    /// Between two pieces of an answer's body.
    pub response_body: Span,
    /// Connections to servers that wait for a next request.
    pub server_idle: Span,
    /// WebSockets, other upgraded connections, CONNECT, and connections of mode `tcp`: as long as nothing is
    /// sent in either direction.
    pub tunnel: Span,
    /// Waiting for a server that has reached its maximum; then 503.
    pub queue: Span,
    /// A connection altogether, whatever it does: HTTP connections get no further request then, those of mode
    /// `tcp` end. Unlimited unless given.
    pub lifetime: Option<Span>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            client_idle: Span::from_secs(75),
            request_header: Span::from_secs(10),
            request_body: Span::from_secs(60),
            client_write: Span::from_secs(60),
            connect: Span::from_secs(5),
            response: Span::from_secs(60),
            response_body: Span::from_secs(60),
            server_idle: Span::from_secs(60),
            tunnel: Span::from_secs(3_600),
            queue: Span::from_secs(5),
            lifetime: None,
        }
    }
}

/// What one service may be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of clients at once. Further ones are closed.
    pub connections: Option<u32>,
    /// Connections at once of one client (see `client_bits_v4`). Further ones are closed.
    pub connections_per_client: Option<u32>,
    /// Requests a second of one client; then 429. Each client may send as many at once.
    pub requests_per_second: Option<u32>,
    /// How many bits of an IPv4 address make a client.
    pub client_bits_v4: u8,
    /// How many bits of an IPv6 address make a client.
    pub client_bits_v6: u8,
    /// Bytes of a request's head, and of an answer's with those that precede it; then 431, and 502. Trailers have no more
    /// either. At least 1024; of servers of HTTP/2 a head of 256 KiB is the largest whatever this says.
    pub header_bytes: u32,
    /// Lines in a head; then 431, and 502.
    pub header_count: u16,
    /// Bytes of a request's target; then 414.
    pub uri_bytes: u32,
    /// Bytes of a request's body; then 413.
    pub body_bytes: Option<u64>,
    /// Requests on one connection of a client; then it is closed.
    pub requests_per_connection: Option<u32>,
    /// HTTP/2 towards clients.
    pub http2: Http2Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_client: None,
            requests_per_second: None,
            client_bits_v4: 32,
            client_bits_v6: 64,
            header_bytes: 64 * 1024,
            header_count: 128,
            uri_bytes: 16 * 1024,
            body_bytes: None,
            requests_per_connection: None,
            http2: Http2Limits::default(),
        }
    }
}

/// What an HTTP/2 client may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http2Limits {
    /// Requests at once on one connection.
    pub streams: u32,
    /// Bytes of one request's body that may be on their way.
    pub stream_window: u32,
    /// The same for all requests of a connection; and bytes of the heads of those under way: further ones are refused, to be
    /// asked again (REFUSED_STREAM).
    ///
    /// Nor may so many tiny pieces of them come for streams that have ended, or before it is anybody's turn to take them, that they
    /// were four times as much if each had 256: then the connection ends.
    pub connection_window: u32,
    /// Bytes of an answer that wait as frames for a client that takes nothing, in no more than 68 parts of less than a KiB. As much
    /// as was read of the server at once waits in front of them: 64 KiB at most, and some 180 where the server speaks HTTP/2.
    pub send_buffer: u32,
    /// Streams that a client may reset while we have yet to answer them ("rapid reset"); then the connection
    /// ends.
    pub pending_resets: u32,
    /// Streams that we may have to reset for a client's mistakes ("made you reset"); then the connection ends.
    pub own_resets: u32,
    /// Frames in a second that carry nothing of a request or an answer (SETTINGS, PING, PRIORITY, RST_STREAM,
    /// empty ones, unknown ones, WINDOW_UPDATE where less than five bytes were sent for each); then the connection ends. RST_STREAM counts as five, and so does a request that is refused
    /// for `connection_window`; SETTINGS that change the windows of all streams count as fifty.
    pub control_frames: u32,
    /// How often in a second the window of an answer or a tunnel, which the client had opened, may be closed again after less than
    /// a KiB has passed, on average ("data dribble"); 0 is like 1. The connection of a client with which that is more often is put
    /// behind all others: all that are on a worker have about one turn in a millisecond among them.
    pub dribbles: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams: 128,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            send_buffer: 64 * 1024,
            pending_resets: 32,
            own_resets: 256,
            control_frames: 1_000,
            dribbles: 100,
        }
    }
}

/// What the whole process may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessLimits {
    /// Connections of clients at once, over all services. As many as there may be open files, less those to
    /// servers, unless given.
    pub connections: Option<u32>,
    /// TLS handshakes at once on one worker, over all services, that may take their time; further ones have one
    /// second. 1024 unless given.
    pub handshakes: Option<u32>,
}
