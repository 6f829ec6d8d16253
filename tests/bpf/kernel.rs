//! The loaded program and its maps: filled from the tables of a world, run on one frame at a time.

use std::{collections::HashMap as Plain, hash::Hash};

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray},
    programs::Xdp,
};
use lb_common::{
    abi::{Counters, Flow, FlowKey, Mac, RING_SIZE, Ring, Server, Settings, Vip, VipKey},
    host::HostTables,
    verdict::REASON_COUNT,
};
use lb_testkit::world;
use lb_tests::netns::Netns;

/// What the program said about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Drop,
    Pass,
    Tx,
    Redirect,
}

/// Entries of each flow table, unless a test says otherwise.
pub(crate) const FLOWS: u32 = 65_536;

/// The largest frame that `BPF_PROG_TEST_RUN` takes without splitting it: a page less head and tail room.
pub(crate) const LARGEST: usize = 4_096 - 256 - 320;

/// The loaded program.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    pub(crate) settings: Array<MapData, Settings>,
    pub(crate) vips4: HashMap<MapData, VipKey<u32>, Vip>,
    pub(crate) vips6: HashMap<MapData, VipKey<[u32; 4]>, Vip>,
    rings: ArrayOfMaps<MapData, Array<MapData, Ring>>,
    pub(crate) servers: Array<MapData, Server>,
    pub(crate) interfaces: HashMap<MapData, u32, Mac>,
    pub(crate) flows4: HashMap<MapData, FlowKey<u32>, Flow<u32>>,
    pub(crate) flows6: HashMap<MapData, FlowKey<[u32; 4]>, Flow<[u32; 4]>>,
    vip_counters: PerCpuArray<MapData, Counters>,
    server_counters: PerCpuArray<MapData, Counters>,
    reasons: PerCpuArray<MapData, u64>,
}

impl Kernel {
    /// Loads the program that `lb-user` would load. Must be called, and used, in a namespace of [`place`].
    pub(crate) fn load(flow_entries: u32) -> Self {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FLOWS4", flow_entries)
            .map_max_entries("FLOWS6", flow_entries)
            .load(lb_user::datapath::OBJECT)
            .expect("the object is one that aya understands");
        let xdp: &mut Xdp = ebpf
            .program_mut(lb_user::datapath::load::PROGRAM)
            .and_then(|program| program.try_into().ok())
            .expect("the object holds the XDP program");
        xdp.load().expect("the verifier accepts the program");
        Self {
            settings: take(&mut ebpf, "SETTINGS"),
            vips4: take(&mut ebpf, "VIPS4"),
            vips6: take(&mut ebpf, "VIPS6"),
            rings: take(&mut ebpf, "RINGS"),
            servers: take(&mut ebpf, "SERVERS"),
            interfaces: take(&mut ebpf, "INTERFACES"),
            flows4: take(&mut ebpf, "FLOWS4"),
            flows6: take(&mut ebpf, "FLOWS6"),
            vip_counters: take(&mut ebpf, "VIP_COUNTERS"),
            server_counters: take(&mut ebpf, "SERVER_COUNTERS"),
            reasons: take(&mut ebpf, "REASONS"),
            ebpf,
        }
    }

    /// Enters everything that user space would.
    pub(crate) fn fill(&mut self, tables: &HostTables) {
        self.settings.set(0, tables.settings, 0).expect("settings");
        insert_all(&mut self.interfaces, &tables.interfaces);
        for (index, server) in &tables.servers {
            self.servers.set(u32::from(*index), server, 0).expect("a server");
        }
        for (vip, ring) in &tables.rings {
            self.set_ring(*vip, ring);
        }
        insert_all(&mut self.vips4, &tables.v4.vips);
        insert_all(&mut self.vips6, &tables.v6.vips);
        insert_all(&mut self.flows4, &tables.v4.flows);
        insert_all(&mut self.flows6, &tables.v6.flows);
    }

