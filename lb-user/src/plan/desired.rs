//! What the maps must contain, in full, for a configuration and a state of the world.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use lb_common::{
    abi::{
        ABI_VERSION, Interface, Mac, QuicLb, QuicLbKey, QuicServerKey, Server as KernelServer, ServerRef,
        Settings, TAG_UNIT, Vip as KernelVip, VipKey, protocol, server_flags, settings_flags, vip_flags,
    },
    family::{words4, words6},
};

use super::{
    Ids, Image, RingSpec, Wanted,
    entries::{self, Turns, per_tick, way},
    orders::{Fate, Sheet},
    ring::Fill,
    select::{self, Condition},
    steering::{Admin, Steering},
    transition::{Goal, Memory},
};
use crate::{
    health::TargetId,
    model::{Config, Lead, Mode, OnDown, PortRange, Protocol, Server, Vip},
    snapshot::Health,
};

/// The way to a server, or why there is none.
pub type Hop = Result<Way, String>;

/// The way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Interface that leads there.
    pub ifindex: u32,
    /// That interface's MAC.
    pub source_mac: Mac,
    /// The next hop's MAC, once it is known.
    pub next_hop: Option<Mac>,
    /// Whether the next hop is a router and not the server itself.
    pub routed: bool,
    /// Address of this host that the kernel would send from.
    pub source: Option<IpAddr>,
    /// Largest IP packet that the interface sends, in bytes.
    pub mtu: u32,
}

/// Everything the picture depends on.
pub struct Inputs<'a> {
    /// What the operator wants.
    pub config: &'a Config,
    /// Numbers of VIPs and servers.
    pub ids: &'a Ids,
    /// How the tables were made.
    pub shape: Shape,
    /// Ports for SNAT: ranges that flows may have theirs from, the last for new ones. At least one.
    pub snat_ports: &'a [PortRange],
    /// Which servers are well.
    pub health: &'a dyn Fn(&TargetId) -> Health,
    /// What the operator has said for the time being.
    pub steering: &'a Steering,
    /// Ways to the servers' addresses.
    pub hops: &'a HashMap<IpAddr, Hop>,
    /// MACs of this host's interfaces.
    pub interfaces: &'a BTreeMap<u32, Mac>,
    /// Addresses that this host has for itself: it answers echo requests to them.
    pub own_addresses: &'a HashSet<IpAddr>,
}

/// All maps that user space writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// `SETTINGS`.
    pub settings: Settings,
    /// `VIPS4`.
    pub vips4: BTreeMap<VipKey<u32>, KernelVip>,
    /// `VIPS6`.
    pub vips6: BTreeMap<VipKey<[u32; 4]>, KernelVip>,
    /// `RINGS`, by VIP number.
    pub rings: BTreeMap<u16, Image>,
    /// `SERVERS`, by index.
    pub servers: BTreeMap<u16, KernelServer>,
    /// `INTERFACES`, by place.
    pub interfaces: BTreeMap<u32, Interface>,
    /// `LIMITS`, by VIP number: new flows in a tick.
    pub limits: BTreeMap<u16, u32>,
    /// `QUIC`.
    pub quic: BTreeMap<QuicLbKey, QuicLb>,
    /// `QUIC_SERVERS`.
    pub quic_servers: BTreeMap<QuicServerKey, ServerRef>,
}

/// How the tables were made when the program was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Lines of `CLAIMS4` and of `CLAIMS6`, a power of two.
    pub flow_lines: u32,
    /// Lines of `FLOW_TAGS`, a power of two.
    pub tag_lines: u32,
    /// The seed of their hashes.
    pub seed: u64,
}

