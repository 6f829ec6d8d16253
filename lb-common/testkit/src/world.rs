//! The tables that all these tests run against: VIPs of every mode, for TCP and UDP, in both families.
//!
//! ```text
//! clients 10.0.0.0/24, fd00:0::/64 ── interface 1  ─┐
//! servers 10.2.0.1, fd00:2::1      ── interface 12 ─┼─ balancer, VIPs 10.1.0.x, fd00:1::x
//!         10.2.0.2, fd00:2::2      ── interface 1  ─┤
//!         10.2.0.3, fd00:2::3      ── interface 13 ─┘  SNAT from 10.2.0.254, fd00:2::fe
//! ```
//!
//! All VIPs use the same three machines, so that their translations can get into each other's way.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use lb_common::{
    abi::{
        ABI_VERSION, FlowKey, Mac, MacBytes, Mode, Server, ServerRef, Settings, Vip, VipKey, protocol,
        server_flags, settings_flags, vip_flags,
    },
    family::{words4, words6},
    host::HostTables,
    maglev::{self, Member},
};

use crate::inspect::Tuple;

/// The interface that clients come in by.
pub const FRONT: u32 = 1;
/// The interface of the first server.
pub const BACK: u32 = 12;
/// The interface of the third server.
pub const SIDE: u32 = 13;

/// The machine, or router, that clients come by if nothing else is said.
pub const CLIENT_MAC: MacBytes = [2, 0, 0, 0, 1, 9];

/// Servers of each VIP.
pub const SERVERS: u16 = 3;

/// First source port of SNAT.
pub const SNAT_FIRST: u16 = 20_000;
/// How many there are: few, so that they run out.
pub const SNAT_COUNT: u16 = 20;

/// MAC of an interface of the balancer.
#[must_use]
pub const fn mac_of_interface(ifindex: u32) -> MacBytes {
    [2, 0, 0, 0, 0, ifindex as u8]
}

/// MAC of a server, by its number from 1 to 3.
#[must_use]
pub const fn mac_of_server(number: u16) -> MacBytes {
    [2, 0, 0, 0, 2, number as u8]
}

/// The interface that leads to a server.
#[must_use]
pub const fn interface_of_server(number: u16) -> u32 {
    match number {
        1 => BACK,
        2 => FRONT,
        _ => SIDE,
    }
}

/// A VIP of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its number.
    pub id: u16,
    /// How it forwards.
    pub mode: Mode,
    /// Address and port.
    pub at: SocketAddr,
    /// TCP or UDP.
    pub protocol: u8,
    /// Port of its servers; 0 keeps the client's.
    pub server_port: u16,
    /// Whether the server depends on the client's address alone.
    pub by_source: bool,
    /// How many of the machines serve it.
    pub servers: u16,
}

impl Service {
    /// The index of its server `number`, from 1 on.
    #[must_use]
    pub fn server(&self, number: u16) -> u16 {
        self.id * 10 + number
    }

    /// The port its packets have at the server.
    #[must_use]
    pub fn port_at_server(&self) -> u16 {
        if self.server_port == 0 { self.at.port() } else { self.server_port }
    }
}

/// An address of the balancer's networks: `10.<network>.0.<host>` or `fd00:<network>::<host>`.
#[must_use]
pub fn address(four: bool, network: u8, host: u8) -> IpAddr {
    if four {
        IpAddr::from([10, network, 0, host])
    } else {
        Ipv6Addr::new(0xfd00, network.into(), 0, 0, 0, 0, 0, host.into()).into()
    }
}

/// A client's end of a flow.
#[must_use]
pub fn client(four: bool, host: u8, port: u16) -> SocketAddr {
    (address(four, 0, host), port).into()
}

/// Words of an address as tables hold it.
#[must_use]
pub fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => words4(address.octets()),
        IpAddr::V6(address) => words6(address.octets()),
    }
}

/// The address of a table of IPv4.
#[must_use]
pub fn ip4(word: u32) -> IpAddr {
    word.to_ne_bytes().into()
}

/// The address of a table of IPv6.
#[must_use]
pub fn ip6(words: [u32; 4]) -> IpAddr {
    let bytes = words.map(u32::to_ne_bytes);
    <[u8; 16]>::try_from(bytes.as_flattened()).expect("four times four bytes").into()
}

/// The key of a flow over IPv4, or over IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Of `FLOWS4`.
    V4(FlowKey<u32>),
    /// Of `FLOWS6`.
    V6(FlowKey<[u32; 4]>),
}

impl From<Tuple> for Key {
    fn from(Tuple { src, dst, protocol }: Tuple) -> Self {
        let (sport, dport, protocol) = (src.port(), dst.port(), protocol.into());
        let (four, src, dst) = (src.is_ipv4(), words(src.ip()), words(dst.ip()));
        if four {
            Self::V4(FlowKey { src: src[0], dst: dst[0], sport, dport, protocol })
        } else {
            Self::V6(FlowKey { src, dst, sport, dport, protocol })
        }
    }
}

/// The VIPs, and the tables that serve them.
#[derive(Clone, Debug)]
pub struct World {
    /// The tables.
    pub tables: HostTables,
    /// The VIPs in them.
    pub services: Vec<Service>,
}

