//! The bytes that kernel and user space share: the maps are as large as the types, what the daemon writes
//! arrives as it was, and the sweep takes out what it should.

use std::{net::IpAddr, thread};

use aya::{
    EbpfLoader,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, MapInfo},
    programs::loaded_programs,
};
use lb_common::{
    abi::{
        self, Claim, Counters, DEFAULT_FLOW_TAGS, DEFAULT_FLOWS, FRAGMENTED, Flood, Flow, FlowKey, Fragment,
        FragmentKey, INTERFACE_PLACES, Interface, Line, MAX_QUIC, MAX_QUIC_SERVERS, MAX_SERVERS,
        MAX_VIP_PORTS, MAX_VIPS, Mac, Mode, QuicLb, QuicLbKey, QuicServerKey, RECORD4, RECORD6, RING_SIZE,
        Reply, Ring, Server, ServerRef, Settings, Vip, VipKey, VipLimit, WAYS, protocol,
    },
    conntrack::{self, CLIENT_FIN, CLIENT_RST, CONFIRMED, REPLIED, SERVER_FIN, SERVER_RST},
    family::{V4, V6},
    hash,
    pipeline::Work,
    verdict::{REASON_COUNT, STAGE_COUNT},
};
use lb_testkit::world::World;
use lb_tests::needs_kernel_program;
use lb_user::{
    datapath::{
        Datapath as _,
        flows::Round,
        load::{self, Loaded, Sizes},
    },
    plan::{Operation, RingSpec, orders::Orders},
};

use crate::{
    kernel::{entries, place},
    state::record4,
};

type A6 = [u32; 4];

#[test]
fn every_map_is_as_large_as_its_types() {
    needs_kernel_program!();
    let ebpf = EbpfLoader::new().load(lb_user::datapath::OBJECT).expect("an object that aya understands");
    let size = |bytes: usize| bytes as u32;
    let (line, flow_lines) = (size_of::<Line>(), DEFAULT_FLOWS / WAYS);
    // Name, key, value, entries.
    let expected = [
        ("SETTINGS", 4, size_of::<Settings>(), 1),
        ("VIPS4", size_of::<VipKey<u32>>(), size_of::<Vip>(), MAX_VIP_PORTS),
        ("VIPS6", size_of::<VipKey<A6>>(), size_of::<Vip>(), MAX_VIP_PORTS),
        ("RINGS", 4, 4, MAX_VIPS),
        ("SERVERS", 4, size_of::<Server>(), MAX_SERVERS),
        ("INTERFACES", 4, size_of::<Interface>(), INTERFACE_PLACES),
        ("CLAIMS4", 4, line, flow_lines),
        ("CLAIMS6", 4, line, flow_lines),
        ("FLOWS4", 4, 8 * RECORD4, DEFAULT_FLOWS),
        ("FLOWS6", 4, 8 * RECORD6, DEFAULT_FLOWS),
        ("REPLIES4", 4, line, 2 * flow_lines),
        ("REPLIES6", 4, line, 2 * flow_lines),
        ("FLOW_TAGS", 4, line, DEFAULT_FLOW_TAGS / WAYS),
        ("FRAGMENTS4", size_of::<FragmentKey<u32>>(), size_of::<Fragment>(), FRAGMENTED),
        ("FRAGMENTS6", size_of::<FragmentKey<A6>>(), size_of::<Fragment>(), FRAGMENTED),
        ("QUIC", size_of::<QuicLbKey>(), size_of::<QuicLb>(), MAX_QUIC),
        ("QUIC_SERVERS", size_of::<QuicServerKey>(), size_of::<ServerRef>(), MAX_QUIC_SERVERS),
        ("LIMITS", 4, size_of::<VipLimit>(), MAX_VIPS),
        ("LOADS", 4, 4, MAX_SERVERS),
        ("FLOOD", 4, size_of::<Flood>(), 1),
        ("COUNTERS", 4, size_of::<Counters>(), MAX_SERVERS),
        ("REASONS", 4, 8, REASON_COUNT as usize),
        ("WORK4", 4, size_of::<Work<V4>>(), 1),
        ("WORK6", 4, size_of::<Work<V6>>(), 1),
        ("STAGES", 4, 4, 2 * STAGE_COUNT as usize),
    ];
    for (name, key, value, most) in expected {
        let map = ebpf.map(name).unwrap_or_else(|| panic!("the object has a map {name}"));
        let info = data(map).info().expect("what the kernel knows of it");
        let found = (info.key_size(), info.value_size(), info.max_entries());
        assert_eq!(found, (size(key), size(value), size(most)), "{name}");
    }
}

