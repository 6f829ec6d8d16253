//! One value of the file: text or number → typed value, or one sentence about what is wrong with it and
//! what would be right. No places here: the reader knows which key of which table it asked for.

mod flows;
mod http;
mod net;
mod plain;
mod ports;
mod probe;
mod quic;
mod time;

use std::{ops::RangeInclusive, path::PathBuf};

use toml::de::DeValue;

use super::words::{choices, quote};

pub(super) use flows::{learn_time, max_new_flows, mss, persistence_time, syn_limit, tags, translated};
pub(super) use http::{
    REDIRECTS, cookie_attribute, cookie_key, cookie_name, error_status, http_path, no_redirect,
    redirect_host, redirect_status, statuses, unfit_host,
};
pub(crate) use net::network_of;
pub(crate) use net::unfit_for_server;
pub(super) use net::{Whereabouts, network, probe_address, server_address, socket_address, vip_address};
pub(super) use plain::{access_log, plain};
pub(super) use ports::{port, ports, snat_ports};
pub(super) use probe::{
    body_text, bytes, expected_bytes, header_name, header_value, host, method, password, user,
};
pub(super) use quic::{config_id, nonce_length, quic_id, quic_key, server_id_length};
pub(super) use time::{health_time, idle_time, resolve_time, show};

/// A value, or what is wrong with it.
pub(super) type Read<T> = Result<T, String>;

/// What was written, for "expected …, found …".
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {}", quote(text)),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(yes) => format!("the boolean {yes}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// A string; `wanted` says what is expected, e.g. `a string such as "web"`.
fn string<'v>(value: &'v DeValue<'_>, wanted: &str) -> Read<&'v str> {
    match value {
        DeValue::String(text) => Ok(text),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
            Err(format!("expected {wanted}, found {}; put it in quotes", found(value)))
        }
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(format!("expected {wanted}, found {}", found(value)))
        }
    }
}

/// A whole number within a range; `wanted` says what it is, e.g. `a weight`.
fn integer(value: &DeValue<'_>, range: RangeInclusive<i64>, wanted: &str) -> Read<i64> {
    let expected = format!("expected {wanted} ({} to {})", range.start(), range.end());
    match value {
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("{expected}, found {number}")),
        },
        DeValue::String(text) if text.parse().is_ok_and(|number: i64| range.contains(&number)) => {
            Err(format!("{expected}, found {}; write {text} without quotes", found(value)))
        }
        _ => Err(format!("{expected}, found {}", found(value))),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Read<bool> {
    match value {
        DeValue::Boolean(yes) => Ok(*yes),
        DeValue::String(text) if matches!(&**text, "true" | "false") => {
            Err(format!("expected true or false, found the string {text:?}; write {text} without quotes"))
        }
        _ => Err(format!("expected true or false, found {}", found(value))),
    }
}

/// A server's weight.
pub(super) fn weight(value: &DeValue<'_>) -> Read<u16> {
    let weight = integer(value, 0..=i64::from(u16::MAX), "a weight")?;
    Ok(u16::try_from(weight).unwrap_or(u16::MAX))
}