/// The picture of all maps, and where the rings should get to. `settled` is brought up to date.
///
/// # Panics
/// When something in the configuration was not given a number; see [`Ids::assign`].
#[must_use]
pub fn desired(inputs: &Inputs<'_>, settled: &mut select::Settled) -> Wanted {
    let (interface_factor, interfaces) = places(inputs.interfaces);
    let settings = Settings { interface_factor, ..settings(inputs) };
    let maps = Desired { settings, interfaces, ..Desired::default() };
    let mut wanted = Wanted { maps, rings: BTreeMap::new() };
    select::retain(settled, inputs.config);
    for (vip, leads) in inputs.config.services() {
        let number = inputs.ids.vip(&vip.name).expect("every VIP was given a number");
        wanted.maps.add_vip_keys(vip, number, inputs.steering.is_enabled(&vip.name));
        if vip.mode.is_layer4() {
            if !inputs.own_addresses.contains(&vip.address) {
                wanted.maps.add_echo_key(vip.address);
            }
            if let Some(limit) = vip.max_new_flows {
                wanted.maps.limits.insert(number, per_tick(limit));
            }
            for (&rotation, encoding) in &vip.quic {
                let key = QuicLbKey { vip: number, rotation: rotation.into() };
                wanted.maps.quic.insert(key, encoding.entry());
            }
            let own = leads.into_iter().find(|lead| lead.own);
            let goal = wanted.maps.add_servers(inputs, (vip, own), number, settled);
            wanted.rings.insert(number, goal);
        }
    }
    wanted
}

fn settings(inputs: &Inputs<'_>) -> Settings {
    let any = |is: &dyn Fn(&Vip) -> bool| inputs.config.vips.iter().any(is);
    let (nat, snat) = (any(&|vip| vip.mode == Mode::Nat), any(&|vip| vip.mode == Mode::Snat));
    let flag = |holds: bool, flag: u32| if holds { flag } else { 0 };
    let mask = |lines: u32| lines.wrapping_sub(1);
    let ports = inputs.snat_ports.last().expect("at least one");
    // Who took over with other ports than before must also know the answers to old ones.
    let any_port = nat || inputs.snat_ports.len() > 1;
    Settings {
        abi_version: ABI_VERSION,
        flags: flag(any_port, settings_flags::ANY_PORT_REPLIES)
            | flag(any(&|vip| vip.ports.is_all()), settings_flags::ALL_PORTS),
        snat_first: ports.first,
        snat_count: if nat || snat { ports.len() as u16 } else { 0 },
        seed: inputs.shape.seed,
        lines4: mask(inputs.shape.flow_lines),
        lines6: mask(inputs.shape.flow_lines),
        tag_lines: mask(inputs.shape.tag_lines),
        syn_limit: per_tick(inputs.config.flows.syn_limit),
        ..Settings::default()
    }
}

/// A place for each interface, and the factor that leads from an interface's index to it.
///
/// Of two interfaces with random places among `INTERFACE_PLACES` one pair in 256 meet, so that a few tries are
/// enough to find a factor with which none do. Should there be none for too many of them, some are left out: their
/// packets are left to the host.
fn places(interfaces: &BTreeMap<u32, Mac>) -> (u32, BTreeMap<u32, Interface>) {
    let with = |interface_factor: u32| {
        let settings = Settings { interface_factor, ..Settings::default() };
        let place =
            |(&ifindex, &mac)| (settings.place_of_interface(ifindex), Interface { ifindex, pad: 0, mac });
        (interface_factor, interfaces.iter().map(place).collect::<BTreeMap<_, _>>())
    };
    const TRIES: u32 = 10_000;
    let factors = (1..=TRIES).map(|number| number.wrapping_mul(0x9E37_79B1) | 1);
    let fits = |found: &(u32, BTreeMap<_, _>)| found.1.len() == interfaces.len();
    factors.map(with).find(fits).unwrap_or_else(|| with(0x9E37_79B1))
}

impl Desired {
    fn add_vip_keys(&mut self, vip: &Vip, id: u16, enabled: bool) {
        let mut value = entries::vip(vip, id);
        if !enabled {
            // As a port on which nobody listens; whoever is inside stays.
            value.flags &= !vip_flags::EMPTY_PASS;
            value.flags |= vip_flags::EMPTY_REJECT;
        }
        let protocol = match vip.protocol {
            Protocol::Tcp => protocol::TCP,
            Protocol::Udp => protocol::UDP,
        };
        let protocol = u16::from(protocol);
        for port in vip.ports.keys() {
            self.add_key(vip.address, port, protocol, value);
        }
    }

