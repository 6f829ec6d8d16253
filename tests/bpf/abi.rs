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
        self, Counters, Flow, FlowKey, MAX_INTERFACES, MAX_SERVERS, MAX_VIP_PORTS, MAX_VIPS, Mac, RING_SIZE,
        Ring, Server, ServerRef, Settings, Vip, VipKey, protocol,
    },
    conntrack::{CLIENT_FIN, CLIENT_RST, CONFIRMED, REPLIED, SERVER_FIN, SERVER_RST},
    family::{V4, V6},
    pipeline::Work,
    verdict::REASON_COUNT,
};
use lb_testkit::world::{self, World};
use lb_tests::needs_kernel_program;
use lb_user::{
    datapath::{Datapath as _, load, load::Loaded},
    plan::{Operation, RingSpec},
};

use crate::kernel::{entries, place};

type A6 = [u32; 4];

#[test]
fn every_map_is_as_large_as_its_types() {
    needs_kernel_program!();
    let ebpf = EbpfLoader::new().load(lb_user::datapath::OBJECT).expect("an object that aya understands");
    let size = |bytes: usize| bytes as u32;
    // Name, key, value, entries.
    let expected = [
        ("SETTINGS", 4, size_of::<Settings>(), 1),
        ("VIPS4", size_of::<VipKey<u32>>(), size_of::<Vip>(), MAX_VIP_PORTS),
        ("VIPS6", size_of::<VipKey<A6>>(), size_of::<Vip>(), MAX_VIP_PORTS),
        ("RINGS", 4, 4, MAX_VIPS),
        ("SERVERS", 4, size_of::<Server>(), MAX_SERVERS),
        ("INTERFACES", 4, size_of::<Mac>(), MAX_INTERFACES),
        ("FLOWS4", size_of::<FlowKey<u32>>(), size_of::<Flow<u32>>(), abi::DEFAULT_FLOW_ENTRIES),
        ("FLOWS6", size_of::<FlowKey<A6>>(), size_of::<Flow<A6>>(), abi::DEFAULT_FLOW_ENTRIES),
        ("VIP_COUNTERS", 4, size_of::<Counters>(), MAX_VIPS),
        ("SERVER_COUNTERS", 4, size_of::<Counters>(), MAX_SERVERS),
        ("REASONS", 4, 8, REASON_COUNT as usize),
        ("WORK4", 4, size_of::<Work<V4>>(), 1),
        ("WORK6", 4, size_of::<Work<V6>>(), 1),
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
        | Map::PerCpuArray(data) => data,
        other => panic!("a map of another kind: {other:?}"),
    }
}

/// Loads the program as the daemon does, hands it to `work`, and forgets it.
fn with_daemon(entries: u32, work: impl FnOnce(Loaded) + Send) {
    place(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { work(load::load(entries).expect("the daemon can load the program")) });
    });
}

