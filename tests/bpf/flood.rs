//! A million SYNs from forged addresses, through tables far too small for them: every flow that lives goes on living.

use std::net::SocketAddr;

use lb_common::{
    abi::{Mode, RING_SIZE, protocol},
    verdict::Event,
    wire::tcp::{ACK, SYN},
};
use lb_testkit::{
    draft::Draft,
    inspect,
    world::{self, Service, World},
};
use lb_tests::needs_kernel_program;

use crate::kernel::{Action, Kernel, place};

/// Living flows of each mode.
const LIVING: u16 = 67;

/// SYNs while they live.
const SYNS: u32 = 1_000_000;

/// A packet of a living flow, by the interface it comes in, and what became of it when it was young.
struct Witness {
    ifindex: u32,
    frame: Vec<u8>,
    became: (Action, Vec<u8>),
}

impl Witness {
    #[track_caller]
    fn new(kernel: &Kernel, ifindex: u32, frame: Vec<u8>) -> Self {
        let became = kernel.run(ifindex, &frame);
        assert!(matches!(became.0, Action::Tx | Action::Redirect), "{:?} of a flow", became.0);
        Self { ifindex, frame, became }
    }

    /// The same packet becomes the same again: same server, same ports, same checksums.
    #[track_caller]
    fn testify(&self, kernel: &Kernel, when: &str) {
        assert!(kernel.run(self.ifindex, &self.frame) == self.became, "a flow was moved or lost {when}");
    }
}

/// Opens a connection, both sides speaking where the balancer sees both; gives its witnesses.
fn connect(kernel: &Kernel, service: &Service, client: SocketAddr) -> Vec<Witness> {
    let (_, sent) = kernel.run(world::FRONT, &Draft::syn(client, service.at).bytes());
    let mut witnesses = Vec::new();
    if service.mode == Mode::Snat {
        let got = inspect::read(&sent).expect("a SYN for a server");
        let ifindex = world::interface_of_server(got.to[5].into());
        let back = |flags| {
            Draft::tcp(got.dst, got.src, flags).macs(world::mac_of_interface(ifindex), got.to).bytes()
        };
        kernel.run(ifindex, &back(SYN | ACK));
        kernel.run(world::FRONT, &Draft::ack(client, service.at).bytes());
        witnesses.push(Witness::new(kernel, ifindex, back(ACK)));
    }
    witnesses.push(Witness::new(kernel, world::FRONT, Draft::ack(client, service.at).bytes()));
    witnesses
}

/// SYNs to the VIPs in turns, from addresses and ports drawn at random.
fn flood(kernel: &Kernel, services: &[Service], syns: u32) {
    const SOURCE: usize = 26;
    const PORT: usize = 34;
    let client = world::client(true, 9, 1);
    let mut frames: Vec<_> = services.iter().map(|service| Draft::syn(client, service.at).bytes()).collect();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for number in 0..syns as usize {
        // Xorshift (Marsaglia, 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let [a, b, c, d, e, f, ..] = random.to_be_bytes();
        let (turn, of) = (number % frames.len(), &mut frames);
        of[turn][SOURCE..SOURCE + 4].copy_from_slice(&[a | 1, b, c, d]);
        of[turn][PORT..PORT + 2].copy_from_slice(&[e, f]);
        kernel.run(world::FRONT, &of[turn]);
    }
}

#[test]
fn a_million_forged_syns_break_no_flow() {
    needs_kernel_program!();
    place(|| {
        let mut world = World::new(RING_SIZE);
        (world.tables.settings.snat_first, world.tables.settings.snat_count) = (10_000, 50_000);
        let mut kernel = Kernel::load(&world.tables);
        let modes = [Mode::Dr, Mode::Ipip, Mode::Snat];
        let services = modes.map(|mode| world.service(mode, protocol::TCP, true));
        let witnesses: Vec<_> = (0..LIVING)
            .flat_map(|flow| services.map(|service| (service, world::client(true, 7, 40_000 + flow))))
            .flat_map(|(service, client)| connect(&kernel, &service, client))
            .collect();
        assert!(witnesses.len() >= 200);

        // Known by now, all of them; from here on there are more SYNs than that on any machine.
        world.tables.settings.syn_limit = 100;
        kernel.settings.set(0, world.tables.settings, 0).expect("settings");
        flood(&kernel, &services, SYNS);
        witnesses.iter().for_each(|witness| witness.testify(&kernel, "in the flood"));

        // And while it goes on, a server is taken out of use: its slots are tagged, learn, and move.
        let [dr, ipip, _] = services;
        for service in [dr, ipip] {
            world.tag_ring(&service, true);
            kernel.set_ring(service.id, &world.tables.rings[&service.id]);
        }
        witnesses.iter().for_each(|witness| witness.testify(&kernel, "while slots learn"));
        for service in [dr, ipip] {
            world.fill_ring(&service, &[2, 3]);
            world.tag_ring(&service, true);
            kernel.set_ring(service.id, &world.tables.rings[&service.id]);
        }
        flood(&kernel, &services, SYNS / 10);
        witnesses.iter().for_each(|witness| witness.testify(&kernel, "after slots have moved"));

        let counted = |event: Event| kernel.reasons()[event.index() as usize];
        for event in [Event::SynFlood, Event::FlowEvicted, Event::TagHit] {
            assert!(counted(event) > 0, "{} is to be seen from outside", event.label());
        }
    });
}