/// A count of consecutive probes.
pub(super) fn count(value: &DeValue<'_>) -> Read<u32> {
    let count = integer(value, 1..=1_000, "a number of probes")?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A number of servers.
pub(super) fn server_count(value: &DeValue<'_>) -> Read<usize> {
    let count = integer(value, 1..=i64::from(u16::MAX), "a number of servers")?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// A number of threads.
pub(super) fn worker_count(value: &DeValue<'_>) -> Read<usize> {
    let count = integer(value, 1..=1_024, "a number of threads")?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// A number of clients that are remembered.
pub(super) fn entry_count(value: &DeValue<'_>) -> Read<u32> {
    let count = integer(value, 1..=i64::from(u32::MAX), "a number of clients")?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// One of a few words; `kind` says what they are, e.g. `mode`.
pub(super) fn one_of<T: Copy>(value: &DeValue<'_>, kind: &str, known: &[(&str, T)]) -> Read<T> {
    let all = || choices(known.iter().map(|(word, _)| *word));
    let DeValue::String(text) = value else {
        return Err(format!("expected {}, found {}", all(), found(value)));
    };
    match known.iter().find(|(word, _)| word == text) {
        Some((_, meaning)) => Ok(*meaning),
        None => Err(format!("there is no {kind} {}; choose {}", quote(text), all())),
    }
}

/// Why a text cannot be the name of a VIP, pool or server.
pub(super) fn name_problem(name: &str) -> Option<String> {
    const LONGEST: usize = 64;
    let fits = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | '-' | '.');
    if name.is_empty() {
        Some("a name must not be empty".into())
    } else if let Some(sign) = name.chars().find(|&sign| !fits(sign)) {
        let sign = quote(&sign.to_string());
        Some(format!(
            "the name {} contains {sign}; use letters a-z and A-Z, digits, \"_\", \"-\" and \".\"",
            quote(name)
        ))
    } else if name.len() > LONGEST {
        Some(format!("the name {} has {} characters; at most {LONGEST} are allowed", quote(name), name.len()))
    } else {
        None
    }
}

/// A server's name.
pub(super) fn name(value: &DeValue<'_>) -> Read<String> {
    let name = string(value, "a name such as \"web1\"")?;
    name_problem(name).map_or_else(|| Ok(name.to_owned()), Err)
}

/// Name of a pool that is defined elsewhere; whether it exists is seen later.
pub(super) fn pool_name(value: &DeValue<'_>) -> Read<String> {
    Ok(string(value, "the name of a pool, such as \"web\"")?.to_owned())
}

/// A path of a file. Whether the file exists is seen by those who open it.
pub(super) fn file(value: &DeValue<'_>) -> Read<PathBuf> {
    match string(value, "the path of a file, such as \"certs/server.pem\"")? {
        "" => Err("the path of a file must not be empty".into()),
        path if path.contains('\0') => Err(format!("{} is no path: it contains a NUL", quote(path))),
        path => Ok(path.into()),
    }
}

/// For tests: reads a value as TOML writes it.
#[cfg(test)]
fn read<T>(toml: &str, read: impl Fn(&DeValue<'_>) -> Read<T>) -> Read<T> {
    read(DeValue::parse(toml).expect("a TOML value").get_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_bounds_and_no_quotes() {
        assert_eq!(read("0", weight), Ok(0));
        assert_eq!(read("65_535", weight), Ok(65_535));
        assert_eq!(read("0xff", weight), Ok(255));
        assert_eq!(read("65536", weight).unwrap_err(), "expected a weight (0 to 65535), found 65536");
        assert_eq!(read("-1", weight).unwrap_err(), "expected a weight (0 to 65535), found -1");
        assert_eq!(
            read("99999999999999999999999", weight).unwrap_err(),
            "expected a weight (0 to 65535), found 99999999999999999999999"
        );
        assert_eq!(
            read("\"100\"", weight).unwrap_err(),
            "expected a weight (0 to 65535), found the string \"100\"; write 100 without quotes"
        );
        assert_eq!(read("1.5", weight).unwrap_err(), "expected a weight (0 to 65535), found the number 1.5");
        assert_eq!(read("0", count).unwrap_err(), "expected a number of probes (1 to 1000), found 0");
    }

    #[test]
    fn names_are_plain() {
        for good in ["a", "overcloud-controller-1", "a.b_c", &"x".repeat(64)] {
            assert_eq!(name_problem(good), None, "{good}");
        }
        assert_eq!(name_problem("").unwrap(), "a name must not be empty");
        assert_eq!(
            name_problem("my vip").unwrap(),
            "the name \"my vip\" contains \" \"; use letters a-z and A-Z, digits, \"_\", \"-\" and \".\""
        );
        assert!(name_problem("zürich").unwrap().contains("contains \"ü\""));
        assert!(
            name_problem(&"x".repeat(65)).unwrap().ends_with("has 65 characters; at most 64 are allowed")
        );
    }

    #[test]
    fn booleans_are_not_words() {
        assert_eq!(read("true", boolean), Ok(true));
        assert_eq!(
            read("\"false\"", boolean).unwrap_err(),
            "expected true or false, found the string \"false\"; write false without quotes"
        );
        assert_eq!(read("1", boolean).unwrap_err(), "expected true or false, found the integer 1");
    }
}
