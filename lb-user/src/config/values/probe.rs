//! Values of health checks: what is said to a server, and what is expected of it.

use std::net::IpAddr;

use toml::de::DeValue;

use super::{Read, string};
use crate::config::words::quote;

/// No text of a conversation is longer, in bytes.
const LONGEST_TEXT: usize = 4_096;

/// No name, password or header is longer, in bytes.
const LONGEST_WORD: usize = 1_024;

/// Bytes to send or to wait for: text in which `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH` stand for bytes.
pub(in crate::config) fn bytes(value: &DeValue<'_>) -> Read<Vec<u8>> {
    let text = string(value, "text such as \"PING\\r\\n\"")?;
    let bytes = unescape(text)?;
    if bytes.len() > LONGEST_TEXT {
        return Err(format!("it is {} bytes long; at most {LONGEST_TEXT} are allowed", bytes.len()));
    }
    Ok(bytes)
}

/// [`bytes`], at least one: waiting for nothing is no test.
pub(in crate::config) fn expected_bytes(value: &DeValue<'_>) -> Read<Vec<u8>> {
    match bytes(value)? {
        nothing if nothing.is_empty() => {
            Err("an empty text is in every answer; write what must be there".into())
        }
        bytes => Ok(bytes),
    }
}

fn unescape(text: &str) -> Read<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let after = &rest[at + 1..];
        let hex = after.strip_prefix('x').and_then(|digits| digits.get(..2));
        let hex = hex.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (byte, length) = match (after.chars().next(), hex) {
            (Some('r'), _) => (b'\r', 1),
            (Some('n'), _) => (b'\n', 1),
            (Some('t'), _) => (b'\t', 1),
            (Some('0'), _) => (0, 1),
            (Some('\\'), _) => (b'\\', 1),
            (Some('x'), Some(byte)) => (byte, 3),
            _ => {
                let shown: String = rest[at..].chars().take(4).collect();
                return Err(format!(
                    "{} begins no escape; those are \\r, \\n, \\t, \\0, \\xHH with two hex digits, and \\\\ for a \
                     backslash (write them in single quotes: '\\x00')",
                    quote(&shown)
                ));
            }
        };
        bytes.push(byte);
        rest = &after[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Text that the body of an answer must contain.
pub(in crate::config) fn body_text(value: &DeValue<'_>) -> Read<String> {
    match string(value, "text of the answer, such as \"ok\"")? {
        "" => Err("an empty text is in every answer; write what must be there".into()),
        text if text.len() > LONGEST_TEXT => {
            Err(format!("it is {} bytes long; at most {LONGEST_TEXT} are allowed", text.len()))
        }
        text => Ok(text.to_owned()),
    }
}

/// A request method (RFC 9110 §9.1). Those that are no questions are refused.
pub(in crate::config) fn method(value: &DeValue<'_>) -> Read<String> {
    const KNOWN: [&str; 4] = ["GET", "HEAD", "OPTIONS", "POST"];
    let text = string(value, "a request method such as \"GET\"")?;
    match KNOWN.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a check cannot ask with {}; choose \"GET\", \"HEAD\", \"OPTIONS\" or \"POST\"",
            quote(text)
        )),
    }
}

/// A host name as clients ask for it, perhaps with a port.
pub(in crate::config) fn host(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "a host name such as \"www.example.com\"")?;
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if text.parse::<IpAddr>().is_err() => (name, Some(port)),
        _ => (text, None),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let fits = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '.' | '-' | '_');
    let is_name = !name.is_empty() && name.len() <= 253 && name.chars().all(fits);
    let has_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    if (is_name || bare.parse::<IpAddr>().is_ok()) && has_port {
        return Ok(text.to_owned());
    }
    Err(format!("{} is no host name; write one such as \"www.example.com\"", quote(text)))
}

/// Headers that the probe itself is responsible for.
const OWN_HEADERS: [(&str, &str); 5] = [
    ("host", "it has a key of its own, host"),
    ("connection", "the probe closes the connection"),
    ("content-length", "the probe has no body"),
    ("transfer-encoding", "the probe has no body"),
    ("upgrade", "the probe speaks HTTP/1.1 only"),
];