    /// Publishes a ring.
    pub(crate) fn set_ring(&mut self, vip: u16, slots: &[u32]) {
        let mut ring = vec![0; RING_SIZE + 1];
        ring[..RING_SIZE].copy_from_slice(slots);
        let ring: Box<Ring> = ring.into_boxed_slice().try_into().expect("made with just this length");
        // By reference: it would be a large thing to hand about on the stack.
        let ring: &Ring = &ring;
        let mut fresh = Array::<MapData, Ring>::create(1, 0).expect("a ring");
        fresh.set(0, ring, 0).expect("a ring's slots");
        self.rings.set(u32::from(vip), &fresh, 0).expect("a ring's place");
    }

    /// Runs the program on a frame, of 14 bytes at least, that comes in by an interface; gives what it said
    /// and the frame as it left it.
    pub(crate) fn run(&self, ifindex: u32, frame: &[u8]) -> (Action, Vec<u8>) {
        self.try_run(ifindex, frame).unwrap_or_else(|error| panic!("{} bytes: {error:?}", frame.len()))
    }

    /// [`Self::run`] for frames that the kernel may not want.
    pub(crate) fn try_run(&self, ifindex: u32, frame: &[u8]) -> Result<(Action, Vec<u8>), String> {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, ifindex, 0, 0].map(u32::to_ne_bytes);
        // Room for more than went in: what comes out must not be longer.
        let mut after = vec![0; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: Some(context.as_flattened()),
            ..TestRunOptions::new()
        };
        let program = self.ebpf.program(lb_user::datapath::load::PROGRAM).expect("it was loaded");
        let xdp: &Xdp = program.try_into().expect("it is an XDP program");
        let result = xdp.test_run(options).map_err(|error| format!("{error:?}"))?;
        after.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            other => panic!("XDP action {other}"),
        };
        Ok((action, after))
    }

    /// Packets by reason, over all CPUs.
    pub(crate) fn reasons(&self) -> Vec<u64> {
        let packets = |index| self.reasons.get(&index, 0).expect("a counter").iter().sum();
        (0..REASON_COUNT).map(packets).collect()
    }

    /// Traffic of a VIP.
    pub(crate) fn vip_counters(&self, id: u16) -> Counters {
        total(&self.vip_counters, id)
    }

    /// Traffic of a server.
    pub(crate) fn server_counters(&self, index: u16) -> Counters {
        total(&self.server_counters, index)
    }
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> M {
    let map = ebpf.take_map(name).unwrap_or_else(|| panic!("the object has a map {name}"));
    M::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn insert_all<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, entries: &Plain<K, V>) {
    for (key, value) in entries {
        map.insert(key, value, 0).expect("room for an entry");
    }
}

/// What a flow table holds.
pub(crate) fn entries<K: Pod + Eq + Hash, V: Pod>(map: &HashMap<MapData, K, V>) -> Plain<K, V> {
    map.iter().collect::<Result<_, _>>().expect("entries that stay while they are read")
}

fn total(counters: &PerCpuArray<MapData, Counters>, index: u16) -> Counters {
    let mut sum = Counters::default();
    counters.get(&u32::from(index), 0).expect("a counter").iter().for_each(|cpu| sum += *cpu);
    sum
}

/// A namespace with the interfaces of the world, for the work of one test.
pub(crate) fn place<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    place_with(|_| {}, work)
}

/// The same, made ready by `prepare`.
pub(crate) fn place_with<T: Send>(prepare: impl FnOnce(&Netns), work: impl FnOnce() -> T + Send) -> T {
    let namespace = Netns::new("bpf");
    // Clients come in by the loopback device, which is number 1 everywhere.
    assert_eq!(world::FRONT, 1);
    let (back, side) = (world::BACK, world::SIDE);
    namespace.ip(&format!(
        "link add name back index {back} type veth peer name side index {side}\n\
         link set back up\n\
         link set side up"
    ));
    prepare(&namespace);
    namespace.run(work)
}
