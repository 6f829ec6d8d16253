//! The VIPs of the world: every mode, every option.

use std::net::SocketAddr;

use lb_common::{
    abi::{Mode, Selection, protocol, vip_flags},
    wire::udp,
};

use crate::world::{SNAT_FIRST, address};

/// Servers of each VIP that has any.
pub const SERVERS: u16 = 3;

/// New flows in a tick of the VIPs that are limited.
pub const LIMIT: u32 = 3;

/// A VIP of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its number.
    pub id: u16,
    /// How it forwards.
    pub mode: Mode,
    /// Address and port; 0 for all ports.
    pub at: SocketAddr,
    /// TCP or UDP.
    pub protocol: u8,
    /// Port of its servers, or of GUE; 0 keeps the client's.
    pub server_port: u16,
    /// How many of the machines serve it.
    pub servers: u16,
    /// Whether their addresses are those of IPv4.
    pub servers_four: bool,
    /// How they are chosen.
    pub selection: Selection,
    /// [`vip_flags`].
    pub flags: u16,
    /// Which slots are tagged.
    pub tagging: Tagging,
    /// Largest segment.
    pub mss: u16,
    /// Largest packet to a server; 0 for any.
    pub mtu: u16,
    /// How long a client is remembered.
    pub persistence: u16,
    /// New flows in a tick, with [`vip_flags::LIMITED`].
    pub limit: u32,
}

/// Which slots of a ring are tagged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagging {
    /// Those that have changed.
    Changed,
    /// Those, and one of so many.
    Every(usize),
    /// All of them, always.
    All,
}

impl Service {
    /// The index of its server `number`, from 1 on.
    #[must_use]
    pub fn server(&self, number: u16) -> u16 {
        self.id * 10 + number
    }

    /// The port that packets to `port` of the VIP have at the server.
    #[must_use]
    pub fn port_at_server(&self, port: u16) -> u16 {
        if self.server_port == 0 { port } else { self.server_port }
    }

    /// Whether the server depends on the client's address alone.
    #[must_use]
    pub fn by_source(&self) -> bool {
        self.flags & vip_flags::BY_SOURCE != 0
    }

    /// Whether it is one of the plain ones: no option at all.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self
            == Self {
                flags: 0,
                selection: Selection::Ring,
                tagging: Tagging::Changed,
                mss: 0,
                mtu: 0,
                ..*self
            }
            && self.at.port() != 0
            && self.servers > 0
    }

    /// An address and port of it.
    #[must_use]
    pub fn end(&self) -> SocketAddr {
        SocketAddr::new(self.at.ip(), if self.at.port() == 0 { 7_777 } else { self.at.port() })
    }

    fn plain(mode: Mode, host: u8, port: u16, protocol: u8) -> Self {
        let server_port = match (mode, protocol) {
            (Mode::Gue, _) => udp::GUE_PORT,
            (Mode::Nat | Mode::Snat, protocol::TCP) => 8_080,
            (Mode::Nat | Mode::Snat, _) => 5_353,
            _ => 0,
        };
        Self {
            id: 0,
            mode,
            // The host is all that counts; `all` puts it into either family.
            at: (address(true, 1, host), port).into(),
            protocol,
            server_port,
            servers: if mode == Mode::Local { 0 } else { SERVERS },
            servers_four: true,
            selection: Selection::Ring,
            flags: 0,
            tagging: Tagging::Changed,
            mss: 0,
            mtu: 0,
            persistence: 0,
            limit: 0,
        }
    }

    fn with(self, flags: u16) -> Self {
        Self { flags: self.flags | flags, ..self }
    }

    /// Its servers are of the other family.
    fn mixed(self) -> Self {
        Self { servers_four: false, ..self }
    }

    fn tagged(self, tagging: Tagging) -> Self {
        Self { tagging, ..self }
    }

    /// Where slots only say who is next, they say nothing about flows: all are tagged.
    fn chosen(self, selection: Selection) -> Self {
        Self { selection, tagging: Tagging::All, ..self }
    }

    fn empty(self) -> Self {
        Self { servers: 0, ..self }
    }

    fn limited(self) -> Self {
        Self { limit: LIMIT, ..self }.with(vip_flags::LIMITED)
    }
}

