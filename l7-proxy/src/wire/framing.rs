//! How long a message's body is (RFC 9112 §6.3).

use super::{Answer, Fault, Fields, Known, Method, Request, Version};

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Until the connection ends; answers only.
    UntilClose,
}

/// How long the body of a request is.
///
/// # Errors
/// Where that is not said, or said twice.
pub fn request_framing(request: &Request) -> Result<Framing, Fault> {
    let length = content_length(&request.fields)?;
    if request.fields.first(Known::TransferEncoding).is_some() {
        if length.is_some() {
            return Err(Fault::LengthAndEncoding);
        }
        return chunked(request.version, &request.fields);
    }
    Ok(match length {
        None | Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
    })
}

/// How long the body of an answer to a request with `method` is.
///
/// # Errors
/// Where it is said in a way that nobody can rely on.
pub fn answer_framing(method: Method, answer: &Answer) -> Result<Framing, Fault> {
    let length = content_length(&answer.fields)?;
    let encoded = answer.fields.first(Known::TransferEncoding).is_some();
    let connected = method == Method::Connect && (200..300).contains(&answer.status);
    if method == Method::Head || connected || matches!(answer.status, 100..=199 | 204 | 304) {
        return Ok(Framing::None);
    }
    if encoded {
        // Both at once is how answers are split between two clients: nobody sends that without intent.
        if length.is_some() {
            return Err(Fault::LengthAndEncoding);
        }
        return chunked(answer.version, &answer.fields);
    }
    Ok(match length {
        None => Framing::UntilClose,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
    })
}

/// What all `Content-Length` lines say. Several that say the same, as lists or lines, are one (RFC 9112 §6.3)
/// for answers and requests alike only if they are one line: a second line is refused, for a server behind us
/// may take another than we do.
fn content_length(fields: &Fields) -> Result<Option<u64>, Fault> {
    let mut lines = fields.all(Known::ContentLength);
    let Some(value) = lines.next() else { return Ok(None) };
    if lines.next().is_some() || value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit)
    {
        return Err(Fault::Length);
    }
    Ok(Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))))
}

/// Whether `chunked` is the one and only transfer coding: we could pass on no other.
fn chunked(version: Version, fields: &Fields) -> Result<Framing, Fault> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let mut lines = fields.all(Known::TransferEncoding);
    let is_plain = lines.next().is_some_and(is_chunked) && lines.next().is_none();
    if version == Version::V1_0 {
        return Err(Fault::Encoding);
    }
    if is_plain {
        return Ok(Framing::Chunked);
    }
    let codings = || fields.elements(Known::TransferEncoding);
    let ends_once =
        codings().last().is_some_and(is_chunked) && codings().filter(|c| is_chunked(c)).count() == 1;
    // RFC 9112 §6.1: how long it is would be clear, only not what it means.
    Err(if ends_once && codings().count() > 1 { Fault::Coding } else { Fault::Encoding })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HeadLimits, Sink};

    fn of_request(version: Version, lines: &[(&str, &str)]) -> Result<Framing, Fault> {
        let mut request = Request::default();
        request.begin(b"POST", b"/", version);
        for (name, value) in lines {
            request.fields.line(name.as_bytes(), value.as_bytes());
        }
        request_framing(&request)
    }

    #[test]
    fn a_request_says_its_length_once() {
        let v11 = |lines: &[(&str, &str)]| of_request(Version::V1_1, lines);
        assert_eq!(v11(&[]), Ok(Framing::None));
        assert_eq!(v11(&[("Content-Length", "0")]), Ok(Framing::None));
        assert_eq!(v11(&[("content-length", "12")]), Ok(Framing::Length(12)));
        assert_eq!(v11(&[("Transfer-Encoding", "Chunked")]), Ok(Framing::Chunked));
        for odd in ["", "-1", "+1", "1 2", "1,1", "0x1", "99999999999999999999", "1a"] {
            assert_eq!(v11(&[("Content-Length", odd)]), Err(Fault::Length), "{odd}");
        }
        assert_eq!(v11(&[("Content-Length", "1"), ("Content-Length", "1")]), Err(Fault::Length));
        for odd in ["", "gzip", "chunked, gzip", "chunked,", "chunked, chunked", "xchunked", "identity"] {
            assert_eq!(v11(&[("Transfer-Encoding", odd)]), Err(Fault::Encoding), "{odd}");
        }
        assert_eq!(v11(&[("Transfer-Encoding", "gzip, chunked")]), Err(Fault::Coding));
        let twice = [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")];
        assert_eq!(v11(&twice), Err(Fault::Encoding));
        let both = [("Transfer-Encoding", "chunked"), ("Content-Length", "1")];
        assert_eq!(v11(&both), Err(Fault::LengthAndEncoding));
        assert_eq!(of_request(Version::V1_0, &both[..1]), Err(Fault::Encoding));
    }

    #[test]
    fn an_answer_without_length_goes_on_until_the_end() {
        let limits = HeadLimits { bytes: 1_024, lines: 9, target: 0 };
        let framing = |method, text: &str| {
            let mut answer = Answer::default();
            answer.parse(text.as_bytes(), &limits).unwrap();
            answer_framing(method, &answer)
        };
        assert_eq!(framing(Method::Get, "HTTP/1.1 200 OK\r\n\r\n"), Ok(Framing::UntilClose));
        assert_eq!(framing(Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Ok(Framing::None));
        assert_eq!(framing(Method::Get, "HTTP/1.1 204 No\r\n\r\n"), Ok(Framing::None));
        assert_eq!(framing(Method::Get, "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"), Ok(Framing::None));
        assert_eq!(framing(Method::Connect, "HTTP/1.1 200 OK\r\n\r\n"), Ok(Framing::None));
        assert_eq!(
            framing(Method::Get, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(Fault::Encoding)
        );
    }
}
