//! Values of HTTP: statuses, request paths, cookie names.

use toml::de::DeValue;

use super::{Read, found, integer, string};
use crate::{config::words::quote, model::StatusRanges};

/// Statuses that mean healthy: `200`, `"200,204"`, `"200-299,401"`.
pub(in crate::config) fn statuses(value: &DeValue<'_>) -> Read<StatusRanges> {
    let text = match value {
        DeValue::Integer(number) => number.to_string(),
        DeValue::String(text) => text.to_string(),
        _ => return Err(format!("expected statuses such as \"200-299,401\", found {}", found(value))),
    };
    let ranges: Vec<_> = text.split(',').map(|item| range(item.trim())).collect::<Read<_>>()?;
    Ok(StatusRanges(ranges))
}

fn range(item: &str) -> Read<(u16, u16)> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let (Some(first), Some(last)) = (status(first.trim()), status(last.trim())) else {
        return Err(format!(
            "{} is not an HTTP status or range of statuses (100 to 599); write them like \"200-299,401\"",
            quote(item)
        ));
    };
    if first > last {
        return Err(format!("the range {first}-{last} runs backwards; write {last}-{first}"));
    }
    Ok((first, last))
}

/// A status: three digits, 100 to 599.
fn status(text: &str) -> Option<u16> {
    let three_digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|status| three_digits && (100..=599).contains(status))
}

/// A key of `error_pages`: a status that tells of an error.
pub(in crate::config) fn error_status(key: &str) -> Read<u16> {
    status(key)
        .filter(|&status| status >= 400)
        .ok_or_else(|| format!("{} is not the status of an error; write one from 400 to 599", quote(key)))
}

/// The path of a request, as it goes over the wire: visible ASCII (RFC 9112 §3.2.1), no fragment.
pub(in crate::config) fn http_path(value: &DeValue<'_>) -> Read<String> {
    let path = string(value, "a path such as \"/health\"")?;
    if !path.starts_with('/') {
        return Err(format!(
            "{} must start with \"/\": it is the path on the server, such as \"/health\"",
            quote(path)
        ));
    }
    match path.chars().find(|&sign| !sign.is_ascii_graphic() || sign == '#') {
        Some(sign) => Err(format!(
            "{} contains {}, which cannot stand in a request; write it percent-encoded",
            quote(path),
            quote(&sign.to_string())
        )),
        None => Ok(path.to_owned()),
    }
}

/// The name of a cookie: a token (RFC 6265 §4.1.1, RFC 9110 §5.6.2).
pub(in crate::config) fn cookie_name(value: &DeValue<'_>) -> Read<String> {
    let name = string(value, "the name of a cookie, such as \"SERVERID\"")?;
    let fits = |sign: char| sign.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(sign);
    if name.is_empty() {
        return Err("the name of a cookie must not be empty".into());
    }
    match name.chars().find(|&sign| !fits(sign)) {
        Some(sign) => Err(format!(
            "{} contains {}, which cannot stand in the name of a cookie; use letters, digits, \"-\" and \"_\"",
            quote(name),
            quote(&sign.to_string())
        )),
        None => Ok(name.to_owned()),
    }
}

/// An attribute of a cookie, such as its path (RFC 6265 §4.1.1).
pub(in crate::config) fn cookie_attribute(value: &DeValue<'_>) -> Read<String> {
    let text = string(value, "a text such as \"/\"")?;
    let fits = |sign: char| sign.is_ascii_graphic() && sign != ';';
    match text.chars().find(|&sign| !fits(sign)) {
        _ if text.is_empty() => Err("it must not be empty; leave the key out".into()),
        Some(sign) => Err(format!(
            "{} contains {}, which cannot stand in a cookie",
            quote(text),
            quote(&sign.to_string())
        )),
        None => Ok(text.to_owned()),
    }
}

/// What values of cookies are made with. Whoever has it can tell servers by them, so it must not be guessed.
pub(in crate::config) fn cookie_key(value: &DeValue<'_>) -> Read<String> {
    const SHORTEST: usize = 16;
    let key = string(value, "a secret of 16 characters or more")?;
    match key.chars().count() {
        // What it is must not be in a log.
        count if count < SHORTEST => {
            Err(format!("it has {count} characters; write {SHORTEST} or more that nobody can guess"))
        }
        _ => Ok(key.to_owned()),
    }
}

