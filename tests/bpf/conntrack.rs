//! Translated flows in the kernel: their life, and what only the kernel's tables can do: be changed by several CPUs
//! at once. More stories are told in `lb-common/tests/flows.rs`, on the host.

use std::{
    collections::{HashMap, HashSet},
    sync::Barrier,
    thread,
};

use lb_common::{
    abi::{Mode, RING_SIZE, protocol},
    host::{HostTables, Outcome},
    wire::tcp::{ACK, FIN, RST, SYN},
};
use lb_testkit::{
    inspect::{self, Seen, Tuple},
    traffic::Change,
    world::{self, Health, Service, World},
};
use lb_tests::{needs_kernel_program, packet::Draft};

use crate::{
    kernel::{Action, Kernel, place},
    pair::Pair,
};

/// What happens in a story.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The client sends a segment.
    Client(u8),
    /// The server that got the last segment that was sent on answers.
    Server(u8),
    /// The server that got the very first segment sends something.
    First(u8),
    /// That server goes down, and the ring is made anew.
    Down,
    /// Its entry gets a new owner.
    Replaced,
    /// That server drains, and the ring is made anew.
    Draining,
    /// It is halted.
    Halted,
    /// A tick passes.
    Tick,
}

use Event::{Client, Down, Draining, First, Halted, Replaced, Server, Tick};

/// Tells a story; `expected` has a word for each segment in it. The pair checks the rest: that both sides agree
/// and that the laws hold.
fn tell(pair: &mut Pair, service: &Service, title: &str, events: &[Event], expected: &str) {
    let client = world::client(service.at.is_ipv4(), 9, 40_000);
    let mut got: Vec<Seen> = Vec::new();
    let mut words = Vec::new();
    for &event in events {
        match event {
            Client(flags) => {
                let (outcome, bytes) =
                    pair.frame(world::FRONT, &Draft::tcp(client, service.at, flags).bytes());
                if let Outcome::Forward { .. } = outcome {
                    got.push(inspect::read(&bytes).expect("a packet"));
                }
                words.push(word(&got, outcome));
            }
            Server(flags) | First(flags) => {
                let to = if matches!(event, First(_)) { got[0] } else { *got.last().expect("one") };
                let ifindex = world::interface_of_server(to.to[5].into());
                let answer = Draft::tcp(to.dst, to.src, flags).macs(to.from, to.to);
                words.push(match pair.frame(ifindex, &answer.bytes()).0 {
                    Outcome::Forward { .. } => "back",
                    other => lb_testkit::laws::label(other),
                });
            }
            Down | Draining | Halted | Replaced => {
                let index = service.server(got[0].to[5].into());
                pair.change(match event {
                    Down => Change::Health(index, Health::Down),
                    Draining => Change::Health(index, Health::Draining),
                    Halted => Change::Health(index, Health::Halted),
                    _ => Change::Replaced(index),
                });
                pair.change(Change::Ring(*service));
            }
            Tick => pair.change(Change::Aged(1)),
        }
    }
    assert_eq!(words.join(" "), expected, "{title}, {service:?}");
    pair.agree_on_tables();
}

/// What became of a client's segment: where it went, compared with the first one.
fn word(got: &[Seen], outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Forward { .. } if got[got.len() - 1].dst == got[0].dst => "there",
        Outcome::Forward { .. } => "elsewhere",
        other => lb_testkit::laws::label(other),
    }
}

