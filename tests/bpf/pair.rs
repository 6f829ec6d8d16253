//! The program in the kernel and the same code on the host, side by side: the same packets, the same tables.
//! Everything they say, write, keep and count must be the same.

use lb_common::{
    abi::{Counters, Mode, RING_SIZE},
    host::Outcome,
};
use lb_testkit::{
    inspect,
    laws::{self, Laws},
    traffic::Change,
    world::{Key, Service, World},
};
use lb_tests::packet;
use lb_user::datapath::flows::tick;

use crate::kernel::{Action, FLOWS, Kernel, entries};

/// Both of them.
pub(crate) struct Pair {
    pub(crate) kernel: Kernel,
    pub(crate) world: World,
    laws: Laws,
    /// What the host counted.
    reasons: Vec<u64>,
    servers: std::collections::HashMap<u16, Counters>,
    /// The last frames, for whoever has to find out.
    recent: Vec<Vec<u8>>,
}

impl Pair {
    /// With the tables of the world, and flow tables larger than any test fills.
    pub(crate) fn new() -> Self {
        Self::with(World::new(RING_SIZE))
    }

    /// With other tables.
    pub(crate) fn with(world: World) -> Self {
        let mut kernel = Kernel::load(FLOWS);
        kernel.fill(&world.tables);
        let reasons = vec![0; kernel.reasons().len()];
        Self {
            kernel,
            world,
            laws: Laws::default(),
            reasons,
            servers: Default::default(),
            recent: Vec::new(),
        }
    }

    /// Sends a frame through both; gives what became of it, and its bytes.
    #[track_caller]
    pub(crate) fn frame(&mut self, ifindex: u32, frame: &[u8]) -> (Outcome, Vec<u8>) {
        if self.recent.len() == 64 {
            self.recent.remove(0);
        }
        self.recent.push(frame.to_vec());
        let earliest = tick();
        let (action, bytes) = self.kernel.run(ifindex, frame);
        self.world.tables.now = self.tick_of(earliest, frame);
        let (outcome, expected) = self.laws.frame(&mut self.world, ifindex, frame);
        let expected_action = match outcome {
            Outcome::Pass(_) => Action::Pass,
            Outcome::Drop(_) => Action::Drop,
            Outcome::Forward { ifindex: out, .. } if out == ifindex => Action::Tx,
            Outcome::Forward { .. } => Action::Redirect,
        };
        if (action, &bytes) != (expected_action, &expected) {
            let file = packet::save("disagreement", &self.recent);
            panic!(
                "kernel: {action:?} {bytes:02x?}\nhost: {outcome:?} {expected:02x?}\nof {frame:02x?}\n\
                 the last frames are in {}",
                file.display()
            );
        }
        self.count(outcome, frame);
        (outcome, bytes)
    }

    /// The tick at which the program ran, which began in tick `earliest`. If that has just ended, the entry of
    /// the packet's flow tells: it holds the new tick only if the program wrote it.
    fn tick_of(&self, earliest: u32, frame: &[u8]) -> u32 {
        let latest = tick();
        let Some(seen) = inspect::read(frame).filter(|_| latest != earliest) else {
            return latest;
        };
        let written = match Key::from(seen.tuple()) {
            Key::V4(key) => self.kernel.flows4.get(&key, 0).map(|flow| flow.seen),
            Key::V6(key) => self.kernel.flows6.get(&key, 0).map(|flow| flow.seen),
        };
        if written.is_ok_and(|tick| tick == latest) { latest } else { earliest }
    }

    fn count(&mut self, outcome: Outcome, frame: &[u8]) {
        match outcome {
            Outcome::Pass(reason) => self.reasons[reason.index() as usize] += 1,
            Outcome::Drop(reason) => self.reasons[reason.index() as usize] += 1,
            Outcome::Forward { server, .. } => {
                let seen = inspect::read(frame).expect("it was understood");
                let counters = self.servers.entry(server).or_default();
                if self.world.service_at(seen.dst, seen.protocol).is_some() {
                    counters.packets_in += 1;
                    counters.bytes_in += frame.len() as u64;
                } else {
                    counters.packets_out += 1;
                    counters.bytes_out += frame.len() as u64;
                }
            }
        }
    }

    /// Changes the tables of both.
    pub(crate) fn change(&mut self, change: Change) {
        change.apply(&mut self.world);
        let (kernel, tables) = (&mut self.kernel, &self.world.tables);
        match change {
            Change::Accepts(index, _) | Change::Replaced(index) => {
                kernel.servers.set(index.into(), tables.servers[&index], 0).expect("a server");
            }
            Change::Ring(service) => kernel.set_ring(service.id, &tables.rings[&service.id]),
            Change::Evicted(Key::V4(key)) => kernel.flows4.remove(&key).expect("the entry is in both"),
            Change::Evicted(Key::V6(key)) => kernel.flows6.remove(&key).expect("the entry is in both"),
            Change::Aged(_) => {
                tables
                    .v4
                    .flows
                    .iter()
                    .for_each(|(key, flow)| kernel.flows4.insert(key, flow, 0).expect("it"));
                tables
                    .v6
                    .flows
                    .iter()
                    .for_each(|(key, flow)| kernel.flows6.insert(key, flow, 0).expect("it"));
            }
        }
    }

    /// Makes a VIP's ring from some of its servers, in both.
    pub(crate) fn fill_ring(&mut self, service: &Service, numbers: &[u16]) {
        self.world.fill_ring(service, numbers);
        self.kernel.set_ring(service.id, &self.world.tables.rings[&service.id]);
    }

    /// Forgets all flows, in both.
    pub(crate) fn forget(&mut self) {
        let (kernel, tables) = (&mut self.kernel, &mut self.world.tables);
        tables.v4.flows.drain().for_each(|(key, _)| kernel.flows4.remove(&key).expect("it is in both"));
        tables.v6.flows.drain().for_each(|(key, _)| kernel.flows6.remove(&key).expect("it is in both"));
        self.laws = Laws::default();
    }

    /// What became of a frame, by name.
    #[track_caller]
    pub(crate) fn label(&mut self, ifindex: u32, frame: &[u8]) -> &'static str {
        laws::label(self.frame(ifindex, frame).0)
    }

    /// The same flows.
    #[track_caller]
    pub(crate) fn agree_on_tables(&self) {
        let (flows4, flows6) = (entries(&self.kernel.flows4), entries(&self.kernel.flows6));
        assert_eq!((flows4.len(), flows6.len()), self.flows(), "numbers of entries");
        assert!(flows4 == self.world.tables.v4.flows, "IPv4 flows differ");
        assert!(flows6 == self.world.tables.v6.flows, "IPv6 flows differ");
    }

    /// At the end: the same flows, the same counts.
    #[track_caller]
    pub(crate) fn agree(&self) {
        self.agree_on_tables();
        assert_eq!(self.kernel.reasons(), self.reasons);
        for service in &self.world.services {
            let mut of_vip = Counters::default();
            for index in (1..=service.servers).map(|number| service.server(number)) {
                let counted = self.kernel.server_counters(index);
                let expected = self.servers.get(&index).copied().unwrap_or_default();
                assert_eq!(Counters { connections: 0, ..counted }, expected, "server {index}");
                of_vip += counted;
            }
            assert_eq!(self.kernel.vip_counters(service.id), of_vip, "{service:?}");
            assert!(service.mode != Mode::Local || of_vip == Counters::default());
        }
    }

    /// Entries of both flow tables of the host.
    pub(crate) fn flows(&self) -> (usize, usize) {
        (self.world.tables.v4.flows.len(), self.world.tables.v6.flows.len())
    }
}