/// The name of a header (RFC 9110 §5.1).
pub(in crate::config) fn header_name(name: &str) -> Read<String> {
    let fits = |sign: char| sign.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(sign);
    if name.is_empty() || name.len() > LONGEST_WORD || !name.chars().all(fits) {
        return Err(format!("{} is no name of a header; write one such as \"X-Probe\"", quote(name)));
    }
    match OWN_HEADERS.iter().find(|(own, _)| name.eq_ignore_ascii_case(own)) {
        Some((_, why)) => Err(format!("this header cannot be set: {why}")),
        None => Ok(name.to_owned()),
    }
}

/// The value of a header (RFC 9110 §5.5), in ASCII.
pub(in crate::config) fn header_value(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "the value of a header, such as \"yes\"")?;
    match text.chars().find(|&sign| sign != ' ' && !sign.is_ascii_graphic()) {
        Some(sign) => Err(format!(
            "{} contains {}, which cannot stand in a header",
            quote(text),
            quote(&sign.to_string())
        )),
        None if text.len() > LONGEST_WORD => {
            Err(format!("it is {} bytes long; at most {LONGEST_WORD} are allowed", text.len()))
        }
        None => Ok(text.to_owned()),
    }
}

/// A password. It is never shown.
pub(in crate::config) fn password(value: &DeValue<'_>) -> Read<String> {
    let DeValue::String(text) = value else { return Err("expected a password in quotes".into()) };
    match text.len() {
        0 => Err("the password is empty; remove the key if there is none".into()),
        1..=LONGEST_WORD => Ok(text.to_string()),
        length => Err(format!("it is {length} bytes long; at most {LONGEST_WORD} are allowed")),
    }
}

/// The name of a database user.
pub(in crate::config) fn user(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "the name of a user, such as \"lb_check\"")?;
    if text.is_empty() || text.len() > 80 || text.contains('\0') {
        return Err(format!("{} is no name of a user: it has 1 to 80 bytes and no NUL", quote(text)));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::read, *};

    #[test]
    fn escapes_stand_for_bytes_whichever_quotes_are_used() {
        for (toml, expected) in [
            (r#""PING\r\n""#, b"PING\r\n".to_vec()),
            (r"'PING\r\n'", b"PING\r\n".to_vec()),
            (r"'\x00\xff\\\t\0'", vec![0, 255, b'\\', b'\t', 0]),
            (r#""grün""#, "grün".as_bytes().to_vec()),
            (r#""""#, vec![]),
        ] {
            assert_eq!(read(toml, bytes), Ok(expected), "{toml}");
        }
        for toml in [r"'\q'", r"'\x1'", r"'\xg0'", r"'end\'", r"'\xä'"] {
            let message = read(toml, bytes).unwrap_err();
            assert!(message.contains("begins no escape; those are"), "{toml}: {message}");
        }
        assert_eq!(
            read("''", expected_bytes).unwrap_err(),
            "an empty text is in every answer; write what must be there"
        );
        let long = format!("'{}'", "x".repeat(5_000));
        assert_eq!(read(&long, bytes).unwrap_err(), "it is 5000 bytes long; at most 4096 are allowed");
    }

    #[test]
    fn hosts_are_names_or_addresses_perhaps_with_a_port() {
        for good in [
            "a",
            "www.example.com",
            "www.example.com:8443",
            "10.0.0.1",
            "10.0.0.1:80",
            "fd00::1",
            "[fd00::1]:80",
        ] {
            assert_eq!(read(&format!("{good:?}"), host), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "http://a", "a:0", "a:b", "a:99999", "a\r\nb", ":80"] {
            let message = read(&format!("{bad:?}"), host).unwrap_err();
            assert!(
                message.ends_with("is no host name; write one such as \"www.example.com\""),
                "{bad:?}: {message}"
            );
        }
    }

    #[test]
    fn headers_are_tokens_and_visible_text() {
        assert_eq!(header_name("X-Probe"), Ok("X-Probe".into()));
        assert_eq!(
            header_name("Host").unwrap_err(),
            "this header cannot be set: it has a key of its own, host"
        );
        assert!(header_name("X Probe").unwrap_err().contains("is no name of a header"));
        assert_eq!(read("'a b'", header_value), Ok("a b".into()));
        assert!(read(r#""a\r\nb""#, header_value).unwrap_err().contains("contains \"\\r\""));
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(read("'geheim'", password), Ok("geheim".into()));
        let message = read("1234", password).unwrap_err();
        assert!(!message.contains("1234"), "{message}");
    }
}
