//! Durations: a whole number and a unit, `500ms`, `2s`, `1m`, `1h`.

use std::time::Duration;

use toml::de::DeValue;

use super::{Read, found};
use crate::config::words::quote;

/// Units with their milliseconds, longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A time of health checks: up to a day.
pub(in crate::config) fn health_time(value: &DeValue<'_>) -> Read<Duration> {
    duration(value, Duration::from_secs(24 * 3_600))
}

/// A time between two questions to the DNS: a second to a day.
pub(in crate::config) fn resolve_time(value: &DeValue<'_>) -> Read<Duration> {
    match health_time(value)? {
        short if short < Duration::from_secs(1) => {
            Err("names are looked up once a second at most; write \"1s\"".into())
        }
        time => Ok(time),
    }
}

/// A time a connection may idle: up to a year, which is as good as for ever.
pub(in crate::config) fn idle_time(value: &DeValue<'_>) -> Read<Duration> {
    duration(value, Duration::from_secs(365 * 24 * 3_600))
}

/// A duration as it would be written.
pub(in crate::config) fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (unit, length) = UNITS
        .into_iter()
        .find(|&(_, length)| millis >= length.into() && millis.is_multiple_of(length.into()))
        .unwrap_or(("ms", 1));
    format!("{}{unit}", millis / u128::from(length))
}

pub(super) fn duration(value: &DeValue<'_>, most: Duration) -> Read<Duration> {
    let text = match value {
        DeValue::String(text) => text,
        DeValue::Integer(number) => {
            return Err(format!(
                "{number} has no unit; write it with one and in quotes, such as \"{number}s\""
            ));
        }
        _ => return Err(format!("expected a duration such as \"2s\", found {}", found(value))),
    };
    let duration = parse(text)?;
    if duration.is_zero() {
        return Err(format!("{text:?} is no time at all; write a longer one"));
    }
    if duration > most {
        return Err(format!("{text:?} is too long; at most \"{}\" is allowed", show(most)));
    }
    Ok(duration)
}

fn parse(text: &str) -> Read<Duration> {
    let shown = quote(text);
    let digits = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!(
            "{shown} is not a duration; write a whole number and ms, s, m or h, such as \"2s\""
        ));
    }
    if unit.is_empty() {
        return Err(format!(
            "{shown} has no unit; write ms, s, m or h behind the number, such as \"{number}s\""
        ));
    }
    if unit.starts_with(['.', ',']) {
        return Err(format!("{shown} is not a whole number; use a smaller unit, such as \"1500ms\""));
    }
    let Some((_, length)) = UNITS.into_iter().find(|&(name, _)| name == unit) else {
        return Err(match UNITS.into_iter().find(|&(name, _)| name == unit.trim()) {
            Some((name, _)) => format!("{shown} has a space in it; write \"{number}{name}\""),
            None => format!("{shown} has an unknown unit; use one of ms, s, m and h"),
        });
    };
    // What does not fit into 64 bits is longer than any limit.
    let millis = number.parse().ok().and_then(|number: u64| number.checked_mul(length)).unwrap_or(u64::MAX);
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::{super::read, *};

    #[test]
    fn each_unit_is_read_and_shown_again() {
        for (text, millis) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("90s", 90_000),
            ("1m", 60_000),
            ("1h", 3_600_000),
            ("24h", 86_400_000),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(read(&format!("{text:?}"), health_time), Ok(duration), "{text}");
            assert_eq!(show(duration), text);
        }
        assert_eq!(show(Duration::from_secs(120)), "2m");
        assert_eq!(read("\"8760h\"", idle_time), Ok(Duration::from_secs(365 * 24 * 3_600)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_remedy() {
        for (toml, message) in [
            ("2", "2 has no unit; write it with one and in quotes, such as \"2s\""),
            ("true", "expected a duration such as \"2s\", found the boolean true"),
            ("\"\"", "\"\" is not a duration; write a whole number and ms, s, m or h, such as \"2s\""),
            ("\"-2s\"", "\"-2s\" is not a duration; write a whole number and ms, s, m or h, such as \"2s\""),
            ("\"2\"", "\"2\" has no unit; write ms, s, m or h behind the number, such as \"2s\""),
            ("\"1.5s\"", "\"1.5s\" is not a whole number; use a smaller unit, such as \"1500ms\""),
            ("\"2 s\"", "\"2 s\" has a space in it; write \"2s\""),
            ("\"2sec\"", "\"2sec\" has an unknown unit; use one of ms, s, m and h"),
            ("\"0ms\"", "\"0ms\" is no time at all; write a longer one"),
            ("\"25h\"", "\"25h\" is too long; at most \"24h\" is allowed"),
            (
                "\"99999999999999999999999h\"",
                "\"99999999999999999999999h\" is too long; at most \"24h\" is allowed",
            ),
        ] {
            assert_eq!(read(toml, health_time).unwrap_err(), message);
        }
    }
}