    /// Marks an address as a VIP's: echo requests to it are answered.
    fn add_echo_key(&mut self, address: IpAddr) {
        let protocol = if address.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        self.add_key(address, 0, u16::from(protocol), KernelVip::default());
    }

    fn add_key(&mut self, address: IpAddr, port: u16, protocol: u16, value: KernelVip) {
        match address {
            IpAddr::V4(address) => {
                let address = words4(address.octets())[0];
                self.vips4.insert(VipKey { address, port, protocol }, value);
            }
            IpAddr::V6(address) => {
                let address = words6(address.octets());
                self.vips6.insert(VipKey { address, port, protocol }, value);
            }
        }
    }

    /// Enters the servers of a VIP; gives where its ring should get to.
    fn add_servers(
        &mut self,
        inputs: &Inputs<'_>,
        (vip, own): (&Vip, Option<Lead<'_>>),
        number: u16,
        settled: &mut select::Settled,
    ) -> Goal {
        let servers = own.map_or(Cow::Borrowed(&[][..]), |own| inputs.steering.servers_in(vip, own));
        let enabled = inputs.steering.is_enabled(&vip.name);
        let (on_down, needed) = own.map_or((None, 1), |own| (own.pool.on_down, own.pool.min_healthy));
        let known: Vec<_> = servers.iter().map(|server| Known::of(inputs, vip, server)).collect();
        let usable = |known: &Known<'_>| match known.state {
            Admin::Ready if enabled => known.condition,
            _ => Condition::Unusable,
        };
        let usable: Vec<_> = known.iter().map(usable).collect();
        let active = select::active(&select::Rule::of_vip(vip), &servers, needed, &usable, settled);
        let (mut members, mut keeping, mut willing) = (Vec::new(), HashSet::new(), HashSet::new());
        for (position, (server, known)) in servers.iter().zip(known).enumerate() {
            let Known { reference, health, state, hop, condition } = known;
            // Nobody can be sent to a server whose name does not resolve: the kernel need not know it.
            let Some(address) = server.address() else { continue };
            let mut entry = entries::server(vip, (server, address), reference, number, hop);
            if active.contains(&position) {
                members.push((reference, server.weight, address));
                entry.flags |= server_flags::ACCEPTS_NEW;
            }
            let fails = on_down == Some(OnDown::Reset) && health == Health::Down;
            if state == Admin::Halt || fails {
                entry.flags |= server_flags::HALTED;
            } else if condition != Condition::Unusable || on_down == Some(OnDown::Keep) {
                entry.flags |= server_flags::KEEPS_FLOWS;
                keeping.insert(reference);
            }
            if server.weight > 0 && usable[position] == Condition::Usable {
                willing.insert(reference);
            }
            self.servers.insert(reference.index(), entry);
            if let (Some(id), false) = (server.quic_id, vip.quic.is_empty()) {
                self.quic_servers.insert(QuicServerKey { id, vip: number.into() }, reference);
            }
        }
        let turns = entries::turns(vip);
        let fill = if turns == Some(Turns::RoundRobin) { Fill::Turns } else { Fill::Places };
        Goal { spec: RingSpec::filled(members, fill), memory: memory(vip), keeping, willing }
    }
}

/// What is known of a server of a VIP.
struct Known<'a> {
    reference: ServerRef,
    health: Health,
    state: Admin,
    hop: Option<&'a Hop>,
    condition: Condition,
}

impl<'a> Known<'a> {
    fn of(inputs: &Inputs<'a>, vip: &Vip, server: &Server) -> Self {
        let id = TargetId { vip: vip.name.clone(), server: server.name.clone() };
        let reference = inputs.ids.server(&id).expect("every server was given a number");
        let (health, state) = ((inputs.health)(&id), inputs.steering.state(&id));
        let hop = server.address().and_then(|address| inputs.hops.get(&address));
        Self { reference, health, state, hop, condition: condition(vip, health, hop) }
    }
}

/// What the sweep has to know of a server whose entry this is.
#[must_use]
pub fn sheet(vip: &Vip, entry: &KernelServer) -> Sheet {
    let fate = if entry.flags & server_flags::HALTED != 0 {
        Fate::Halted
    } else if entry.flags & server_flags::KEEPS_FLOWS != 0 {
        Fate::Kept
    } else {
        Fate::Down
    };
    let remember = u32::from(entries::persistence(vip)) * TAG_UNIT;
    Sheet { vip: entry.vip, fate, remember }
}

