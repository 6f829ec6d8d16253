//! The side that faces clients: what is done with a connection that was accepted, and the HTTP that it speaks.

mod connection;
mod crowd;
mod entry;
mod http1;
mod http2;
mod report;

pub use connection::welcome;
pub use crowd::{Crowd, Guest, Sieve};
pub use entry::{Closing, Door, Entry};

/// What is spoken within TLS, the preferred one first.
pub(crate) const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
