//! How messages of HTTP/1.1 are written.

use crate::wire::{Fields, Known, Sink, put_number};

/// Writes a chunk's size.
pub(crate) fn chunk_begin(out: &mut Vec<u8>, length: usize) {
    let mut digits = [0_u8; 16];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Writes lines after the last chunk, less those that would be read as framing, routing or the client's
/// address (RFC 9110 §6.5.1), and the empty line.
pub(crate) fn put_trailers(out: &mut Vec<u8>, fields: &Fields) {
    for (_, name, value) in fields.iter().filter(|(known, name, _)| may_trail(*known, name)) {
        out.line(name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a line may come after the body: none that says how the message is to be read, whose it is or what
/// may be done with it, in whatever spelling (RFC 9110 §6.5.1).
pub(crate) fn may_trail(known: Known, name: &[u8]) -> bool {
    const BEGIN: [&[u8]; 8] =
        [b"auth", b"content-", b"if-", b"proxy-", b"transfer-", b"www-", b"x-forwarded-", b"x-ssl-client"];
    const WHOLE: [&[u8]; 4] = [b"age", b"pragma", b"range", b"vary"];
    let begins = |begin: &[u8]| {
        name.len() >= begin.len()
            && begin
                .iter()
                .zip(name)
                .all(|(&a, &b)| a == if b == b'_' { b'-' } else { b.to_ascii_lowercase() })
    };
    matches!(known, Known::Other | Known::Date | Known::Server | Known::Via)
        && !BEGIN.iter().any(|begin| begins(begin))
        && !WHOLE.iter().any(|whole| name.eq_ignore_ascii_case(whole))
}

/// Writes the status line of HTTP/1.1.
pub(crate) fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    put_number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}
