//! The configuration: text → `raw` (what was written, typed, with places) → [`crate::model`] (what it
//! means). Pure: the text arrives as a string and no file is opened, so that the same check serves the daemon,
//! `--check` and the tests.
//!
//! All mistakes of a file are reported at once, each with line and column. That is why the tables are read by
//! hand (`reader`) and not by a derived `Deserialize`: serde stops at the first mistake, and knows no
//! place for what it has already converted.
//!
//! Inheritance, from the weakest to the strongest:
//!
//! * health: built-in values, `[health]`, `[pool.NAME.health]`, `[vip_defaults.health]`, `[vip.NAME.health]`,
//!   key by key. Keys of one kind of check, such as `path`, are inherited only where the check is of that kind.
//! * everything else of a VIP: built-in values, `[vip_defaults]`, `[vip.NAME]`, key by key; `timeouts` and
//!   `error_pages` entry by entry. A VIP that has its own `redirect` inherits no `pool` and the other way round.

mod diagnostic;
pub mod keys;
pub mod outside;
mod parse;
mod raw;
mod reader;
mod report;
pub mod secrets;
mod syntax;
mod values;
mod words;
mod written;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub(crate) use values::{network_of, unfit_for_server};
pub use written::Written;

use std::{panic::resume_unwind, thread};

use crate::model::Config;

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// What it means.
    pub config: Config,
    /// What is written in it.
    pub written: Written,
    /// What is odd about it, sorted by place.
    pub warnings: Vec<Diagnostic>,
    /// The files it names, which nobody has looked at yet.
    pub files: Vec<outside::Mention>,
    /// Where things stand in it.
    pub places: outside::Places,
}

/// Checks the text of a configuration file; `file` is only the name to put into messages.
///
/// # Errors
/// Everything that is wrong, and what is odd beside it, sorted by place.
pub fn check(file: &str, text: &str) -> Result<Checked, Diagnostics> {
    check_after(file, text, &Written::default())
}

/// The same of a file that mostly says what another said `before`.
///
/// # Errors
/// As [`check`].
pub fn check_after(file: &str, text: &str, before: &Written) -> Result<Checked, Diagnostics> {
    let report = report::Report::new(text);
    let mut room = String::new();
    let document = syntax::read(&report, &mut room);
    // What is written needs nobody to understand it: both take milliseconds for thousands of servers.
    thread::scope(|scope| {
        let written = thread::Builder::new().spawn_scoped(scope, || Written::of(&document, before));
        let raw = reader::Table::root(&report, &document, raw::RawConfig::read);
        let config = parse::build(&report, &raw);
        let (places, files) = (parse::places(&report, &raw, file), report.mentions());
        let findings = report.finish(file);
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(Diagnostics::new(findings));
        }
        // Where there is no thread to be had, one after the other.
        let written = written.map_or_else(
            |_| Written::of(&document, before),
            |written| written.join().unwrap_or_else(|bug| resume_unwind(bug)),
        );
        Ok(Checked { config, written, warnings: findings, files, places })
    })
}
