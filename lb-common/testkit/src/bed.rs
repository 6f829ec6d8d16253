//! A world with its laws watching: one line per packet for tests that tell a story.

use lb_common::{
    abi::{Mode, RING_SIZE, protocol},
    host::{HostTables, Outcome},
};

use crate::{
    draft::Draft,
    inspect::{self, Seen},
    laws::Laws,
    traffic::Change,
    world::{self, Health, Service, World},
};

/// The world of a story.
#[derive(Debug)]
pub struct Bed {
    /// Its tables.
    pub world: World,
    laws: Laws,
}

impl Default for Bed {
    fn default() -> Self {
        Self { world: World::new(251), laws: Laws::default() }
    }
}

impl Bed {
    /// With rings as large as the kernel's, where it matters which server a flow gets.
    #[must_use]
    pub fn full_size() -> Self {
        Self { world: World::new(RING_SIZE), laws: Laws::default() }
    }

    /// With flow tables of another size.
    #[must_use]
    pub fn with_tables(tables: HostTables) -> Self {
        Self { world: World::with_tables(251, tables), laws: Laws::default() }
    }

    /// What becomes of a frame that comes in by the clients' interface, and its bytes afterwards.
    pub fn outcome(&mut self, frame: &Draft) -> (Outcome, Vec<u8>) {
        self.outcome_by(world::FRONT, frame)
    }

    /// The same, by another interface.
    pub fn outcome_by(&mut self, ifindex: u32, frame: &Draft) -> (Outcome, Vec<u8>) {
        self.laws.frame(&mut self.world, ifindex, &frame.bytes())
    }

    /// What a client's packet becomes, which must be sent on; and the server.
    #[track_caller]
    pub fn sent_on(&mut self, frame: &Draft) -> (Seen, u16) {
        self.sent_by(world::FRONT, frame)
    }

    /// The server that a client's packet goes to, whatever it looks like there.
    #[track_caller]
    pub fn server_of(&mut self, frame: &Draft) -> u16 {
        match self.outcome(frame).0 {
            Outcome::Forward { server, .. } => server,
            other => panic!("{other:?} of {frame:?}"),
        }
    }

    /// The same, by another interface.
    #[track_caller]
    pub fn sent_by(&mut self, ifindex: u32, frame: &Draft) -> (Seen, u16) {
        match self.laws.frame(&mut self.world, ifindex, &frame.bytes()) {
            (Outcome::Forward { server, .. }, bytes) => (inspect::read(&bytes).expect("a packet"), server),
            (other, _) => panic!("{other:?} of {frame:?}"),
        }
    }

    /// What a server's answer to a packet it got becomes.
    #[track_caller]
    pub fn answered(&mut self, got: &Seen, flags: u8) -> Seen {
        let (outcome, bytes) = self.answer(got, flags);
        assert!(matches!(outcome, Outcome::Forward { .. }), "{outcome:?} of an answer to {got:?}");
        inspect::read(&bytes).expect("a packet")
    }

    /// What becomes of a server's answer to a packet it got.
    pub fn answer(&mut self, got: &Seen, flags: u8) -> (Outcome, Vec<u8>) {
        let ifindex = world::interface_of_server(got.to[5].into());
        let draft = Draft::of(got.protocol, got.dst, got.src).macs(world::mac_of_interface(ifindex), got.to);
        let draft = if got.protocol == protocol::TCP { draft.flags(flags) } else { draft };
        self.laws.frame(&mut self.world, ifindex, &draft.bytes())
    }

    /// Carries out a change.
    pub fn change(&mut self, change: Change) {
        change.apply(&mut self.world);
    }

    /// Lets ticks pass.
    pub fn wait(&mut self, ticks: u32) {
        self.world.tables.now += ticks;
    }

    /// Takes a server out of a VIP's ring as user space does when it fails.
    pub fn down(&mut self, server: u16) {
        let service = self.world.service_of_server(server);
        self.change(Change::Health(server, Health::Down));
        self.change(Change::Ring(service));
    }

    /// The translated VIPs, one of each kind.
    #[must_use]
    pub fn translated(&self) -> Vec<Service> {
        self.ways(|mode| matches!(mode, Mode::Nat | Mode::Snat))
    }

    /// The VIPs whose packets are not translated, one of each kind.
    #[must_use]
    pub fn direct(&self) -> Vec<Service> {
        self.ways(|mode| matches!(mode, Mode::Dr | Mode::Ipip | Mode::Gue))
    }

    fn ways(&self, wanted: impl Fn(Mode) -> bool) -> Vec<Service> {
        let is_one = |s: &&Service| wanted(s.mode) && s.is_plain();
        self.world.services.iter().filter(is_one).copied().collect()
    }
}
