//! Addresses and networks.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use toml::de::DeValue;

use super::{Read, string};
use crate::config::words::quote;

/// The address of a VIP: one that clients can reach.
pub(in crate::config) fn vip_address(value: &DeValue<'_>) -> Read<IpAddr> {
    let text = string(value, "an IP address such as \"192.0.2.10\"")?;
    let address = parse(text, "the port has its own key, port", ONLY_ADDRESSES)?;
    match unfit(address) {
        Some(why) => Err(format!("{address} {why}; write the address that clients connect to")),
        None => Ok(address),
    }
}

/// Where a server is, as written: an address, or a name that leads to one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) enum Whereabouts {
    Address(IpAddr),
    Host(String),
}

impl Whereabouts {
    pub(in crate::config) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Host(_) => None,
        }
    }
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(host) => host.fmt(f),
        }
    }
}

/// The address of a server: one that this host can send to, or a name.
pub(in crate::config) fn server_address(value: &DeValue<'_>) -> Read<Whereabouts> {
    let text = string(value, "an IP address such as \"10.0.0.11\"")?;
    if is_host(text) {
        return Ok(Whereabouts::Host(text.to_ascii_lowercase()));
    }
    let address = parse(
        text,
        "the port has its own key, port, or server_port of the VIP",
        "such as \"10.0.0.11\", nor a host name",
    )?;
    match unfit(address) {
        Some(why) => Err(format!("{address} {why}; write the server's own address")),
        None => Ok(Whereabouts::Address(address)),
    }
}

/// An address and port of this host to listen on.
pub(in crate::config) fn socket_address(value: &DeValue<'_>) -> Read<SocketAddr> {
    let text = string(value, "an address and port such as \"127.0.0.1:9101\"")?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(format!(
            "{} is no address and port such as \"127.0.0.1:9101\" or \"[::1]:9101\"",
            quote(text)
        )),
    }
}

/// Whether a text is a host name (RFC 1123 §2.1, and the underscores that some have). What ends in a number is not:
/// it was to be an address.
fn is_host(text: &str) -> bool {
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(fits) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Why an address that a name stands for cannot be a server's.
pub(crate) fn unfit_for_server(address: IpAddr) -> Option<&'static str> {
    unfit(address)
}

/// An address that is probed instead of a server's own. This host's own will do: what knows may run here.
pub(in crate::config) fn probe_address(value: &DeValue<'_>) -> Read<IpAddr> {
    let text = string(value, "an IP address such as \"10.0.0.11\"")?;
    let address = parse(text, "the port has its own key, port", ONLY_ADDRESSES)?;
    match unfit(address).filter(|_| !address.is_loopback()) {
        Some(why) => Err(format!("{address} {why}; write the address that is to be asked")),
        None => Ok(address),
    }
}

/// A network, `"10.0.0.0/24"`: address and prefix length.
pub(in crate::config) fn network(value: &DeValue<'_>) -> Read<(IpAddr, u8)> {
    network_of(string(value, "a network such as \"10.0.0.0/24\"")?)
}

/// [`network`] of text that comes from elsewhere.
pub(crate) fn network_of(text: &str) -> Read<(IpAddr, u8)> {
    let shown = quote(text);
    let wrong =
        || format!("{shown} is not a network; write address and prefix length, such as \"10.0.0.0/24\"");
    let Some((address, length)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => format!("{shown} has no prefix length; write \"{address}/{}\"", bits(address)),
            Err(_) => wrong(),
        });
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let most = bits(address);
    let Some(length) = length.parse().ok().filter(|&length| length <= most) else {
        return Err(format!("the prefix of {shown} is too long; it has at most {most} bits"));
    };
    let network = first_of(address, length);
    if network != address {
        return Err(format!(
            "{shown} has bits set behind its prefix; write \"{network}/{length}\" for the network or \
             \"{address}/{most}\" for the one address"
        ));
    }
    Ok((address, length))
}

