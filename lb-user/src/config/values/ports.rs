//! Ports: one (`80`), a list with ranges (`"80,443,1024-1123"`), all (`"all"`), and the range for SNAT.

use toml::de::DeValue;

use super::{Read, found, integer};
use crate::{
    config::words::quote,
    model::{PortRange, Ports},
};

/// The lowest port that is not reserved for services.
const FIRST_UNPRIVILEGED: u16 = 1_024;

/// A single port.
pub(in crate::config) fn port(value: &DeValue<'_>) -> Read<u16> {
    let port = integer(value, 1..=i64::from(u16::MAX), "a port")?;
    Ok(u16::try_from(port).unwrap_or(u16::MAX))
}

/// The ports of a VIP.
pub(in crate::config) fn ports(value: &DeValue<'_>) -> Read<Ports> {
    let text = match value {
        DeValue::Integer(_) => {
            let port = port(value)?;
            return Ports::new(vec![PortRange { first: port, last: port }]).map_err(|_| String::new());
        }
        DeValue::String(text) => text,
        DeValue::Array(list) => {
            let items: Option<Vec<&str>> = list
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::Integer(number) => Some(number.as_str()),
                    DeValue::String(text) => Some(&**text),
                    _ => None,
                })
                .collect();
            let remedy =
                items.filter(|items| !items.is_empty()).map_or("80,443".into(), |items| items.join(","));
            return Err(format!(
                "expected one port or a string with several, found a list; write {remedy:?}"
            ));
        }
        _ => return Err(format!("expected a port, or a string such as \"80,443\", found {}", found(value))),
    };
    let text = if text == "all" { "1-65535" } else { text };
    let ranges = text.split(',').map(|item| range(item, text)).collect::<Read<_>>()?;
    Ports::new(ranges).map_err(|overlap| match overlap {
        Some((one, other)) if one == other => format!("port {one} is listed twice"),
        Some((one, other)) => format!("{one} and {other} overlap; list each port once"),
        None => "no port is listed".into(),
    })
}

/// The source ports for SNAT, `"20000-29999"`.
pub(in crate::config) fn snat_ports(value: &DeValue<'_>) -> Read<PortRange> {
    let DeValue::String(text) = value else {
        return Err(format!("expected a range of ports such as \"20000-29999\", found {}", found(value)));
    };
    if !text.contains('-') || text.contains(',') {
        return Err(format!("{} is not one range of ports; write it like \"20000-29999\"", quote(text)));
    }
    let range = range(text, text)?;
    if range.first < FIRST_UNPRIVILEGED {
        return Err(format!(
            "the range {range} reaches below {FIRST_UNPRIVILEGED}; those ports belong to services, begin at \
             {FIRST_UNPRIVILEGED} or above"
        ));
    }
    Ok(range)
}

/// One item of a list: `80` or `1024-1123`.
fn range(item: &str, whole: &str) -> Read<PortRange> {
    let item = item.trim();
    if item.is_empty() && whole.trim().is_empty() {
        return Err("no port is listed; write one such as 80, or several such as \"80,443,1024-1123\"".into());
    }
    if item.is_empty() {
        return Err(format!("{} has a comma with no port beside it", quote(whole)));
    }
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let (first, last) = (single(first.trim(), item)?, single(last.trim(), item)?);
    if first > last {
        return Err(format!("the range {first}-{last} runs backwards; write {last}-{first}"));
    }
    Ok(PortRange { first, last })
}

fn single(text: &str, item: &str) -> Read<u16> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let item = quote(item);
        return Err(format!("{item} is not a port; write numbers, such as \"80,443,1024-1123\""));
    }
    match text.parse() {
        Ok(0) => Err("port 0 does not exist; ports are 1 to 65535".into()),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("port {text} does not exist; ports are 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::read, *};

    #[test]
    fn lists_keep_their_order() {
        for (toml, shown) in [
            ("80", "80"),
            ("\"80\"", "80"),
            ("\"443, 80\"", "443,80"),
            ("\"80,443,1024-1123\"", "80,443,1024-1123"),
            ("\"7-7\"", "7"),
            ("\"1-65535\"", "all"),
            ("\"2-65535,1\"", "all"),
            ("\"all\"", "all"),
            ("\"2-65535\"", "2-65535"),
        ] {
            assert_eq!(read(toml, ports).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_are_no_ports_is_refused_with_the_remedy() {
        for (toml, message) in [
            ("0", "expected a port (1 to 65535), found 0"),
            ("70000", "expected a port (1 to 65535), found 70000"),
            ("true", "expected a port, or a string such as \"80,443\", found the boolean true"),
            ("[80, 443]", "expected one port or a string with several, found a list; write \"80,443\""),
            ("[]", "expected one port or a string with several, found a list; write \"80,443\""),
            ("\"\"", "no port is listed; write one such as 80, or several such as \"80,443,1024-1123\""),
            ("\"80,,443\"", "\"80,,443\" has a comma with no port beside it"),
            ("\"80,\"", "\"80,\" has a comma with no port beside it"),
            ("\"http\"", "\"http\" is not a port; write numbers, such as \"80,443,1024-1123\""),
            ("\"-80\"", "\"-80\" is not a port; write numbers, such as \"80,443,1024-1123\""),
            ("\"1-2-3\"", "\"1-2-3\" is not a port; write numbers, such as \"80,443,1024-1123\""),
            ("\"0-80\"", "port 0 does not exist; ports are 1 to 65535"),
            ("\"80-65536\"", "port 65536 does not exist; ports are 1 to 65535"),
            ("\"90-80\"", "the range 90-80 runs backwards; write 80-90"),
            ("\"80,80\"", "port 80 is listed twice"),
            ("\"80-90,85\"", "80-90 and 85 overlap; list each port once"),
        ] {
            assert_eq!(read(toml, ports).unwrap_err(), message);
        }
    }

    #[test]
    fn snat_ports_leave_services_alone() {
        assert_eq!(read("\"1024-65535\"", snat_ports), Ok(PortRange { first: 1024, last: 65_535 }));
        for (toml, message) in [
            ("20000", "expected a range of ports such as \"20000-29999\", found the integer 20000"),
            ("\"20000\"", "\"20000\" is not one range of ports; write it like \"20000-29999\""),
            ("\"1-2,4-5\"", "\"1-2,4-5\" is not one range of ports; write it like \"20000-29999\""),
            (
                "\"1000-2000\"",
                "the range 1000-2000 reaches below 1024; those ports belong to services, begin at 1024 or above",
            ),
            ("\"3000-2000\"", "the range 3000-2000 runs backwards; write 2000-3000"),
        ] {
            assert_eq!(read(toml, snat_ports).unwrap_err(), message);
        }
    }
}
