//! Values of HTTP: statuses, request paths, cookie names.

use toml::de::DeValue;

use super::{Read, found, string};
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