/// The map behind aya's types. Those that have none here are not the balancer's.
fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data) => data,
        other => panic!("a map of another kind: {other:?}"),
    }
}

/// Loads the program as the daemon does, hands it to `work`, and forgets it.
fn with_daemon(work: impl FnOnce(Loaded) + Send) {
    place(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            work(load::load(Sizes { flows: 1_024, tags: 1_024 }).expect("the daemon can load the program"))
        });
    });
}

/// Another handle upon a map of the daemon's programs: of the first, or of a stage.
fn open<M: TryFrom<Map, Error = MapError>>(loaded: &mut Loaded, name: &str) -> M {
    let entry = loaded.program.id().expect("the program's id");
    let of_entry = maps_of(entry);
    let stages = of_entry.iter().find(|(_, name)| name == "STAGES").expect("it has stages").0;
    // Read as an array of numbers, an array of programs tells their ids.
    let stages = Map::Array(MapData::from_id(stages).expect("a map"));
    let stages = Array::<_, u32>::try_from(stages).expect("ids are numbers");
    let of_stages = (0..stages.len()).filter_map(|place| stages.get(&place, 0).ok()).flat_map(maps_of);
    let mut maps = of_entry.iter().cloned().chain(of_stages);
    let (id, _) = maps.find(|(_, found)| found == name).unwrap_or_else(|| panic!("somebody uses {name}"));
    let map = Map::from_map_data(MapData::from_id(id).expect("a map")).expect("of a known kind");
    M::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Ids and names of the maps of a program.
fn maps_of(program: u32) -> Vec<(u32, String)> {
    let program = loaded_programs().filter_map(Result::ok).find(|info| info.id() == program);
    let ids = program.expect("it is loaded").map_ids().expect("the kernel tells").expect("it has maps");
    let name = |id: u32| MapInfo::from_id(id).ok()?.name_as_str().map(str::to_owned);
    ids.into_iter().filter_map(|id| Some((id, name(id)?))).collect()
}

#[test]
fn what_the_daemon_writes_arrives_as_it_was() {
    needs_kernel_program!();
    with_daemon(|mut daemon| {
        let settings = Settings {
            abi_version: abi::ABI_VERSION,
            flags: 7,
            snat_first: 0x1234,
            snat_count: 0x5678,
            interface_factor: 0x9abc_def0,
            seed: 0x0102_0304_0506_0708,
            lines4: 1,
            lines6: 3,
            tag_lines: 7,
            syn_limit: 9,
            ..Settings::default()
        };
        let server = Server {
            address: [1, 2, 3, 4],
            source: [5, 6, 7, 8],
            next_hop: Mac::new([9, 10, 11, 12, 13, 14]),
            source_mac: Mac::new([15, 16, 17, 18, 19, 20]),
            ifindex: 0x2122_2324,
            port: 0x2526,
            generation: 0x2728,
            vip: 0x292a,
            flags: 0x2b2c,
            mtu: 0x2d2e,
            weight: 0x2f30,
        };
        let interface = Interface { ifindex: 7, pad: 0, mac: server.source_mac };
        let key4 = VipKey { address: 0x0102_0304, port: 0x0506, protocol: 6 };
        let key6 = VipKey { address: [1, 2, 3, 0xffff_ffff], port: 65_535, protocol: 17 };
        let vip = Vip { id: 4_095, mode: 3, selection: 1, flags: 1, mss: 2, persistence: 3, pad: 0 };
        let spec = RingSpec::new(vec![
            (ServerRef::new(65_535, 0x7fff), 100, IpAddr::from([10, 0, 0, 1])),
            (ServerRef::new(1, 1), 50, IpAddr::from([10, 0, 0, 2])),
        ]);
        let image = spec.build().tagged();
        for operation in [
            Operation::Settings(settings),
            Operation::Interface(7, Some(interface)),
            Operation::Limit(4_095, 77),
            Operation::Server(65_535, Some(server)),
            Operation::Ring(4_095, Some(image.clone())),
            Operation::Vip4(key4, Some(vip)),
            Operation::Vip6(key6, Some(vip)),
        ] {
            daemon.maps.apply(&operation).expect("the kernel takes it");
        }
        let found: Array<_, Settings> = open(&mut daemon, "SETTINGS");
        assert_eq!(found.get(&0, 0).expect("an entry"), settings);
        let servers: Array<_, Server> = open(&mut daemon, "SERVERS");
        assert_eq!(servers.get(&65_535, 0).expect("an entry"), server);
        let interfaces: Array<_, Interface> = open(&mut daemon, "INTERFACES");
        assert_eq!(interfaces.get(&7, 0).expect("a place"), interface);
        let limits: Array<_, VipLimit> = open(&mut daemon, "LIMITS");
        let limit = VipLimit { per_tick: 77, ..VipLimit::default() };
        assert_eq!(limits.get(&4_095, 0).expect("a limit"), limit);
        let vips4: HashMap<_, VipKey<u32>, Vip> = open(&mut daemon, "VIPS4");
        let vips6: HashMap<_, VipKey<A6>, Vip> = open(&mut daemon, "VIPS6");
        assert_eq!((entries(&vips4), entries(&vips6)), ([(key4, vip)].into(), [(key6, vip)].into()));
        assert_eq!(ring(&mut daemon, 4_095), *image.words());

        for operation in [
            Operation::Vip4(key4, None),
            Operation::Vip6(key6, None),
            Operation::Ring(4_095, None),
            Operation::Server(65_535, None),
            Operation::Interface(7, None),
            // What is not there can be taken out: the wish is fulfilled.
            Operation::Vip4(key4, None),
            Operation::Interface(7, None),
            Operation::Limit(4_095, 0),
        ] {
            daemon.maps.apply(&operation).expect("the kernel takes it");
        }
        assert_eq!((entries(&vips4).len(), entries(&vips6).len()), (0, 0));
        assert_eq!(interfaces.get(&7, 0).expect("a place"), Interface::default());
        assert_eq!(limits.get(&4_095, 0).expect("a limit"), VipLimit::default());
        assert_eq!(servers.get(&65_535, 0).expect("an entry"), Server::default());
        assert!(ring(&mut daemon, 4_095).iter().all(|slot| *slot == 0));
        assert_eq!(daemon.maps.reasons().expect("counters"), vec![0; REASON_COUNT as usize]);
        assert_eq!(daemon.maps.server_counters(65_535).expect("counters"), Counters::default());
    });
}

/// The slots of a VIP's ring.
fn ring(daemon: &mut Loaded, vip: u16) -> Vec<u32> {
    let rings: ArrayOfMaps<_, Array<MapData, Ring>> = open(daemon, "RINGS");
    let ring: Array<MapData, Ring> = rings.get(&vip.into(), 0).expect("the VIP has a ring");
    // aya hands values about on the stack, and without optimisation this one lies there many times over.
    let read = move || ring.get(&0, 0).expect("its slots").to_vec();
    let reader = thread::Builder::new().stack_size(32 << 20).spawn(read).expect("a thread");
    reader.join().expect("a thread that ends")
}

#[test]
fn the_sweep_takes_out_what_has_been_silent_for_too_long_and_counts_the_rest() {
    needs_kernel_program!();
    with_daemon(|mut daemon| {
        let mut claims: Array<_, Line> = open(&mut daemon, "CLAIMS4");
        let mut replies: Array<_, Line> = open(&mut daemon, "REPLIES4");
        let mut flows: Array<_, [u64; RECORD4]> = open(&mut daemon, "FLOWS4");
        let (tcp, udp) = (protocol::TCP, protocol::UDP);
        let open_state = REPLIED | CONFIRMED;
        let over = open_state | CLIENT_FIN | SERVER_FIN;
        let now = 100_000;
        // Protocol, state, silence in ticks; stays, counts as alive.
        let cases = [
            (tcp, 0, 75, true, true),
            (tcp, 0, 76, false, false),
            (tcp, REPLIED, 75, true, true),
            (tcp, REPLIED, 76, false, false),
            (tcp, open_state, 7_440, true, true),
            (tcp, open_state, 7_441, false, false),
            (tcp, over, 60, true, false),
            (tcp, over, 61, false, false),
            (tcp, open_state | CLIENT_RST, 240, true, false),
            (tcp, open_state | CLIENT_RST, 241, false, false),
            (tcp, REPLIED | SERVER_RST, 10, true, false),
            (tcp, REPLIED | SERVER_RST, 11, false, false),
            (udp, 0, 120, true, true),
            (udp, 0, 121, false, false),
            (udp, REPLIED, 180, true, true),
            (udp, REPLIED, 181, false, false),
        ];
        let place = |flow: &Flow<u32>, key: &FlowKey<u32>| {
            let place = hash::place::<V4>(key, daemon.shape.seed);
            assert_eq!(flow.protocol, key.protocol as u16);
            ((place >> 32) as u32, place as u32)
        };
        for (number, (protocol, state, silence, ..)) in (1..).zip(cases) {
            let flow = Flow {
                client: 9,
                vip: 1,
                source: 8,
                server: 2,
                client_port: number,
                vip_port: 80,
                source_port: number,
                server_port: 8_080,
                protocol: protocol.into(),
                server_ref: ServerRef::new(number, 1),
                seen: now - silence,
                state,
                ..Flow::default()
            };
            // Whatever line a claim is in, the sweep finds it; the reply's is where the kernel would look.
            let line = u32::from(number);
            let claim = Claim::new(place(&flow, &flow.key()).0, conntrack::stage(state), now);
            claims.set(line, [0, claim.0, 0, 0, 0, 0, 0, 0], 0).expect("a line");
            let record = line * WAYS as u32 + 1;
            flows.set(record, record4(&flow), 0).expect("a record");
            let (fingerprint, reply) = place(&flow, &flow.reply_key());
            let reply = reply & (replies.len() - 1);
            let mut line = replies.get(&reply, 0).expect("a line");
            *line.iter_mut().find(|way| **way == 0).expect("room") = Reply::new(fingerprint, record).0;
            replies.set(reply, line, 0).expect("a line");
        }
        let orders = Orders::default();
        let round = Round { orders: &orders, now, halted_for: &|_| 0 };
        let census = daemon.flows.sweep(&round, &mut |flow| panic!("{flow:?} is not halted"));
        let census = census.expect("the records");
        let removed = cases.iter().filter(|(.., stays, _)| !stays).count() as u64;
        let alive = cases.iter().filter(|(.., alive)| *alive).count() as u64;
        assert_eq!((census.removed, census.alive), (removed, alive));
        for (number, (protocol, state, silence, stays, alive)) in (1..).zip(cases) {
            let what = format!("protocol {protocol}, state {state:06b}, silent for {silence}");
            let claim = claims.get(&u32::from(number), 0).expect("a line")[1];
            assert_eq!(claim != 0, stays, "{what}");
            let counted = census.by_server.get(&number).copied().unwrap_or(0);
            assert_eq!(counted, u64::from(alive), "{what}");
        }
        let entered = |lines: &Array<MapData, Line>| {
            lines.iter().flat_map(|line| line.expect("a line")).filter(|way| *way != 0).count()
        };
        assert_eq!(
            (entered(&claims), entered(&replies)),
            (cases.len() - removed as usize, cases.len() - removed as usize)
        );
        let again = daemon.flows.sweep(&round, &mut |_| ()).expect("the records");
        assert_eq!(again.removed, 0);
    });
}

#[test]
fn the_tables_of_these_tests_could_be_the_daemons() {
    needs_kernel_program!();
    with_daemon(|mut daemon| {
        let world = World::new(RING_SIZE);
        for (index, server) in &world.tables.servers {
            daemon.maps.apply(&Operation::Server(*index, Some(*server))).expect("the kernel takes it");
        }
        for service in &world.services {
            if service.mode == Mode::Local {
                continue;
            }
            let server = |number| {
                let index = service.server(number);
                let address = world.address_of(service, number);
                (ServerRef::new(index, world.tables.servers[&index].generation), 100, address)
            };
            let image = RingSpec::new((1..=service.servers).map(server).collect()).build();
            daemon
                .maps
                .apply(&Operation::Ring(service.id, Some(image.clone())))
                .expect("the kernel takes it");
            assert_eq!(ring(&mut daemon, service.id), *image.words(), "{service:?}");
        }
    });
}
