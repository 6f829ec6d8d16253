//! Where a packet to an address leaves this host: interface, next hop and the next hop's MAC.
//!
//! The kernel is asked, not imitated: its own route lookup and its neighbour table give the answer.

use std::{fmt, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE};

use super::{Error, Netlink, errno};

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Kernel's index of the interface packets leave through.
    pub ifindex: u32,
    /// Who takes them on that link: a gateway, or the destination itself.
    pub address: IpAddr,
    /// The address of this host that the kernel would use as source.
    pub source: Option<IpAddr>,
    /// What is known about the MAC of [`Self::address`].
    pub neighbour: Neighbour,
}

impl NextHop {
    /// The next hop's MAC, if it is known.
    #[must_use]
    pub fn mac(&self) -> Option<[u8; 6]> {
        match self.neighbour {
            Neighbour::Known(mac) => Some(mac),
            Neighbour::Unknown | Neighbour::Failed => None,
        }
    }
}

/// What the kernel's neighbour table says about an address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Its MAC.
    Known([u8; 6]),
    /// Nobody asked yet, or the answer is still to come; see [`Netlink::nudge`].
    Unknown,
    /// It did not answer ARP (IPv4) or neighbour solicitation (IPv6).
    Failed,
}

/// Why there is no way to an address.
#[derive(Debug)]
pub enum NextHopProblem {
    /// The routing table has no entry for it.
    NoRoute(IpAddr),
    /// A route of type `unreachable`, or none that could be followed.
    Unreachable(IpAddr),
    /// A route of type `prohibit`.
    Prohibited(IpAddr),
    /// A route of type `blackhole`.
    Blackhole(IpAddr),
    /// It is an address of this host.
    Local(IpAddr),
    /// It is a broadcast, multicast or anycast address.
    NotUnicast(IpAddr),
    /// The kernel could not be asked, or its answer not be understood.
    Unknown(Error),
}

