//! The whole plan in motion, without a kernel: a reconciler, the packet path over ordinary memory, a sweep, and servers
//! that know their connections. Servers come, go, drain, change their weight, die and return in a random order; no
//! connection may break but those of servers that died, were halted or removed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    abi::{FlowTag, Mac, RING_SIZE},
    conntrack::{self, TICK_NS},
    host::{self, HostTables, Outcome},
    wire::tcp,
};
use lb_testkit::{draft::Draft, world};

use super::*;
use crate::{
    admin::ServerRequest,
    config,
    datapath::{
        fake::Fake,
        flows::{Round, count_tag, is_forgotten, is_to_go},
    },
    plan::{Admin, desired::Way},
};

/// The VIPs: one of each kind of memory, and one more.
const VIPS: [(&str, &str); 4] = [
    ("dr", "mode = \"dr\""),
    ("snat", "mode = \"snat\""),
    ("turns", "mode = \"gue\"\nalgorithm = \"round-robin\""),
    ("loads", "mode = \"ipip\"\nalgorithm = \"least-conn\""),
];

/// The first of them do not need every flow in the tables.
const FRUGAL: usize = 2;

/// Every server that there may be, by number.
const SERVERS: usize = 6;

/// Numbers that look random and are the same every time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((value ^ (value >> 31)) % sides as u64) as usize
    }
}

/// A client's connection, as its server knows it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    from: SocketAddr,
    vip: usize,
    /// Number of the server that has it.
    home: usize,
}

/// What an operator and fate have decided about a server.
#[derive(Clone, Copy, Debug)]
struct Condition {
    configured: bool,
    weight: u16,
    state: Admin,
    well: bool,
}

struct Town {
    reconciler: Reconciler<Fake>,
    tables: HostTables,
    dice: Dice,
    servers: [Condition; SERVERS],
    connections: Vec<Connection>,
    ports: u32,
    now: Duration,
    /// What has happened, for the message of a failure.
    diary: Vec<String>,
    /// How many of the VIPs have clients.
    vips: usize,
}

fn address(server: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 10 + server as u8])
}

fn text(servers: &[Condition]) -> String {
    let mut text = String::from("[pool.all]\nservers = [\n");
    for (number, server) in servers.iter().enumerate().filter(|(_, server)| server.configured) {
        let (address, weight) = (address(number), server.weight);
        text += &format!("{{ name = \"s{number}\", address = \"{address}\", weight = {weight} }},\n");
    }
    text += "]\n[vip_defaults]\naddress = \"192.0.2.1\"\npool = \"all\"\n";
    for (port, (name, more)) in (80..).zip(VIPS) {
        text += &format!("[vip.{name}]\nport = {port}\n{more}\n");
    }
    text
}

fn configuration(servers: &[Condition]) -> Config {
    config::check("test.toml", &text(servers)).expect("a valid configuration").config
}

impl Town {
    fn new(seed: u64, tags: usize) -> Self {
        let server =
            |number| Condition { configured: number < 3, weight: 100, state: Admin::Ready, well: true };
        let servers = std::array::from_fn(server);
        let ports = PortRange { first: 20_000, last: 60_000 };
        let tables = HostTables::new(4_096, tags);
        let shape = Shape {
            flow_lines: tables.settings.lines4 + 1,
            tag_lines: tables.settings.tag_lines + 1,
            seed: 5,
        };
        let reconciler = Reconciler::new(Fake::default(), configuration(&servers), ports, shape).unwrap();
        let mut town = Self {
            reconciler,
            tables,
            dice: Dice(seed),
            servers,
            connections: Vec::new(),
            ports: 0,
            now: Duration::from_secs(1_000),
            diary: Vec::new(),
            vips: VIPS.len(),
        };
        town.tables.now = 100_000;
        let way = Way {
            ifindex: world::FRONT,
            source_mac: Mac::new(world::mac_of_interface(world::FRONT)),
            next_hop: Some(Mac::new([4; 6])),
            routed: false,
            source: Some(IpAddr::from([10, 0, 0, 1])),
            mtu: 1_500,
        };
        let hops = (0..SERVERS).map(|number| (address(number), Ok(way))).collect();
        let interfaces = [(way.ifindex, way.source_mac)].into();
        town.reconciler.on_surroundings(Surroundings { hops, interfaces, ..Surroundings::default() });
        town.tell_health();
        town.step();
        town
    }

    /// The health checks have been through.
    fn tell_health(&mut self) {
        for (name, _) in VIPS {
            for number in 0..SERVERS {
                let id = TargetId { vip: name.into(), server: format!("s{number}") };
                let state = if self.servers[number].well { Health::Up } else { Health::Down };
                self.reconciler.on_health(HealthEvent {
                    id,
                    state,
                    reason: String::new(),
                    since: 0,
                    changed: true,
                });
            }
        }
    }

