use std::time::Duration;

use super::*;
use crate::{
    health::TargetId,
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
            health: &|id| if up.contains(id.names().1) { Health::Up } else { Health::Down },
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
    let of = |protocol: u8| desired.vips4.iter().filter(move |(key, _)| key.protocol == u16::from(protocol));
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
    let named = |name: &str| world.ids.server(&TargetId { vip: "a".into(), server: name.into() }).unwrap();
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
        health: &|id| if id.names().0 == "a" { Health::Up } else { Health::Down },
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
