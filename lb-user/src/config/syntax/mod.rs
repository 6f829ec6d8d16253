//! Text → TOML document, with every syntax error in words an operator can act on.
//!
//! The parser recovers after an error and goes on. Most mistakes spoil only their own line. Those that leave
//! open what stands inside what (a list without its end) make everything behind them meaningless, so nothing
//! is said about that.

mod duplicate;
mod explain;
mod outline;

use toml::de::{DeTable, Error};

use super::report::{Place, Report};
use outline::Outline;

/// Reads the document as far as it can be read.
pub(super) fn read<'t>(report: &Report<'t>) -> DeTable<'t> {
    let (document, mut errors) = DeTable::parse_recoverable(report.text());
    let document = document.into_inner();
    if errors.is_empty() {
        return document;
    }
    errors.sort_by_key(start);
    let outline = Outline::new(report, &document);
    if let Some(first) = errors.iter().find(|error| loses_structure(error.message())) {
        let open_end = errors.iter().any(|error| is_open_end(error.message()));
        report_lost_structure(report, &outline, first, open_end);
    }
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

fn start(error: &Error) -> Place {
    Place(error.span().map_or(0, |span| span.start))
}

/// Whether something is still open at the end of the text.
fn is_open_end(message: &str) -> bool {
    ["unclosed array, ", "unclosed inline table"].iter().any(|known| message.starts_with(known))
}

/// Whether what follows the error may be read as something it is not.
fn loses_structure(message: &str) -> bool {
    const LOSING: [&str; 9] = [
        "invalid multi-line",
        "unexpected `=` in array",
        "missing inline table opening",
        "missing array opening",
        "missing key for inline table element",
        "missing assignment between key-value pairs",
        "extra assignment between key-value pairs",
        "invalid inline table element",
        "cannot recurse further",
    ];
    is_open_end(message) || LOSING.iter().any(|known| message.starts_with(known))
}

/// The first error that loses the structure: reported where the thing opens that is not closed, if there is
/// one, and nothing behind it.
fn report_lost_structure(report: &Report<'_>, outline: &Outline<'_>, error: &Error, open_end: bool) {
    let at = start(error);
    let starts = |known: &str| error.message().starts_with(known);
    let unclosed = if open_end { outline.innermost(report.text().len()) } else { None };
    let around = unclosed.or_else(|| outline.innermost(at.0)).filter(|&(opening, _)| opening <= at);
    let (place, message) = match around {
        _ if starts("cannot recurse") => (at, "lists or tables stand too deep inside each other".into()),
        _ if starts("invalid multi-line") => {
            let opening = outline.value_at(at.0).map_or(at, |value| Place(value.start));
            (opening, "this text has no end or contains a sign it cannot; it ends with three quotes".into())
        }
        Some((opening, close)) if unclosed.is_some() => {
            let before = if report.text()[at.0..].trim().is_empty() || report.line(at) == report.line(opening)
            {
                String::new()
            } else {
                format!("; it is missing before line {}", report.line(at))
            };
            let open = if close == ']' { '[' } else { '{' };
            (opening, format!("this \"{open}\" has no closing \"{close}\"{before}"))
        }
        Some((opening, '}')) => {
            let line = report.line(opening);
            (at, format!("expected KEY = VALUE or \"}}\" here, in the table that opens in line {line}"))
        }
        Some((opening, _)) => {
            let line = report.line(opening);
            (at, format!("expected a value or \"]\" here, in the list that opens in line {line}"))
        }
        None => (at, explain::explain(report.text(), outline, error)),
    };
    report.error(place, message);
    report.set_incomplete();
    report.cut_off(place);
}

/// An error that concerns its own line only, or its own section where the header of a table is wrong.
fn report_local(report: &Report<'_>, outline: &Outline<'_>, error: &Error) {
    let at = start(error);
    report.error(at, explain::explain(report.text(), outline, error));
    report.set_incomplete();
    let line = report.line_range(at);
    if outline.section(at).is_some_and(|section| section.start.0 == line.start) {
        report.spoil(line.start..outline.end_of_section(at).unwrap_or(report.text().len()));
    } else {
        report.spoil(line);
    }
}