    /// A step of the loop, and what the kernel's maps contain then.
    fn step(&mut self) {
        self.reconciler.step(self.now).unwrap();
        let Desired { settings, vips4, rings, servers, interfaces, .. } = &self.reconciler.datapath.contents;
        let tables = &mut self.tables;
        tables.settings = *settings;
        tables.v4.vips = vips4.iter().map(|(key, vip)| (*key, *vip)).collect();
        tables.rings = rings.iter().map(|(vip, ring)| (*vip, ring.words()[..RING_SIZE].to_vec())).collect();
        tables.servers = servers.iter().map(|(index, server)| (*index, *server)).collect();
        tables.interfaces = interfaces.values().map(|on| (on.ifindex, on.mac)).collect();
        for vip in rings.keys() {
            tables.limits.entry(*vip).or_default();
        }
        for index in servers.keys() {
            tables.loads.entry(*index).or_default();
        }
    }

    /// Sends a packet from a client; the number of the server that gets it.
    fn send(&self, from: SocketAddr, vip: usize, flags: u8) -> Option<usize> {
        let to = SocketAddr::new([192, 0, 2, 1].into(), 80 + vip as u16);
        let mut frame = Draft::tcp(from, to, flags).bytes();
        let Outcome::Forward { server, .. } = host::process(&mut frame, world::FRONT, &self.tables) else {
            return None;
        };
        let (id, _) = self.reconciler.ids.servers().find(|(_, reference)| reference.index() == server)?;
        assert_eq!(id.vip, VIPS[vip].0);
        id.server[1..].parse().ok()
    }

    /// A new connection, if any server takes it.
    fn connect(&mut self, vip: usize) -> Option<Connection> {
        self.ports += 1;
        let client = [198, 51, 100, (self.ports / 40_000) as u8];
        let from = SocketAddr::new(client.into(), 20_000 + (self.ports % 40_000) as u16);
        let home = self.send(from, vip, tcp::SYN)?;
        let Condition { configured, weight, state, well } = self.servers[home];
        let takes_new = configured && weight > 0 && state == Admin::Ready && well;
        assert!(
            takes_new,
            "s{home} got a new connection: {:?}\n{}",
            self.servers[home],
            self.diary.join("\n")
        );
        self.answer();
        let connection = Connection { from, vip, home };
        self.speak(&connection, tcp::ACK);
        Some(connection)
    }

    /// The server of the flow that was entered last answers, if its answers come back through here.
    fn answer(&self) {
        let opening = |state: u32| state & conntrack::REPLIED == 0;
        for (_, _, flow) in self.tables.v4.entered().filter(|(_, _, flow)| opening(flow.state)) {
            let end = |address: u32, port| SocketAddr::new(address.to_ne_bytes().into(), port);
            let (server, source) = (end(flow.server, flow.server_port), end(flow.source, flow.source_port));
            let mut frame = Draft::tcp(server, source, tcp::SYN | tcp::ACK).bytes();
            let outcome = host::process(&mut frame, world::FRONT, &self.tables);
            assert!(matches!(outcome, Outcome::Forward { .. }), "{outcome:?}");
        }
    }

    /// The client of a connection says something, and its server must hear it.
    fn speak(&self, connection: &Connection, flags: u8) {
        let Connection { from, vip, home } = *connection;
        let heard = self.send(from, vip, flags);
        assert_eq!(
            heard,
            Some(home),
            "a connection from {from} to {} broke\n{}",
            VIPS[vip].0,
            self.diary.join("\n")
        );
    }

    /// Something happens to one of the servers.
    fn happen(&mut self) {
        let number = self.dice.roll(SERVERS);
        let server = &mut self.servers[number];
        let name = format!("s{number}");
        match self.dice.roll(8) {
            0 | 1 => server.configured = !server.configured,
            2 | 3 => server.weight = [0, 50, 100, 200][self.dice.roll(4)],
            4 => server.state = if server.state == Admin::Ready { Admin::Drain } else { Admin::Ready },
            5 => server.state = if server.state == Admin::Ready { Admin::Halt } else { Admin::Ready },
            6 => server.well = !server.well,
            _ => server.state = Admin::Ready,
        }
        let gone = !server.configured || !server.well || server.state == Admin::Halt;
        if !server.configured {
            // Nobody remembers what was wanted of a server that is no more.
            server.state = Admin::Ready;
        }
        let Condition { configured, state, .. } = *server;
        self.diary.push(format!("{:?}: {name} is {:?}", self.now, self.servers[number]));
        self.reconciler.configure(configuration(&self.servers)).unwrap();
        if configured {
            let request = ServerRequest { vip: "*".into(), server: name, state: Some(state), weight: None };
            self.reconciler.steer_server(&request).unwrap();
        }
        self.tell_health();
        self.step();
        if gone {
            self.connections.retain(|connection| connection.home != number);
        }
    }

