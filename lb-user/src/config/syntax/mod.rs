//! Text → TOML document, with every syntax error in words an operator can act on.
//!
//! The parser recovers after an error and goes on. Most mistakes spoil only their own line. Those that leave
//! open what stands inside what (a list without its end) make everything behind them meaningless, so nothing
//! is said about that.

mod brackets;
mod duplicate;
mod explain;
mod outline;

use toml::de::{DeTable, Error};

use super::report::{Place, Report};
use outline::Outline;

/// Reads the document as far as it can be read. `room` must outlive it: the text goes there if it has to be
/// read without some of its lines.
pub(super) fn read<'t>(report: &Report<'t>, room: &'t mut String) -> DeTable<'t> {
    let (document, errors) = parse(report.text());
    if errors.is_empty() {
        return document;
    }
    report_lost_structure(report, &Outline::new(report, &document), &errors);
    *room = without_lines_that_end_reading(report, &document, &errors);
    let (document, errors) = parse(room);
    let outline = Outline::new(report, &document);
    for error in &errors {
        if report.is_spoiled(start(error)) {
            // An earlier error of this line, or a lost structure, is the cause of this one.
        } else if error.message() == "duplicate key" {
            duplicate::report(report, &outline, error);
        } else {
            report_local(report, &outline, error);
        }
    }
    document
}

fn parse(text: &str) -> (DeTable<'_>, Vec<Error>) {
    let (document, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(start);
    (document.into_inner(), errors)
}

fn start(error: &Error) -> Place {
    Place(error.span().map_or(0, |span| span.start))
}

/// After a line that is no KEY = VALUE the parser builds no more document. So such lines are reported, and
/// become blanks of the same length.
fn without_lines_that_end_reading(report: &Report<'_>, document: &DeTable<'_>, errors: &[Error]) -> String {
    let mut text = report.text().to_owned();
    let mut outline = None;
    for error in errors.iter().filter(|error| ends_reading(error.message())) {
        let at = start(error);
        if !report.is_spoiled(at) {
            report_local(report, outline.get_or_insert_with(|| Outline::new(report, document)), error);
            let line = report.line_range(at);
            text.replace_range(line.clone(), &" ".repeat(line.len()));
        }
    }
    text
}

fn ends_reading(message: &str) -> bool {
    ["key with no value", "recursion limit"].iter().any(|known| message.starts_with(known))
}

/// A bracket or a string of several lines that is not closed, or nesting that is too deep: reported where it
/// begins, and nothing behind it.
fn report_lost_structure(report: &Report<'_>, outline: &Outline<'_>, errors: &[Error]) {
    let first = |known: &str| errors.iter().find(|error| error.message().starts_with(known)).map(start);
    let (place, message) = if let Some(at) = first("cannot recurse further") {
        (at, "lists or tables stand too deep inside each other".into())
    } else if let Some(at) = first("invalid multi-line") {
        let opening = outline.value_at(at.0).map_or(at, |value| Place(value.start));
        (opening, "this string of several lines has no closing quotes, or contains a sign it cannot".into())
    } else if let Some(unclosed) = brackets::first_unclosed(report) {
        let hint = match unclosed.before.map(|before| report.line(before)) {
            Some(line) if line == report.line(unclosed.at) => String::new(),
            Some(line) => format!("; it is missing before line {line}"),
            None => "; the file ends without it".into(),
        };
        match unclosed.odd_quote {
            // It swallowed the brackets behind it, so it is the mistake.
            Some(quote) => (quote, "the quotes in this line do not pair up: one is missing".into()),
            None => (
                unclosed.at,
                format!("this \"{}\" has no closing \"{}\"{hint}", unclosed.open, unclosed.close),
            ),
        }
    } else {
        return;
    };
    report.error(place, message);
    report.set_incomplete();
    report.spoil(report.line_range(place));
    report.cut_off(place);
}

/// An error that concerns its own line only, or its own section where the header of a table is wrong.
fn report_local(report: &Report<'_>, outline: &Outline<'_>, error: &Error) {
    let at = start(error);
    let value = outline.value_at(at.0).map(|value| Place(value.start));
    // Of a number with letters in it the parser tells the first letter.
    let place = value.filter(|value| report.line(*value) == report.line(at)).unwrap_or(at);
    let place = if error.message().starts_with("invalid ") { place } else { at };
    report.error(place, explain::explain(report.text(), outline, error));
    report.set_incomplete();
    let line = report.line_range(at);
    if outline.section(at).is_some_and(|section| section.start.0 == line.start) {
        report.spoil(line.start..outline.end_of_section(at).unwrap_or(report.text().len()));
    } else {
        report.spoil(line);
    }
}
