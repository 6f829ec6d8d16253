//! Finds the list or inline table that is not closed. The parser's recovery cannot be asked: it takes what
//! follows for more content, headers of tables included.

use crate::config::report::{Place, Report};

/// A bracket without its counterpart.
pub(super) struct Unclosed {
    pub(super) at: Place,
    pub(super) open: char,
    pub(super) close: char,
    /// What shows that it is not closed: the header of a table, or another closing bracket.
    pub(super) before: Option<Place>,
    /// The first quote behind the bracket that opens a string which does not end in its line.
    pub(super) odd_quote: Option<Place>,
}

/// The first bracket that something shows not to be closed, the end of the text if nothing else.
pub(super) fn first_unclosed(report: &Report<'_>) -> Option<Unclosed> {
    let text = report.text();
    let bytes = text.as_bytes();
    let mut open: Vec<usize> = Vec::new();
    let mut at = 0;
    let mut line_begins = true;
    let mut odd_quotes: Vec<usize> = Vec::new();
    let unclosed = |at: usize, before: Option<usize>, odd_quotes: &[usize]| {
        let odd_quote = odd_quotes.iter().find(|&&quote| quote > at).map(|&quote| Place(quote));
        let (open, close) = if bytes[at] == b'[' { ('[', ']') } else { ('{', '}') };
        Unclosed { at: Place(at), open, close, before: before.map(Place), odd_quote }
    };
    while let Some(&byte) = bytes.get(at) {
        if std::mem::replace(&mut line_begins, byte == b'\n') {
            let line = &text[report.line_range(Place(at))];
            match open.last() {
                Some(&last) if looks_like_header(line) => return Some(unclosed(last, Some(at), &odd_quotes)),
                // Outside of everything it is meant as a header, well formed or not.
                None if line.trim_start().starts_with('[') => {
                    at += line.len();
                    continue;
                }
                _ => {}
            }
        }
        match byte {
            b'#' => at += text[at..].find('\n').unwrap_or(text.len() - at),
            b'"' | b'\'' => match end_of_string(text, at) {
                Ok(behind) => at = behind,
                Err(end) => {
                    odd_quotes.push(at);
                    at = end;
                }
            },
            b'[' | b'{' => {
                open.push(at);
                at += 1;
            }
            b']' | b'}' => {
                // In ASCII, both closing brackets are two behind their opening ones.
                if let Some(last) = open.pop()
                    && bytes[last] + 2 != byte
                {
                    return Some(unclosed(last, Some(at), &odd_quotes));
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    open.last().map(|&last| unclosed(last, None, &odd_quotes))
}

/// Whether a line is the header of a table and cannot be an element of a list: those stand in quotes.
fn looks_like_header(line: &str) -> bool {
    let Some(inner) = line.trim_start().strip_prefix('[') else { return false };
    let inner = inner.strip_prefix('[').unwrap_or(inner);
    let Some((name, rest)) = inner.split_once(']') else { return false };
    let rest = rest.trim_start_matches(']').trim();
    name.trim_start().starts_with(|first: char| first.is_ascii_alphabetic())
        && !name.contains(['=', ',', '{'])
        && (rest.is_empty() || rest.starts_with('#'))
}

/// The first byte behind the string that starts at `at`; `Err` with the end of its line where it has no end
/// there.
fn end_of_string(text: &str, at: usize) -> Result<usize, usize> {
    let quote = &text[at..=at];
    let triple = quote.repeat(3);
    if text[at..].starts_with(&triple) {
        return Ok(text[at + 3..].find(&triple).map_or(text.len(), |length| at + 3 + length + 3));
    }
    let mut escaped = false;
    for (behind, byte) in (at + 1..).zip(text[at + 1..].bytes()) {
        match byte {
            b'\n' => return Err(behind),
            _ if escaped => escaped = false,
            b'\\' if quote == "\"" => escaped = true,
            _ if byte == quote.as_bytes()[0] => return Ok(behind + 1),
            _ => {}
        }
    }
    Err(text.len())
}