/// What could stand where no host name can.
const ONLY_ADDRESSES: &str = "such as \"10.0.0.11\"; a host name cannot stand here";

/// An address; `port_hint` says where a port that was written with it belongs, `instead` what could stand there.
fn parse(text: &str, port_hint: &str, instead: &str) -> Read<IpAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let shown = quote(text);
    if let Ok(with_port) = text.parse::<SocketAddr>() {
        return Err(format!("{shown} has a port in it; write {:?}: {port_hint}", with_port.ip().to_string()));
    }
    if let Some((address, _)) = text.split_once('/')
        && address.parse::<IpAddr>().is_ok()
    {
        return Err(format!("{shown} has a prefix length in it; write {address:?}"));
    }
    if let Some((address, _)) = text.split_once('%')
        && address.parse::<IpAddr>().is_ok()
    {
        return Err(format!("{shown} names an interface; only addresses that hold everywhere can be used"));
    }
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && address.parse::<IpAddr>().is_ok()
    {
        return Err(format!("{shown} has brackets; write {address:?}"));
    }
    Err(if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        format!("{shown} is not an IPv4 address: that is four numbers from 0 to 255, without leading zeros")
    } else if text.contains(':') && text.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
    {
        format!("{shown} is not an IPv6 address: that is eight groups of hex digits, or fewer and one \"::\"")
    } else {
        format!("{shown} is not an IP address {instead}")
    })
}

