//! The tables that all these tests run against: VIPs of every mode and option, for TCP and UDP, in both families.
//!
//! ```text
//! clients 10.0.0.0/24, fd00:0::/64 ── interface 1  ─┐
//! servers 10.2.0.1, fd00:2::1      ── interface 12 ─┼─ balancer, VIPs 10.1.0.x, fd00:1::x
//!         10.2.0.2, fd00:2::2      ── interface 1  ─┤
//!         10.2.0.3, fd00:2::3      ── interface 13 ─┘  SNAT and tunnels from 10.2.0.254, fd00:2::fe
//! ```
//!
//! All VIPs use the same three machines, so that their translations can get into each other's way. Which VIPs there
//! are is in [`crate::service`].

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use lb_common::{
    abi::{
        ABI_VERSION, FlowKey, FlowTag, Mac, MacBytes, Mode, Server, ServerRef, Settings, Slot, TagStage, Vip,
        VipKey, VipLimit, WAYS, protocol, server_flags, settings_flags,
    },
    family::{V4, V6, words4, words6},
    hash,
    host::HostTables,
    maglev::{self, Member},
};

pub use crate::service::{SERVERS, Service, Tagging};
use crate::{inspect::Tuple, service};

/// The interface that clients come in by.
pub const FRONT: u32 = 1;
/// The interface of the first server.
pub const BACK: u32 = 12;
/// The interface of the third server.
pub const SIDE: u32 = 13;

/// The machine, or router, that clients come by if nothing else is said.
pub const CLIENT_MAC: MacBytes = [2, 0, 0, 0, 1, 9];

/// First source port of SNAT.
pub const SNAT_FIRST: u16 = 20_000;
/// How many there are: few, so that they run out.
pub const SNAT_COUNT: u16 = 20;

/// Translated flows of each family that the world's tables hold.
pub const FLOWS: usize = 1_024;
/// Flow tags that they hold.
pub const TAGS: usize = 16_384;

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

/// The address in words that serve both families.
#[must_use]
pub fn ip(words: [u32; 4], six: bool) -> IpAddr {
    if six { ip6(words) } else { ip4(words[0]) }
}

/// The key of a flow over IPv4, or over IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Over IPv4.
    V4(FlowKey<u32>),
    /// Over IPv6.
    V6(FlowKey<[u32; 4]>),
}

impl Key {
    /// Its flow's hash, or that of its client.
    #[must_use]
    pub fn ring_hash(self, by_source: bool) -> u32 {
        match (self, by_source) {
            (Self::V4(key), false) => hash::flow::<V4>(&key),
            (Self::V6(key), false) => hash::flow::<V6>(&key),
            (Self::V4(key), true) => hash::source::<V4>(key.src),
            (Self::V6(key), true) => hash::source::<V6>(key.src),
        }
    }
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
    /// Raised whenever user space takes away what was remembered of flows: what was known before is not any more.
    pub epoch: u32,
    /// Ticks by which everything was made older.
    pub aged: u32,
}