#[test]
fn flows_live_end_and_move_as_told() {
    needs_kernel_program!();
    let open = [Client(SYN), Server(SYN | ACK), Client(ACK)];
    let with = |more: &[Event]| [&open, more].concat();
    let fin = FIN | ACK;
    let stories = [
        ("a connection", with(&[Client(fin), Server(fin), Client(ACK)]), "there back there there back there"),
        (
            "no beginning",
            vec![Client(ACK), Client(FIN), Client(RST), Client(SYN | ACK)],
            "no-flow no-flow no-flow no-flow",
        ),
        ("a SYN sent again", vec![Client(SYN), Client(SYN), Tick, Client(SYN)], "there there there"),
        (
            "segments after a reset",
            with(&[Client(RST), Server(ACK), Client(ACK)]),
            "there back there there back there",
        ),
        ("down: connections stay", with(&[Down, Client(ACK), Server(ACK)]), "there back there there back"),
        (
            "down: a new one goes elsewhere",
            with(&[Down, Client(SYN), Client(ACK)]),
            "there back there elsewhere elsewhere",
        ),
        (
            "down: late answers are nobody's",
            with(&[Down, Client(SYN), Server(SYN | ACK), Tick, First(ACK), First(RST), Server(ACK)]),
            "there back there elsewhere back not-vip not-vip back",
        ),
        (
            "gone: a connection is lost",
            with(&[Replaced, Client(ACK), Client(SYN)]),
            "there back there no-flow there",
        ),
        (
            "draining: connections stay",
            with(&[Draining, Client(ACK), Server(ACK), Tick, Client(fin)]),
            "there back there there back there",
        ),
        (
            "halted: both sides are told",
            with(&[Halted, Client(ACK), Server(ACK), Client(RST), Client(SYN)]),
            "there back there reset-sent reset-sent halted elsewhere",
        ),
    ];
    place(|| {
        for four in [true, false] {
            for mode in [Mode::Nat, Mode::Snat] {
                let mut pair = Pair::new();
                let service = pair.world.service(mode, protocol::TCP, four);
                for (title, events, expected) in &stories {
                    tell(&mut pair, &service, title, events, expected);
                    // For the next story: no flows, all servers.
                    pair.forget();
                    for number in 1..=service.servers {
                        pair.change(Change::Health(service.server(number), Health::Up));
                    }
                    pair.change(Change::Ring(service));
                }
                pair.agree();
            }
        }
    });
}

/// A SYN of one of many clients, over and over again through a kernel of its own.
fn opening(service: &Service, client: u16) -> Draft {
    let four = service.at.is_ipv4();
    Draft::syn(world::client(four, (client / 250) as u8 + 1, 40_000 + client), service.at)
}

fn went_to(bytes: &[u8]) -> Tuple {
    inspect::read(bytes).expect("a packet").tuple()
}

/// With room for more flows than there will be: none gives way.
fn roomy() -> World {
    World::with_tables(RING_SIZE, HostTables::new(16_384, 64))
}

#[test]
fn two_processors_never_take_the_same_port() {
    needs_kernel_program!();
    place(|| {
        for four in [true, false] {
            let mut world = roomy();
            world.tables.settings.snat_count = 300;
            let service = world.service(Mode::Snat, protocol::TCP, four);
            let kernel = Kernel::load(&world.tables);
            let barrier = Barrier::new(2);
            // Each opens its own 300 flows at the same time as the other.
            let run = |first: u16| {
                barrier.wait();
                let sent = (first..first + 300).map(|client| {
                    let (action, bytes) = kernel.run(world::FRONT, &opening(&service, client).bytes());
                    matches!(action, Action::Tx | Action::Redirect).then(|| (client, went_to(&bytes)))
                });
                sent.flatten().collect::<Vec<_>>()
            };
            let (one, other) = thread::scope(|scope| {
                let other = scope.spawn(|| run(1_000));
                (run(0), other.join().expect("a thread that ends"))
            });
            let flows: Vec<_> = one.into_iter().chain(other).collect();
            assert!(flows.len() > 500, "{} flows", flows.len());
            let ports: HashSet<_> = flows.iter().map(|(_, tuple)| *tuple).collect();
            assert_eq!(ports.len(), flows.len());
            for (client, tuple) in flows {
                let macs = [world::mac_of_interface(world::BACK), [2, 0, 0, 0, 2, 1]];
                let answer = Draft::tcp(tuple.dst, tuple.src, SYN | ACK).macs(macs[0], macs[1]);
                let (_, bytes) = kernel.run(world::BACK, &answer.bytes());
                let asked = went_to(&opening(&service, client).bytes());
                assert_eq!(went_to(&bytes), asked.reversed());
            }
        }
    });
}

