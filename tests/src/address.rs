//! The address plan: every wire is an IPv4 /24 and an IPv6 /64, every host has the same number in both.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, for loops.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Length of an address in bits, i.e. the prefix of a single host.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An address in each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dual {
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
}

impl Dual {
    /// The address of one family.
    #[must_use]
    pub fn of(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// The address of one family with a port.
    #[must_use]
    pub fn at(self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.of(family), port)
    }

    /// Whether this is the address in its family.
    #[must_use]
    pub fn is(self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.v4) || address == IpAddr::V6(self.v6)
    }
}

/// A wire's networks: an IPv4 /24 and an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    v4: [u8; 3],
    v6: u16,
}

impl Subnet {
    /// Where clients, the balancer's front and the VIPs are.
    pub const FRONT: Self = Self { v4: [10, 10, 0], v6: 0x10 };
    /// Where servers are.
    pub const SERVERS: Self = Self { v4: [10, 20, 0], v6: 0x20 };
    /// Between two routers.
    pub const BETWEEN: Self = Self { v4: [10, 30, 0], v6: 0x30 };
    /// Clients that reach the front through a router.
    pub const REMOTE: Self = Self { v4: [10, 40, 0], v6: 0x40 };
    /// The network of `examples/flow.toml`.
    pub const FLOW: Self = Self { v4: [10, 1, 0], v6: 0x51 };
    /// The network of the servers of `examples/tas.toml`.
    pub const TAS: Self = Self { v4: [10, 0, 4], v6: 0x52 };
    /// The network of `examples/openstack.toml`.
    pub const OPENSTACK: Self = Self { v4: [192, 168, 1], v6: 0x19 };

    /// The host of this number, 1..=254.
    #[must_use]
    pub fn host(self, number: u8) -> Dual {
        let [a, b, c] = self.v4;
        Dual {
            v4: Ipv4Addr::new(a, b, c, number),
            v6: Ipv6Addr::new(0xfd00, self.v6, 0, 0, 0, 0, 0, number.into()),
        }
    }

    /// Length of the network's prefix in bits.
    #[must_use]
    pub fn prefix(self, family: Family) -> u8 {
        match family {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }

    /// The network in one family, as `ip route` wants it.
    #[must_use]
    pub fn network(self, family: Family) -> String {
        let [a, b, c] = self.v4;
        match family {
            Family::V4 => format!("{a}.{b}.{c}.0/24"),
            Family::V6 => format!("fd00:{:x}::/64", self.v6),
        }
    }

    /// A number that tells this subnet's Ethernet addresses from others.
    #[must_use]
    pub fn number(self) -> u8 {
        self.v6.to_le_bytes()[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_same_number_in_both_families() {
        let host = Subnet::SERVERS.host(101);
        assert_eq!(host.at(Family::V4, 80).to_string(), "10.20.0.101:80");
        assert_eq!(host.at(Family::V6, 80).to_string(), "[fd00:20::65]:80");
        assert_eq!(Subnet::SERVERS.network(Family::V6), "fd00:20::/64");
    }
}
