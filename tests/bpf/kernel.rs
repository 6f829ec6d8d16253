//! The loaded program and its maps: filled from the tables of a world, run on one frame at a time.

use std::{collections::HashMap as Plain, hash::Hash};

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, ProgramArray},
    programs::Xdp,
};
use lb_common::{
    abi::{
        Counters, Interface, QuicLb, QuicLbKey, QuicServerKey, RING_SIZE, Ring, Server, Settings, Vip,
        VipKey, VipLimit, WAYS,
    },
    host::HostTables,
    verdict::REASON_COUNT,
};
use lb_testkit::world;
use lb_tests::netns::Netns;
use lb_user::datapath::programs;

use crate::state::{Snapshot, Tables};

/// What the program said about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Drop,
    Pass,
    Tx,
    Redirect,
}

/// The largest frame that `BPF_PROG_TEST_RUN` takes without splitting it: a page less head and tail room.
pub(crate) const LARGEST: usize = 4_096 - 256 - 320;

/// The loaded programs.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    entry: &'static str,
    pub(crate) settings: Array<MapData, Settings>,
    pub(crate) vips4: HashMap<MapData, VipKey<u32>, Vip>,
    pub(crate) vips6: HashMap<MapData, VipKey<[u32; 4]>, Vip>,
    rings: ArrayOfMaps<MapData, Array<MapData, Ring>>,
    pub(crate) servers: Array<MapData, Server>,
    pub(crate) interfaces: Array<MapData, Interface>,
    limits: Array<MapData, VipLimit>,
    quic: HashMap<MapData, QuicLbKey, QuicLb>,
    quic_servers: HashMap<MapData, QuicServerKey, u32>,
    pub(crate) tables: Tables,
    counters: PerCpuArray<MapData, Counters>,
    reasons: PerCpuArray<MapData, u64>,
}

impl Kernel {
    /// Loads the programs that `lb-user` would load, with flow tables as large as those of `tables`, and fills them
    /// with all that these hold. Must be called, and used, in a namespace of [`place`].
    pub(crate) fn load(tables: &HostTables) -> Self {
        Self::load_some(tables, true)
    }

    /// The same with the programs for kernels that know nothing of frames in several pieces, or with the others.
    pub(crate) fn load_some(tables: &HostTables, frags: bool) -> Self {
        let lines = |lines: usize| u32::try_from(lines).expect("a table that fits the machine");
        let mut loader = EbpfLoader::new();
        for (family, claims) in [("4", &tables.v4.claims), ("6", &tables.v6.claims)] {
            let claims = lines(claims.len());
            for (name, entries) in
                [("CLAIMS", claims), ("FLOWS", claims * WAYS as u32), ("REPLIES", 2 * claims)]
            {
                let name: &'static str = format!("{name}{family}").leak();
                loader.map_max_entries(name, entries);
            }
        }
        loader.map_max_entries("FLOW_TAGS", lines(tables.tags.len()));
        let mut ebpf =
            loader.load(lb_user::datapath::OBJECT).expect("the object is one that aya understands");
        for name in programs::names(frags) {
            xdp(&mut ebpf, &name)
                .load()
                .unwrap_or_else(|error| panic!("the verifier refuses {name}: {error}"));
        }
        let suffix = if frags { programs::FRAGS } else { "" };
        for (place, stage) in programs::stages() {
            let fd = xdp(&mut ebpf, &format!("{stage}{suffix}")).fd().expect("a loaded program");
            let fd = fd.try_clone().expect("another descriptor");
            let stages = ebpf.map_mut("STAGES").expect("the object has a map STAGES");
            let mut stages = ProgramArray::try_from(stages).expect("an array of programs");
            stages.set(place, &fd, 0).expect("a place for a stage");
        }
        let mut kernel = Self {
            entry: if frags { programs::ENTRY_FRAGS } else { programs::ENTRY },
            settings: take(&mut ebpf, "SETTINGS"),
            vips4: take(&mut ebpf, "VIPS4"),
            vips6: take(&mut ebpf, "VIPS6"),
            rings: take(&mut ebpf, "RINGS"),
            servers: take(&mut ebpf, "SERVERS"),
            interfaces: take(&mut ebpf, "INTERFACES"),
            limits: take(&mut ebpf, "LIMITS"),
            quic: take(&mut ebpf, "QUIC"),
            quic_servers: take(&mut ebpf, "QUIC_SERVERS"),
            tables: Tables::take(&mut ebpf),
            counters: take(&mut ebpf, "COUNTERS"),
            reasons: take(&mut ebpf, "REASONS"),
            ebpf,
        };
        kernel.fill(tables);
        kernel
    }