/// Why an address can be neither a VIP's nor a server's.
fn unfit(address: IpAddr) -> Option<&'static str> {
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return Some("is an IPv4 address in IPv6 form, which never stands in a packet");
    }
    if address.is_unspecified() {
        Some("means \"any address\" and stands for no machine")
    } else if address.is_loopback() {
        Some("is a loopback address, which never leaves its own host")
    } else if address.is_multicast() {
        Some("is a multicast address and stands for a group")
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("is the broadcast address and stands for every host")
    } else if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        Some("is a link-local address, which means another machine on every link")
    } else {
        None
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first address of the network that `address` is in. `length` is at most [`bits`].
fn first_of(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::read, *};

    #[test]
    fn addresses_of_both_families() {
        for good in ["192.168.1.250", "10.0.0.0", "fd00::1", "2001:db8::a"] {
            let expected: IpAddr = good.parse().unwrap();
            assert_eq!(read(&format!("{good:?}"), vip_address), Ok(expected));
            assert_eq!(read(&format!("{good:?}"), server_address), Ok(Whereabouts::Address(expected)));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_remedy() {
        for (toml, message) in [
            ("10", "expected an IP address such as \"10.0.0.11\", found the integer 10; put it in quotes"),
            (
                "\"10.0.0.1:80\"",
                "\"10.0.0.1:80\" has a port in it; write \"10.0.0.1\": the port has its own key, port, or server_port of the VIP",
            ),
            (
                "\"[::1]:80\"",
                "\"[::1]:80\" has a port in it; write \"::1\": the port has its own key, port, or server_port of the VIP",
            ),
            ("\"10.0.0.1/24\"", "\"10.0.0.1/24\" has a prefix length in it; write \"10.0.0.1\""),
            (
                "\"fe80::1%eth0\"",
                "\"fe80::1%eth0\" names an interface; only addresses that hold everywhere can be used",
            ),
            ("\"[fd00::1]\"", "\"[fd00::1]\" has brackets; write \"fd00::1\""),
            (
                "\"10.0.0.256\"",
                "\"10.0.0.256\" is not an IPv4 address: that is four numbers from 0 to 255, without leading zeros",
            ),
            (
                "\"10.0.0.01\"",
                "\"10.0.0.01\" is not an IPv4 address: that is four numbers from 0 to 255, without leading zeros",
            ),
            (
                "\"fd00:::1\"",
                "\"fd00:::1\" is not an IPv6 address: that is eight groups of hex digits, or fewer and one \"::\"",
            ),
            (
                "\"web1..example\"",
                "\"web1..example\" is not an IP address such as \"10.0.0.11\", nor a host name",
            ),
            (
                "\"0.0.0.0\"",
                "0.0.0.0 means \"any address\" and stands for no machine; write the server's own address",
            ),
            (
                "\"127.1.2.3\"",
                "127.1.2.3 is a loopback address, which never leaves its own host; write the server's own address",
            ),
            (
                "\"::1\"",
                "::1 is a loopback address, which never leaves its own host; write the server's own address",
            ),
            (
                "\"224.0.0.5\"",
                "224.0.0.5 is a multicast address and stands for a group; write the server's own address",
            ),
            (
                "\"ff02::1\"",
                "ff02::1 is a multicast address and stands for a group; write the server's own address",
            ),
            (
                "\"255.255.255.255\"",
                "255.255.255.255 is the broadcast address and stands for every host; write the server's own address",
            ),
            (
                "\"::ffff:10.0.0.1\"",
                "::ffff:10.0.0.1 is an IPv4 address in IPv6 form, which never stands in a packet; write the server's own address",
            ),
            (
                "\"fe80::1\"",
                "fe80::1 is a link-local address, which means another machine on every link; write the server's own address",
            ),
        ] {
            assert_eq!(read(toml, server_address).unwrap_err(), message);
        }
        assert_eq!(
            read("\"127.0.0.1\"", vip_address).unwrap_err(),
            "127.0.0.1 is a loopback address, which never leaves its own host; write the address that clients \
             connect to"
        );
    }

    #[test]
    fn a_server_may_be_known_by_a_name_and_nothing_else_may() {
        for (text, host) in [
            ("web1", "web1"),
            ("Web1.Example.com.", "web1.example.com."),
            ("a_b-c.internal", "a_b-c.internal"),
            ("10.0.0.a", "10.0.0.a"),
            ("fd00", "fd00"),
        ] {
            assert_eq!(read(&format!("{text:?}"), server_address), Ok(Whereabouts::Host(host.into())));
            let message = read(&format!("{text:?}"), vip_address).unwrap_err();
            assert!(message.contains("a host name cannot stand here"), "{message}");
        }
        for text in ["-a", "a-", "a b", "http://a", "a:80", ".a", "a.1", &"a".repeat(64), &"a.".repeat(200)] {
            assert!(read(&format!("{text:?}"), server_address).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_start_at_their_first_address() {
        for (text, length) in
            [("10.0.0.0/24", 24), ("0.0.0.0/0", 0), ("10.0.0.5/32", 32), ("::/0", 0), ("fd00::/8", 8)]
        {
            let address = text.split_once('/').unwrap().0.parse().unwrap();
            assert_eq!(read(&format!("{text:?}"), network), Ok((address, length)));
        }
        for (toml, message) in [
            (
                "\"10.0.0.5/24\"",
                "\"10.0.0.5/24\" has bits set behind its prefix; write \"10.0.0.0/24\" for the network or \"10.0.0.5/32\" for the one address",
            ),
            ("\"10.0.0.5\"", "\"10.0.0.5\" has no prefix length; write \"10.0.0.5/32\""),
            ("\"10.0.0.0/33\"", "the prefix of \"10.0.0.0/33\" is too long; it has at most 32 bits"),
            ("\"fd00::/129\"", "the prefix of \"fd00::/129\" is too long; it has at most 128 bits"),
            (
                "\"10.0.0.0/+8\"",
                "\"10.0.0.0/+8\" is not a network; write address and prefix length, such as \"10.0.0.0/24\"",
            ),
            (
                "\"local\"",
                "\"local\" is not a network; write address and prefix length, such as \"10.0.0.0/24\"",
            ),
        ] {
            assert_eq!(read(toml, network).unwrap_err(), message);
        }
    }
}
