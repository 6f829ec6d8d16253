//! What a client begins with, before anyone has agreed upon TLS. rustls tells a client of TLS 1.1 that no agreement
//! was reached, and one that speaks HTTP that it made no sense; both may know better what to do.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::tcp::greeting;

/// Bytes of a record's and a handshake message's head, and the version within (RFC 5246 §6.2.1, §7.4.1.2).
const HEAD: usize = 11;

/// The extension in which a client says which versions it speaks (RFC 8446 §4.2.1). Whatever the head of its greeting says
/// counts for nothing then.
const SUPPORTED_VERSIONS: u16 = 43;

/// A fatal `protocol_version` (RFC 5246 §7.2).
const OLD: &[u8] = &[21, 3, 1, 0, 2, 2, 70];

const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 47\r\n\
    connection: close\r\n\r\nThis is HTTP, sent to a port that wants HTTPS\r\n";

/// How much of a client that was refused is read, and for how long, so that it sees why.
const MOST_SKIPPED: usize = 64 * 1024;
const LINGERING: Duration = Duration::from_secs(1);

/// What is told to a client that begins with `bytes`; nothing where TLS may come of it.
fn refusal(bytes: &[u8], http: bool) -> Option<&'static [u8]> {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"PRI "];
    match bytes {
        // In one record at least as far as that; in pieces it is left to rustls.
        [22, _, _, high, low, 1, _, _, _, 3, 0..=2, ..] if *high > 0 || *low > 5 => Some(OLD),
        _ if http && METHODS.iter().any(|method| bytes.starts_with(method)) => Some(PLAIN),
        _ => None,
    }
}

/// Looks at what a client begins with, and tells it where that comes to nothing. What has not come by then is not
/// waited for: rustls will refuse it in its own words.
///
/// # Errors
/// Where it was refused, or the connection broke.
pub(super) async fn look(socket: &mut TcpStream, http: bool) -> io::Result<()> {
    let mut bytes = [0; HEAD];
    let seen = socket.peek(&mut bytes).await?;
    let Some(answer) = refusal(&bytes[..seen], http) else { return Ok(()) };
    // Nobody begins with SSL 3.0 who speaks something newer (RFC 8446 appendix D.5).
    if answer == OLD && bytes[HEAD - 1] > 0 && says_versions(socket).await? {
        return Ok(());
    }
    socket.write_all(answer).await?;
    socket.shutdown().await?;
    // What is not read, now or when it comes, would make of the end a reset, which overtakes the answer.
    let _ = tokio::time::timeout(LINGERING, Box::pin(skip(socket))).await;
    Err(io::ErrorKind::InvalidData.into())
}

/// Whether a client may say in an extension which versions it speaks: not, if all of its greeting is there without it.
async fn says_versions(socket: &TcpStream) -> io::Result<bool> {
    let mut bytes = vec![0; greeting::MOST_BYTES];
    let seen = socket.peek(&mut bytes).await?;
    Ok(greeting::has_extension(&bytes[..seen], SUPPORTED_VERSIONS).unwrap_or(true))
}

/// Reads and throws away what comes until the client ends, or has sent more than is waited for.
async fn skip(socket: &mut TcpStream) {
    let (mut rest, mut left) = ([0; 2_048], MOST_SKIPPED);
    while left > 0
        && let Ok(read @ 1..) = socket.read(&mut rest).await
    {
        left = left.saturating_sub(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_and_plain_http_are_known_by_their_first_bytes() {
        let hello = |version: u8| [22, 3, 1, 0, 200, 1, 0, 0, 196, 3, version];
        for old in 0..3 {
            assert_eq!(refusal(&hello(old), false), Some(OLD));
        }
        assert_eq!(refusal(&hello(3), true), None);
        assert_eq!(refusal(&hello(1)[..10], true), None);
        assert_eq!(refusal(&[22, 3, 1, 0, 3, 1, 0, 0, 22, 3, 1], true), None, "the head of a next record");
        assert_eq!(refusal(b"GET / HTTP/", true), Some(PLAIN));
        assert_eq!(refusal(b"GET / HTTP/", false), None, "other protocols begin with words too");
        assert_eq!(refusal(b"", true), None);
        let (_, body) = PLAIN.split_at(memchr::memmem::find(PLAIN, b"\r\n\r\n").unwrap() + 4);
        assert!(
            memchr::memmem::find(PLAIN, format!("content-length: {}\r", body.len()).as_bytes()).is_some()
        );
    }
}