    /// A second goes by: clients speak, one in `quiet` of them each time; others come and go; the tables are swept.
    fn tick(&mut self, connections: usize, quiet: usize, short: usize) {
        self.tables.now += 1;
        self.now += Duration::from_nanos(TICK_NS);
        if self.reconciler.due().is_some_and(|due| due <= self.now) {
            self.step();
        }
        let orders = self.reconciler.orders();
        for place in 0..self.connections.len() {
            if self.dice.roll(quiet) == 0 {
                self.speak(&self.connections[place], tcp::ACK);
            }
        }
        for number in 0..short {
            // Of many, some just vanish.
            if let Some(connection) = self.connect(number % self.vips)
                && (number % 3 > 0 || short < 100)
            {
                self.speak(&connection, tcp::FIN | tcp::ACK);
                self.speak(&connection, tcp::ACK);
            }
        }
        for vip in 0..self.vips {
            let there = self.connections.iter().filter(|connection| connection.vip == vip).count();
            for _ in there..connections {
                let connection = self.connect(vip);
                self.connections.extend(connection);
            }
        }
        let census = self.sweep(&orders);
        if self.reconciler.on_census(census) {
            self.step();
        }
    }

    /// What `FlowTables::sweep` does, over this memory.
    fn sweep(&mut self, orders: &Orders) -> Census {
        let round = Round { orders, now: self.tables.now, halted_for: &|_| 100 };
        let mut census = Census { step: orders.step, ..Census::default() };
        for cell in self.tables.tags.iter().flatten() {
            let tag = FlowTag(cell.get());
            if tag.server() == 0 {
                continue;
            }
            let sheet = orders.sheet(tag.server());
            if is_forgotten(tag, &sheet, round.now) {
                cell.set(0);
            } else {
                count_tag(tag, &sheet, &round, &mut census);
            }
        }
        let over: Vec<_> = self
            .tables
            .v4
            .entered()
            .filter(|(_, _, flow)| is_to_go(flow, orders.sheet(flow.server_ref.index()).fate, &round))
            .map(|(number, ..)| number as usize)
            .collect();
        for number in over {
            self.tables.v4.claims[number / 8][number % 8].set(0);
        }
        census
    }
}

fn play(mut town: Town, events: usize, connections: usize, quiet: usize, short: usize) -> Town {
    for _ in 0..10 {
        town.tick(connections, quiet, short);
    }
    for _ in 0..events {
        town.happen();
        for _ in 0..town.dice.roll(7) {
            town.tick(connections, quiet, short);
        }
    }
    town
}

/// Clients that say something once in twenty seconds: what was noted when they connected has to do.
#[test]
fn no_connection_breaks_while_servers_come_and_go() {
    let mut town = play(Town::new(1, 1 << 14), 60, 30, 20, 4);
    // In the end everything settles.
    town.servers = [Condition { configured: true, weight: 100, state: Admin::Ready, well: true }; SERVERS];
    town.reconciler.configure(configuration(&town.servers)).unwrap();
    for number in 0..SERVERS {
        let server = format!("s{number}");
        let request = ServerRequest { vip: "*".into(), server, state: Some(Admin::Ready), weight: None };
        town.reconciler.steer_server(&request).unwrap();
    }
    town.tell_health();
    town.step();
    for connection in std::mem::take(&mut town.connections) {
        town.speak(&connection, tcp::FIN | tcp::ACK);
        town.speak(&connection, tcp::ACK);
    }
    for _ in 0..200 {
        town.tick(0, 1, 0);
    }
    let under_way: BTreeMap<_, _> = town.reconciler.orders().rings.into_iter().collect();
    assert!(under_way.is_empty(), "{under_way:?}");
    assert_eq!(town.reconciler.ids.gone().count(), 0, "all numbers can be used again");
}

/// The flow tags are far too few for all that connect: clients that speak are learned before slots move. (Whose flows take
/// turns needs a tag for each.)
#[test]
fn nor_with_far_too_few_flow_tags() {
    let town = play(Town { vips: FRUGAL, ..Town::new(2, 1 << 9) }, 30, 15, 1, 200);
    assert!(town.tables.events(lb_common::verdict::Event::TagEvicted) > 0, "{} short ones", town.ports);
}

#[test]
fn two_balancers_with_differently_ordered_files_have_the_same_rings() {
    let servers = [Condition { configured: true, weight: 70, state: Admin::Ready, well: true }; SERVERS];
    let one = text(&servers);
    let mut lines: Vec<_> = one.lines().collect();
    lines[2..2 + SERVERS].reverse();
    let two = lines.join("\n");
    let rings = |text: &str| -> Vec<Vec<String>> {
        let mut town = Town::new(3, 1 << 9);
        town.reconciler.configure(config::check("test.toml", text).unwrap().config).unwrap();
        town.tell_health();
        town.now += Duration::from_secs(60);
        town.step();
        town.now += Duration::from_secs(60);
        town.step();
        let names: HashMap<_, _> = town
            .reconciler
            .ids
            .servers()
            .map(|(id, server)| (server, format!("{}/{}", id.vip, id.server)))
            .collect();
        let rings = town.reconciler.datapath.contents.rings.values();
        rings.map(|ring| ring.slots().map(|slot| names[&slot.server()].clone()).collect()).collect()
    };
    let (one, two) = (rings(&one), rings(&two));
    assert_eq!(one.len(), VIPS.len());
    assert!(one == two, "the order in the file shows");
    let names: HashSet<_> = one[0].iter().collect();
    assert_eq!(names.len(), SERVERS);
}
