//! Reports of what was decided: one record for each packet that is wanted, with what the same code on the host would say,
//! and the packet treated as if nobody watched.

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, ProgramArray, RingBuf},
    programs::Xdp,
};
use lb_common::{
    abi::{
        Interface, Mode, RING_SIZE, Ring, Server, Settings, TRACE_BYTES, TRACE_RING, TraceFilter,
        TraceRecord, Vip, VipKey, VipLimit, WAYS, protocol, settings_flags,
    },
    family::{V4, V6},
    host::{self, HostFamily, HostTables},
    parse::{self, Link, Unread},
    pipeline::Work,
    rewrite,
    trace::{self, End, Fate},
    verdict::{PassReason, Verdict},
    wire::{ethernet, tcp::ACK},
};
use lb_testkit::{
    inspect,
    world::{self, World},
};
use lb_tests::{needs_kernel_program, packet::Draft};
use lb_user::datapath::{OBJECT, flows::tick, programs};

use crate::kernel::place;

const FRONT: u32 = world::FRONT;

/// The loaded programs, and the maps that this is about.
struct Watched {
    ebpf: Ebpf,
    frags: bool,
    settings: Array<MapData, Settings>,
    filter: Array<MapData, TraceFilter>,
    events: RingBuf<MapData>,
    session: u32,
}

impl Watched {
    /// Loads the programs as `lb-user` does, and fills their maps.
    fn load(tables: &HostTables) -> Self {
        let (flow_lines, tag_lines) = (tables.v4.claims.len() as u32, tables.tags.len() as u32);
        let mut loader = EbpfLoader::new();
        for (claims, flows, replies) in [("CLAIMS4", "FLOWS4", "REPLIES4"), ("CLAIMS6", "FLOWS6", "REPLIES6")]
        {
            loader.map_max_entries(claims, flow_lines).map_max_entries(flows, flow_lines * WAYS as u32);
            loader.map_max_entries(replies, 2 * flow_lines);
        }
        let loaded = loader.map_max_entries("FLOW_TAGS", tag_lines).load(OBJECT);
        let mut ebpf = loaded.expect("the object is one that aya understands");
        let frags = xdp(&mut ebpf, programs::ENTRY_FRAGS).load().is_ok();
        if !frags {
            xdp(&mut ebpf, programs::ENTRY).load().expect("the verifier accepts the program");
        }
        let mut stages: ProgramArray<MapData> = take(&mut ebpf, "STAGES");
        for (place, name) in programs::stages() {
            let name = if frags { name + programs::FRAGS } else { name };
            let stage = xdp(&mut ebpf, &name);
            stage.load().expect("the verifier accepts the stage");
            let fd = stage.fd().and_then(|fd| Ok(fd.try_clone()?)).expect("a loaded program");
            stages.set(place, &fd, 0).expect("a stage's place");
        }
        // Its entries are gone when nobody holds it open any more.
        std::mem::forget(stages);
        fill(&mut ebpf, tables);
        let (settings, filter) = (take(&mut ebpf, "SETTINGS"), take(&mut ebpf, "TRACE"));
        let events = take(&mut ebpf, "EVENTS");
        let mut watched = Self { ebpf, frags, settings, filter, events, session: 0 };
        watched.switch(tables, false);
        watched
    }

    /// Has the program report, or not.
    fn switch(&mut self, tables: &HostTables, on: bool) {
        let flags = tables.settings.flags | if on { settings_flags::TRACE } else { 0 };
        self.settings.set(0, Settings { flags, ..tables.settings }, 0).expect("settings");
    }

    fn want(&mut self, filter: TraceFilter) {
        self.session += 1;
        self.filter.set(0, TraceFilter { session: self.session, ..filter }, 0).expect("a filter");
    }

