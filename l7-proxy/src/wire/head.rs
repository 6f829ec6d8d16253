//! Heads of requests and answers.

use super::{Fault, Fields, bytes, fields::Blanks, is_token, is_token_byte};

/// Versions of HTTP that matter to framing. A later 1.x counts as 1.1 (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    V1_0,
    /// HTTP/1.1.
    #[default]
    V1_1,
    /// HTTP/2.
    V2,
}

/// Methods that mean something to a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named as the method it stands for")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Connect,
    Other,
}

impl Method {
    /// The method of this name; methods are told apart by case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// Whether to do it twice is the same as once (RFC 9110 §9.2.2).
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Connect | Self::Other)
    }
}

/// How much of a head is taken.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes altogether.
    pub bytes: usize,
    /// Lines, without the first.
    pub lines: usize,
    /// Bytes of a request's target.
    pub target: usize,
}

/// Looks for the end of a head in a buffer that fills, each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Where the line begins that is not complete yet.
    line: usize,
    /// How far was looked.
    seen: usize,
    /// Whether a line came that is not empty.
    begun: bool,
}

/// Empty lines before a head that are not minded (RFC 9112 §2.2).
const MOST_EMPTY: usize = 8;

impl Scan {
    /// The length of the head at the beginning of `buffer` with its empty line, if it is complete. Empty lines
    /// before it (RFC 9112 §2.2) are part of it.
    ///
    /// # Errors
    /// Where it cannot become a head any more: a line without CR, a first byte that begins no message, or too
    /// much of it.
    pub fn end(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Fault> {
        while let Some(found) = memchr::memchr(b'\n', &buffer[self.seen..]) {
            let newline = self.seen + found;
            if newline == 0 || buffer[newline - 1] != b'\r' {
                return Err(Fault::LineEnd);
            }
            let empty = newline == self.line + 1;
            if !self.begun && !empty && !is_token_byte(buffer[self.line]) {
                return Err(Fault::StartLine);
            }
            self.line = newline + 1;
            self.seen = newline + 1;
            if empty && self.begun {
                return if newline < limits.bytes {
                    Ok(Some(newline + 1))
                } else {
                    Err(too_large(buffer, limits))
                };
            }
            self.begun |= !empty;
            if !self.begun && self.line > 2 * MOST_EMPTY {
                return Err(Fault::StartLine);
            }
        }
        // A line that ends with CR alone would be waited for in vain.
        let from = self.seen.saturating_sub(1);
        let mut ends = memchr::memchr_iter(b'\r', &buffer[from..]);
        if ends.any(|at| buffer.get(from + at + 1).is_some_and(|&next| next != b'\n')) {
            return Err(Fault::LineEnd);
        }
        self.seen = buffer.len();
        match buffer[self.line..] {
            [] | [b'\r'] => {}
            [first, ..] if self.begun || is_token_byte(first) => {}
            _ => return Err(Fault::StartLine),
        }
        if buffer.len() > limits.bytes {
            return Err(too_large(buffer, limits));
        }
        Ok(None)
    }
}

/// What of a head is too large: the first line by itself, or all of it.
fn too_large(buffer: &[u8], limits: &HeadLimits) -> Fault {
    let begin = buffer.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or_default();
    let rest = &buffer[begin..];
    let first = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
    match memchr::memchr(b' ', first) {
        _ if begin + first.len() <= limits.bytes => Fault::HeadTooLarge,
        Some(at) if at < limits.bytes => Fault::TargetTooLong,
        // No method is that long.
        _ => Fault::StartLine,
    }
}

/// The head of a request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Version of HTTP.
    pub version: Version,
    /// Header lines.
    pub fields: Fields,
    method_end: usize,
    target: (usize, usize),
}

