//! The header lines of a message.

use super::{Fault, Known, bytes, is_token};

/// Header lines in the order they came: one text, and where in it each name and value lies. It is kept for a
/// connection's next message, so that no message costs an allocation.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    pub(super) text: Vec<u8>,
    lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
    known: Known,
}

/// What becomes of blanks between a name and its colon (RFC 9112 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blanks {
    /// The message is refused: requests, trailers.
    Refused,
    /// They go: answers.
    Removed,
}

/// Takes header lines one by one: an HTTP/1.1 head under construction, or a map for HTTP/2.
pub trait Sink {
    /// Takes a line. `name` is a token and `value` has no control characters.
    fn line(&mut self, name: &[u8], value: &[u8]);
}

impl Sink for Vec<u8> {
    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.reserve(name.len() + value.len() + 4);
        self.extend_from_slice(name);
        self.extend_from_slice(b": ");
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }
}

impl Sink for Fields {
    fn line(&mut self, name: &[u8], value: &[u8]) {
        let at = self.text.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.lines.push(Line {
            name: at as u32,
            name_end: (at + name.len()) as u32,
            value: (at + name.len()) as u32,
            value_end: self.text.len() as u32,
            known: Known::of(name),
        });
    }
}

/// Writes a number in decimal digits.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

impl Fields {
    /// Forgets all lines and keeps the memory, unless it is more than a usual message needs.
    pub fn clear(&mut self) {
        const USUAL: usize = 8 * 1024;
        self.text.clear();
        self.text.shrink_to(USUAL);
        self.lines.clear();
        self.lines.shrink_to(USUAL / size_of::<Line>());
    }

    /// Makes room for so many lines, and bytes of them, so that it need not be found piece by piece.
    pub fn reserve(&mut self, lines: usize, bytes: usize) {
        self.lines.reserve(lines);
        self.text.reserve(bytes);
    }

    /// Reads the header line that lies at `start..end` of the text, without its line end.
    pub(super) fn parse_line(&mut self, start: usize, end: usize, blanks: Blanks) -> Result<(), Fault> {
        let line = &self.text[start..end];
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Fault::Folded);
        }
        let colon = memchr::memchr(b':', line).ok_or(Fault::Field)?;
        let value = bytes::trim(&line[colon + 1..]);
        let name = match blanks {
            Blanks::Refused => &line[..colon],
            Blanks::Removed => bytes::trim(&line[..colon]),
        };
        if !is_token(name) || !bytes::is_value(value) {
            return Err(Fault::Field);
        }
        // An empty value has no place of its own.
        let offset = if value.is_empty() { colon + 1 } else { value.as_ptr().addr() - line.as_ptr().addr() };
        self.lines.push(Line {
            name: start as u32,
            name_end: (start + name.len()) as u32,
            value: (start + offset) as u32,
            value_end: (start + offset + value.len()) as u32,
            known: Known::of(name),
        });
        Ok(())
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// All lines: what the name means, the name as it was written, the value.
    pub fn iter(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.lines.iter().map(|line| {
            let name = &self.text[line.name as usize..line.name_end as usize];
            (line.known, name, &self.text[line.value as usize..line.value_end as usize])
        })
    }

    /// The values of all lines of a known name.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let lines = self.lines.iter().filter(move |line| line.known == known);
        lines.map(|line| &self.text[line.value as usize..line.value_end as usize])
    }

    /// The value of the first line of a known name.
    #[must_use]
    pub fn first(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// The values of all lines of any name, in whatever case it is written.
    pub fn named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(_, other, _)| other.eq_ignore_ascii_case(name)).map(|(_, _, value)| value)
    }

    /// The elements of all lines of a known name whose value is a comma-separated list.
    pub fn elements(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.all(known).flat_map(bytes::list)
    }

    /// Whether `Connection` names other lines, which are then of this connection only (RFC 9110 §7.6.1), and
    /// not just what every client says.
    #[must_use]
    pub fn names_lines(&self) -> bool {
        let is_option = |element: &[u8]| {
            [&b"keep-alive"[..], b"close", b"upgrade", b"te"]
                .iter()
                .any(|name| element.eq_ignore_ascii_case(name))
        };
        self.elements(Known::Connection).any(|element| !is_option(element))
    }

    /// Whether a list has an element, in whatever case.
    #[must_use]
    pub fn has_element(&self, known: Known, element: &[u8]) -> bool {
        self.elements(known).any(|other| other.eq_ignore_ascii_case(element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    #[test]
    fn lines_that_were_put_are_found() {
        let mut fields = Fields::default();
        fields.line(b"Connection", b"close, X-A");
        fields.line(b"x-a", b"1");
        fields.line(b"X-A", b"");
        assert!(fields.has_element(Known::Connection, b"x-a"));
        assert_eq!(fields.named(b"X-a").collect::<Vec<_>>(), [&b"1"[..], b""]);
        assert_eq!(fields.len(), 3);
    }
}