impl fmt::Display for NextHopProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute(ip) => write!(f, "no route to {ip}"),
            Self::Unreachable(ip) => write!(f, "the routing table says {ip} is unreachable"),
            Self::Prohibited(ip) => write!(f, "the routing table prohibits traffic to {ip}"),
            Self::Blackhole(ip) => write!(f, "the routing table drops traffic to {ip} (blackhole)"),
            Self::Local(ip) => write!(f, "{ip} is an address of this host"),
            Self::NotUnicast(ip) => write!(f, "{ip} is not the address of a single host"),
            Self::Unknown(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NextHopProblem {}

impl Netlink {
    /// Looks up the way to an address and what is known about its first hop.
    ///
    /// # Errors
    /// The reason why no packet can be sent there.
    pub async fn resolve(&self, destination: IpAddr) -> Result<NextHop, NextHopProblem> {
        let mut hop = self.route(destination).await?;
        hop.neighbour = self.neighbour(hop.ifindex, hop.address).await.map_err(NextHopProblem::Unknown)?;
        Ok(hop)
    }

    /// Looks up the way to an address. Nothing is asked about the next hop: its `neighbour` is unknown.
    ///
    /// # Errors
    /// The reason why no packet can be sent there.
    pub async fn route(&self, destination: IpAddr) -> Result<NextHop, NextHopProblem> {
        let mut query = RouteMessage::default();
        query.header.address_family = family(destination);
        query.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        query.attributes = vec![RouteAttribute::Destination(destination.into())];

        let unknown = |cause| {
            NextHopProblem::Unknown(Error::new(format!("cannot look up the route to {destination}"), cause))
        };
        let answers = match self.request(RouteNetlinkMessage::GetRoute(query), 0).await {
            Ok(answers) => answers,
            Err(error) => {
                return Err(match error.raw_os_error() {
                    Some(errno::ENETUNREACH) => NextHopProblem::NoRoute(destination),
                    Some(errno::EHOSTUNREACH) => NextHopProblem::Unreachable(destination),
                    Some(errno::EACCES) => NextHopProblem::Prohibited(destination),
                    Some(errno::EINVAL) => NextHopProblem::Blackhole(destination),
                    _ => unknown(error),
                });
            }
        };
        let route = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        let route = route.ok_or_else(|| unknown(std::io::Error::other("the answer holds no route")))?;
        read_route(route, destination)?
            .ok_or_else(|| unknown(std::io::Error::other("the route names no interface")))
    }

    /// What the kernel knows about an address on a link.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn neighbour(&self, ifindex: u32, address: IpAddr) -> Result<Neighbour, Error> {
        let query = RouteNetlinkMessage::GetNeighbour(neighbour_message(ifindex, address));
        match self.request(query, 0).await {
            Ok(answers) => Ok(answers
                .iter()
                .find_map(|answer| match answer {
                    RouteNetlinkMessage::NewNeighbour(message) => Some(read_neighbour(message)),
                    _ => None,
                })
                .unwrap_or(Neighbour::Unknown)),
            Err(error) if error.raw_os_error() == Some(errno::ENOENT) => Ok(Neighbour::Unknown),
            Err(error) => {
                let attempt = format!("cannot look up the MAC of {address} on interface {ifindex}");
                Err(Error::new(attempt, error))
            }
        }
    }

    /// Has the kernel find out (or confirm) the MAC of an address on a link, as if a packet were sent to
    /// it. Returns before the answer is known: [`super::watch::Watch`] tells when it is.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. for want of privilege.
    pub async fn nudge(&self, ifindex: u32, address: IpAddr) -> Result<(), Error> {
        let mut message = neighbour_message(ifindex, address);
        message.header.flags = NeighbourFlags::Use;
        let request = RouteNetlinkMessage::NewNeighbour(message);
        match self.request(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).await {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(Error::new(format!("cannot ask for the MAC of {address} on interface {ifindex}"), error))
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn neighbour_message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = ifindex;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}

fn read_route(route: &RouteMessage, destination: IpAddr) -> Result<Option<NextHop>, NextHopProblem> {
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(NextHopProblem::Local(destination)),
        RouteType::Unreachable => return Err(NextHopProblem::Unreachable(destination)),
        RouteType::Prohibit => return Err(NextHopProblem::Prohibited(destination)),
        RouteType::BlackHole => return Err(NextHopProblem::Blackhole(destination)),
        _ => return Err(NextHopProblem::NotUnicast(destination)),
    }
    let mut ifindex = None;
    let mut address = destination;
    let mut source = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(gateway) => address = ip(gateway).unwrap_or(address),
            // An IPv4 route whose gateway has an IPv6 address (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => address = (*gateway).into(),
            RouteAttribute::PrefSource(ours) => source = ip(ours),
            _ => {}
        }
    }
    Ok(ifindex.map(|ifindex| NextHop { ifindex, address, source, neighbour: Neighbour::Unknown }))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn read_neighbour(message: &NeighbourMessage) -> Neighbour {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
        _ => None,
    });
    match (message.header.state, mac) {
        (
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent,
            Some(mac),
        ) => Neighbour::Known(mac),
        (NeighbourState::Failed, _) => Neighbour::Failed,
        _ => Neighbour::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn neighbour_states() {
        for (state, mac, expected) in [
            (NeighbourState::Reachable, true, Neighbour::Known(MAC)),
            (NeighbourState::Stale, true, Neighbour::Known(MAC)),
            (NeighbourState::Delay, true, Neighbour::Known(MAC)),
            (NeighbourState::Probe, true, Neighbour::Known(MAC)),
            (NeighbourState::Permanent, true, Neighbour::Known(MAC)),
            (NeighbourState::Permanent, false, Neighbour::Unknown),
            (NeighbourState::Incomplete, false, Neighbour::Unknown),
            (NeighbourState::None, false, Neighbour::Unknown),
            (NeighbourState::Noarp, true, Neighbour::Unknown),
            (NeighbourState::Failed, false, Neighbour::Failed),
            (NeighbourState::Failed, true, Neighbour::Failed),
        ] {
            let mut message = neighbour_message(1, "192.0.2.1".parse().unwrap());
            message.header.state = state;
            if mac {
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(MAC.to_vec()));
            }
            assert_eq!(read_neighbour(&message), expected, "{state}, MAC {mac}");
        }
    }

    #[test]
    fn kinds_of_routes() {
        let destination: IpAddr = "192.0.2.1".parse().unwrap();
        for (kind, problem) in [
            (RouteType::Local, "192.0.2.1 is an address of this host"),
            (RouteType::Broadcast, "192.0.2.1 is not the address of a single host"),
            (RouteType::Multicast, "192.0.2.1 is not the address of a single host"),
            (RouteType::Unreachable, "the routing table says 192.0.2.1 is unreachable"),
            (RouteType::Prohibit, "the routing table prohibits traffic to 192.0.2.1"),
            (RouteType::BlackHole, "the routing table drops traffic to 192.0.2.1 (blackhole)"),
        ] {
            let mut route = RouteMessage::default();
            route.header.kind = kind;
            assert_eq!(read_route(&route, destination).unwrap_err().to_string(), problem);
        }
    }

    #[test]
    fn a_gateway_may_have_an_ipv6_address() {
        let destination: IpAddr = "192.0.2.1".parse().unwrap();
        let gateway: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.attributes = vec![RouteAttribute::Oif(3), RouteAttribute::Via(RouteVia::Inet6(gateway))];
        let hop = read_route(&route, destination).unwrap().unwrap();
        assert_eq!((hop.ifindex, hop.address), (3, gateway.into()));
    }
}
