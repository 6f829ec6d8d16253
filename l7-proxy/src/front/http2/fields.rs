//! Between the header maps of the h2 crate and heads as the rest of the proxy has them.

use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};

use crate::{
    http::{Intent, expectation},
    log,
    model::Asked,
    wire::{
        Fault, Fields, Framing, HeadLimits, Known, Method, Request, Sink, Target, Version,
        authority_is_valid, base64, request_framing,
    },
};

/// A map that lines are put into.
pub(super) struct Map(pub(super) HeaderMap);

impl Sink for Map {
    fn line(&mut self, name: &[u8], value: &[u8]) {
        // Both were read as what they are, and what was not is none. There are fewer than a map takes.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            let _ = self.0.try_append(name, value);
        }
    }
}

/// Takes a head over into `request`, as if it had come with HTTP/1.1: crumbs of cookies become one line
/// (RFC 9113 §8.2.3).
///
/// # Errors
/// Where it has more lines, or a longer target, than it may, or blanks around a value (RFC 9113 §8.2.1).
pub(super) fn read(parts: &Parts, request: &mut Request, limits: &HeadLimits) -> Result<(), Fault> {
    if parts.headers.len() > limits.lines {
        return Err(Fault::HeadTooLarge);
    }
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    if path.len() > limits.target {
        return Err(Fault::TargetTooLong);
    }
    let websocket = parts.extensions.get::<Protocol>().is_some();
    let method = if websocket { "GET" } else { parts.method.as_str() };
    let bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    request.fields.reserve(parts.headers.len() + 1, method.len() + path.len() + bytes);
    request.begin(method.as_bytes(), path.as_bytes(), Version::V2);
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        if is_padded(value) {
            return Err(Fault::Field);
        }
        // The handshake with a server of HTTP/1.1 has a key; that of RFC 8441 has none, whatever a client says.
        if websocket && name == http::header::SEC_WEBSOCKET_KEY {
            continue;
        }
        if name == http::header::COOKIE {
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value.as_bytes());
        } else {
            request.fields.line(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if !cookies.is_empty() {
        request.fields.line(b"cookie", &cookies);
    }
    if websocket {
        request.fields.line(b"sec-websocket-key", websocket_key().as_bytes());
    }
    Ok(())
}

/// The name of the field of a head for which [`read`] refuses it.
pub(super) fn malformed(parts: &Parts) -> Option<&str> {
    parts.headers.iter().find(|(_, value)| is_padded(value)).map(|(name, _)| name.as_str())
}

/// What a head that is no request asks for, as the log has it.
pub(super) fn asked(parts: &Parts) -> log::Asked<'_> {
    log::Asked {
        method: parts.method.as_str().as_bytes(),
        authority: parts.uri.authority().map_or(b"", |authority| authority.as_str().as_bytes()),
        path: parts.uri.path_and_query().map_or(b"", |path| path.as_str().as_bytes()),
        version: Version::V2,
    }
}

fn is_padded(value: &HeaderValue) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
}

/// Sixteen bytes that nobody knows beforehand, in base64 (RFC 6455 §4.1).
fn websocket_key() -> String {
    let mut bytes = [0_u8; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes.copy_from_slice(&crate::http::request_id()[16..]);
    }
    base64(&bytes)
}

/// Understands a request that was read from `parts`; `ended` where it has no body.
///
/// # Errors
/// Why it is refused; [`Fault::Field`] where it is no request at all.
pub(super) fn understand<'a>(
    parts: &'a Parts,
    request: &'a Request,
    secure: bool,
    ended: bool,
) -> Result<Intent<'a>, Fault> {
    let fields = &request.fields;
    if parts.uri.scheme_str() == Some("") {
        return Err(Fault::Field);
    }
    let mut hosts = fields.all(Known::Host);
    let (host, more) = (hosts.next(), hosts.next().is_some());
    let authority = match (parts.uri.authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            return Err(Fault::Host);
        }
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) if request.method != Method::Connect => host,
        // RFC 9113 §8.5.
        (None, _) if request.method == Method::Connect => return Err(Fault::Field),
        (None, _) => return Err(Fault::Host),
    };
    if more || !authority_is_valid(authority) {
        return Err(Fault::Host);
    }
    let upgrade = parts.extensions.get::<Protocol>().map(|protocol| protocol.as_str().as_bytes());
    let path = if request.method == Method::Connect {
        &b""[..]
    } else {
        match Target::parse(request.method, request.target())? {
            Target::Origin(path) => path,
            Target::Asterisk => b"*",
            Target::Absolute { .. } | Target::Authority(_) => return Err(Fault::Target),
        }
    };
    expectation(fields)?;
    let framing = match request_framing(request)? {
        _ if upgrade.is_some() || request.method == Method::Connect => Framing::None,
        // What was said to be empty is, whatever frames it comes in.
        Framing::None if !ended && fields.first(Known::ContentLength).is_none() => Framing::Chunked,
        framing => framing,
    };
    Ok(Intent {
        asked: Asked { authority, path, method: request.method_name(), fields, secure },
        method: request.method,
        version: Version::V2,
        framing,
        upgrade,
        waits: framing != Framing::None
            && fields.first(Known::Expect).is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")),
        keeps: true,
        takes_trailers: fields.has_element(Known::Te, b"trailers"),
    })
}

/// Trailers as fields.
///
/// # Errors
/// [`Fault::Trailers`] where there are blanks around a value.
pub(super) fn trailers(map: &HeaderMap) -> Result<Fields, Fault> {
    let mut fields = Fields::default();
    for (name, value) in map {
        if is_padded(value) {
            return Err(Fault::Trailers);
        }
        fields.line(name.as_str().as_bytes(), value.as_bytes());
    }
    Ok(fields)
}