    /// Runs the program on a frame so many times; gives its last answer and the frame as it left it.
    fn run(&self, ifindex: u32, frame: &[u8], times: u32) -> (u32, Vec<u8>) {
        let context = [0, frame.len() as u32, 0, ifindex, 0, 0].map(u32::to_ne_bytes);
        let mut after = vec![0; frame.len() + 128];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: Some(context.as_flattened()),
            repeat: times,
            ..TestRunOptions::new()
        };
        let name = if self.frags { programs::ENTRY_FRAGS } else { programs::ENTRY };
        let program: &Xdp =
            self.ebpf.program(name).and_then(|program| program.try_into().ok()).expect("loaded");
        let result =
            program.test_run(options).unwrap_or_else(|error| panic!("{} bytes: {error}", frame.len()));
        after.truncate(result.data_size_out as usize);
        (result.return_value, after)
    }

    /// The records there are.
    fn records(&mut self) -> Vec<TraceRecord> {
        let mut records = Vec::new();
        while let Some(item) = self.events.next() {
            assert_eq!(item.len(), size_of::<TraceRecord>());
            // SAFETY: the length was just compared; a record is made of integers only, for which any bytes are valid.
            records.push(unsafe { std::ptr::read_unaligned(item.as_ptr().cast::<TraceRecord>()) });
        }
        records
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.unwrap_or_else(|| panic!("the object has an XDP program {name}"))
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> M {
    let map = ebpf.take_map(name).unwrap_or_else(|| panic!("the object has a map {name}"));
    M::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Enters everything that user space would.
fn fill(ebpf: &mut Ebpf, tables: &HostTables) {
    let mut interfaces: Array<MapData, Interface> = take(ebpf, "INTERFACES");
    for (&ifindex, &mac) in &tables.interfaces {
        let place = tables.settings.place_of_interface(ifindex);
        interfaces.set(place, Interface { ifindex, pad: 0, mac }, 0).expect("an interface");
    }
    let mut servers: Array<MapData, Server> = take(ebpf, "SERVERS");
    for (&index, server) in &tables.servers {
        servers.set(index.into(), server, 0).expect("a server");
    }
    let mut limits: Array<MapData, VipLimit> = take(ebpf, "LIMITS");
    for (&vip, limit) in &tables.limits {
        limits.set(vip.into(), limit.get(), 0).expect("a limit");
    }
    let mut rings: ArrayOfMaps<MapData, Array<MapData, Ring>> = take(ebpf, "RINGS");
    for (&vip, slots) in &tables.rings {
        let mut words = slots.clone();
        words.resize(RING_SIZE + 1, 0);
        let ring: Box<Ring> = words.into_boxed_slice().try_into().expect("made with just this length");
        let mut fresh = Array::<MapData, Ring>::create(1, 0).expect("a ring");
        // By reference: it would be a large thing to hand about on the stack.
        let ring: &Ring = &ring;
        fresh.set(0, ring, 0).expect("a ring's slots");
        rings.set(vip.into(), &fresh, 0).expect("a ring's place");
    }
    insert_all(&mut take(ebpf, "VIPS4"), &tables.v4.vips);
    insert_all(&mut take(ebpf, "VIPS6"), &tables.v6.vips);
}

fn insert_all<A: Copy>(
    map: &mut HashMap<MapData, VipKey<A>, Vip>,
    vips: &std::collections::HashMap<VipKey<A>, Vip>,
) where
    VipKey<A>: Pod,
{
    for (key, vip) in vips {
        map.insert(key, vip, 0).expect("room for a VIP");
    }
}

/// What the host says of a frame: the record, whether a filter wants it, and the frame as it leaves.
struct Said {
    record: TraceRecord,
    wanted: bool,
    left: Vec<u8>,
}

/// Decides about a frame on the host, with the same tables.
fn on_host(world: &mut World, ifindex: u32, frame: &[u8], filter: &TraceFilter) -> Said {
    world.tables.now = tick();
    match parse::ethernet(frame) {
        Ok(link) if link.ethertype == ethernet::IPV4 => of_family::<V4>(world, link, ifindex, frame, filter),
        Ok(link) if link.ethertype == ethernet::IPV6 => of_family::<V6>(world, link, ifindex, frame, filter),
        Ok(_) => unread(PassReason::NotIp, frame, filter),
        Err(reason) => unread(reason, frame, filter),
    }
}

fn unread(reason: PassReason, frame: &[u8], filter: &TraceFilter) -> Said {
    let end = End::unread(0, reason);
    let specific = filter.family != 0 || filter.port != 0 || filter.protocol != 0 || filter.vip != 0;
    let wanted = filter.endings >> end.ending & 1 != 0 && !specific;
    let record = TraceRecord { ending: end.ending as u8, ..TraceRecord::default() };
    Said { record, wanted, left: frame.to_vec() }
}

fn of_family<F: HostFamily>(
    world: &World,
    link: Link,
    ifindex: u32,
    frame: &[u8],
    filter: &TraceFilter,
) -> Said {
    let mut left = frame.to_vec();
    let packet = match F::parse::<true, _>(&left, link.l3) {
        Ok(packet) => packet,
        Err(Unread::Pass(reason)) => return unread(reason, frame, filter),
        Err(Unread::Extensions) => unreachable!("they were walked"),
    };
    let mut work = Work::<F>::new(link, packet, ifindex);
    let verdict = host::settle(&mut left, &mut work, &world.tables);
    let end = End::of(&verdict).expect("decided");
    if let Verdict::Forward(forward) = &verdict {
        rewrite::apply_rare(&mut left, &work, forward).expect("it fits");
    }
    let mut record = TraceRecord::default();
    trace::describe(&mut record, &end, &work);
    let answered = matches!(verdict, Verdict::Answer(_));
    record.out = if answered { ifindex } else { record.out };
    let server = world.tables.servers.get(&work.facts.server).copied().unwrap_or_default();
    let wanted = trace::wants(filter, &end, &work, &server, 0);
    Said { record, wanted, left }
}

/// Frames of all kinds, in an order in which some depend on others.
fn frames(world: &World, four: bool, port: u16) -> Vec<(String, u32, Vec<u8>)> {
    let client = world::client(four, 9, port);
    let mut frames = Vec::new();
    let mut add = |what: &str, frame: Vec<u8>| frames.push((format!("{what}, IPv4: {four}"), FRONT, frame));
    let vips = [Mode::Dr, Mode::Nat, Mode::Snat, Mode::Ipip, Mode::Gue, Mode::Local];
    for (mode, number) in vips.into_iter().flat_map(|mode| [(mode, protocol::TCP), (mode, protocol::UDP)]) {
        let found = world.services.iter().find(|service| {
            service.mode == mode
                && service.protocol == number
                && service.at.is_ipv4() == four
                && service.is_plain()
        });
        let Some(service) = found else { continue };
        let what = |packet: &str| format!("{packet} to {mode:?}");
        if number == protocol::TCP {
            add(&what("in the middle"), Draft::ack(client, service.end()).bytes());
            add(&what("SYN"), Draft::syn(client, service.end()).bytes());
            add(
                &what("a later segment"),
                Draft::tcp(client, service.end(), ACK).payload(&[7; 1_000]).bytes(),
            );
            add(&what("tagged"), Draft::syn(client, service.end()).tag(0x8100, 5).bytes());
            add(&what("on its last hop"), Draft::syn(client, service.end()).ttl(1).bytes());
        } else {
            add(&what("datagram"), Draft::udp(client, service.end()).payload(b"odd").bytes());
            let whole = Draft::udp(client, service.end()).payload(&[3; 64]);
            add(&what("first piece"), whole.clone().piece(77, 0, true).bytes());
            add(&what("later piece"), whole.piece(77, 72, false).bytes());
        }
        add(&what("echo request"), Draft::echo(client, service.end()).bytes());
    }
    let vip = world.service(Mode::Snat, protocol::TCP, four).end();
    add("to nobody", Draft::syn(client, world::client(four, 200, 81)).bytes());
    add("another protocol", Draft::other(client, vip, 89).bytes());
    let other_host = Draft::syn(client, vip).macs([2, 0, 0, 0, 9, 9], world::CLIENT_MAC);
    add("flooded by a switch", other_host.bytes());
    add("to a group", Draft::syn(client, vip).macs([0xff; 6], world::CLIENT_MAC).bytes());
    let mut arp = Draft::syn(client, vip).bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    add("ARP", arp);
    let mut cut = Draft::syn(client, vip).bytes();
    cut.pop();
    add("cut short", cut);
    if !four {
        add("with an extension header", Draft::syn(client, vip).extension(60, &[0; 8]).bytes());
    }
    frames
}

const ANY: TraceFilter = TraceFilter {
    address: [0; 4],
    mask: [0; 4],
    endings: u64::MAX,
    session: 0,
    sample: 1,
    lost: 0,
    port: 0,
    vip: 0,
    family: 0,
    protocol: 0,
    pad: [0; 6],
};

/// A world whose tables are those of a kernel, and a kernel with these tables.
fn bed() -> (World, Watched) {
    let mut world = World::new(RING_SIZE);
    world.tables.now = tick();
    let watched = Watched::load(&world.tables);
    (world, watched)
}

/// Sends a frame through host and kernel and compares; gives what the kernel made of it.
#[track_caller]
fn compare(
    world: &mut World,
    watched: &mut Watched,
    what: &str,
    ifindex: u32,
    frame: &[u8],
    filter: &TraceFilter,
) -> Vec<u8> {
    let said = on_host(world, ifindex, frame, filter);
    let (_, left) = watched.run(ifindex, frame, 1);
    // Between the two looks at the clock a tick may have passed, and then what depends on it differs.
    let same_tick = tick() == world.tables.now;
    assert_eq!(left, said.left, "{what}: the frame as it leaves");
    let records = watched.records();
    assert_eq!(records.len(), usize::from(said.wanted), "{what}: {filter:?}");
    let Some(got) = records.first() else { return left };
    let captured = left.len().min(TRACE_BYTES);
    assert_eq!(usize::from(got.captured), captured, "{what}");
    assert_eq!(got.bytes[..captured], left[..captured], "{what}");
    assert!(got.bytes[captured..].iter().all(|&byte| byte == 0), "{what}: nothing but the frame's bytes");
    assert_eq!(
        (got.left_length as usize, got.ifindex, got.session),
        (left.len(), ifindex, watched.session),
        "{what}"
    );
    assert_eq!(
        lb_common::conntrack::tick(got.time).wrapping_sub(world.tables.now) & !1,
        0,
        "{what}: just now"
    );
    let facts = if same_tick { said.record.facts } else { got.facts };
    let expected = TraceRecord {
        time: got.time,
        ifindex,
        session: got.session,
        left_length: got.left_length,
        captured: got.captured,
        bytes: got.bytes,
        facts,
        ..said.record
    };
    assert_eq!(*got, expected, "{what}");
    left
}

#[test]
fn every_packet_gives_one_record_that_says_what_the_host_says() {
    needs_kernel_program!();
    place(|| {
        let (mut world, mut watched) = bed();
        watched.switch(&world.tables, true);
        watched.want(ANY);
        let mut seen = std::collections::BTreeSet::new();
        for four in [true, false] {
            for (what, ifindex, frame) in frames(&world, four, 40_000) {
                let left = compare(&mut world, &mut watched, &what, ifindex, &frame, &ANY);
                // What a translated SYN becomes, its server answers.
                let translated =
                    inspect::read(&frame).zip(inspect::read(&left)).is_some_and(|(before, after)| {
                        before.dst != after.dst && after.flags == lb_common::wire::tcp::SYN
                    });
                if translated && left.len() == frame.len() {
                    let got = inspect::read(&left).expect("a packet");
                    let answer = Draft::tcp(got.dst, got.src, lb_common::wire::tcp::SYN | ACK).bytes();
                    compare(&mut world, &mut watched, &format!("answer to {what}"), FRONT, &answer, &ANY);
                    seen.insert("an answer");
                }
            }
        }
        assert!(seen.contains("an answer"));
    });
}

#[test]
fn only_what_the_filter_wants_is_reported() {
    needs_kernel_program!();
    place(|| {
        let (mut world, mut watched) = bed();
        watched.switch(&world.tables, true);
        let snat = world.service(Mode::Snat, protocol::TCP, true);
        let host = |address, six| TraceFilter {
            address: world::words(address),
            mask: if six { [u32::MAX; 4] } else { [u32::MAX, 0, 0, 0] },
            family: if six { 6 } else { 4 },
            ..ANY
        };
        let filters = [
            TraceFilter { endings: Fate::bits("drop"), ..ANY },
            TraceFilter { endings: Fate::bits("pass"), ..ANY },
            TraceFilter { endings: Fate::bits("forward"), ..ANY },
            TraceFilter { endings: Fate::bits("answer"), ..ANY },
            TraceFilter { endings: Fate::bits("not-ip"), ..ANY },
            TraceFilter { protocol: protocol::UDP, ..ANY },
            TraceFilter { protocol: protocol::ICMP, ..ANY },
            TraceFilter { port: snat.end().port(), ..ANY },
            TraceFilter { vip: snat.id, ..ANY },
            host(world::address(true, 2, 1), false),
            host(world::address(false, 2, 3), true),
            TraceFilter { port: 40_002, ..host(world::client(true, 9, 1).ip(), false) },
        ];
        for (number, filter) in filters.iter().enumerate() {
            watched.want(*filter);
            for four in [true, false] {
                for (what, ifindex, frame) in frames(&world, four, 40_000 + number as u16 % 4) {
                    compare(&mut world, &mut watched, &what, ifindex, &frame, filter);
                }
            }
        }
        // One flow in four: all packets of it, or none.
        let sample = TraceFilter { sample: 4, endings: Fate::bits("forward"), ..ANY };
        watched.want(sample);
        let target = world.service(Mode::Dr, protocol::TCP, true).end();
        let mut reported = 0;
        for port in 1..=200 {
            let client = world::client(true, 7, port);
            let mut of_flow = 0;
            for frame in [Draft::syn(client, target).bytes(), Draft::ack(client, target).bytes()] {
                watched.run(FRONT, &frame, 1);
                of_flow += watched.records().len();
            }
            assert!(matches!(of_flow, 0 | 2), "{of_flow} packets of two");
            reported += of_flow / 2;
        }
        assert!((25..=80).contains(&reported), "{reported} flows of 200");
    });
}

#[test]
fn while_nobody_watches_nothing_is_reported() {
    needs_kernel_program!();
    place(|| {
        let (mut world, mut watched) = bed();
        watched.want(ANY);
        for four in [true, false] {
            for (what, ifindex, frame) in frames(&world, four, 40_000) {
                let said = on_host(&mut world, ifindex, &frame, &ANY);
                assert_eq!(watched.run(ifindex, &frame, 1).1, said.left, "{what}");
            }
        }
        assert_eq!(watched.records(), []);
    });
}

#[test]
fn what_finds_no_room_is_counted() {
    needs_kernel_program!();
    const PACKETS: u32 = 10_000;
    place(|| {
        let (world, mut watched) = bed();
        watched.switch(&world.tables, true);
        watched.want(ANY);
        let frame = Draft::syn(world::client(true, 9, 1), world::client(true, 200, 81)).bytes();
        let (action, left) = watched.run(FRONT, &frame, PACKETS);
        assert_eq!((action, &left), (2, &frame), "passed as it came");
        let records = watched.records();
        let lost = watched.filter.get(&0, 0).expect("the filter").lost;
        assert_eq!(records.len() as u32 + lost, PACKETS);
        let room = TRACE_RING / (size_of::<TraceRecord>() + 8);
        assert!(
            records.len() <= room && records.len() + 1 >= room,
            "{} records, room for {room}",
            records.len()
        );
        assert!(records.windows(2).all(|pair| pair[0].time <= pair[1].time), "in order");
        watched.run(FRONT, &frame, 1);
        assert_eq!(watched.records().len(), 1, "there is room again");
    });
}