impl World {
    /// All servers up, no flows, rings of `slots` slots (a prime; [`lb_common::abi::RING_SIZE`] in the
    /// kernel).
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let mut world = Self { tables: HostTables::default(), services: services() };
        world.tables.now = 1_000;
        world.tables.settings = Settings {
            abi_version: ABI_VERSION,
            flags: settings_flags::NAT_IN_USE,
            snat_first: SNAT_FIRST,
            snat_count: SNAT_COUNT,
            pad: [0; 4],
        };
        // The kernel's table is an array: this entry is there, although nobody has it.
        world.tables.servers.insert(0, Server::default());
        for ifindex in [FRONT, BACK, SIDE] {
            world.tables.interfaces.insert(ifindex, Mac::new(mac_of_interface(ifindex)));
        }
        for service in world.services.clone() {
            world.add(&service, slots);
        }
        world
    }

    fn add(&mut self, service: &Service, slots: usize) {
        let flags = if service.by_source { vip_flags::SOURCE_HASH } else { 0 };
        let vip = Vip { id: service.id, mode: service.mode as u8, flags };
        let (port, protocol) = (service.at.port(), service.protocol.into());
        let address = words(service.at.ip());
        if service.at.is_ipv4() {
            self.tables.v4.vips.insert(VipKey { address: address[0], port, protocol }, vip);
        } else {
            self.tables.v6.vips.insert(VipKey { address, port, protocol }, vip);
        }
        for number in 1..=service.servers {
            let ifindex = interface_of_server(number);
            let server = Server {
                address: words(self::address(service.at.is_ipv4(), 2, number as u8)),
                snat_source: words(self::address(service.at.is_ipv4(), 2, 254)),
                next_hop: Mac::new(mac_of_server(number)),
                source_mac: Mac::new(mac_of_interface(ifindex)),
                ifindex,
                port: service.server_port,
                generation: 1,
                vip: service.id,
                flags: server_flags::ACCEPTS_NEW | server_flags::HOP_KNOWN,
                pad: [0; 4],
            };
            self.tables.servers.insert(service.server(number), server);
        }
        if service.mode != Mode::Local {
            self.tables.rings.insert(service.id, vec![0; slots]);
            self.fill_ring(service, &(1..=service.servers).collect::<Vec<_>>());
        }
    }

    /// Makes the ring of a VIP anew from some of its servers, by number.
    pub fn fill_ring(&mut self, service: &Service, numbers: &[u16]) {
        let servers = &self.tables.servers;
        let mut members: Vec<_> = numbers
            .iter()
            .map(|&number| {
                let index = service.server(number);
                let generation = servers[&index].generation;
                let identity = words(address(service.at.is_ipv4(), 2, number as u8)).map(u32::to_ne_bytes);
                Member::new(ServerRef::new(index, generation), 100, identity.as_flattened())
            })
            .collect();
        maglev::populate(&mut members, self.tables.rings.get_mut(&service.id).expect("made with the VIP"));
    }

    /// The VIP of a mode and protocol in a family: the first, if there are several.
    #[must_use]
    pub fn service(&self, mode: Mode, protocol: u8, four: bool) -> Service {
        let is_it =
            |s: &&Service| s.mode == mode && s.protocol == protocol && s.at.is_ipv4() == four && !s.by_source;
        *self.services.iter().find(is_it).expect("there is one of every kind")
    }

    /// The VIP at an address, port and protocol.
    #[must_use]
    pub fn service_at(&self, at: SocketAddr, protocol: u8) -> Option<Service> {
        self.services.iter().find(|service| service.at == at && service.protocol == protocol).copied()
    }

    /// The VIP whose server has this index.
    #[must_use]
    pub fn service_of_server(&self, index: u16) -> Service {
        *self.services.iter().find(|service| service.id == index / 10).expect("of a VIP of this world")
    }
}

/// Every VIP, for both families.
fn services() -> Vec<Service> {
    let (tcp, udp) = (protocol::TCP, protocol::UDP);
    // mode, host, port, protocol, port of the servers, by source, servers
    let kinds = [
        (Mode::Dr, 10, 80, tcp, 0, false, SERVERS),
        (Mode::Dr, 10, 53, udp, 0, false, SERVERS),
        (Mode::Nat, 20, 80, tcp, 8_080, false, SERVERS),
        (Mode::Nat, 20, 53, udp, 5_353, false, SERVERS),
        // A second VIP to the same ports of the same machines.
        (Mode::Nat, 21, 80, tcp, 8_080, false, SERVERS),
        (Mode::Snat, 30, 80, tcp, 8_080, false, SERVERS),
        (Mode::Snat, 30, 53, udp, 5_353, false, SERVERS),
        (Mode::Snat, 31, 443, tcp, 0, true, SERVERS),
        // Nobody serves this one.
        (Mode::Snat, 32, 80, tcp, 8_080, false, 0),
        (Mode::Local, 40, 80, tcp, 0, false, 0),
    ];
    let mut services = Vec::new();
    for four in [true, false] {
        for (mode, host, port, protocol, server_port, by_source, servers) in kinds {
            services.push(Service {
                id: services.len() as u16 + 1,
                mode,
                at: (address(four, 1, host), port).into(),
                protocol,
                server_port,
                by_source,
                servers,
            });
        }
        // A VIP on the very address and port that SNAT could take.
        services.push(Service {
            id: services.len() as u16 + 1,
            mode: Mode::Local,
            at: (address(four, 2, 254), SNAT_FIRST + 5).into(),
            protocol: tcp,
            server_port: 0,
            by_source: false,
            servers: 0,
        });
    }
    services
}