impl Request {
    /// Reads a complete head, as [`Scan`] found it, in place of what was there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(&mut self, head: &[u8], limits: &HeadLimits) -> Result<(), Fault> {
        let first_end = read_lines(&mut self.fields, head, limits, Blanks::Refused)?;
        let line = &self.fields.text[..first_end];
        let method_end = memchr::memchr(b' ', line).ok_or(Fault::StartLine)?;
        let version_start = memchr::memrchr(b' ', line).ok_or(Fault::StartLine)? + 1;
        if version_start <= method_end + 1 || !is_token(&line[..method_end]) {
            return Err(Fault::StartLine);
        }
        self.target = (method_end + 1, version_start - 1);
        let target = &line[self.target.0..self.target.1];
        self.version = match version(&line[version_start..]) {
            Err(Fault::StartLine) if is_word(&line[version_start..]) => Err(Fault::Protocol),
            version => version,
        }?;
        self.method = Method::of(&line[..method_end]);
        self.method_end = method_end;
        if target.len() > limits.target {
            return Err(Fault::TargetTooLong);
        }
        if target.is_empty() || target.contains(&b' ') {
            return Err(Fault::StartLine);
        }
        Ok(())
    }

    /// Begins a head that did not come as text (HTTP/2); its lines are then put one by one.
    pub fn begin(&mut self, method: &[u8], target: &[u8], version: Version) {
        self.fields.clear();
        self.fields.text.extend_from_slice(method);
        self.fields.text.extend_from_slice(target);
        self.method = Method::of(method);
        self.method_end = method.len();
        self.target = (method.len(), method.len() + target.len());
        self.version = version;
    }

    /// The method as it was written.
    #[must_use]
    pub fn method_name(&self) -> &[u8] {
        &self.fields.text[..self.method_end]
    }

    /// The target as it was written.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        &self.fields.text[self.target.0..self.target.1]
    }
}

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Status code, 100 to 599.
    pub status: u16,
    /// Version of HTTP.
    pub version: Version,
    /// Header lines.
    pub fields: Fields,
    reason: (usize, usize),
}

impl Answer {
    /// Reads a complete head, as [`Scan`] found it, in place of what was there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(&mut self, head: &[u8], limits: &HeadLimits) -> Result<(), Fault> {
        let first_end = read_lines(&mut self.fields, head, limits, Blanks::Removed)?;
        let line = &self.fields.text[..first_end];
        let (version_text, rest) = line.split_at_checked(8).ok_or(Fault::StartLine)?;
        self.version = version(version_text)?;
        // The space after the code may be missing where there is no reason: many servers leave it out.
        let (code, reason) = match rest {
            [b' ', code @ ..] if code.len() == 3 => (code, &[][..]),
            [b' ', a, b, c, b' ', reason @ ..] => (&[*a, *b, *c][..], reason),
            _ => return Err(Fault::StartLine),
        };
        if !code.iter().all(u8::is_ascii_digit) || !bytes::is_value(reason) {
            return Err(Fault::StartLine);
        }
        self.status = code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        self.reason = (first_end - reason.len(), first_end);
        if (100..600).contains(&self.status) { Ok(()) } else { Err(Fault::StartLine) }
    }

    /// Begins a head that did not come as text (HTTP/2); its lines are then put one by one.
    pub fn begin(&mut self, status: u16) {
        self.fields.clear();
        self.status = status;
        self.version = Version::V1_1;
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        self.fields.text.extend_from_slice(reason.unwrap_or_default().as_bytes());
        self.reason = (0, self.fields.text.len());
    }

    /// The words after the code; empty where there are none.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        &self.fields.text[self.reason.0..self.reason.1]
    }
}

/// Takes the text of a head over into `fields`, without empty lines before it, and reads all lines but the
/// first; the length of the first.
fn read_lines(
    fields: &mut Fields,
    mut head: &[u8],
    limits: &HeadLimits,
    blanks: Blanks,
) -> Result<usize, Fault> {
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    fields.clear();
    fields.text.extend_from_slice(head);
    let mut first_end = None;
    let mut start = 0;
    while let Some(newline) = memchr::memchr(b'\n', &fields.text[start..]) {
        let end = start + newline;
        if newline == 0 || fields.text[end - 1] != b'\r' {
            return Err(Fault::LineEnd);
        }
        let line = start..end - 1;
        start = end + 1;
        if first_end.is_none() {
            first_end = Some(line.end);
        } else if line.is_empty() {
            break;
        } else if fields.len() == limits.lines {
            return Err(Fault::HeadTooLarge);
        } else {
            fields.parse_line(line.start, line.end, blanks)?;
        }
    }
    first_end.ok_or(Fault::StartLine)
}

/// What is no version of anything, nor meant to be one.
fn is_word(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_alphanumeric)
}

