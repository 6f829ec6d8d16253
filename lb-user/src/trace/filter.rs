//! The filter of `lbctl trace`: a few conditions in the words of tcpdump, all of which must hold.

use std::{fmt, net::IpAddr};

use lb_common::{
    abi::{TraceFilter, protocol},
    family::{words4, words6},
    trace::Fate,
};

/// Which packets are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// An address that has part in it, and how many of its bits count.
    net: Option<(IpAddr, u8)>,
    port: Option<u16>,
    protocol: Option<u8>,
    /// Name of a VIP.
    pub vip: Option<String>,
    /// Bits of [`TraceFilter::endings`].
    endings: Option<u64>,
}

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misunderstood(String);

impl fmt::Display for Misunderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misunderstood {}

/// What a filter may consist of.
pub const GRAMMAR: &str = "host ADDRESS, net ADDRESS/LENGTH, port NUMBER, vip NAME, tcp, udp, icmp, pass, drop, \
                           forward, answer and reason NAME, joined by \"and\"";

impl Filter {
    /// Reads a filter; an empty one wants every packet.
    ///
    /// # Errors
    /// In one line: which word is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, Misunderstood> {
        let mut filter = Self::default();
        let mut words = text.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let mut value = |what: &str| {
                words.next().ok_or_else(|| Misunderstood(format!("{word} needs {what} behind it")))
            };
            match word {
                "host" => once(&mut filter.net, word, host(value("an address")?)?)?,
                "net" => once(&mut filter.net, word, net(value("ADDRESS/LENGTH")?)?)?,
                "port" => once(&mut filter.port, word, port(value("a number")?)?)?,
                "vip" => once(&mut filter.vip, word, value("the name of a VIP")?.to_owned())?,
                "tcp" => once(&mut filter.protocol, word, protocol::TCP)?,
                "udp" => once(&mut filter.protocol, word, protocol::UDP)?,
                "icmp" => once(&mut filter.protocol, word, protocol::ICMP)?,
                "pass" | "drop" | "forward" | "answer" => once(&mut filter.endings, word, Fate::bits(word))?,
                "reason" => once(&mut filter.endings, word, reason(value("the name of a reason")?)?)?,
                _ => {
                    return Err(Misunderstood(format!("{word:?} is not understood; a filter has {GRAMMAR}")));
                }
            }
            if words.next_if_eq(&"and").is_some() && words.peek().is_none() {
                return Err(Misunderstood("nothing follows the last \"and\"".into()));
            }
        }
        Ok(filter)
    }

    /// The same for the kernel. `vip` is the number of the VIP it names.
    #[must_use]
    pub fn kernel(&self, vip: u16, sample: u32) -> TraceFilter {
        let (address, mask, family) = match self.net {
            None => ([0; 4], [0; 4], 0),
            Some((IpAddr::V4(address), length)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                (words4(address.octets()), words4(mask.to_be_bytes()), 4)
            }
            Some((IpAddr::V6(address), length)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                (words6(address.octets()), words6(mask.to_be_bytes()), 6)
            }
        };
        TraceFilter {
            address,
            mask,
            endings: self.endings.unwrap_or(u64::MAX),
            session: 0,
            sample,
            lost: 0,
            port: self.port.unwrap_or(0),
            vip,
            family,
            protocol: self.protocol.unwrap_or(0),
            pad: [0; 6],
        }
    }
}

/// Notes a condition that may be there only once: all of them must hold.
fn once<T>(place: &mut Option<T>, word: &str, value: T) -> Result<(), Misunderstood> {
    if place.replace(value).is_none() {
        return Ok(());
    }
    let group = match word {
        "host" | "net" => "one host or net",
        "port" => "one port",
        "vip" => "one vip",
        "tcp" | "udp" | "icmp" => "one of tcp, udp and icmp",
        _ => "one of pass, drop, forward, answer and reason",
    };
    Err(Misunderstood(format!("{word} is one too many: a filter has at most {group}")))
}

fn host(text: &str) -> Result<(IpAddr, u8), Misunderstood> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok((address, bits(address))),
        Err(_) if text.contains('/') => {
            Err(Misunderstood(format!("host takes an address alone; try net {text}")))
        }
        Err(_) => {
            Err(Misunderstood(format!("{text:?} is not an IP address, such as 192.0.2.1 or 2001:db8::1")))
        }
    }
}

