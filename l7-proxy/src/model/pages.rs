//! Answers of our own.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;

use crate::wire::{Answer, HeadLimits, Known, Version};
use crate::{files, spec::Problem};

/// Largest file with an answer that is taken.
const MOST_BYTES: usize = 1 << 20;

/// An answer of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Status code.
    pub status: u16,
    /// The words behind it.
    pub reason: Vec<u8>,
    /// Header lines, without framing.
    pub lines: Vec<(Vec<u8>, Vec<u8>)>,
    /// Body.
    pub body: Bytes,
}

/// Answers of our own, by the status that causes them.
#[derive(Clone, Debug, Default)]
pub struct Pages(BTreeMap<u16, Page>);

impl Pages {
    /// Reads the files of a service.
    pub(super) fn read(files: &BTreeMap<u16, std::path::PathBuf>, problems: &mut Vec<Problem>) -> Self {
        let mut pages = BTreeMap::new();
        for (&status, path) in files {
            let page = match status {
                400..600 => read_file(path),
                _ => Err("only answers with status 400 to 599 can have a page".to_owned()),
            };
            match page {
                Ok(page) => drop(pages.insert(status, page)),
                Err(message) => problems.push(Problem::new(format!("error_pages.{status}"), message)),
            }
        }
        Self(pages)
    }

    /// The answer for a status: the operator's, or a line of text.
    #[must_use]
    pub fn get(&self, status: u16) -> Page {
        self.0.get(&status).cloned().unwrap_or_else(|| Page::plain(status))
    }

    /// Whether the operator has worded the answer.
    #[must_use]
    pub fn has(&self, status: u16) -> bool {
        self.0.contains_key(&status)
    }
}

impl Page {
    /// A line of text.
    #[must_use]
    pub fn plain(status: u16) -> Self {
        let text = format!("{status} {}\n", reason(status));
        Self::with_body(status, "text/plain; charset=utf-8", text)
    }

    /// An answer with a body that nobody stores.
    #[must_use]
    pub fn with_body(status: u16, content_type: &str, body: String) -> Self {
        let line = |name: &str, value: &str| (name.into(), value.into());
        let lines = vec![line("content-type", content_type), line("cache-control", "no-store")];
        Self { status, reason: reason(status).into(), lines, body: body.into() }
    }

    /// An answer that sends the client elsewhere.
    #[must_use]
    pub fn redirect(status: u16, location: Vec<u8>) -> Self {
        let lines = vec![(b"location".to_vec(), location)];
        Self { status, reason: reason(status).into(), lines, body: Bytes::new() }
    }
}

/// Reads a whole HTTP answer, as HAProxy's `errorfile` has it. Lines of its head may end with LF alone, since
/// such files are written with editors.
fn read_file(path: &Path) -> Result<Page, String> {
    let shown = path.display();
    let text = files::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    if text.len() > MOST_BYTES {
        return Err(format!("{shown} is larger than 1 MiB"));
    }
    parse(&text).map_err(|what| format!("{shown} is no HTTP answer: {what}"))
}

fn parse(text: &[u8]) -> Result<Page, String> {
    let mut head = Vec::new();
    let mut rest = text;
    loop {
        let newline = memchr::memchr(b'\n', rest).ok_or("its head does not end with an empty line")?;
        let line = rest[..newline].strip_suffix(b"\r").unwrap_or(&rest[..newline]);
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
        rest = &rest[newline + 1..];
        if line.is_empty() {
            break;
        }
    }
    let limits = HeadLimits { bytes: MOST_BYTES, lines: 100, target: 0 };
    let mut answer = Answer::default();
    answer.parse(&head, &limits).map_err(|fault| format!("its head has a wrong {fault}"))?;
    if answer.status < 200 || answer.version == Version::V2 {
        return Err("its status is not 200 to 599".to_owned());
    }
    let framing = |known: Known| known.is_hop_by_hop() || matches!(known, Known::ContentLength | Known::Date);
    let lines = answer.fields.iter().filter(|(known, ..)| !framing(*known));
    Ok(Page {
        status: answer.status,
        reason: answer.reason().to_vec(),
        lines: lines.map(|(_, name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect(),
        body: Bytes::copy_from_slice(rest),
    })
}

/// The usual words behind a status code.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errorfile_is_a_whole_answer() {
        let page = parse(
            b"HTTP/1.0 200 Fine\nCache-Control: no-cache\nConnection: close\nContent-Length: 9\n\n<b>x</b>\n",
        )
        .unwrap();
        assert_eq!((page.status, page.reason.as_slice()), (200, &b"Fine"[..]));
        assert_eq!(page.lines, [(b"cache-control".to_vec(), b"no-cache".to_vec())]);
        assert_eq!(page.body, "<b>x</b>\n");
        assert!(parse(b"<html>").unwrap_err().contains("empty line"));
        assert!(parse(b"<html>\n\n").unwrap_err().contains("start-line"));
    }
}
