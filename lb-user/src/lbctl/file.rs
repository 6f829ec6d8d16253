//! `lbctl reload`, `diff`, `commit`, `confirm`, `history` and `rollback`: what becomes of the configuration file.

use clap::Args;
use serde_json::{Map, Value};

use super::{
    client::{self, At, Failure},
    table::{
        Align::{Left, Right},
        Cell, Table,
    },
    terms::Terms,
    understood, units,
};
use crate::{
    admin::Reloaded,
    reload::{edit::Edit, history::Entry},
};

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
pub fn reload(at: &At, terms: &Terms) -> Result<String, Failure> {
    done(at, "/v1/reload", terms)
}

/// Tells what a reload would change.
///
/// # Errors
/// As [`reload`].
pub fn diff(at: &At) -> Result<String, Failure> {
    let told = ask(at, "/v1/reload", &Terms { dry_run: true, ..Terms::default() })?;
    if told.changes.is_empty() {
        return Ok(format!("{} is in use as it is\n", told.file));
    }
    Ok(changes(&told))
}

/// Has the file read again, to be taken back after so many seconds unless confirmed.
///
/// # Errors
/// As [`reload`].
pub fn commit(at: &At, confirm: Option<u64>, terms: &Terms) -> Result<String, Failure> {
    match confirm {
        // What is only tried needs no confirmation.
        Some(seconds) if !terms.dry_run => done(at, &format!("/v1/reload?confirm={seconds}"), terms),
        _ => reload(at, terms),
    }
}

/// What the command line says about a change to the file.
#[derive(Clone, Debug, Args)]
pub struct Change {
    #[command(flatten)]
    terms: Terms,

    /// Write it into the file, and leave it at that, until `lbctl commit`, `reload` or `discard`.
    #[arg(long, conflicts_with = "dry_run")]
    stage: bool,

    /// Go back to what was in use before, unless `lbctl confirm` comes in time, e.g. 60s or 5m.
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with_all = ["dry_run", "stage"])]
    confirm: Option<u64>,
}

/// Has the file changed and put into use, and tells what is different.
///
/// # Errors
/// When the file cannot be used then, or lb-user cannot be reached; nothing is changed then.
pub fn edit(at: &At, edit: &Edit, change: &Change) -> Result<String, Failure> {
    let body = serde_json::to_string(edit).map_err(|error| Failure::Answer(error.to_string()))?;
    let Change { terms, stage, confirm } = change;
    let path = match (stage, confirm) {
        (true, _) => "/v1/edit?stage=true".to_owned(),
        (_, Some(seconds)) => format!("/v1/edit?confirm={seconds}"),
        _ => "/v1/edit".to_owned(),
    };
    let told = answer(terms.post(at, &path, body)?)?;
    if *stage {
        let hint = "says so, and is not in use as it is (lbctl commit, lbctl discard)";
        return Ok(format!("{}{} {hint}\n", changes(&told), told.file));
    }
    Ok(report(&told, terms))
}

/// Reads KEY=VALUE; the value as in the file, where a text may go without quotes.
///
/// # Errors
/// When it is nothing of the kind.
pub fn pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, e.g. algorithm=least-conn")?;
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() {
        return Err("write KEY=VALUE, e.g. algorithm=least-conn".into());
    }
    let read = format!("value = {value}").parse::<toml::Table>().ok();
    let read = read.and_then(|mut table| serde_json::to_value(table.remove("value")?).ok());
    Ok((key.to_owned(), read.unwrap_or_else(|| value.into())))
}

/// Keys with their values, for an edit.
#[must_use]
pub fn keys(
    named: impl IntoIterator<Item = (&'static str, Option<Value>)>,
    more: &[(String, Value)],
) -> Map<String, Value> {
    let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    named.chain(more.iter().cloned()).collect()
}

/// Puts the file back as it is in use.
///
/// # Errors
/// When that cannot be done, or lb-user cannot be reached.
pub fn discard(at: &At, terms: &Terms) -> Result<String, Failure> {
    let told = ask(at, "/v1/discard", terms)?;
    if terms.dry_run {
        return Ok(report(&told, terms));
    }
    let again = if told.changes.is_empty() { "" } else { " again" };
    Ok(format!("{}{} is in use as it is{again}\n", changes(&told), told.file))
}

/// Keeps what was to be confirmed.
///
/// # Errors
/// When nothing was.
pub fn confirm(at: &At) -> Result<String, Failure> {
    let told = ask(at, "/v1/confirm", &Terms::default())?;
    Ok(format!("{} is confirmed\n", told.file))
}

/// Puts an earlier configuration into the file, and to use.
///
/// # Errors
/// When there is none of this number, or as [`reload`].
pub fn rollback(at: &At, number: u32, terms: &Terms) -> Result<String, Failure> {
    done(at, &format!("/v1/rollback?number={number}"), terms)
}

/// Lists the configurations that were in use.
///
/// # Errors
/// When lb-user cannot be reached.
pub fn history(at: &At) -> Result<String, Failure> {
    let entries: Vec<Entry> = understood(&client::get(at, "/v1/history")?)?;
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

fn ask(at: &At, path: &str, terms: &Terms) -> Result<Reloaded, Failure> {
    answer(terms.post(at, path, String::new())?)
}

fn answer(body: String) -> Result<Reloaded, Failure> {
    let told: Reloaded = understood(&body)?;
    for warning in &told.warnings {
        eprintln!("{warning}");
    }
    Ok(told)
}

fn done(at: &At, path: &str, terms: &Terms) -> Result<String, Failure> {
    Ok(report(&ask(at, path, terms)?, terms))
}

fn report(told: &Reloaded, terms: &Terms) -> String {
    if terms.dry_run {
        return format!("{}{} stays as it is (--dry-run)\n", changes(told), told.file);
    }
    let vips = if told.vips == 1 { "VIP" } else { "VIPs" };
    let mut text = changes(told);
    let number = told.number.map(|number| format!(", number {number} of the history")).unwrap_or_default();
    text += &format!("{} is in use: {} {vips}{number}\n", told.file, told.vips);
    if let Some(seconds) = told.confirm_within {
        text += &format!("It is taken back in {}, unless you say: lbctl confirm\n", units::span(seconds));
    }
    text
}

fn changes(told: &Reloaded) -> String {
    told.changes.iter().map(|change| format!("{change}\n")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_as_in_the_file() {
        for (text, key, value) in [
            ("algorithm=least-conn", "algorithm", json!("least-conn")),
            ("algorithm=\"first\"", "algorithm", json!("first")),
            ("mss=1400", "mss", json!(1400)),
            ("flow_state=false", "flow_state", json!(false)),
            ("port=80,443", "port", json!("80,443")),
            (
                "persistence={ type = \"source-ip\", timeout = \"30m\" }",
                "persistence",
                json!({ "type": "source-ip", "timeout": "30m" }),
            ),
            ("trusted_proxies=[\"10.0.0.0/8\"]", "trusted_proxies", json!(["10.0.0.0/8"])),
            ("pool = web", "pool", json!("web")),
        ] {
            assert_eq!(pair(text), Ok((key.to_owned(), value)), "{text}");
        }
        assert!(pair("port").is_err() && pair("=7").is_err());
        let all = keys([("port", Some(json!(1))), ("mode", None)], &[("port".into(), json!(2))]);
        assert_eq!(Value::from(all), json!({ "port": 2 }), "what is said last holds");
    }

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
