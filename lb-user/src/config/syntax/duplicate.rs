//! Keys and tables that are written twice. Both are readable, so the rest of the file keeps its meaning.

use toml::de::Error;

use super::{outline::Outline, start};
use crate::config::report::{Place, Report};

/// Says what is there twice, and where it was first: the parser only tells the second place.
pub(super) fn report(report: &Report<'_>, outline: &Outline<'_>, error: &Error) {
    let at = start(error);
    let section = outline.section(at);
    if let Some(section) = section.filter(|section| section.start.0 == report.line_range(at).start) {
        let name = &section.name;
        let first = outline.earlier(section);
        let first =
            first.map_or(String::new(), |first| format!(", first in line {}", report.line(first.start)));
        report.error(at, format!("[{name}] is defined twice{first}; give one of them another name"));
        return;
    }
    let key = &report.text()[error.span().unwrap_or_default()];
    let from = section.map_or(0, |section| section.start.0);
    if let Some(first) = first_place(report.text(), outline, key, from, at.0) {
        let line = report.line(first);
        report.error(at, format!("{key} is set twice, first in line {line}; keep one of them"));
    } else if section.is_some_and(|section| outline.earlier(section).is_some()) {
        // The first one stands in an earlier section of the same name. That the section is there twice was
        // reported and is the mistake.
    } else {
        report.error(at, format!("{key} is set twice; keep one of them"));
        report.set_incomplete();
    }
}

/// Where `key` was written last before its repetition, in the same section and the same inline table.
fn first_place(text: &str, outline: &Outline<'_>, key: &str, from: usize, repeated: usize) -> Option<Place> {
    let name = key.trim_matches(['"', '\'']);
    let after_dot = |at: usize| text[..at].trim_end().ends_with('.');
    let inline = outline.inline_table(repeated);
    outline
        .keys_within(from..repeated)
        .iter()
        .filter(|known| {
            known.name == name && known.inline == inline && after_dot(known.at) == after_dot(repeated)
        })
        .map(|known| Place(known.at))
        .next_back()
}