fn net(text: &str) -> Result<(IpAddr, u8), Misunderstood> {
    let wrong = || Misunderstood(format!("{text:?} is not a network, such as 192.0.2.0/24 or 2001:db8::/32"));
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    match length.parse() {
        Ok(length) if (1..=bits(address)).contains(&length) => Ok((address, length)),
        _ => Err(Misunderstood(format!("the length of {text} must be 1 to {}", bits(address)))),
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn port(text: &str) -> Result<u16, Misunderstood> {
    let port = text.parse().ok().filter(|&port| port != 0);
    port.ok_or_else(|| Misunderstood(format!("{text:?} is not a port: a number from 1 to 65535")))
}

fn reason(text: &str) -> Result<u64, Misunderstood> {
    let words = ["pass", "drop", "forward", "answer"];
    let found = Some(Fate::bits(text)).filter(|&bits| bits != 0 && !words.contains(&text));
    found.ok_or_else(|| {
        let names: Vec<_> = (0..64).filter_map(|ending| Fate::of(ending)?.reason()).collect();
        Misunderstood(format!("{text:?} is not a reason; reasons are {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use lb_common::{
        trace::FORWARDED,
        verdict::{DropReason, PassReason},
    };

    use super::*;

    fn kernel(text: &str) -> TraceFilter {
        Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).kernel(0, 1)
    }

    #[test]
    fn conditions() {
        let any = kernel("");
        assert_eq!((any.endings, any.family, any.port, any.protocol, any.vip), (u64::MAX, 0, 0, 0, 0));
        let all = kernel("tcp and port 80 and host 10.1.2.3 and vip web and reason no-server");
        assert_eq!((all.protocol, all.port, all.family), (6, 80, 4));
        assert_eq!((all.address, all.mask), (words4([10, 1, 2, 3]), words4([255; 4])));
        assert_eq!(all.endings, 1 << DropReason::NoServer.index());
        assert_eq!(Filter::parse("vip web").unwrap().vip.as_deref(), Some("web"));
        assert_eq!(kernel("tcp port 80"), kernel("port 80 and tcp"), "\"and\" may be left out");
    }

    #[test]
    fn prefixes() {
        assert_eq!(kernel("net 10.0.0.0/8").mask, words4([255, 0, 0, 0]));
        assert_eq!(kernel("net 10.0.0.0/32").mask, words4([255; 4]));
        let six = kernel("net 2001:db8::/33");
        let mut mask = [0; 16];
        mask[..5].copy_from_slice(&[255, 255, 255, 255, 128]);
        assert_eq!((six.family, six.mask), (6, words6(mask)));
        assert_eq!(kernel("host ::1").mask, [u32::MAX; 4]);
    }

    #[test]
    fn endings() {
        let bit = |index: u32| 1u64 << index;
        assert_eq!(kernel("forward").endings, bit(FORWARDED));
        let pass = PassReason::ALL.iter().fold(0, |bits, reason| bits | bit(reason.index()));
        assert_eq!(kernel("pass").endings, pass);
        assert_eq!(kernel("drop").endings & pass, 0);
        assert_ne!(kernel("answer").endings, 0);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("hots 1.2.3.4", "\"hots\" is not understood; a filter has host ADDRESS"),
            ("tcp or udp", "\"or\" is not understood"),
            ("not tcp", "\"not\" is not understood"),
            ("tcp and", "nothing follows the last \"and\""),
            ("and tcp", "\"and\" is not understood"),
            ("host", "host needs an address behind it"),
            ("host web", "\"web\" is not an IP address"),
            ("host 10.0.0.0/8", "host takes an address alone; try net 10.0.0.0/8"),
            ("net 10.0.0.0", "is not a network"),
            ("net 10.0.0.0/33", "the length of 10.0.0.0/33 must be 1 to 32"),
            ("port 0", "\"0\" is not a port: a number from 1 to 65535"),
            ("port http", "\"http\" is not a port"),
            ("tcp and udp", "udp is one too many: a filter has at most one of tcp, udp and icmp"),
            ("drop pass", "pass is one too many: a filter has at most one of pass, drop"),
            ("host ::1 and net ::/8", "net is one too many: a filter has at most one host or net"),
            ("reason bad-luck", "\"bad-luck\" is not a reason; reasons are not-vip"),
            ("reason drop", "\"drop\" is not a reason"),
        ] {
            let error = Filter::parse(text).expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