    /// Enters everything that user space would.
    pub(crate) fn fill(&mut self, tables: &HostTables) {
        self.settings.set(0, tables.settings, 0).expect("settings");
        for (&ifindex, &mac) in &tables.interfaces {
            let place = tables.settings.place_of_interface(ifindex);
            self.interfaces.set(place, Interface { ifindex, pad: 0, mac }, 0).expect("an interface");
        }
        for (index, server) in &tables.servers {
            self.servers.set(u32::from(*index), server, 0).expect("a server");
        }
        for (vip, ring) in &tables.rings {
            self.set_ring(*vip, ring);
        }
        insert_all(&mut self.vips4, &tables.v4.vips);
        insert_all(&mut self.vips6, &tables.v6.vips);
        insert_all(&mut self.quic, &tables.quic);
        for (key, server) in &tables.quic_servers {
            self.quic_servers.insert(key, server.0, 0).expect("room for a server's name");
        }
        for (vip, limit) in &tables.limits {
            self.limits.set(u32::from(*vip), limit.get(), 0).expect("a limit");
        }
        let found = self.tables.read(&Snapshot::of(tables));
        self.tables.write(&found, &Snapshot::of(tables));
    }

    /// What the programs and maps were loaded from.
    pub(crate) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Sets the limit of a VIP, and what was counted.
    pub(crate) fn set_limit(&mut self, vip: u16, limit: VipLimit) {
        self.limits.set(u32::from(vip), limit, 0).expect("a limit");
    }

    /// The limit of a VIP, and what was counted.
    pub(crate) fn limit(&self, vip: u16) -> VipLimit {
        self.limits.get(&u32::from(vip), 0).expect("a limit")
    }

    /// Takes a stage's program away, by its place.
    pub(crate) fn remove_stage(&mut self, place: u32) {
        let stages = self.ebpf.map_mut("STAGES").expect("the object has a map STAGES");
        let mut stages = ProgramArray::try_from(stages).expect("an array of programs");
        stages.clear_index(&place).expect("a program there");
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
        // Room for more than went in: tunnels have headers.
        let mut after = vec![0; frame.len() + 128];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: Some(context.as_flattened()),
            ..TestRunOptions::new()
        };
        let program = self.ebpf.program(self.entry).expect("it was loaded");
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

    /// Traffic of a server.
    pub(crate) fn server_counters(&self, index: u16) -> Counters {
        let mut sum = Counters::default();
        let of_cpus = self.counters.get(&index.into(), 0).expect("a counter");
        of_cpus.iter().for_each(|cpu| sum += *cpu);
        sum
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    let program = ebpf.program_mut(name).unwrap_or_else(|| panic!("the object holds a program {name}"));
    program.try_into().unwrap_or_else(|error| panic!("{name} is an XDP program: {error}"))
}

/// Takes a map out of the object.
pub(crate) fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> M {
    let map = ebpf.take_map(name).unwrap_or_else(|| panic!("the object has a map {name}"));
    M::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Enters everything.
pub(crate) fn insert_all<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, entries: &Plain<K, V>) {
    for (key, value) in entries {
        map.insert(key, value, 0).expect("room for an entry");
    }
}

/// What a map holds.
pub(crate) fn entries<K: Pod + Eq + Hash, V: Pod>(map: &HashMap<MapData, K, V>) -> Plain<K, V> {
    map.iter().collect::<Result<_, _>>().expect("entries that stay while they are read")
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
