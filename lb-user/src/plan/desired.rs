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
    health::Pair,
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
    pub health: &'a dyn Fn(&dyn Pair) -> Health,
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
        let id = (&*vip.name, &*server.name);
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
pub(crate) mod tests;