/// Another handle upon a map of the daemon's program.
fn open<M: TryFrom<Map, Error = MapError>>(loaded: &mut Loaded, name: &str) -> M {
    let id = loaded.program.id().expect("the program's id");
    let program =
        loaded_programs().filter_map(Result::ok).find(|info| info.id() == id).expect("it is loaded");
    let ids = program.map_ids().expect("the kernel tells").expect("it has maps");
    let is_it = |id: &u32| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(name));
    let id = ids.into_iter().find(is_it).unwrap_or_else(|| panic!("the program uses {name}"));
    let map = Map::from_map_data(MapData::from_id(id).expect("a map")).expect("of a known kind");
    M::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn what_the_daemon_writes_arrives_as_it_was() {
    needs_kernel_program!();
    with_daemon(1_024, |mut daemon| {
        let settings = Settings {
            abi_version: abi::ABI_VERSION,
            flags: 1,
            snat_first: 0x1234,
            snat_count: 0x5678,
            pad: [0; 4],
        };
        let server = Server {
            address: [1, 2, 3, 4],
            snat_source: [5, 6, 7, 8],
            next_hop: Mac::new([9, 10, 11, 12, 13, 14]),
            source_mac: Mac::new([15, 16, 17, 18, 19, 20]),
            ifindex: 0x2122_2324,
            port: 0x2526,
            generation: 0x2728,
            vip: 0x292a,
            flags: 0x2b2c,
            pad: [0; 4],
        };
        let key4 = VipKey { address: 0x0102_0304, port: 0x0506, protocol: 6 };
        let key6 = VipKey { address: [1, 2, 3, 0xffff_ffff], port: 65_535, protocol: 17 };
        let vip = Vip { id: 4_095, mode: 3, flags: 1 };
        let spec = RingSpec::new(vec![
            (ServerRef::new(65_535, 0x7fff), 100, IpAddr::from([10, 0, 0, 1])),
            (ServerRef::new(1, 1), 50, IpAddr::from([10, 0, 0, 2])),
        ]);
        for operation in [
            Operation::Settings(settings),
            Operation::Interface(7, Some(server.source_mac)),
            Operation::Server(65_535, Some(server)),
            Operation::Ring(4_095, Some(spec.clone())),
            Operation::Vip4(key4, Some(vip)),
            Operation::Vip6(key6, Some(vip)),
        ] {
            daemon.maps.apply(&operation).expect("the kernel takes it");
        }
        let found: Array<_, Settings> = open(&mut daemon, "SETTINGS");
        assert_eq!(found.get(&0, 0).expect("an entry"), settings);
        let servers: Array<_, Server> = open(&mut daemon, "SERVERS");
        assert_eq!(servers.get(&65_535, 0).expect("an entry"), server);
        let interfaces: HashMap<_, u32, Mac> = open(&mut daemon, "INTERFACES");
        assert_eq!(entries(&interfaces), [(7, server.source_mac)].into());
        let vips4: HashMap<_, VipKey<u32>, Vip> = open(&mut daemon, "VIPS4");
        let vips6: HashMap<_, VipKey<A6>, Vip> = open(&mut daemon, "VIPS6");
        assert_eq!((entries(&vips4), entries(&vips6)), ([(key4, vip)].into(), [(key6, vip)].into()));
        assert_eq!(ring(&mut daemon, 4_095), spec.build()[..]);

        for operation in [
            Operation::Vip4(key4, None),
            Operation::Vip6(key6, None),
            Operation::Ring(4_095, None),
            Operation::Server(65_535, None),
            Operation::Interface(7, None),
            // What is not there can be taken out: the wish is fulfilled.
            Operation::Vip4(key4, None),
            Operation::Interface(7, None),
        ] {
            daemon.maps.apply(&operation).expect("the kernel takes it");
        }
        assert_eq!((entries(&vips4).len(), entries(&vips6).len(), entries(&interfaces).len()), (0, 0, 0));
        assert_eq!(servers.get(&65_535, 0).expect("an entry"), Server::default());
        assert!(ring(&mut daemon, 4_095).iter().all(|slot| *slot == 0));
        assert_eq!(daemon.maps.reasons().expect("counters"), vec![0; REASON_COUNT as usize]);
        assert_eq!(daemon.maps.vip_counters(4_095).expect("counters"), Counters::default());
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
    with_daemon(1_024, |mut daemon| {
        let mut flows4: HashMap<_, FlowKey<u32>, Flow<u32>> = open(&mut daemon, "FLOWS4");
        let mut flows6: HashMap<_, FlowKey<A6>, Flow<A6>> = open(&mut daemon, "FLOWS6");
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
        for (number, (protocol, state, silence, ..)) in (1..).zip(cases) {
            let key = FlowKey { src: 9, dst: 1, sport: number, dport: 80, protocol: u32::from(protocol) };
            let server = ServerRef::new(number, 1);
            let flow = Flow {
                src: 8,
                dst: 2,
                sport: number,
                dport: 8_080,
                server,
                seen: now - silence,
                state,
                ..Flow::default()
            };
            flows4.insert(key, flow, 0).expect("room");
            flows4.insert(flow.twin_key(key.protocol), flow.twin(&key), 0).expect("room");
            let wide = |word: u32| [word, 0, 0, word];
            let key = FlowKey {
                src: wide(key.src),
                dst: wide(key.dst),
                sport: number,
                dport: 80,
                protocol: key.protocol,
            };
            let flow = Flow {
                src: wide(8),
                dst: wide(2),
                sport: number,
                dport: 8_080,
                server,
                seen: now - silence,
                state,
                ..Flow::default()
            };
            flows6.insert(key, flow, 0).expect("room");
            flows6.insert(flow.twin_key(key.protocol), flow.twin(&key), 0).expect("room");
        }
        let census = daemon.flows.sweep(now).expect("the kernel lets us");
        let removed = cases.iter().filter(|(.., stays, _)| !stays).count() as u64;
        let alive = cases.iter().filter(|(.., alive)| *alive).count() as u64;
        assert_eq!((census.removed, census.alive), (removed * 4, alive * 2));
        for (number, (protocol, state, silence, stays, alive)) in (1..).zip(cases) {
            let what = format!("protocol {protocol}, state {state:06b}, silent for {silence}");
            let halves = entries(&flows4).keys().filter(|key| number == key.sport.min(key.dport)).count();
            assert_eq!(halves, if stays { 2 } else { 0 }, "{what}");
            assert_eq!(
                census.by_server.get(&number).copied().unwrap_or(0),
                if alive { 2 } else { 0 },
                "{what}"
            );
        }
        assert_eq!(entries(&flows6).len(), entries(&flows4).len());
        assert_eq!(daemon.flows.sweep(now).expect("the kernel lets us").removed, 0);
    });
}

#[test]
fn the_tables_of_these_tests_could_be_the_daemons() {
    needs_kernel_program!();
    with_daemon(1_024, |mut daemon| {
        let world = World::new(RING_SIZE);
        for (index, server) in &world.tables.servers {
            daemon.maps.apply(&Operation::Server(*index, Some(*server))).expect("the kernel takes it");
        }
        for service in &world.services {
            let server = |number| {
                let index = service.server(number);
                let address = world::address(service.at.is_ipv4(), 2, number as u8);
                (ServerRef::new(index, world.tables.servers[&index].generation), 100, address)
            };
            let spec = RingSpec::new((1..=service.servers).map(server).collect());
            daemon.maps.apply(&Operation::Ring(service.id, Some(spec.clone()))).expect("the kernel takes it");
            assert_eq!(ring(&mut daemon, service.id), spec.build()[..], "{service:?}");
        }
    });
}