/// What must be remembered of a VIP's flows when its ring changes.
fn memory(vip: &Vip) -> Memory {
    // A translated flow has a record, which only its first packet does without.
    let translated = vip.mode.translates() && !entries::is_by_source(vip);
    if translated || !vip.flow_state {
        Memory::Nothing
    } else if entries::turns(vip).is_some() {
        Memory::Everything
    } else {
        Memory::Changes
    }
}

/// Whether new flows can be sent to a server at once: it is often found up before its MAC is read.
fn condition(vip: &Vip, health: Health, hop: Option<&Hop>) -> Condition {
    match (health, hop) {
        (Health::Down, _) => Condition::Unusable,
        (Health::Unknown, _) | (Health::Up, None) => Condition::Pending,
        (Health::Up, hop) => match way(vip, hop) {
            Err(_) => Condition::Unusable,
            Ok(way) if way.next_hop.is_none() => Condition::Pending,
            Ok(_) => Condition::Usable,
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{Address, Algorithm, Empty, GUE_PORT, HealthCheck, Persistence, Pool, Ports},
        plan::hop_problem,
    };
    use lb_common::abi::{Mode as KernelMode, RING_SIZE, ServerRef, Slot};

    pub(in crate::plan) fn server(name: &str, last: u8) -> Server {
        Server {
            name: name.into(),
            address: Address::Fixed(IpAddr::from([10, 0, 0, last])),
            weight: 100,
            port: None,
            backup: false,
            max_connections: None,
            quic_id: None,
        }
    }

    pub(in crate::plan) fn vip(name: &str, port: u16) -> Vip {
        Vip {
            name: name.into(),
            address: IpAddr::from([192, 0, 2, 1]),
            ports: Ports::new(vec![PortRange { first: port, last: port }]).unwrap(),
            protocol: Protocol::Tcp,
            mode: Mode::Snat,
            pool: Some(name.into()),
            server_port: None,
            algorithm: Algorithm::Maglev,
            persistence: Persistence::None,
            empty: Empty::Drop,
            max_new_flows: None,
            mss: None,
            flow_state: true,
            gue_port: GUE_PORT,
            health: check(),
            tls: None,
            redirect: None,
            trusted_proxies: Vec::new(),
            timeouts: Default::default(),
            error_pages: BTreeMap::new(),
            proxied: Default::default(),
            quic: BTreeMap::new(),
        }
    }

    fn check() -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck { interval: second, timeout: second, rise: 1, fall: 1, ..HealthCheck::default() }
    }

    /// VIPs on ports 80, 81 … each with a pool of its own.
    pub(crate) fn config(vips: &[(&str, &[&str])]) -> Config {
        let mut config = Config::default();
        for (offset, (name, servers)) in (0u8..).zip(vips) {
            config.vips.push(vip(name, 80 + u16::from(offset)));
            let servers = (1..).zip(*servers).map(|(last, name)| server(name, last)).collect();
            config.pools.push(Pool {
                name: (*name).into(),
                servers,
                health: check(),
                on_down: None,
                min_healthy: 1,
                proxied: Default::default(),
            });
        }
        config
    }

    /// A world in which the given servers are up and every one is reached directly.
    struct World {
        ids: Ids,
        hops: HashMap<IpAddr, Hop>,
        interfaces: BTreeMap<u32, Mac>,
        own_addresses: HashSet<IpAddr>,
        steering: Steering,
    }

    impl World {
        fn new(config: &Config) -> Self {
            let mut ids = Ids::default();
            ids.assign(config, 1).unwrap();
            let way = Way {
                ifindex: 3,
                source_mac: Mac::new([2, 0, 0, 0, 0, 3]),
                next_hop: Some(Mac::new([2, 0, 0, 0, 0, 9])),
                routed: false,
                source: Some(IpAddr::from([10, 0, 0, 254])),
                mtu: 1_500,
            };
            let servers = config.pools.iter().flat_map(|pool| &pool.servers);
            let hops = servers.map(|server| (server.address().unwrap(), Ok(way))).collect();
            let interfaces = BTreeMap::from([(3, way.source_mac)]);
            Self { ids, hops, interfaces, own_addresses: HashSet::new(), steering: Steering::default() }
        }

        fn desired(&self, config: &Config, up: &[&str]) -> Desired {
            self.wanted(config, up).at_once()
        }

        fn wanted(&self, config: &Config, up: &[&str]) -> Wanted {
            let up: HashSet<_> = up.iter().copied().collect();
            let inputs = Inputs {
                config,
                ids: &self.ids,
                shape: Shape::default(),
                snat_ports: &[PortRange { first: 1_024, last: 2_023 }],
                health: &|id| if up.contains(id.server.as_str()) { Health::Up } else { Health::Down },
                steering: &self.steering,
                hops: &self.hops,
                interfaces: &self.interfaces,
                own_addresses: &self.own_addresses,
            };
            desired(&inputs, &mut select::Settled::new())
        }
    }

    #[test]
    fn what_becomes_of_the_flows_of_a_server_that_goes_down() {
        let mut config = config(&[("web", &["s1", "s2"])]);
        let flags = |config: &Config, up: &[&str]| {
            let world = World::new(config);
            let picture = world.desired(config, up);
            let id = TargetId { vip: "web".into(), server: "s1".into() };
            picture.servers[&world.ids.server(&id).unwrap().index()].flags
        };
        let (keeps, halted) = (server_flags::KEEPS_FLOWS, server_flags::HALTED);
        let both = keeps | halted | server_flags::ACCEPTS_NEW;
        for (on_down, down) in [(None, 0), (Some(OnDown::Keep), keeps), (Some(OnDown::Reset), halted)] {
            config.pools[0].on_down = on_down;
            assert_eq!(flags(&config, &["s2"]) & both, down, "{on_down:?}, down");
            let up = keeps | server_flags::ACCEPTS_NEW;
            assert_eq!(flags(&config, &["s1", "s2"]) & both, up, "{on_down:?}, up");
        }
    }

    #[test]
    fn a_server_that_keeps_its_flows_though_down_takes_no_new_ones() {
        let mut config = config(&[("web", &["s1", "s2"])]);
        config.pools[0].on_down = Some(OnDown::Keep);
        let world = World::new(&config);
        let goal = &world.wanted(&config, &["s2"]).rings[&1];
        let [s1, s2] = ["s1", "s2"]
            .map(|server| world.ids.server(&TargetId { vip: "web".into(), server: server.into() }).unwrap());
        assert!(goal.keeping.contains(&s1) && goal.keeping.contains(&s2));
        assert!(!goal.willing.contains(&s1) && goal.willing.contains(&s2));
    }

    #[test]
    fn every_port_of_a_vip_is_a_key_with_the_same_value() {
        let mut config = config(&[("a", &["s1"])]);
        let ranges = vec![PortRange { first: 80, last: 80 }, PortRange { first: 1_000, last: 1_002 }];
        config.vips[0].ports = Ports::new(ranges).unwrap();
        let desired = World::new(&config).desired(&config, &["s1"]);
        let of =
            |protocol: u8| desired.vips4.iter().filter(move |(key, _)| key.protocol == u16::from(protocol));
        let ports: Vec<_> = of(protocol::TCP).map(|(key, _)| key.port).collect();
        assert_eq!(ports, [80, 1_000, 1_001, 1_002]);
        assert!(of(protocol::TCP).all(|(_, vip)| vip.id == 1 && vip.mode == KernelMode::Snat as u8));
        let echo: Vec<_> = of(protocol::ICMP).map(|(key, vip)| (key.port, *vip)).collect();
        assert_eq!(echo, [(0, KernelVip::default())], "and the address is one that answers echo requests");
    }

    #[test]
    fn all_ports_are_one_key_and_the_kernel_is_told_to_look_for_it() {
        let mut config = config(&[("a", &["s1"])]);
        assert_eq!(World::new(&config).desired(&config, &[]).settings.flags & settings_flags::ALL_PORTS, 0);
        config.vips[0].ports = Ports::new(vec![PortRange { first: 1, last: u16::MAX }]).unwrap();
        let desired = World::new(&config).desired(&config, &[]);
        assert_ne!(desired.settings.flags & settings_flags::ALL_PORTS, 0);
        let keys: Vec<_> = desired.vips4.keys().map(|key| (key.port, key.protocol)).collect();
        assert_eq!(keys, [(0, protocol::ICMP.into()), (0, protocol::TCP.into())]);
    }

    #[test]
    fn echo_to_the_hosts_own_addresses_is_left_to_it() {
        let mut config = config(&[("a", &["s1"])]);
        config.vips[0].address = "2001:db8::1".parse().unwrap();
        let mut world = World::new(&config);
        let echo = VipKey {
            address: words6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets()),
            port: 0,
            protocol: protocol::ICMPV6.into(),
        };
        assert!(world.desired(&config, &[]).vips6.contains_key(&echo));
        world.own_addresses.insert(config.vips[0].address);
        assert!(!world.desired(&config, &[]).vips6.contains_key(&echo));
    }

    #[test]
    fn names_in_connection_ids_lead_to_the_servers_of_their_vip() {
        let mut config = config(&[("a", &["s1", "s2"]), ("b", &["s1"])]);
        let encoding = lb_common::quic::lb::Encoding::new(2, 6, None).unwrap();
        config.vips[0].quic.insert(3, encoding);
        for (server, id) in config.pools[0].servers.iter_mut().zip([0x11, 0x22]) {
            server.quic_id = Some(id);
        }
        let world = World::new(&config);
        let desired = world.desired(&config, &["s1"]);
        assert_eq!(desired.quic, [(QuicLbKey { vip: 1, rotation: 3 }, encoding.entry())].into());
        let named =
            |name: &str| world.ids.server(&TargetId { vip: "a".into(), server: name.into() }).unwrap();
        let key = |id| QuicServerKey { id, vip: 1 };
        assert_eq!(desired.quic_servers, [(key(0x11), named("s1")), (key(0x22), named("s2"))].into());
        let flags: Vec<_> =
            desired.vips4.values().map(|vip| vip.flags & lb_common::abi::vip_flags::QUIC).collect();
        assert_eq!(flags.iter().filter(|&&flag| flag != 0).count(), 1, "of that VIP alone");
    }

    #[test]
    fn limits_are_per_tick() {
        let mut config = config(&[("a", &["s1"]), ("b", &["s1"])]);
        config.vips[1].max_new_flows = Some(1_000);
        config.flows.syn_limit = 100;
        let desired = World::new(&config).desired(&config, &[]);
        assert_eq!(desired.limits, [(2, 1_074)].into());
        assert_eq!(desired.settings.syn_limit, 108);
    }

    #[test]
    fn a_server_that_is_down_keeps_its_entry_but_leaves_the_ring() {
        let config = config(&[("a", &["s1", "s2"])]);
        let world = World::new(&config);
        let desired = world.desired(&config, &["s2"]);
        assert_eq!(desired.servers.len(), 2);
        let accepts: Vec<_> =
            desired.servers.values().map(|server| server.flags & server_flags::ACCEPTS_NEW != 0).collect();
        assert_eq!(accepts, [false, true]);
        let s2 = world.ids.server(&TargetId { vip: "a".into(), server: "s2".into() }).unwrap();
        assert!(desired.rings[&1].slots().all(|slot| slot == Slot::new(s2, false)));
    }

    /// R26, and R25's weight 0.
    #[test]
    fn who_takes_new_flows_and_who_keeps_old_ones() {
        use server_flags::{ACCEPTS_NEW, HALTED, KEEPS_FLOWS};
        let mut config = config(&[("a", &["plain", "idle", "spare", "drained", "halted", "down"])]);
        config.pools[0].servers[1].weight = 0;
        config.pools[0].servers[2].backup = true;
        let mut world = World::new(&config);
        let id = |server: &str| TargetId { vip: "a".into(), server: server.into() };
        world.steering.set_state(id("drained"), Admin::Drain);
        world.steering.set_state(id("halted"), Admin::Halt);
        let up = ["plain", "idle", "spare", "drained", "halted"];
        let wanted = world.wanted(&config, &up);
        let flags: Vec<_> = wanted
            .maps
            .servers
            .values()
            .map(|server| server.flags & (ACCEPTS_NEW | KEEPS_FLOWS | HALTED))
            .collect();
        let serving = ACCEPTS_NEW | KEEPS_FLOWS;
        assert_eq!(flags, [serving, KEEPS_FLOWS, KEEPS_FLOWS, KEEPS_FLOWS, HALTED, 0]);
        let goal = &wanted.rings[&1];
        let indices = |set: &HashSet<ServerRef>| {
            let mut indices: Vec<_> = set.iter().map(|server| server.index()).collect();
            indices.sort_unstable();
            indices
        };
        assert_eq!(indices(&goal.keeping), [1, 2, 3, 4]);
        assert_eq!(indices(&goal.willing), [1, 3], "the backup may go on until it is relieved");
        world.steering.set_state(id("plain"), Admin::Drain);
        assert!(world.wanted(&config, &up).maps.servers[&3].flags & ACCEPTS_NEW != 0, "the backup steps in");
    }

    #[test]
    fn a_disabled_vip_refuses_new_flows_and_keeps_old_ones() {
        use vip_flags::{EMPTY_PASS, EMPTY_REJECT};
        let mut config = config(&[("a", &["s1", "s2"]), ("b", &["s1"])]);
        config.vips[0].empty = Empty::Pass;
        let mut world = World::new(&config);
        let seen = |world: &World| {
            let wanted = world.wanted(&config, &["s1", "s2"]);
            let vip = wanted.maps.vips4.values().find(|vip| vip.id == 1).copied().unwrap_or_default();
            let goal = &wanted.rings[&1];
            (
                vip.flags & (EMPTY_PASS | EMPTY_REJECT),
                goal.keeping.len(),
                goal.willing.len(),
                goal.spec.is_empty(),
            )
        };
        assert_eq!(seen(&world), (EMPTY_PASS, 2, 2, false));
        let other = world.wanted(&config, &["s1"]).rings[&2].clone();
        world.steering.set_enabled("a", false);
        assert_eq!(seen(&world), (EMPTY_REJECT, 2, 0, true));
        assert_eq!(world.wanted(&config, &["s1"]).rings[&2], other, "the other VIP is left alone");
        world.steering.set_enabled("a", true);
        assert_eq!(seen(&world), (EMPTY_PASS, 2, 2, false));
    }

    #[test]
    fn a_weight_for_the_time_being_takes_the_place_of_the_files() {
        let config = config(&[("a", &["s1", "s2"])]);
        let mut world = World::new(&config);
        let id = |server: &str| TargetId { vip: "a".into(), server: server.into() };
        world.steering.set_weight(id("s1"), Some(0));
        let wanted = world.wanted(&config, &["s1", "s2"]);
        let weights: Vec<_> = wanted.maps.servers.values().map(|server| server.weight).collect();
        assert_eq!(weights, [0, 100]);
        let [s1, s2] = ["s1", "s2"].map(|server| world.ids.server(&id(server)).unwrap());
        let goal = &wanted.rings[&1];
        assert!(!goal.willing.contains(&s1) && goal.keeping.contains(&s1) && goal.willing.contains(&s2));
        world.steering.set_weight(id("s1"), Some(300));
        let ring = world.desired(&config, &["s1", "s2"]).rings[&1].clone();
        let share = ring.slots().filter(|slot| slot.server() == s1).count() as f64 / RING_SIZE as f64;
        assert!((share - 0.75).abs() < 0.02, "{share}");
    }

    #[test]
    fn what_is_remembered_of_flows() {
        for (mode, algorithm, persistence, flow_state, expected) in [
            (Mode::Snat, Algorithm::Maglev, Persistence::None, true, Memory::Nothing),
            (Mode::Nat, Algorithm::RoundRobin, Persistence::None, true, Memory::Nothing),
            (
                Mode::Snat,
                Algorithm::Maglev,
                Persistence::SourceIp { timeout: None, entries: None },
                true,
                Memory::Changes,
            ),
            (Mode::Snat, Algorithm::Source, Persistence::None, true, Memory::Changes),
            (Mode::Dr, Algorithm::Maglev, Persistence::None, true, Memory::Changes),
            (Mode::Ipip, Algorithm::First, Persistence::None, true, Memory::Changes),
            (Mode::Gue, Algorithm::LeastConnections, Persistence::None, true, Memory::Everything),
            (Mode::Dr, Algorithm::RoundRobin, Persistence::None, true, Memory::Everything),
            (Mode::Dr, Algorithm::RoundRobin, Persistence::LastSuccessful, true, Memory::Changes),
            (Mode::Dr, Algorithm::Maglev, Persistence::None, false, Memory::Nothing),
        ] {
            let vip = Vip { mode, algorithm, persistence, flow_state, ..vip("v", 80) };
            assert_eq!(memory(&vip), expected, "{vip:?}");
        }
    }

    #[test]
    fn one_server_may_be_up_in_one_vip_and_down_in_another() {
        let config = config(&[("a", &["s1"]), ("b", &["s1"])]);
        let world = World::new(&config);
        let inputs = Inputs {
            config: &config,
            ids: &world.ids,
            shape: Shape::default(),
            snat_ports: &[PortRange { first: 1_024, last: 2_023 }],
            health: &|id| if id.vip == "a" { Health::Up } else { Health::Down },
            steering: &Steering::default(),
            hops: &world.hops,
            interfaces: &world.interfaces,
            own_addresses: &HashSet::new(),
        };
        let wanted = desired(&inputs, &mut select::Settled::new());
        let empty: Vec<_> = wanted.rings.values().map(|goal| goal.spec.is_empty()).collect();
        assert_eq!(empty, [false, true]);
    }

    #[test]
    fn a_server_whose_mac_is_unknown_takes_no_new_flows_but_keeps_its_interface_for_old_ones() {
        let config = config(&[("a", &["s1"])]);
        let mut world = World::new(&config);
        for hop in world.hops.values_mut() {
            *hop = hop.clone().map(|way| Way { next_hop: None, ..way });
        }
        let wanted = world.wanted(&config, &["s1"]);
        assert!(wanted.rings[&1].spec.is_empty());
        let entry = &wanted.maps.servers[&1];
        assert_eq!((entry.flags, entry.ifindex), (server_flags::KEEPS_FLOWS, 3));
        world.hops.clear();
        assert!(world.wanted(&config, &["s1"]).rings[&1].spec.is_empty());
    }

    #[test]
    fn proxied_vips_are_left_to_the_host_and_have_no_ring() {
        let mut config = config(&[("a", &["s1"])]);
        config.vips[0].mode = Mode::Http;
        let desired = World::new(&config).desired(&config, &["s1"]);
        assert!(desired.vips4.values().all(|vip| vip.mode == KernelMode::Local as u8));
        assert!(desired.rings.is_empty() && desired.servers.is_empty());
    }

    #[test]
    fn dr_does_not_go_over_a_router() {
        let mut config = config(&[("a", &["s1"])]);
        let mut world = World::new(&config);
        for hop in world.hops.values_mut() {
            *hop = hop.clone().map(|way| Way { routed: true, ..way });
        }
        let known = |desired: &Desired| desired.servers[&1].flags & server_flags::HOP_KNOWN != 0;
        assert!(known(&world.desired(&config, &["s1"])));
        config.vips[0].mode = Mode::Dr;
        assert!(!known(&world.desired(&config, &["s1"])));
        assert!(hop_problem(&config.vips[0], world.hops.values().next()).unwrap().contains("over a router"));
    }

    #[test]
    fn without_translating_vips_the_host_keeps_its_packets_to_itself() {
        let mut config = config(&[("a", &["s1"])]);
        config.vips[0].mode = Mode::Dr;
        let settings = World::new(&config).desired(&config, &["s1"]).settings;
        assert!(!settings.may_be_reply(1_500));
        config.vips[0].mode = Mode::Snat;
        let settings = World::new(&config).desired(&config, &["s1"]).settings;
        assert!(settings.may_be_reply(1_500) && !settings.may_be_reply(80));
        config.vips[0].mode = Mode::Nat;
        assert!(World::new(&config).desired(&config, &["s1"]).settings.may_be_reply(80));
    }
}