/// The status of a redirect.
pub(in crate::config) fn redirect_status(value: &DeValue<'_>) -> Read<u16> {
    let number = integer(value, 300..=399, "the status of a redirect")?;
    let status = u16::try_from(number).unwrap_or_default();
    if REDIRECTS.contains(&status) { Ok(status) } else { Err(no_redirect(status)) }
}

/// Statuses that send clients elsewhere.
pub(in crate::config) const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

pub(in crate::config) fn no_redirect(status: u16) -> String {
    format!("{status} is no status of a redirect; write 301, 302, 303, 307 or 308")
}

/// The host that a redirect leads to.
pub(in crate::config) fn redirect_host(value: &DeValue<'_>) -> Read<String> {
    let host = string(value, "a host such as \"www.example\"")?;
    match unfit_host(host) {
        Some(problem) => Err(problem),
        None => Ok(host.to_owned()),
    }
}

/// Why a text cannot be the host of a URL: a name, or an address; a port is said elsewhere.
pub(in crate::config) fn unfit_host(host: &str) -> Option<String> {
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = in_brackets {
        let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
        return (!is_address).then(|| format!("{} is no IPv6 address in brackets", quote(host)));
    }
    let fits = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '.' | '_');
    match host.chars().find(|&sign| !fits(sign)) {
        _ if host.is_empty() => Some("a host must not be empty".into()),
        Some(':') => Some(format!("{} has a port, which is no part of the host; leave it out", quote(host))),
        Some(sign) => {
            Some(format!("{} contains {}, which no host has", quote(host), quote(&sign.to_string())))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::read, *};

    #[test]
    fn statuses_are_numbers_lists_and_ranges() {
        for (toml, expected) in [
            ("200", vec![(200, 200)]),
            ("\"200\"", vec![(200, 200)]),
            ("\"200, 204\"", vec![(200, 200), (204, 204)]),
            ("\"200-299,401\"", vec![(200, 299), (401, 401)]),
            ("\"100-599\"", vec![(100, 599)]),
        ] {
            assert_eq!(read(toml, statuses), Ok(StatusRanges(expected)));
        }
        let wrong = |item: &str| {
            format!(
                "{item:?} is not an HTTP status or range of statuses (100 to 599); write them like \"200-299,401\""
            )
        };
        for (toml, message) in [
            ("99", wrong("99")),
            ("600", wrong("600")),
            ("\"2xx\"", wrong("2xx")),
            ("\"200,\"", wrong("")),
            ("\"200-\"", wrong("200-")),
            ("\"299-200\"", "the range 299-200 runs backwards; write 200-299".into()),
            ("[200]", "expected statuses such as \"200-299,401\", found a list".into()),
        ] {
            assert_eq!(read(toml, statuses).unwrap_err(), message);
        }
    }

    #[test]
    fn error_pages_are_for_errors() {
        assert_eq!(error_status("400"), Ok(400));
        assert_eq!(error_status("599"), Ok(599));
        for bad in ["399", "600", "0503", "5xx"] {
            assert_eq!(
                error_status(bad).unwrap_err(),
                format!("{bad:?} is not the status of an error; write one from 400 to 599")
            );
        }
    }

    #[test]
    fn paths_are_what_goes_over_the_wire() {
        assert_eq!(read("\"/a?b=1\"", http_path), Ok("/a?b=1".into()));
        assert_eq!(
            read("\"health\"", http_path).unwrap_err(),
            "\"health\" must start with \"/\": it is the path on the server, such as \"/health\""
        );
        for (toml, sign) in
            [("\"/a b\"", "\" \""), ("\"/a\\r\\nb\"", "\"\\r\""), ("\"/ä\"", "\"ä\""), ("\"/#a\"", "\"#\"")]
        {
            let message = read(toml, http_path).unwrap_err();
            assert!(
                message.contains(&format!("contains {sign}, which cannot stand in a request")),
                "{message}"
            );
        }
    }

    #[test]
    fn cookie_names_are_tokens() {
        assert_eq!(read("\"SERVERID\"", cookie_name), Ok("SERVERID".into()));
        assert_eq!(read("\"\"", cookie_name).unwrap_err(), "the name of a cookie must not be empty");
        assert_eq!(
            read("\"a=b\"", cookie_name).unwrap_err(),
            "\"a=b\" contains \"=\", which cannot stand in the name of a cookie; use letters, digits, \"-\" and \"_\""
        );
    }
}
