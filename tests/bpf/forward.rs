//! What both families have in common: `forward_v4` and `forward_v6` are these checks by name.

use lb_common::{
    abi::{Counters, Mode, RING_SIZE, protocol},
    host::Outcome,
    verdict::Event,
    wire::tcp::{ACK, SYN},
};
use lb_testkit::{
    golden::{self, Expected},
    inspect,
    world::{self, World},
};
use lb_tests::packet::Draft;

use crate::{
    kernel::{Action, Kernel},
    pair::Pair,
};

/// Every golden case whose title names the family, each with fresh tables; at least `least` of them.
pub(crate) fn golden_frames(family: &str, least: usize) {
    let mut pair = Pair::new();
    let mut count = 0;
    for case in golden::cases().into_iter().filter(|case| case.title.contains(family)) {
        for step in &case.steps {
            let (outcome, bytes) = pair.frame(step.ifindex, &step.bytes);
            assert_eq!(Expected::of(outcome, bytes), step.outcome, "{}", case.title);
        }
        count += 1;
        pair.agree();
        pair.forget();
    }
    assert!(count >= least, "only {count} cases name {family}");
}

/// A client at each interface, a server at each interface: there and back.
pub(crate) fn interfaces(four: bool) {
    let mut pair = Pair::new();
    let service = pair.world.service(Mode::Snat, protocol::TCP, four);
    for (port, at) in (40_000..).zip([world::FRONT, world::BACK, world::SIDE]) {
        for number in 1..=3 {
            pair.fill_ring(&service, &[number]);
            let client = world::client(four, number as u8, port);
            let syn = Draft::syn(client, service.at).macs(world::mac_of_interface(at), world::CLIENT_MAC);
            let (_, sent) = pair.frame(at, &syn.bytes());
            let got = inspect::read(&sent).expect("a packet");
            let out = world::interface_of_server(number);
            let link = (got.to, got.from);
            assert_eq!(link, (world::mac_of_server(number), world::mac_of_interface(out)), "{at} to {out}");

            let answer = Draft::tcp(got.dst, got.src, SYN | ACK).macs(got.from, got.to);
            let (outcome, sent) = pair.frame(out, &answer.bytes());
            let came = inspect::read(&sent).expect("a packet");
            assert!(matches!(outcome, Outcome::Forward { ifindex, .. } if ifindex == at), "{outcome:?}");
            assert_eq!((came.to, came.from), (world::CLIENT_MAC, world::mac_of_interface(at)));
        }
    }
    pair.agree();
}

/// Counts of one server after a few packets of each kind: whole frames as the headers tell, without padding.
pub(crate) fn counters(four: bool) {
    let mut world = World::new(RING_SIZE);
    let mut kernel = Kernel::load(&world.tables);
    for (mode, protocol) in [
        (Mode::Dr, protocol::TCP),
        (Mode::Dr, protocol::UDP),
        (Mode::Ipip, protocol::TCP),
        (Mode::Gue, protocol::UDP),
        (Mode::Nat, protocol::TCP),
        (Mode::Snat, protocol::UDP),
    ] {
        let service = world.service(mode, protocol, four);
        world.fill_ring(&service, &[2]);
        kernel.fill(&world.tables);
        let client = world::client(four, 9, 40_000);
        let open = Draft::of(protocol, client, service.at).payload(b"hello").trailer(9);
        let open = if protocol == protocol::TCP { open.flags(SYN) } else { open };
        let more = if protocol == protocol::TCP { open.clone().flags(ACK) } else { open.clone() };
        let mut expected = Counters::default();
        for draft in [&open, &more, &more] {
            let frame = draft.bytes();
            let (action, bytes) = kernel.run(world::FRONT, &frame);
            assert_eq!(action, Action::Tx, "{service:?}");
            expected.packets_in += 1;
            expected.bytes_in += frame.len() as u64 - 9;
            if !matches!(mode, Mode::Nat | Mode::Snat) {
                continue;
            }
            let got = inspect::read(&bytes).expect("a packet");
            let answer = Draft::of(protocol, got.dst, got.src).payload(b"a longer answer").trailer(3);
            let (action, bytes) = kernel.run(world::FRONT, &answer.bytes());
            assert_eq!(action, Action::Tx, "{service:?}");
            expected.packets_out += 1;
            expected.bytes_out += bytes.len() as u64 - 3;
        }
        // Nobody knows when a UDP flow begins that is not translated.
        let unknown = protocol == protocol::UDP && matches!(mode, Mode::Dr | Mode::Gue);
        expected.connections = u64::from(!unknown);
        assert_eq!(kernel.server_counters(service.server(2)), expected, "{service:?}");
    }
    let events = Event::ALL[0].index() as usize;
    assert_eq!(kernel.reasons()[..events].iter().sum::<u64>(), 0, "nothing was passed or dropped");
}