#[test]
fn one_syn_on_two_processors_at_once_is_one_flow() {
    needs_kernel_program!();
    place(|| {
        let mut world = roomy();
        world.tables.settings.snat_count = 10_000;
        let kernel = Kernel::load(&world.tables);
        for four in [true, false] {
            let service = world.service(Mode::Snat, protocol::TCP, four);
            let barrier = Barrier::new(2);
            let run = || {
                let each = (0..500).map(|client| {
                    barrier.wait();
                    sent_to(&kernel, &service, client)
                });
                each.collect::<Vec<_>>()
            };
            let (one, other) = thread::scope(|scope| {
                let other = scope.spawn(run);
                (run(), other.join().expect("a thread that ends"))
            });
            let mut lost = 0;
            for (client, pair) in (0..).zip(one.into_iter().zip(other)) {
                let (Some(first), Some(second)) = pair else {
                    // Who sees the other at work leaves it to it; both may see each other. The client asks again then.
                    lost += u32::from(pair == (None, None));
                    let again = sent_to(&kernel, &service, client).expect("nobody is in the way now");
                    assert_eq!(pair.0.or(pair.1).unwrap_or(again), again, "client {client}");
                    continue;
                };
                assert_eq!(first, second, "client {client} has two flows");
            }
            assert!(lost < 50, "{lost} of 500 SYNs were lost");
        }
    });
}

/// Sends a SYN; gives its 5-tuple at the server, if it got there.
fn sent_to(kernel: &Kernel, service: &Service, client: u16) -> Option<Tuple> {
    let (action, bytes) = kernel.run(world::FRONT, &opening(service, client).bytes());
    matches!(action, Action::Tx | Action::Redirect).then(|| went_to(&bytes))
}

/// What a flood of SYNs can do to a table that is far too small for it: nothing, to established flows.
#[test]
fn a_table_that_is_too_small_keeps_established_flows_and_mixes_up_none() {
    needs_kernel_program!();
    place(|| {
        for four in [true, false] {
            let mut world = World::with_tables(RING_SIZE, HostTables::new(1_024, 64));
            world.tables.settings.snat_count = 20_000;
            let service = world.service(Mode::Snat, protocol::TCP, four);
            let kernel = Kernel::load(&world.tables);
            let established: Vec<_> =
                (0..300).map(|client| (client, establish(&kernel, &service, client))).collect();
            let flows: HashMap<_, _> = (1_000..6_000)
                .filter_map(|client| {
                    let (action, bytes) = kernel.run(world::FRONT, &opening(&service, client).bytes());
                    matches!(action, Action::Tx | Action::Redirect).then(|| (client, went_to(&bytes)))
                })
                .collect();
            assert!(flows.len() > 4_900, "{} of 5000 SYNs were sent on", flows.len());
            for (client, tuple) in established {
                let (_, bytes) = kernel.run(world::FRONT, &opening(&service, client).flags(ACK).bytes());
                assert_eq!(went_to(&bytes), tuple, "an established flow was moved");
            }
            let (mut kept, mut lost) = (0, 0);
            let mut owners = HashMap::new();
            for (client, tuple) in flows {
                let ack = opening(&service, client).flags(ACK).bytes();
                match kernel.run(world::FRONT, &ack) {
                    (Action::Pass, bytes) => {
                        assert_eq!(bytes, ack);
                        lost += 1;
                    }
                    (_, bytes) => {
                        assert_eq!(went_to(&bytes), tuple, "client {client} was moved");
                        assert_eq!(owners.insert(tuple, client), None, "two clients, one port");
                        kept += 1;
                    }
                }
            }
            assert!(kept > 300 && lost > 1_000, "{kept} kept, {lost} lost");
        }
    });
}

/// Opens a connection, the server's answer and the client's included; gives its 5-tuple at the server.
fn establish(kernel: &Kernel, service: &Service, client: u16) -> Tuple {
    let (_, bytes) = kernel.run(world::FRONT, &opening(service, client).bytes());
    let got = inspect::read(&bytes).expect("a packet");
    let ifindex = world::interface_of_server(got.to[5].into());
    let answer = Draft::tcp(got.dst, got.src, SYN | ACK).macs(world::mac_of_interface(ifindex), got.to);
    let (action, _) = kernel.run(ifindex, &answer.bytes());
    assert!(matches!(action, Action::Tx | Action::Redirect), "{action:?} of an answer");
    let (_, bytes) = kernel.run(world::FRONT, &opening(service, client).flags(ACK).bytes());
    assert_eq!(went_to(&bytes), got.tuple());
    got.tuple()
}
