//! Ways back: rules that have this host take for its own what servers send to clients (policy routing, ip-rule(8)), and the
//! table that they lead to.
//!
//! A server that has seen a client's address answers that client. Where its answer comes by here, it is for a socket
//! of this host, though the address is not one of this host's: a rule for what comes from the server's port leads to a table
//! in which everything is local. All of it carries the number by which VIP addresses are known too (`proto 76`), so what a
//! killed lb-user has left is found again.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, IpProtocol, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange},
};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};

use super::{Error, Netlink, errno};
use crate::model::PortRange;

/// Marks what lb-user added: the letter `L`, as with addresses.
const OURS: RouteProtocol = RouteProtocol::Other(b'L');

/// The routing table in which everything is local: the letters `L` and `B`.
pub const TABLE: u32 = 0x4c42;

/// Where the rules stand: behind that of the host's own addresses, before those of main and whatever else usually is.
pub const PRIORITY: u32 = 76;

/// The loopback device, in every network namespace.
const LOOPBACK: u32 = 1;

/// Packets of TCP from these ports of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WayBack {
    /// The server.
    pub server: IpAddr,
    /// Its ports.
    pub ports: PortRange,
}

impl Netlink {
    /// The ways back that there are, by this lb-user or one before.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn ways_back(&self) -> Result<Vec<WayBack>, Error> {
        let mut ways = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RuleMessage::default();
            query.header.family = family;
            let answers = match self.request(RouteNetlinkMessage::GetRule(query), NLM_F_DUMP).await {
                Ok(answers) => answers,
                // A host without IPv6, or a kernel without policy routing, has no such rules.
                Err(error) if is_unknown(&error) => continue,
                Err(error) => return Err(Error::new("cannot list this host's routing rules", error)),
            };
            ways.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => read(message),
                _ => None,
            }));
        }
        Ok(ways)
    }

    /// Makes a way back, unless there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_way_back(&self, way: WayBack) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewRule(write(way));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.request(request, flags).await {
            Err(error) if error.raw_os_error() != Some(errno::EEXIST) => {
                let WayBack { server, ports } = way;
                Err(Error::new(
                    format!("cannot add a routing rule for answers of {server}, port {ports}"),
                    error,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Takes a way back away, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_way_back(&self, way: WayBack) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelRule(write(way));
        match self.request(request, NLM_F_ACK).await {
            Err(error) if error.raw_os_error() != Some(errno::ENOENT) => {
                let WayBack { server, ports } = way;
                let attempt = format!("cannot remove the routing rule for answers of {server}, port {ports}");
                Err(Error::new(attempt, error))
            }
            _ => Ok(()),
        }
    }

    /// Fills the table that ways back lead to, or empties it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn take_in(&self, ipv6: bool, yes: bool) -> Result<(), Error> {
        let route = local_default(ipv6);
        let (request, fine) = if yes {
            (RouteNetlinkMessage::NewRoute(route), [errno::EEXIST, errno::EEXIST])
        } else {
            // ESRCH: IPv4 and IPv6 have the same word for it.
            (RouteNetlinkMessage::DelRoute(route), [errno::ESRCH, errno::ENODEV])
        };
        let flags = if yes { NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL } else { NLM_F_ACK };
        match self.request(request, flags).await {
            Err(error) if !error.raw_os_error().is_some_and(|code| fine.contains(&code)) => {
                let what = if yes { "add" } else { "remove" };
                let family = if ipv6 { "IPv6" } else { "IPv4" };
                let attempt = format!("cannot {what} the local default route of {family} table {TABLE}");
                Err(Error::new(attempt, error))
            }
            _ => Ok(()),
        }
    }
}

fn is_unknown(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(errno::EAFNOSUPPORT | errno::EOPNOTSUPP))
}

/// `ip rule add from SERVER ipproto tcp sport PORTS lookup TABLE`.
fn write(way: WayBack) -> RuleMessage {
    let mut message = RuleMessage::default();
    (message.header.family, message.header.src_len) =
        if way.server.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(way.server),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Table(TABLE),
        RuleAttribute::Protocol(OURS),
        RuleAttribute::IpProtocol(IpProtocol::Tcp),
        RuleAttribute::SourcePortRange(RulePortRange { start: way.ports.first, end: way.ports.last }),
    ];
    message
}

/// The way back that a rule is, if it is one of ours.
fn read(message: &RuleMessage) -> Option<WayBack> {
    let (mut server, mut ports, mut ours, mut table) = (None, None, false, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => server = Some(*address),
            RuleAttribute::SourcePortRange(range) => {
                ports = Some(PortRange { first: range.start, last: range.end });
            }
            RuleAttribute::Protocol(protocol) => ours = *protocol == OURS,
            RuleAttribute::Table(number) => table = Some(*number),
            _ => {}
        }
    }
    let way = WayBack { server: server?, ports: ports? };
    (ours && table == Some(TABLE)).then_some(way)
}

/// `ip route add local default dev lo table TABLE`.
fn local_default(ipv6: bool) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.protocol = OURS;
    message.header.kind = RouteType::Local;
    message.header.scope = if ipv6 { RouteScope::Universe } else { RouteScope::Host };
    message.attributes = vec![RouteAttribute::Table(TABLE), RouteAttribute::Oif(LOOPBACK)];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_ours_and_others_rules_are_not() {
        for server in ["192.0.2.1", "2001:db8::1"] {
            let way = WayBack { server: server.parse().unwrap(), ports: PortRange { first: 80, last: 90 } };
            let mut message = write(way);
            assert_eq!(read(&message), Some(way));
            message.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
            assert_eq!(read(&message), None);
        }
    }
}
