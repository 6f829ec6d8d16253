//! The program in the kernel and the same code on the host, side by side: the same packets, the same tables.
//! Everything they say, write, keep and count must be the same.

use std::collections::HashMap;

use lb_common::{
    abi::{Counters, Mode, RING_SIZE},
    host::{Outcome, process},
    verdict::Event,
};
use lb_testkit::{
    inspect::{self, What},
    laws::{self, Laws},
    traffic::Change,
    world::{Service, World},
};
use lb_tests::packet;
use lb_user::datapath::flows::tick;

use crate::{
    kernel::{Action, Kernel},
    state::Snapshot,
};

/// Both of them.
pub(crate) struct Pair {
    pub(crate) kernel: Kernel,
    pub(crate) world: World,
    laws: Laws,
    /// What the host counted.
    reasons: Vec<u64>,
    servers: HashMap<u16, Counters>,
    /// The last frames, for whoever has to find out.
    recent: Vec<Vec<u8>>,
}

impl Pair {
    /// With the tables of the world.
    pub(crate) fn new() -> Self {
        Self::with(World::new(RING_SIZE))
    }

    /// With other tables.
    pub(crate) fn with(world: World) -> Self {
        Self::of(Kernel::load(&world.tables), world)
    }

    /// With programs that were loaded for these tables.
    pub(crate) fn of(kernel: Kernel, world: World) -> Self {
        let reasons = vec![0; kernel.reasons().len()];
        Self { kernel, world, laws: Laws::default(), reasons, servers: HashMap::new(), recent: Vec::new() }
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
        self.world.tables.now = self.tick_of(earliest, ifindex, frame);
        let (outcome, expected) = self.laws.frame(&mut self.world, ifindex, frame);
        let expected_action = match outcome {
            Outcome::Pass(_) => Action::Pass,
            Outcome::Drop(_) => Action::Drop,
            Outcome::Answer(_) => Action::Tx,
            Outcome::Forward { ifindex: out, .. } if out == ifindex => Action::Tx,
            Outcome::Forward { .. } => Action::Redirect,
        };
        // Nobody sees again what is dropped.
        if action != expected_action || bytes != expected && action != Action::Drop {
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

    /// The tick at which the program ran, which began in tick `earliest`. If that has just ended, the tables tell.
    fn tick_of(&self, earliest: u32, ifindex: u32, frame: &[u8]) -> u32 {
        let latest = tick();
        if latest == earliest {
            return latest;
        }
        let mut then = self.world.tables.clone();
        then.now = earliest;
        process(&mut frame.to_vec(), ifindex, &then);
        let host = Snapshot::of(&then);
        if self.kernel.tables.read(&host) == host { earliest } else { latest }
    }

    fn count(&mut self, outcome: Outcome, frame: &[u8]) {
        match outcome {
            Outcome::Pass(reason) => self.reasons[reason.index() as usize] += 1,
            Outcome::Drop(reason) => self.reasons[reason.index() as usize] += 1,
            Outcome::Answer(event) => self.reasons[event.index() as usize] += 1,
            Outcome::Forward { server, .. } => {
                let net = inspect::network(frame).expect("it was understood");
                // Padding does not count.
                let bytes = net.end as u64;
                let is_clients = self.is_clients(frame);
                let counters = self.servers.entry(server).or_default();
                if is_clients {
                    counters.packets_in += 1;
                    counters.bytes_in += bytes;
                } else {
                    counters.packets_out += 1;
                    counters.bytes_out += bytes;
                }
            }
        }
    }

    /// Whether a frame that was sent on came from a client, or is about an answer to one.
    fn is_clients(&self, frame: &[u8]) -> bool {
        match inspect::what(frame).expect("it was understood") {
            What::Whole(seen) | What::First(_, seen) => {
                self.world.service_at(seen.dst, seen.protocol).is_some()
            }
            What::Later(net) => {
                let is_its = |service: &Service| service.at.ip() == net.dst && service.mode != Mode::Local;
                self.world.services.iter().any(is_its)
            }
            What::Message(message) => {
                let tuple = message.about.expect("an error").tuple;
                self.world.service_at(tuple.src, tuple.protocol).is_some()
            }
        }
    }

    /// Changes the tables of both.
    pub(crate) fn change(&mut self, change: Change) {
        let before = Snapshot::of(&self.world.tables);
        change.apply(&mut self.world);
        self.kernel.tables.write(&before, &Snapshot::of(&self.world.tables));
        match change {
            Change::Health(index, _) | Change::Replaced(index) => {
                self.publish_server(index);
                self.publish_ring(&self.world.service_of_server(index));
            }
            Change::Ring(service) | Change::Tagged(service, _) => self.publish_ring(&service),
            Change::Aged(_) => self.publish_limits(),
            Change::Swept => {}
        }
    }

    /// Makes a server's entry in the kernel what it is in the world.
    pub(crate) fn publish_server(&mut self, index: u16) {
        self.kernel.servers.set(index.into(), self.world.tables.servers[&index], 0).expect("a server");
    }

    /// The same of a ring.
    pub(crate) fn publish_ring(&mut self, service: &Service) {
        self.kernel.set_ring(service.id, &self.world.tables.rings[&service.id]);
    }

    /// The same of the limits.
    pub(crate) fn publish_limits(&mut self) {
        for (vip, limit) in &self.world.tables.limits {
            self.kernel.set_limit(*vip, limit.get());
        }
    }

    /// The same of the settings.
    pub(crate) fn publish_settings(&mut self) {
        self.kernel.settings.set(0, self.world.tables.settings, 0).expect("settings");
    }

    /// Makes a VIP's ring from some of its servers, in both.
    pub(crate) fn fill_ring(&mut self, service: &Service, numbers: &[u16]) {
        self.world.fill_ring(service, numbers);
        self.publish_ring(service);
    }

    /// Forgets all flows, in both.
    pub(crate) fn forget(&mut self) {
        let tables = &self.world.tables;
        let before = Snapshot::of(tables);
        let lines =
            [&tables.v4.claims, &tables.v6.claims, &tables.v4.replies, &tables.v6.replies, &tables.tags];
        lines.into_iter().flat_map(|lines| lines.iter().flatten()).for_each(|way| way.set(0));
        tables.loads.values().for_each(|load| load.set(0));
        tables.v4.fragments.borrow_mut().clear();
        tables.v6.fragments.borrow_mut().clear();
        self.kernel.tables.write(&before, &Snapshot::of(tables));
        self.laws = Laws::default();
    }

    /// What became of a frame, by name.
    #[track_caller]
    pub(crate) fn label(&mut self, ifindex: u32, frame: &[u8]) -> &'static str {
        laws::label(self.frame(ifindex, frame).0)
    }

    /// The same flows, tags, counts of connections and memories of pieces, to the bit.
    #[track_caller]
    pub(crate) fn agree_on_tables(&self) {
        let host = Snapshot::of(&self.world.tables);
        if let Some(difference) = host.difference(&self.kernel.tables.read(&host)) {
            let file = packet::save("disagreement", &self.recent);
            panic!("{difference}\nthe last frames are in {}", file.display());
        }
        for (vip, limit) in &self.world.tables.limits {
            assert_eq!(self.kernel.limit(*vip), limit.get(), "VIP {vip}");
        }
    }

    /// At the end: the same tables, the same counts.
    #[track_caller]
    pub(crate) fn agree(&self) {
        self.agree_on_tables();
        let mut reasons = self.reasons.clone();
        for event in Event::ALL {
            reasons[event.index() as usize] += self.world.tables.events(*event);
        }
        assert_eq!(self.kernel.reasons(), reasons);
        for service in &self.world.services {
            for index in (1..=service.servers).map(|number| service.server(number)) {
                let counted = self.kernel.server_counters(index);
                let expected = self.servers.get(&index).copied().unwrap_or_default();
                assert_eq!(Counters { connections: 0, ..counted }, expected, "server {index}");
            }
        }
    }
}
