//! What lines of the log look like. Whatever came from a client is escaped: a line is a line.

use std::{
    io::Write,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Asked, Record};
use crate::{
    spec::Mode,
    wire::{Version, put_number},
};

/// A JSON object with its line end.
pub(super) fn json(out: &mut Vec<u8>, record: &Record<'_>) {
    let (reached, answered, whole) = record.milliseconds();
    out.extend_from_slice(b"{\"time\":\"");
    let since = record.began().duration_since(UNIX_EPOCH).unwrap_or_default();
    timestamp(out, u64::try_from(since.as_millis()).unwrap_or_default());
    out.extend_from_slice(b"\",\"service\":");
    text(out, record.service.name.as_bytes());
    out.extend_from_slice(b",\"client\":\"");
    socket(out, record.client.ends.client);
    out.extend_from_slice(b"\",\"local\":\"");
    socket(out, record.client.ends.local);
    out.extend_from_slice(b"\",\"tls\":");
    out.extend_from_slice(if record.client.secure { b"true" } else { b"false" });
    if let Some(name) = &record.client.server_name {
        out.extend_from_slice(b",\"server_name\":");
        text(out, name.as_bytes());
    }
    if let Some(Asked { method, authority, path, version }) = record.request {
        for (key, value) in [("method", method), ("host", authority), ("path", path)] {
            json_key(out, key);
            text(out, value);
        }
        out.extend_from_slice(b",\"version\":\"");
        out.extend_from_slice(version_name(version).as_bytes());
        out.push(b'"');
    }
    if let Some(name) = record.malformed {
        out.extend_from_slice(b",\"malformed_field\":");
        text(out, name.as_bytes());
    }
    if let Some(served) = &record.served {
        out.extend_from_slice(b",\"pool\":");
        text(out, served.pool.as_bytes());
        if let Some(server) = served.server {
            out.extend_from_slice(b",\"server\":");
            text(out, server.as_bytes());
        }
    }
    for (key, value) in [
        ("status", Some(u128::from(record.status)).filter(|&status| status > 0)),
        ("received", Some(u128::from(record.received))),
        ("sent", Some(u128::from(record.sent))),
        ("retries", Some(u128::from(record.retries)).filter(|&retries| retries > 0)),
        ("connect_ms", reached),
        ("answer_ms", answered),
        ("total_ms", Some(whole)),
    ] {
        if let Some(value) = value {
            json_key(out, key);
            put_number(out, u64::try_from(value).unwrap_or(u64::MAX));
        }
    }
    out.extend_from_slice(b",\"ended\":\"");
    out.extend_from_slice(&record.ended);
    out.extend_from_slice(b"\"}\n");
}

/// HAProxy's `httplog`, or `tcplog` where the service is of mode `tcp`, without what syslog puts before it. Counts of
/// connections that HAProxy has and we do not are 0.
pub(super) fn haproxy(out: &mut Vec<u8>, record: &Record<'_>) {
    let is_http = record.service.mode == Mode::Http;
    let (reached, answered, whole) = record.milliseconds();
    let or_minus = |out: &mut Vec<u8>, value: Option<u128>| match value {
        Some(value) => put_number(out, u64::try_from(value).unwrap_or(u64::MAX)),
        None => out.extend_from_slice(b"-1"),
    };
    socket(out, record.client.ends.client);
    out.extend_from_slice(b" [");
    clf_date(out, record.began());
    out.extend_from_slice(b"] ");
    word(out, record.service.name.as_bytes());
    if record.client.secure {
        out.push(b'~');
    }
    out.push(b' ');
    match &record.served {
        Some(served) => {
            word(out, served.pool.as_bytes());
            out.push(b'/');
            word(out, served.server.unwrap_or("<NOSRV>").as_bytes());
        }
        None => {
            word(out, record.service.name.as_bytes());
            out.extend_from_slice(b"/<NOSRV>");
        }
    }
    out.push(b' ');
    match record.request {
        // Tq, Tw: the head is complete when the clock starts, and waiting is part of connecting.
        Some(_) => {
            out.extend_from_slice(b"0/0/");
            or_minus(out, reached);
            out.push(b'/');
            or_minus(out, answered);
            out.push(b'/');
        }
        None if is_http => out.extend_from_slice(b"-1/-1/-1/-1/"),
        None => {
            out.extend_from_slice(b"0/");
            or_minus(out, reached);
            out.push(b'/');
        }
    }
    or_minus(out, Some(whole));
    out.push(b' ');
    if is_http {
        if record.status == 0 {
            out.extend_from_slice(b"-1");
        } else {
            put_number(out, u64::from(record.status));
        }
        out.push(b' ');
        put_number(out, record.sent);
        out.extend_from_slice(b" - - ");
        out.extend_from_slice(&record.ended);
        out.extend_from_slice(b"-- 0/0/0/0/");
        put_number(out, u64::from(record.retries));
        out.extend_from_slice(b" 0/0 \"");
        if let Some(Asked { method, path, version, .. }) = record.request {
            word(out, method);
            out.push(b' ');
            word(out, path);
            out.push(b' ');
            out.extend_from_slice(version_name(version).as_bytes());
        } else {
            out.extend_from_slice(b"<BADREQ>");
        }
        out.push(b'"');
    } else {
        put_number(out, record.sent);
        out.push(b' ');
        out.extend_from_slice(&record.ended);
        out.extend_from_slice(b" 0/0/0/0/");
        put_number(out, u64::from(record.retries));
        out.extend_from_slice(b" 0/0");
    }
    out.push(b'\n');
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::V1_0 => "HTTP/1.0",
        Version::V1_1 => "HTTP/1.1",
        Version::V2 => "HTTP/2.0",
    }
}