/// Every VIP of one family. Which family servers are of is said as if the VIP were of IPv4.
fn kinds() -> Vec<Service> {
    use Mode::{Dr, Gue, Ipip, Local, Nat, Snat};
    let tcp = |mode, host, port| Service::plain(mode, host, port, protocol::TCP);
    let udp = |mode, host, port| Service::plain(mode, host, port, protocol::UDP);
    let (turns, least) = (Selection::RoundRobin, Selection::LeastConnections);
    let (reject, pass) = (vip_flags::EMPTY_REJECT, vip_flags::EMPTY_PASS);
    let small = |service: Service| Service { mtu: 200, ..service };
    let clamped = |service: Service| Service { mss: 1_200, ..service };
    vec![
        tcp(Dr, 10, 80),
        udp(Dr, 10, 53),
        tcp(Nat, 20, 80),
        udp(Nat, 20, 53),
        // A second VIP to the same ports of the same machines.
        tcp(Nat, 21, 80),
        tcp(Snat, 30, 80),
        udp(Snat, 30, 53),
        Service { server_port: 0, ..tcp(Snat, 31, 443) }.with(vip_flags::BY_SOURCE),
        // Nobody serves this one.
        tcp(Snat, 32, 80).empty(),
        tcp(Local, 40, 80),
        tcp(Ipip, 50, 80),
        udp(Ipip, 50, 53),
        tcp(Ipip, 51, 80).mixed(),
        udp(Ipip, 51, 53).mixed(),
        tcp(Gue, 52, 80),
        udp(Gue, 52, 53),
        tcp(Gue, 53, 80).mixed(),
        udp(Gue, 53, 53).mixed(),
        small(tcp(Ipip, 54, 80)),
        small(udp(Gue, 54, 53)).mixed(),
        tcp(Dr, 60, 80).tagged(Tagging::All),
        udp(Dr, 60, 53).tagged(Tagging::All),
        tcp(Ipip, 61, 80).tagged(Tagging::Every(2)),
        Service { persistence: 30, ..tcp(Dr, 62, 80) }.with(vip_flags::BY_SOURCE).tagged(Tagging::All),
        udp(Dr, 63, 53).with(vip_flags::NO_FLOW_STATE),
        udp(Ipip, 63, 54).with(vip_flags::NO_FLOW_STATE).tagged(Tagging::All),
        tcp(Dr, 64, 80).chosen(turns),
        udp(Gue, 64, 53).chosen(turns),
        tcp(Snat, 65, 80).chosen(turns),
        tcp(Ipip, 66, 80).chosen(least),
        tcp(Snat, 67, 80).chosen(least),
        tcp(Dr, 68, 80).empty().with(reject),
        udp(Dr, 68, 53).empty().with(reject),
        tcp(Snat, 69, 80).empty().with(reject),
        udp(Snat, 69, 53).empty().with(pass),
        tcp(Dr, 70, 80).with(pass),
        tcp(Dr, 71, 80).limited(),
        udp(Snat, 71, 53).limited(),
        clamped(tcp(Dr, 72, 80)),
        clamped(tcp(Ipip, 73, 80)),
        clamped(tcp(Snat, 74, 80)),
        tcp(Dr, 75, 0),
        udp(Gue, 75, 0),
        tcp(Nat, 76, 0),
    ]
}

/// Every VIP, for both families.
pub(crate) fn all() -> Vec<Service> {
    let mut services = Vec::new();
    for four in [true, false] {
        let of_family = |kind: Service| {
            let host = if let std::net::IpAddr::V4(ip) = kind.at.ip() { ip.octets()[3] } else { 0 };
            let at = (address(four, 1, host), kind.at.port()).into();
            let server_port =
                if kind.at.port() == 0 && kind.mode == Mode::Nat { 0 } else { kind.server_port };
            Service { at, server_port, servers_four: kind.servers_four == four, ..kind }
        };
        services.extend(kinds().into_iter().map(of_family));
        // A VIP on the very address and port that SNAT could take.
        let at = (address(four, 2, 254), SNAT_FIRST + 5).into();
        services.push(Service { at, servers_four: four, ..Service::plain(Mode::Local, 0, 0, protocol::TCP) });
    }
    for (id, service) in (1..).zip(&mut services) {
        service.id = id;
    }
    services
}