impl World {
    /// All servers up, no flows, rings of `slots` slots (a prime; [`lb_common::abi::RING_SIZE`] in the
    /// kernel).
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self::with_tables(slots, HostTables::new(FLOWS, TAGS))
    }

    /// The same with flow tables of another size.
    #[must_use]
    pub fn with_tables(slots: usize, tables: HostTables) -> Self {
        Self::with_some(slots, tables, |_| true)
    }

    /// The same with some of the VIPs.
    #[must_use]
    pub fn with_some(slots: usize, tables: HostTables, wanted: impl Fn(&Service) -> bool) -> Self {
        let services = service::all().into_iter().filter(wanted).collect();
        let mut world = Self { tables, services, epoch: 0, aged: 0 };
        world.tables.now = 1_000;
        world.tables.settings = Settings {
            abi_version: ABI_VERSION,
            flags: settings_flags::ANY_PORT_REPLIES | settings_flags::ALL_PORTS,
            snat_first: SNAT_FIRST,
            snat_count: SNAT_COUNT,
            interface_factor: 1 << 24,
            seed: 0x5eed_5eed_5eed_5eed,
            ..world.tables.settings
        };
        for ifindex in [FRONT, BACK, SIDE] {
            world.tables.interfaces.insert(ifindex, Mac::new(mac_of_interface(ifindex)));
        }
        for service in world.services.clone() {
            world.add(&service, slots);
        }
        world
    }

    fn add(&mut self, service: &Service, slots: usize) {
        let vip = Vip {
            id: service.id,
            mode: service.mode as u8,
            selection: service.selection as u8,
            flags: service.flags,
            mss: service.mss,
            persistence: service.persistence,
            pad: 0,
        };
        self.set_vip(service.at, service.protocol, vip);
        // Echo requests to a VIP are answered.
        let icmp = if service.at.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        self.set_vip((service.at.ip(), 0).into(), icmp, vip);
        let limit = VipLimit { per_tick: service.limit, ..VipLimit::default() };
        self.tables.limits.insert(service.id, limit.into());
        for number in 1..=service.servers {
            self.add_server(service, number);
        }
        if service.mode != Mode::Local {
            self.tables.rings.insert(service.id, vec![0; slots]);
            self.fill_ring(service, &(1..=service.servers).collect::<Vec<_>>());
        }
    }

    fn set_vip(&mut self, at: SocketAddr, protocol: u8, vip: Vip) {
        let (address, port, protocol) = (words(at.ip()), at.port(), protocol.into());
        if at.is_ipv4() {
            self.tables.v4.vips.insert(VipKey { address: address[0], port, protocol }, vip);
        } else {
            self.tables.v6.vips.insert(VipKey { address, port, protocol }, vip);
        }
    }

    fn add_server(&mut self, service: &Service, number: u16) {
        let ifindex = interface_of_server(number);
        let own = server_flags::HOP_KNOWN | if service.servers_four { 0 } else { server_flags::IPV6 };
        let server = Server {
            address: words(self.address_of(service, number)),
            source: words(self::address(service.servers_four, 2, 254)),
            next_hop: Mac::new(mac_of_server(number)),
            source_mac: Mac::new(mac_of_interface(ifindex)),
            ifindex,
            port: service.server_port,
            generation: 1,
            vip: service.id,
            flags: own | Health::Up.flags(),
            mtu: service.mtu,
            weight: 100,
        };
        self.tables.servers.insert(service.server(number), server);
        self.tables.loads.insert(service.server(number), 0.into());
    }

    /// The address of a server.
    #[must_use]
    pub fn address_of(&self, service: &Service, number: u16) -> IpAddr {
        address(service.servers_four, 2, number as u8)
    }

    /// Makes the ring of a VIP anew from some of its servers, by number. Slots that change are tagged from now on, as
    /// far as the VIP tags any, and so are those that were.
    pub fn fill_ring(&mut self, service: &Service, numbers: &[u16]) {
        let servers = &self.tables.servers;
        let mut members: Vec<_> = numbers
            .iter()
            .map(|&number| {
                let index = service.server(number);
                let generation = servers[&index].generation;
                let identity = words(self.address_of(service, number)).map(u32::to_ne_bytes);
                Member::new(ServerRef::new(index, generation), 100, identity.as_flattened())
            })
            .collect();
        let ring = self.tables.rings.get_mut(&service.id).expect("made with the VIP");
        let before = ring.clone();
        maglev::populate(&mut members, ring);
        for (slot, (new, old)) in ring.iter_mut().zip(before).enumerate() {
            let (server, old) = (ServerRef(*new), Slot(old));
            let moved = old.server() != server && !old.server().is_none();
            let tagged = match service.tagging {
                Tagging::All => true,
                Tagging::Every(step) if slot % step == 0 => true,
                _ => moved || old.tagged(),
            };
            *new = Slot::new(server, tagged).0;
        }
    }

    /// Tags all slots of a VIP, as before a planned change; or settles those that may be settled, and forgets tags that
    /// say otherwise. Where a server takes no new flows they are elsewhere: its slots stay tagged.
    pub fn tag_ring(&mut self, service: &Service, tagged: bool) {
        let servers = &self.tables.servers;
        let accepts = |server: ServerRef| {
            let entry = servers.get(&server.index());
            entry.is_none_or(|entry| entry.flags & server_flags::ACCEPTS_NEW != 0)
        };
        let ring = self.tables.rings.get_mut(&service.id).expect("made with the VIP");
        for (slot, entry) in ring.iter_mut().enumerate() {
            let server = Slot(*entry).server();
            let always = match service.tagging {
                Tagging::All => true,
                Tagging::Every(step) => slot % step == 0,
                Tagging::Changed => false,
            };
            *entry = Slot::new(server, tagged || always || !accepts(server)).0;
        }
        if !tagged {
            self.forget_tags(|tag| tag.server() / 10 == service.id);
        }
    }

    /// Takes flow tags away, as the sweep does.
    pub fn forget_tags(&mut self, which: impl Fn(FlowTag) -> bool) {
        let ways = self.tables.tags.iter().flatten();
        ways.filter(|way| which(FlowTag(way.get()))).for_each(|way| way.set(0));
        self.epoch += 1;
    }

    /// The slot of the ring where packets with this 5-tuple, to the VIP, fall.
    #[must_use]
    pub fn slot(&self, service: &Service, tuple: Tuple) -> Slot {
        let ring = &self.tables.rings[&service.id];
        let hash = Key::from(tuple).ring_hash(service.by_source());
        Slot(ring[hash::scale(hash, ring.len() as u32) as usize])
    }

    /// The tag of a flow to a VIP.
    #[must_use]
    pub fn tag(&self, service: &Service, tuple: Tuple) -> Option<FlowTag> {
        let (key, seed) = (Key::from(tuple), self.tables.settings.seed);
        let place = match key {
            Key::V4(key) => hash::place::<V4>(&key, seed),
            Key::V6(key) => hash::place::<V6>(&key, seed),
        };
        self.tag_at(place, service, tuple)
    }

    /// The tag of the client of a VIP, if clients persist there.
    #[must_use]
    pub fn client_tag(&self, service: &Service, tuple: Tuple) -> Option<FlowTag> {
        let (key, seed) = (Key::from(tuple), self.tables.settings.seed);
        let place = match key {
            Key::V4(key) => hash::place_of_client::<V4>(key.src, service.id, seed),
            Key::V6(key) => hash::place_of_client::<V6>(key.src, service.id, seed),
        };
        service.by_source().then(|| self.tag_at(place, service, tuple)).flatten()
    }

    fn tag_at(&self, place: u64, service: &Service, tuple: Tuple) -> Option<FlowTag> {
        let wanted = Key::from(tuple).ring_hash(service.by_source());
        let tags = self.line_of_tags(place);
        tags.into_iter().find(|tag| tag.hash() == wanted && tag.server() / 10 == service.id)
    }

    fn line_of_tags(&self, place: u64) -> [FlowTag; WAYS] {
        let line = &self.tables.tags[(place as u32 & self.tables.settings.tag_lines) as usize];
        std::array::from_fn(|way| FlowTag(line[way].get()))
    }

    /// Whether a flow that is not known could be given a tag.
    #[must_use]
    pub fn has_room_for_a_tag(&self, tuple: Tuple) -> bool {
        let seed = self.tables.settings.seed;
        let place = match Key::from(tuple) {
            Key::V4(key) => hash::place::<V4>(&key, seed),
            Key::V6(key) => hash::place::<V6>(&key, seed),
        };
        let now = self.tables.now;
        let stays = |tag: &FlowTag| {
            tag.server() != 0
                && matches!(tag.stage(), TagStage::Established | TagStage::Client)
                && tag.age(now) < 1_800
        };
        !self.line_of_tags(place).iter().all(stays)
    }

    /// The time by everything's age.
    #[must_use]
    pub fn clock(&self) -> u32 {
        self.tables.now + self.aged
    }

    /// The VIP of a mode and protocol in a family: the first, if there are several.
    #[must_use]
    pub fn service(&self, mode: Mode, protocol: u8, four: bool) -> Service {
        self.find(|s| s.mode == mode && s.protocol == protocol && s.at.is_ipv4() == four)
    }

    /// The first VIP that is wanted.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn find(&self, wanted: impl Fn(&Service) -> bool) -> Service {
        *self.services.iter().find(|service| wanted(service)).expect("there is one of every kind")
    }

    /// The VIP that packets to an address, port and protocol are for.
    #[must_use]
    pub fn service_at(&self, at: SocketAddr, protocol: u8) -> Option<Service> {
        let at_port = |port| {
            let at = SocketAddr::new(at.ip(), port);
            self.services.iter().find(|service| service.at == at && service.protocol == protocol).copied()
        };
        at_port(at.port()).or_else(|| at_port(0))
    }

    /// The VIP whose server has this index.
    #[must_use]
    pub fn service_of_server(&self, index: u16) -> Service {
        self.find(|service| service.id == index / 10)
    }
}

/// How a server is, as user space sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Takes new flows.
    Up,
    /// Keeps those it has.
    Draining,
    /// Has failed.
    Down,
    /// Its flows are to end.
    Halted,
}

impl Health {
    /// What the tables say then.
    #[must_use]
    pub fn flags(self) -> u16 {
        match self {
            Self::Up => server_flags::ACCEPTS_NEW | server_flags::KEEPS_FLOWS,
            Self::Draining => server_flags::KEEPS_FLOWS,
            Self::Down => 0,
            Self::Halted => server_flags::HALTED,
        }
    }
}
