//! From what the operator wrote and what addresses this host has to the rules of the kernel program. Pure.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr};

use lb_common::decap::{Role, Rule};

use crate::{config, netlink::addresses::HostAddress};

/// A network, or a single address, as written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::host(address));
        }
        let (address, bits) = config::network_of(text)?;
        Ok(Self { address, bits })
    }
}

impl Network {
    fn host(address: IpAddr) -> Self {
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// All addresses of both families.
    fn all() -> Vec<Self> {
        let every = |text: &str| Self { bits: 0, ..Self::host(text.parse().expect("an address")) };
        vec![every("0.0.0.0"), every("::")]
    }
}

/// What the operator allows. An empty list stands for its default.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Where tunnels may end; by default at the addresses of the interfaces that the program is attached to.
    pub at: Vec<Network>,
    /// Where they may begin; by default anywhere.
    pub from: Vec<Network>,
    /// Where inner packets may go; by default to the addresses of this host.
    pub to: Vec<Network>,
}

impl Limits {
    /// Whether there is no address that a tunnel may end at.
    #[must_use]
    pub fn end_nowhere(&self, attached: &[u32], addresses: &[HostAddress]) -> bool {
        self.at.is_empty() && !addresses.iter().any(|own| attached.contains(&own.ifindex))
    }
}

/// The rules, given the interfaces that the program is attached to and all addresses of this host.
#[must_use]
pub fn rules(limits: &Limits, attached: &[u32], addresses: &[HostAddress]) -> BTreeSet<Rule> {
    let or =
        |given: &[Network], default: Vec<Network>| if given.is_empty() { default } else { given.to_vec() };
    let own = addresses.iter().filter(|own| attached.contains(&own.ifindex));
    let at = own.map(|own| Network::host(own.address)).collect();
    let to = addresses.iter().filter(|own| anywhere(own.address));
    let to = to.map(|own| Network::host(own.address)).collect();
    [
        (Role::At, or(&limits.at, at)),
        (Role::From, or(&limits.from, Network::all())),
        (Role::To, or(&limits.to, to)),
    ]
    .into_iter()
    .flat_map(|(role, list)| list.into_iter().map(move |one| Rule::new(role, one.address, one.bits)))
    .collect()
}

/// Whether an address means the same to other hosts. Those that do not have no business in a tunnel: packets to
/// them may be trusted to come from this host, or from its link.
fn anywhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ifindex: u32, text: &str) -> HostAddress {
        let address: IpAddr = text.parse().unwrap();
        HostAddress { ifindex, address, prefix_len: 24, ours: false }
    }

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn expected(list: &[(Role, &str)]) -> BTreeSet<Rule> {
        let rule = |(role, text): &(Role, &str)| {
            let Network { address, bits } = network(text);
            Rule::new(*role, address, bits)
        };
        list.iter().map(rule).collect()
    }

    #[test]
    fn by_default_tunnels_end_at_the_interface_and_packets_are_for_this_host() {
        let host = [
            address(1, "127.0.0.1"),
            address(1, "::1"),
            address(1, "10.10.0.200"),
            address(2, "10.20.0.101"),
            address(2, "fe80::1"),
            address(3, "192.0.2.1"),
        ];
        assert_eq!(
            rules(&Limits::default(), &[2], &host),
            expected(&[
                (Role::At, "10.20.0.101"),
                (Role::At, "fe80::1"),
                (Role::From, "0.0.0.0/0"),
                (Role::From, "::/0"),
                (Role::To, "10.10.0.200"),
                (Role::To, "10.20.0.101"),
                (Role::To, "192.0.2.1"),
            ])
        );
    }

    #[test]
    fn what_is_written_replaces_the_default() {
        let limits = Limits {
            at: vec![network("10.20.0.0/24")],
            from: vec![network("10.0.0.1"), network("fd00::/8")],
            to: vec![network("198.51.100.0/25")],
        };
        assert_eq!(
            rules(&limits, &[2], &[address(2, "10.20.0.101")]),
            expected(&[
                (Role::At, "10.20.0.0/24"),
                (Role::From, "10.0.0.1/32"),
                (Role::From, "fd00::/8"),
                (Role::To, "198.51.100.0/25"),
            ])
        );
    }

    #[test]
    fn a_host_without_addresses_decapsulates_nothing() {
        assert_eq!(
            rules(&Limits::default(), &[2], &[]),
            expected(&[(Role::From, "0.0.0.0/0"), (Role::From, "::/0")])
        );
        assert!(Limits::default().end_nowhere(&[2], &[address(1, "127.0.0.1")]));
        assert!(!Limits::default().end_nowhere(&[2], &[address(2, "10.20.0.101")]));
        let limits = Limits { at: vec![network("10.20.0.101")], ..Limits::default() };
        assert!(!limits.end_nowhere(&[2], &[]));
    }

    #[test]
    fn networks_on_the_command_line() {
        assert_eq!(network("10.0.0.1"), network("10.0.0.1/32"));
        for (text, hint) in
            [("10.0.0.1/8", "10.0.0.0/8"), ("10.0.0.0/33", "at most 32"), ("lb1", "not a network")]
        {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
    }
}
