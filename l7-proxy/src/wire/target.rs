//! What a request is for (RFC 9112 §3.2).

use super::{Fault, Method};

/// The target of a request, in one of its four forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// `/path?query`
    Origin(&'a [u8]),
    /// `http://authority/path?query`; path and query may be missing.
    Absolute {
        /// Host and port.
        authority: &'a [u8],
        /// From the slash on, or from the question mark where there is no path.
        path: &'a [u8],
    },
    /// `host:port`, for `CONNECT` only.
    Authority(&'a [u8]),
    /// `*`, for `OPTIONS` only.
    Asterisk,
}

impl<'a> Target<'a> {
    /// Reads a target.
    ///
    /// # Errors
    /// [`Fault::Target`] where it is of no form that `method` may have.
    pub fn parse(method: Method, text: &'a [u8]) -> Result<Self, Fault> {
        // What may stand in a URI, generously: visible ASCII, but no fragment. Nothing else reaches servers.
        if !text.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Fault::Target);
        }
        if method == Method::Connect {
            let (_, port) = split_authority(text);
            return (authority_is_valid(text) && port.is_some())
                .then_some(Self::Authority(text))
                .ok_or(Fault::Target);
        }
        match text {
            [b'/', ..] => Ok(Self::Origin(text)),
            b"*" if method == Method::Options => Ok(Self::Asterisk),
            _ => Self::absolute(text).ok_or(Fault::Target),
        }
    }

    fn absolute(text: &'a [u8]) -> Option<Self> {
        let scheme = memchr::memchr(b':', text)?;
        if !text[..scheme].eq_ignore_ascii_case(b"http") && !text[..scheme].eq_ignore_ascii_case(b"https") {
            return None;
        }
        let rest = text[scheme + 1..].strip_prefix(b"//")?;
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        authority_is_valid(authority).then_some(Self::Absolute { authority, path })
    }
}

/// Whether `text` is a host with or without a port, as `Host` may have it: a name, an IPv4 address, or an IPv6
/// address in brackets. User names are not taken.
#[must_use]
pub fn authority_is_valid(text: &[u8]) -> bool {
    let (host, port) = split_authority(text);
    let port_is_valid = port.is_none_or(|port| {
        // An empty port is allowed by RFC 3986 §3.2.3.
        port.iter().all(u8::is_ascii_digit)
            && port.len() <= 5
            && port.iter().fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0')) <= 65_535
    });
    let host_is_valid = match host {
        [] => false,
        [b'[', inner @ .., b']'] => {
            std::str::from_utf8(inner).is_ok_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
        }
        _ => host.iter().all(|&byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'-' | b'.'
                        | b'_'
                        | b'~'
                        | b'!'
                        | b'$'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'*'
                        | b'+'
                        | b';'
                        | b'='
                        | b'%'
                )
        }),
    };
    port_is_valid && host_is_valid
}

/// Host and port of `Host` or of an absolute target. The host keeps its brackets.
#[must_use]
pub fn split_authority(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let behind_brackets = memchr::memrchr(b']', text).map_or(0, |bracket| bracket + 1);
    match memchr::memrchr(b':', &text[behind_brackets..]) {
        Some(colon) => (&text[..behind_brackets + colon], Some(&text[behind_brackets + colon + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_told_from_the_others() {
        let get = |text| Target::parse(Method::Get, text);
        assert_eq!(get(b"/a?b"), Ok(Target::Origin(b"/a?b")));
        assert_eq!(get(b"http://h:1/a"), Ok(Target::Absolute { authority: b"h:1", path: b"/a" }));
        assert_eq!(get(b"HTTPS://[::1]?q"), Ok(Target::Absolute { authority: b"[::1]", path: b"?q" }));
        assert_eq!(Target::parse(Method::Options, b"*"), Ok(Target::Asterisk));
        assert_eq!(Target::parse(Method::Connect, b"h:443"), Ok(Target::Authority(b"h:443")));
        for odd in [
            &b"*"[..],
            b"h:443",
            b"a",
            b"http:/a",
            b"ftp://h/",
            b"http:///a",
            b"/a#b",
            b"/\x80",
            b"",
            b"http://u@h/",
            b"http://h:99999/",
        ] {
            assert_eq!(get(odd), Err(Fault::Target), "{}", String::from_utf8_lossy(odd));
        }
        assert_eq!(Target::parse(Method::Connect, b"/a"), Err(Fault::Target));
        assert_eq!(Target::parse(Method::Connect, b"h"), Err(Fault::Target));
    }

    #[test]
    fn hosts_are_names_or_addresses_with_or_without_a_port() {
        for good in [&b"a.example"[..], b"a:80", b"a:", b"[::1]:80", b"127.0.0.1", b"a_b"] {
            assert!(authority_is_valid(good), "{}", String::from_utf8_lossy(good));
        }
        for odd in [
            &b""[..],
            b":80",
            b"a b",
            b"a/b",
            b"a:b",
            b"a:80:80",
            b"[::1",
            b"[x]",
            b"a,b",
            b"a@b",
            b"a:65536",
        ] {
            assert!(!authority_is_valid(odd), "{}", String::from_utf8_lossy(odd));
        }
    }
}
