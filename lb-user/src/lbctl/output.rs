//! How answers are shown: as tables for people, as JSON or YAML for programs, once or again and again.

use std::{
    env,
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    thread,
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{client::Failure, yaml};

/// In what form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: rounded numbers.
    Table,
    /// The same with more columns.
    Wide,
    /// For programs: exact numbers.
    Json,
    /// The same as JSON, in YAML.
    Yaml,
}

/// What the command line says about it.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// In what form.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,

    /// Show it again every so many seconds, until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub watch: Option<u64>,
}

impl Output {
    /// Shows what `view` gives, as often as is wanted.
    ///
    /// # Errors
    /// When `view` fails, or the answer cannot be written.
    pub fn show(&self, mut view: impl FnMut(Format) -> Result<String, Failure>) -> Result<(), Failure> {
        let clear = self.watch.is_some() && io::stdout().is_terminal();
        loop {
            let text = view(self.output)?;
            // To the upper left corner, and nothing below.
            let text = if clear { format!("\x1b[H\x1b[2J{text}") } else { text };
            let read = write(&text)?;
            match self.watch {
                Some(seconds) if read => thread::sleep(Duration::from_secs(seconds)),
                _ => return Ok(()),
            }
        }
    }
}

/// A value in the form that is wanted; `table` makes the one for people, and is told whether it may be wide.
///
/// # Errors
/// When it cannot be written so.
pub fn render<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(bool) -> String,
) -> Result<String, Failure> {
    let wrong = |error: serde_json::Error| Failure::Answer(format!("the answer cannot be written: {error}"));
    match format {
        Format::Table | Format::Wide => Ok(table(format == Format::Wide)),
        Format::Json => serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(wrong),
        Format::Yaml => serde_json::to_value(value).map(|value| yaml::render(&value)).map_err(wrong),
    }
}

/// Colours are for terminals, unless the user said no (<https://no-color.org>).
#[must_use]
pub fn wants_colour() -> bool {
    io::stdout().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes a text to standard output.
///
/// # Errors
/// When that fails.
pub fn print(text: &str) -> Result<(), Failure> {
    write(text).map(drop)
}

/// The same; gives whether somebody still reads. Whoever did, e.g. `head`, may have seen enough.
fn write(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Answer(format!("cannot write the answer: {error}"))),
    }
}