fn version(text: &[u8]) -> Result<Version, Fault> {
    match text {
        b"HTTP/1.1" => Ok(Version::V1_1),
        b"HTTP/1.0" => Ok(Version::V1_0),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => Ok(Version::V1_1),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Fault::Version)
        }
        _ => Err(Fault::StartLine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Known;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1_024, lines: 8, target: 64 };

    fn request(text: &[u8]) -> Result<Request, Fault> {
        let end = Scan::default().end(text, &LIMITS)?.ok_or(Fault::Truncated)?;
        let mut request = Request::default();
        request.parse(&text[..end], &LIMITS).map(|()| request)
    }

    fn answer(text: &[u8]) -> Result<Answer, Fault> {
        let end = Scan::default().end(text, &LIMITS)?.ok_or(Fault::Truncated)?;
        let mut answer = Answer::default();
        answer.parse(&text[..end], &LIMITS).map(|()| answer)
    }

    #[test]
    fn a_request_is_read() {
        let request =
            request(b"\r\nPATCH /a?b HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nX-B:\t v w \r\n\r\nrest").unwrap();
        assert_eq!((request.method, request.method_name()), (Method::Other, &b"PATCH"[..]));
        assert_eq!(request.target(), b"/a?b");
        assert_eq!(request.fields.first(Known::Host), Some(&b"x"[..]));
        assert_eq!(request.fields.named(b"x-empty").next(), Some(&b""[..]));
        assert_eq!(request.fields.named(b"x-b").next(), Some(&b"v w"[..]));
    }

    #[test]
    fn what_is_no_request_is_named() {
        let cases: [(&[u8], Fault); 20] = [
            (b"GET / HTTP/1.1\nHost: x\n\n", Fault::LineEnd),
            (b"GET / HTTP/1.1\r\nHost: x\n\r\n", Fault::LineEnd),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Fault::Field),
            (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", Fault::Field),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", Fault::Field),
            (b"GET / HTTP/1.1\r\nA\r\n\r\n", Fault::Field),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", Fault::Field),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Fault::Folded),
            (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", Fault::Folded),
            (b"GET  / HTTP/1.1\r\n\r\n", Fault::StartLine),
            (b"GET / x HTTP/1.1\r\n\r\n", Fault::StartLine),
            (b"GET /\r\n\r\n", Fault::StartLine),
            (b"GET / http/1.1\r\n\r\n", Fault::StartLine),
            (b"GET / FTP/1.1\r\n\r\n", Fault::StartLine),
            (b"INVALID CONNECTION PREFACE\r\n\r\n", Fault::Protocol),
            (b"GET / HTTP/1.1 \r\n\r\n", Fault::StartLine),
            (b"GET / HTTP/2.0\r\n\r\n", Fault::Version),
            (b"\x16\x03\x01\x02", Fault::StartLine),
            (b"GE(T / HTTP/1.1\r\n\r\n", Fault::StartLine),
            (
                b"GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\nd:\r\ne:\r\nf:\r\ng:\r\nh:\r\ni:\r\n\r\n",
                Fault::HeadTooLarge,
            ),
        ];
        for (text, fault) in cases {
            assert_eq!(request(text).unwrap_err(), fault, "{}", String::from_utf8_lossy(text));
        }
        let long = [b"GET /".as_slice(), &[b'a'; 64], b" HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(request(&long).unwrap_err(), Fault::TargetTooLong);
        let endless = [b"GET /".as_slice(), &[b'a'; 2_000]].concat();
        assert_eq!(request(&endless).unwrap_err(), Fault::TargetTooLong);
        let endless = [b"\r\n".as_slice(), &[b'A'; 2_000]].concat();
        assert_eq!(request(&endless).unwrap_err(), Fault::StartLine, "a method");
        let whole = [&[b'A'; 2_000][..], b" / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(request(&whole).unwrap_err(), Fault::StartLine, "a method");
        let heavy = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 2_000], b"\r\n\r\n"].concat();
        assert_eq!(request(&heavy).unwrap_err(), Fault::HeadTooLarge);
    }

    #[test]
    fn the_end_is_found_however_the_head_is_cut() {
        let text = b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nGET";
        let mut scan = Scan::default();
        for length in 0..text.len() - 3 {
            assert_eq!(scan.end(&text[..length], &LIMITS), Ok(None), "{length}");
        }
        assert_eq!(scan.end(text, &LIMITS), Ok(Some(text.len() - 3)));
    }

    #[test]
    fn an_answer_is_read() {
        let read = answer(b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n").unwrap();
        assert_eq!((read.status, read.reason()), (404, &b"Not Found"[..]));
        assert_eq!(answer(b"HTTP/1.0 200\r\n\r\n").unwrap().version, Version::V1_0);
        assert_eq!(answer(b"HTTP/1.1 200 \r\n\r\n").unwrap().reason(), b"");
        for odd in [
            &b"HTTP/1.1 20 OK\r\n\r\n"[..],
            b"HTTP/1.1 2000\r\n\r\n",
            b"HTTP/1.1 099 x\r\n\r\n",
            b"HTTP/1.1  200\r\n\r\n",
            b"HTTP/1.1 600 x\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
        ] {
            assert_eq!(answer(odd).unwrap_err(), Fault::StartLine, "{}", String::from_utf8_lossy(odd));
        }
    }
}
