//! Between heads as HTTP/1.1 has them and the messages of the h2 crate.

use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};

use crate::{
    http::Intent,
    wire::{Answer, Fault, Fields, HeadLimits, Known, Method, Request as Head, Sink},
};

/// A head that was written for a server of HTTP/1.1, as a request of HTTP/2: what is said to all servers is said
/// in one place. `tunnel` is what the stream is to become (RFC 8441).
pub(super) fn request(text: &[u8], intent: &Intent<'_>, secure: bool, tunnel: bool) -> Option<Request<()>> {
    let mut head = Head::default();
    head.parse(text, &HeadLimits { bytes: usize::MAX, lines: usize::MAX, target: usize::MAX }).ok()?;
    let authority = head.fields.first(Known::Host)?;
    let uri = if intent.method == Method::Connect {
        Uri::try_from(head.target()).ok()?
    } else {
        let scheme = if secure { "https" } else { "http" };
        Uri::builder().scheme(scheme).authority(authority).path_and_query(head.target()).build().ok()?
    };
    let mut request = Request::new(());
    *request.method_mut() =
        if tunnel { http::Method::CONNECT } else { http::Method::from_bytes(head.method_name()).ok()? };
    *request.uri_mut() = uri;
    if tunnel {
        let protocol = std::str::from_utf8(intent.upgrade?).ok()?.to_ascii_lowercase();
        request.extensions_mut().insert(Protocol::from(protocol.as_str()));
    }
    for (known, name, value) in head.fields.iter() {
        // The key belongs to the handshake of HTTP/1.1 (RFC 8441 §5).
        let is_key = tunnel && name.eq_ignore_ascii_case(b"sec-websocket-key");
        if known == Known::Host || known.is_hop_by_hop() || is_key {
            continue;
        }
        let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        request.headers_mut().try_append(name, value).ok()?;
    }
    if intent.takes_trailers {
        request.headers_mut().insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    Some(request)
}

/// Takes the head of an answer over; gives how many bytes its lines have.
///
/// # Errors
/// Where it is larger than the head of an answer may be.
pub(super) fn answer(
    response: &Response<impl Sized>,
    answer: &mut Answer,
    limits: &HeadLimits,
) -> Result<usize, Fault> {
    let headers = response.headers();
    let bytes = check(headers, limits)?;
    answer.begin(response.status().as_u16());
    for (name, value) in headers {
        // Blanks around a value are not allowed (RFC 9113 §8.2.1); clients are not to suffer from them.
        answer.fields.line(name.as_str().as_bytes(), value.as_bytes().trim_ascii());
    }
    Ok(bytes)
}

/// Lines after a body, as the h2 crate takes them; none where none may be there.
pub(super) fn trailers(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (known, name, value) in fields.iter() {
        if crate::http::may_trail(known, name)
            && let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            let _ = map.try_append(name, value);
        }
    }
    map
}

/// Lines after a body, as clients are told of them.
///
/// # Errors
/// Where they are larger than a head may be.
pub(super) fn fields(map: &HeaderMap, limits: &HeadLimits) -> Result<Fields, Fault> {
    check(map, limits)?;
    let mut fields = Fields::default();
    for (name, value) in map {
        fields.line(name.as_str().as_bytes(), value.as_bytes().trim_ascii());
    }
    Ok(fields)
}

/// How many bytes some lines have.
fn check(headers: &HeaderMap, limits: &HeadLimits) -> Result<usize, Fault> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > limits.lines || bytes > limits.bytes { Err(Fault::HeadTooLarge) } else { Ok(bytes) }
}
