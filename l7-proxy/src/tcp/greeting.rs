//! The name in a TLS client's greeting (RFC 8446 §4.1.2, RFC 6066 §3), read without taking part in TLS. Pure.

/// Longest greeting that is waited for: with keys against quantum computers they have about two thousand bytes.
pub const MOST_BYTES: usize = 16 * 1024;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The beginning of a greeting: more is needed.
    More,
    /// A greeting, with the name in lower case if it has one.
    Name(Option<String>),
    /// Something else.
    Other,
}

/// The content types of a record and of a handshake message.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Looks at the first bytes of a connection.
#[must_use]
pub fn greeting(bytes: &[u8]) -> Greeting {
    let mut message = Vec::new();
    let mut rest = bytes;
    // A greeting may be cut into several records.
    loop {
        match rest {
            [HANDSHAKE, 3, _, high, low, after @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 || length > 1 << 14 {
                    return Greeting::Other;
                }
                message.extend_from_slice(&after[..length.min(after.len())]);
                if message.first().is_some_and(|&first| first != CLIENT_HELLO) {
                    return Greeting::Other;
                }
                if let Some(length) = message_length(&message) {
                    if length > MOST_BYTES {
                        return Greeting::Other;
                    }
                    if let Some(hello) = message.get(4..4 + length) {
                        return name(hello).map_or(Greeting::Other, Greeting::Name);
                    }
                }
                rest = after.get(length..).unwrap_or_default();
                if after.len() <= length {
                    break;
                }
            }
            _ => {
                let begins = matches!(rest, [] | [HANDSHAKE] | [HANDSHAKE, 3, ..]) && rest.len() < 5;
                if !begins {
                    return Greeting::Other;
                }
                break;
            }
        }
    }
    if bytes.len() >= MOST_BYTES { Greeting::Other } else { Greeting::More }
}

fn message_length(message: &[u8]) -> Option<usize> {
    let [_, a, b, c, ..] = message else { return None };
    Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c))
}

/// Takes `count` bytes off the beginning.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn number(bytes: &mut &[u8], size: usize) -> Option<usize> {
    take(bytes, size).map(|digits| digits.iter().fold(0, |number, &digit| number << 8 | usize::from(digit)))
}

/// An extension of this kind in a whole greeting; the outer `None` where the greeting is malformed.
fn extension(mut hello: &[u8], kind: u16) -> Option<Option<&[u8]>> {
    take(&mut hello, 2 + 32)?;
    for size in [1, 2, 1] {
        let length = number(&mut hello, size)?;
        take(&mut hello, length)?;
    }
    if hello.is_empty() {
        return Some(None);
    }
    let length = number(&mut hello, 2)?;
    let mut extensions = take(&mut hello, length)?;
    while !extensions.is_empty() {
        let found = number(&mut extensions, 2)?;
        let length = number(&mut extensions, 2)?;
        let extension = take(&mut extensions, length)?;
        if found == usize::from(kind) {
            return Some(Some(extension));
        }
    }
    Some(None)
}

/// The name in a whole greeting; the outer `None` where it is malformed.
fn name(hello: &[u8]) -> Option<Option<String>> {
    let Some(mut extension) = extension(hello, SERVER_NAME)? else { return Some(None) };
    let length = number(&mut extension, 2)?;
    let mut names = take(&mut extension, length)?;
    while !names.is_empty() {
        let kind = number(&mut names, 1)?;
        let length = number(&mut names, 2)?;
        let name = take(&mut names, length)?;
        if kind == usize::from(HOST_NAME) {
            let name = std::str::from_utf8(name).ok()?;
            return Some(Some(name.trim_end_matches('.').to_ascii_lowercase()));
        }
    }
    Some(None)
}

/// Whether a greeting in one record has an extension of this kind; `None` where not all of it is there, or it is malformed.
#[must_use]
pub fn has_extension(record: &[u8], kind: u16) -> Option<bool> {
    let [HANDSHAKE, 3, _, high, low, rest @ ..] = record else { return None };
    let message = rest.get(..u16::from_be_bytes([*high, *low]).into())?;
    let hello = message.get(4..4 + message_length(message)?)?;
    extension(hello, kind).map(|found| found.is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What a client of rustls says first.
    fn hello(name: &'static str) -> Vec<u8> {
        let provider = crate::tls::provider();
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls_pki_types::ServerName::try_from(name).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_found_however_the_greeting_is_cut() {
        let bytes = hello("Web.example");
        for length in 0..bytes.len() {
            assert_eq!(greeting(&bytes[..length]), Greeting::More, "{length} of {}", bytes.len());
        }
        assert_eq!(greeting(&bytes), Greeting::Name(Some("web.example".into())));
        // Each record with a few bytes of the message only.
        let mut cut = Vec::new();
        for part in bytes[5..].chunks(7) {
            cut.extend_from_slice(&[22, 3, 1, 0, part.len() as u8]);
            cut.extend_from_slice(part);
        }
        assert_eq!(greeting(&cut), Greeting::Name(Some("web.example".into())));
        assert_eq!(greeting(&hello("192.0.2.1")), Greeting::Name(None), "addresses are no names");
    }

    #[test]
    fn extensions_are_found_in_a_whole_greeting() {
        let bytes = hello("web.example");
        assert_eq!(has_extension(&bytes, SERVER_NAME), Some(true));
        assert_eq!(has_extension(&bytes, 43), Some(true), "supported_versions (RFC 8446 §4.2.1)");
        assert_eq!(has_extension(&bytes, 0xfefe), Some(false));
        assert_eq!(has_extension(&hello("192.0.2.1"), SERVER_NAME), Some(false));
        assert_eq!(has_extension(&bytes[..bytes.len() - 1], 43), None);
        assert_eq!(has_extension(b"GET / HTTP/1.1\r\n", 43), None);
    }

    #[test]
    fn anything_else_is_told_at_once() {
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"SSH-2.0",
            &[22, 2, 0, 0, 1, 1],
            &[22, 3, 1, 0, 1, 2],
            &[22, 3, 1, 0, 0],
        ] {
            assert_eq!(greeting(other), Greeting::Other, "{other:?}");
        }
        let mut bytes = hello("web.example");
        bytes[5 + 4 + 34 + 1 + 32] = 0xff;
        assert_eq!(greeting(&bytes), Greeting::Other, "a length that leads outside");
        let mut other = hello("web.example");
        other[5] = 2;
        assert_eq!(greeting(&other), Greeting::Other, "a server's greeting, of the same form");
        let mut endless = vec![22, 3, 1, 0x40, 0, 1, 0, 0x40, 0];
        endless.resize(MOST_BYTES, 0);
        assert_eq!(greeting(&endless), Greeting::Other);
    }
}