fn json_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Address and port. The machinery of `write!` would take more time than all the rest of a line.
fn socket(out: &mut Vec<u8>, socket: SocketAddr) {
    match socket {
        SocketAddr::V4(socket) => {
            for (octet, end) in socket.ip().octets().into_iter().zip(*b"...:") {
                put_number(out, u64::from(octet));
                out.push(end);
            }
            put_number(out, u64::from(socket.port()));
        }
        SocketAddr::V6(socket) => drop(write!(out, "{socket}")),
    }
}

/// A number in so many digits.
fn digits<const N: usize>(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits);
}

/// A JSON string. Bytes that are no ASCII become the code points of the same number: nothing is lost.
fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x20..=0x7e => out.push(byte),
            _ => drop(write!(out, "\\u{byte:04x}")),
        }
    }
    out.push(b'"');
}

/// Text that cannot end the field or the line it stands in, escaped as HAProxy does.
fn word(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'#' | 0..=0x20 | 0x7f.. => drop(write!(out, "#{byte:02X}")),
            _ => out.push(byte),
        }
    }
}

/// Year, month, day, and seconds of the day, for seconds since 1970 (the civil calendar, counted in eras of 400
/// years).
fn civil(seconds: u64) -> (u64, u64, u64, u64) {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day, seconds % 86_400)
}

/// RFC 3339, in UTC, with milliseconds: of so many milliseconds since 1970.
pub(super) fn timestamp(out: &mut Vec<u8>, millis: u64) {
    let (year, month, day, of_day) = civil(millis / 1_000);
    digits::<4>(out, year);
    out.push(b'-');
    digits::<2>(out, month);
    out.push(b'-');
    digits::<2>(out, day);
    out.push(b'T');
    time_of_day(out, of_day, (millis % 1_000) as u32);
    out.push(b'Z');
}

/// `21/Nov/2026:10:00:00.123`, in UTC.
fn clf_date(out: &mut Vec<u8>, time: SystemTime) {
    const MONTHS: [&[u8; 5]; 12] = [
        b"/Jan/", b"/Feb/", b"/Mar/", b"/Apr/", b"/May/", b"/Jun/", b"/Jul/", b"/Aug/", b"/Sep/", b"/Oct/",
        b"/Nov/", b"/Dec/",
    ];
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day, of_day) = civil(since.as_secs());
    digits::<2>(out, day);
    out.extend_from_slice(MONTHS[month as usize - 1]);
    digits::<4>(out, year);
    out.push(b':');
    time_of_day(out, of_day, since.subsec_millis());
}

/// `10:00:00.123`.
fn time_of_day(out: &mut Vec<u8>, seconds: u64, millis: u32) {
    digits::<2>(out, seconds / 3_600);
    out.push(b':');
    digits::<2>(out, seconds / 60 % 60);
    out.push(b':');
    digits::<2>(out, seconds % 60);
    out.push(b'.');
    digits::<3>(out, millis.into());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            timestamp(&mut out, seconds * 1_000);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        let mut out = Vec::new();
        clf_date(&mut out, UNIX_EPOCH + Duration::from_millis(1_709_251_199_007));
        assert_eq!(out, b"29/Feb/2024:23:59:59.007");
    }

    #[test]
    fn addresses_are_written_as_everywhere() {
        for address in ["192.0.2.255:80", "0.0.0.0:0", "[2001:db8::1]:65535"] {
            let mut out = Vec::new();
            socket(&mut out, address.parse().unwrap());
            assert_eq!(out, address.as_bytes());
        }
    }

    #[test]
    fn nothing_ends_a_field_or_line_but_we() {
        let mut out = Vec::new();
        text(&mut out, b"a\"b\\\n\x80");
        assert_eq!(out, b"\"a\\\"b\\\\\\u000a\\u0080\"");
        let mut out = Vec::new();
        word(&mut out, b"a\"b \n#");
        assert_eq!(out, b"a#22b#20#0A#23");
    }
}
