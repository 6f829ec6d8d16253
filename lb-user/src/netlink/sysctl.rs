//! Kernel settings of this network namespace, read from `/proc/sys`.

use std::io;

use crate::model::PortRange;

const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The ports from which the kernel chooses for connections of this host, IPv4 and IPv6 alike.
///
/// # Errors
/// When the setting cannot be read or is not a range of ports.
pub fn ip_local_port_range() -> io::Result<PortRange> {
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read {LOCAL_PORTS}: {error}"));
    let text = std::fs::read_to_string(LOCAL_PORTS).map_err(explain)?;
    parse(&text)
        .ok_or_else(|| explain(io::Error::other(format!("{:?} is not a range of ports", text.trim()))))
}

fn parse(text: &str) -> Option<PortRange> {
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last)), None) if first <= last => Some(PortRange { first, last }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse("32768\t60999\n"), Some(PortRange { first: 32768, last: 60999 }));
        for wrong in ["", "32768", "60999 32768", "1 2 3", "1 65536", "a b"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn this_host_has_a_range() {
        let range = ip_local_port_range().unwrap();
        assert!(range.first <= range.last);
    }
}
