//! `lbctl reload`, `diff`, `commit`, `confirm`, `history` and `rollback`: what becomes of the configuration file.

use std::path::Path;

use super::{
    client::{self, Failure},
    table::{
        Align::{Left, Right},
        Cell, Table,
    },
    understood, units,
};
use crate::{admin::Reloaded, reload::history::Entry};

/// The shortest and the longest time that a confirmation may be waited for, in seconds.
const PATIENCE: std::ops::RangeInclusive<u64> = 1..=86_400;

/// Reads a span of time, such as `60s`, `5m` or `90`, in seconds.
///
/// # Errors
/// When it is none, or none that can be waited for.
pub fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        _ => None,
    };
    let seconds = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
    let fits = seconds.filter(|seconds| PATIENCE.contains(seconds));
    fits.ok_or_else(|| "write a time from 1s to 24h, e.g. 60s or 5m".into())
}

/// Has the file read again, and tells what changed.
///
/// # Errors
/// When it cannot be used, or lb-user cannot be reached.
pub fn reload(socket: &Path) -> Result<String, Failure> {
    done(socket, "/v1/reload")
}

/// Tells what a reload would change.
///
/// # Errors
/// As [`reload`].
pub fn diff(socket: &Path) -> Result<String, Failure> {
    let told = ask(socket, "/v1/reload?dry_run=true")?;
    if told.changes.is_empty() {
        return Ok(format!("{} is in use as it is\n", told.file));
    }
    Ok(changes(&told))
}

/// Has the file read again, to be taken back after so many seconds unless confirmed.
///
/// # Errors
/// As [`reload`].
pub fn commit(socket: &Path, confirm: Option<u64>) -> Result<String, Failure> {
    match confirm {
        Some(seconds) => done(socket, &format!("/v1/reload?confirm={seconds}")),
        None => reload(socket),
    }
}

/// Keeps what was to be confirmed.
///
/// # Errors
/// When nothing was.
pub fn confirm(socket: &Path) -> Result<String, Failure> {
    let told = ask(socket, "/v1/confirm")?;
    Ok(format!("{} is confirmed\n", told.file))
}

/// Puts an earlier configuration into the file, and to use.
///
/// # Errors
/// When there is none of this number, or as [`reload`].
pub fn rollback(socket: &Path, number: u32) -> Result<String, Failure> {
    done(socket, &format!("/v1/rollback?number={number}"))
}

/// Lists the configurations that were in use.
///
/// # Errors
/// When lb-user cannot be reached.
pub fn history(socket: &Path) -> Result<String, Failure> {
    let entries: Vec<Entry> = understood(&client::get(socket, "/v1/history")?)?;
    if entries.is_empty() {
        return Ok("no configurations are kept\n".into());
    }
    let mut table = Table::new(0, &[("NUMBER", Right), ("IN USE SINCE", Left), ("LINES", Right)]);
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let cells = [entry.number.to_string(), units::utc(entry.time), entry.lines.to_string()];
            table.push(cells.map(Cell::from).to_vec())
        })
        .collect();
    let lines = std::iter::once(0).chain(rows).map(|row| table.line(row, false));
    Ok(lines.collect())
}

fn ask(socket: &Path, path: &str) -> Result<Reloaded, Failure> {
    let told: Reloaded = understood(&client::post(socket, path, String::new())?)?;
    for warning in &told.warnings {
        eprintln!("{warning}");
    }
    Ok(told)
}

fn done(socket: &Path, path: &str) -> Result<String, Failure> {
    let told = ask(socket, path)?;
    let vips = if told.vips == 1 { "VIP" } else { "VIPs" };
    let mut text = changes(&told);
    let number = told.number.map(|number| format!(", number {number} of the history")).unwrap_or_default();
    text += &format!("{} is in use: {} {vips}{number}\n", told.file, told.vips);
    if let Some(seconds) = told.confirm_within {
        text += &format!("It is taken back in {}, unless you say: lbctl confirm\n", units::span(seconds));
    }
    Ok(text)
}

fn changes(told: &Reloaded) -> String {
    told.changes.iter().map(|change| format!("{change}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [("60s", 60), ("90", 90), ("5m", 300), ("24h", 86_400), ("1", 1)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "s", "0", "25h", "1d", "-1", "1.5m", "99999999999999999999s", "60 s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
