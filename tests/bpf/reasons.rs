//! Every reason to pass or drop a packet: a packet that has it, counted under its name.

use std::collections::BTreeSet;

use lb_common::{
    abi::{Interface, Mode, RING_SIZE, protocol, server_flags, vip_flags},
    host::{HostTables, Outcome},
    verdict::{DropReason, Event, PassReason, Stage},
    wire::tcp::{ACK, SYN},
};
use lb_testkit::{
    inspect,
    traffic::Change,
    world::{self, Health, Service, World},
};
use lb_tests::{needs_kernel_program, packet::Draft};

use crate::{
    kernel::{Action, place},
    pair::Pair,
};

/// What no packet of a test can have, and why.
const UNREACHABLE: [(&str, &str); 1] =
    [("rewrite-failed", "a frame does not get shorter while the program runs")];

/// Packets of a kind that any world passes, drops or answers.
fn packets(world: &World, four: bool) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let client = world::client(four, 9, 40_000);
    let find = |wanted: &dyn Fn(&Service) -> bool| world.find(|s| s.at.is_ipv4() == four && wanted(s));
    let nat = world.service(Mode::Nat, protocol::TCP, four);
    let local = world.service(Mode::Local, protocol::TCP, four);
    let nobody = find(&|s| s.mode == Mode::Snat && s.servers == 0 && s.flags == 0);
    let passes = find(&|s| s.servers == 0 && s.flags & vip_flags::EMPTY_PASS != 0);
    let rejects =
        |number| find(&|s| s.servers == 0 && s.flags & vip_flags::EMPTY_REJECT != 0 && s.protocol == number);
    let small = find(&|s| s.mtu != 0 && s.protocol == protocol::TCP);
    let syn = Draft::syn(client, nat.at);
    let mut cut = syn.bytes();
    cut.pop();
    let mut arp = syn.bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    let timestamp = Draft::icmp(client, nat.at, if four { [13, 0] } else { [130, 0] }, [0; 4]);
    let answer = Draft::ack(small.at, client).payload(&[1; 180]).bytes();
    let large = Draft::error(client, if four { [3, 4] } else { [2, 0] }, [0; 4], &answer, 180);
    let mut packets = vec![
        ("not-vip", "a port that is no VIP's", Draft::syn(client, (nat.at.ip(), 81).into()).bytes()),
        ("not-vip", "from the VIP", Draft::syn(nat.at, client).bytes()),
        ("not-ip", "ARP", arp),
        ("not-ip", "three VLAN tags", syn.clone().tag(0x8100, 1).tag(0x8100, 1).tag(0x8100, 1).bytes()),
        ("not-tcp-udp", "a message that is neither echo request nor error", timestamp.bytes()),
        ("group-addressed", "a broadcast", syn.clone().macs([0xff; 6], world::CLIENT_MAC).bytes()),
        (
            "other-host",
            "flooded by a switch",
            syn.clone().macs([2, 0, 0, 0, 9, 9], world::CLIENT_MAC).bytes(),
        ),
        ("fragment", "a piece whose first nobody has seen", syn.clone().piece(1, 64, false).bytes()),
        ("malformed", "a byte short of its TCP header", cut),
        ("local-vip", "for l7-proxy", Draft::syn(client, local.end()).bytes()),
        ("no-flow", "in the middle of an unknown connection", syn.clone().flags(ACK).bytes()),
        ("empty-pool", "nobody serves, so the host may", Draft::udp(client, passes.at).bytes()),
        ("no-server", "a VIP that nobody serves", Draft::syn(client, nobody.at).bytes()),
        ("ttl-exceeded", "the last hop", syn.clone().ttl(1).bytes()),
        ("too-big", "an error, about which there are no errors", large.bytes()),
        ("too-big-sent", "too big for the tunnel", Draft::ack(client, small.at).payload(&[1; 180]).bytes()),
        ("echo-answered", "an echo request", Draft::echo(client, nat.at).bytes()),
        ("reset-sent", "nobody serves, and says so", Draft::syn(client, rejects(protocol::TCP).at).bytes()),
        ("unreachable-sent", "the same with UDP", Draft::udp(client, rejects(protocol::UDP).at).bytes()),
    ];
    if !four {
        let routed = syn.extension(43, &[0, 0, 0, 1, 0, 0, 0, 0]);
        packets.push(("extension-headers", "stops to come", routed.bytes()));
    }
    packets
}

/// Sends a packet and checks that exactly its reason is counted, once.
#[track_caller]
fn counted(
    pair: &mut Pair,
    seen: &mut BTreeSet<&'static str>,
    label: &'static str,
    what: &str,
    frame: &[u8],
) {
    let before = pair.kernel.reasons();
    assert_eq!(pair.label(world::FRONT, frame), label, "{what}");
    let mut expected = before;
    expected[index(label)] += 1;
    let after = pair.kernel.reasons();
    // A ring that has changed asks the flow tags.
    for event in [Event::TagHit, Event::TagMiss] {
        expected[event.index() as usize] = after[event.index() as usize];
    }
    assert_eq!(after, expected, "{what}");
    seen.insert(label);
}

/// Where a reason is counted.
fn index(label: &str) -> usize {
    let found = all().find(|(name, _)| *name == label);
    found.unwrap_or_else(|| panic!("{label} is a reason")).1 as usize
}

/// All reasons and events, with the places of their counters.
fn all() -> impl Iterator<Item = (&'static str, u32)> {
    let pass = PassReason::ALL.iter().map(|reason| (reason.label(), reason.index()));
    let drop = DropReason::ALL.iter().map(|reason| (reason.label(), reason.index()));
    let event = Event::ALL.iter().map(|event| (event.label(), event.index()));
    pass.chain(drop).chain(event)
}

/// Notes what has been counted so far.
fn note(pair: &Pair, seen: &mut BTreeSet<&'static str>) {
    pair.agree();
    let counted = pair.kernel.reasons();
    seen.extend(all().filter(|(_, index)| counted[*index as usize] > 0).map(|(label, _)| label));
}

#[test]
fn every_reason_has_a_packet_and_its_own_counter() {
    needs_kernel_program!();
    place(|| {
        let mut pair = Pair::new();
        let mut seen = BTreeSet::new();
        for four in [true, false] {
            for (label, what, frame) in packets(&pair.world, four) {
                counted(&mut pair, &mut seen, label, what, &frame);
            }
            no_next_hop(&mut pair, &mut seen, four);
            ports_exhausted(&mut pair, &mut seen, four);
            limited(&mut pair, &mut seen, four);
            halted(&mut pair, &mut seen, four);
            held(&mut pair, &mut seen, four);
            moved(&mut pair, four);
        }
        note(&pair, &mut seen);
        for four in [true, false] {
            note(&crowded(four), &mut seen);
        }
        stage_missing(&mut pair, &mut seen);
        let unreachable = UNREACHABLE.map(|(label, _)| label);
        assert!(unreachable.iter().all(|label| !seen.contains(label)), "{seen:?}");
        let all: BTreeSet<_> = all().map(|(label, _)| label).collect();
        assert_eq!(&seen | &unreachable.into(), all);
    });
}

/// More flows than a VIP may have in a tick.
fn limited(pair: &mut Pair, seen: &mut BTreeSet<&'static str>, four: bool) {
    let service = pair.world.find(|s| s.limit != 0 && s.mode == Mode::Dr && s.at.is_ipv4() == four);
    // The tick may end meanwhile: at most once in a while.
    for port in 40_000..40_100 {
        let before = pair.kernel.reasons()[index("new-flow-limit")];
        let syn = Draft::syn(world::client(four, 9, port), service.at).bytes();
        let label = pair.label(world::FRONT, &syn);
        let after = pair.kernel.reasons()[index("new-flow-limit")];
        if label == "new-flow-limit" {
            assert_eq!(after, before + 1);
            seen.insert(label);
        }
    }
    assert!(seen.contains("new-flow-limit"));
}

/// A datagram of a flow whose server is halted.
fn halted(pair: &mut Pair, seen: &mut BTreeSet<&'static str>, four: bool) {
    let service = pair.world.service(Mode::Nat, protocol::UDP, four);
    pair.fill_ring(&service, &[1]);
    let (_, bytes) =
        pair.frame(world::FRONT, &Draft::udp(world::client(four, 9, 40_000), service.at).bytes());
    let got = inspect::read(&bytes).expect("a packet");
    pair.change(Change::Health(service.server(1), Health::Halted));
    let answer = Draft::udp(got.dst, got.src).macs(got.from, got.to).bytes();
    let before = pair.kernel.reasons();
    assert_eq!(pair.label(world::interface_of_server(1), &answer), "halted");
    assert_eq!(pair.kernel.reasons()[index("halted")], before[index("halted")] + 1);
    seen.insert("halted");
}

/// The first packet of a flow while flows are copied; those of flows that are known go on.
fn held(pair: &mut Pair, seen: &mut BTreeSet<&'static str>, four: bool) {
    let service = pair.world.service(Mode::Snat, protocol::TCP, four);
    pair.fill_ring(&service, &[1]);
    let syn = |port| Draft::syn(world::client(four, 9, port), service.at).bytes();
    assert_eq!(pair.label(world::FRONT, &syn(41_000)), "forward");
    pair.world.tables.settings.hold_until = lb_user::datapath::flows::tick() + 100;
    pair.publish_settings();
    counted(pair, seen, "held", "a new flow", &syn(41_001));
    assert_eq!(pair.label(world::FRONT, &syn(41_000)), "forward");
    pair.world.tables.settings.hold_until = lb_user::datapath::flows::tick();
    pair.publish_settings();
    assert_eq!(pair.label(world::FRONT, &syn(41_001)), "forward");
    pair.world.tables.settings.hold_until = 0;
    pair.publish_settings();
}

/// A flow that the ring does not lead to its server any more: known, and not known.
fn moved(pair: &mut Pair, four: bool) {
    let service = pair.world.service(Mode::Dr, protocol::TCP, four);
    pair.fill_ring(&service, &[1]);
    let client = world::client(four, 9, 40_000);
    pair.frame(world::FRONT, &Draft::syn(client, service.at).bytes());
    pair.fill_ring(&service, &[2]);
    for (port, event) in [(40_000, "tag-hit"), (40_001, "tag-miss")] {
        let before = pair.kernel.reasons();
        let ack = Draft::ack(world::client(four, 9, port), service.at).bytes();
        assert_eq!(pair.label(world::FRONT, &ack), "forward");
        let mut expected = before;
        expected[index(event)] += 1;
        assert_eq!(pair.kernel.reasons(), expected, "{event}");
    }
}

/// Tables so small that flows and tags are in each other's way; and more SYNs than are noted.
fn crowded(four: bool) -> Pair {
    lb_tests::packet::stay_on_this_cpu();
    let mut world = World::with_tables(RING_SIZE, HostTables::new(16, 16));
    world.tables.settings.snat_count = 1_000;
    let mut pair = Pair::with(world);
    let dr = pair.world.service(Mode::Dr, protocol::TCP, four);
    let snat = pair.world.service(Mode::Snat, protocol::TCP, four);
    for port in 40_000..41_000 {
        // At first all are noted; then one in a tick, however slow the machine is.
        if port == 40_500 {
            pair.world.tables.settings.syn_limit = 1;
            pair.publish_settings();
        }
        pair.frame(world::FRONT, &Draft::syn(world::client(four, 9, port), dr.at).bytes());
    }
    for port in 40_000..40_100 {
        let syn = Draft::syn(world::client(four, 9, port), snat.at);
        if let (Outcome::Forward { .. }, bytes) = pair.frame(world::FRONT, &syn.bytes()) {
            let got = inspect::read(&bytes).expect("a packet");
            // Half of them are only tried.
            if port % 2 == 0 {
                let ifindex = world::interface_of_server(got.to[5].into());
                let answer =
                    Draft::tcp(got.dst, got.src, SYN | ACK).macs(world::mac_of_interface(ifindex), got.to);
                pair.frame(ifindex, &answer.bytes());
                pair.frame(world::FRONT, &syn.flags(ACK).bytes());
            }
        }
    }
    pair
}

/// A program that is not there.
fn stage_missing(pair: &mut Pair, seen: &mut BTreeSet<&'static str>) {
    pair.kernel.remove_stage(2 * Stage::Icmp as u32);
    let service = pair.world.service(Mode::Dr, protocol::TCP, true);
    let echo = Draft::echo(world::client(true, 9, 0), service.at).bytes();
    let before = pair.kernel.reasons()[index("no-stage")];
    assert_eq!(pair.kernel.run(world::FRONT, &echo), (Action::Pass, echo));
    assert_eq!(pair.kernel.reasons()[index("no-stage")], before + 1);
    seen.insert("no-stage");
}

/// A server whose way nobody knows; a client whose interface is gone.
fn no_next_hop(pair: &mut Pair, seen: &mut BTreeSet<&'static str>, four: bool) {
    let service = pair.world.service(Mode::Dr, protocol::UDP, four);
    pair.fill_ring(&service, &[1]);
    let index = service.server(1);
    let server = pair.world.tables.servers.get_mut(&index).expect("an entry");
    (server.flags, server.ifindex) = (server.flags & !server_flags::HOP_KNOWN, 0);
    pair.publish_server(index);
    let request = Draft::udp(world::client(four, 9, 40_000), service.at).bytes();
    counted(pair, seen, "no-next-hop", "no way to the server", &request);

    let service = pair.world.service(Mode::Snat, protocol::TCP, four);
    pair.fill_ring(&service, &[1]);
    let syn = Draft::syn(world::client(four, 9, 40_000), service.at);
    let syn = syn.macs(world::mac_of_interface(world::SIDE), world::CLIENT_MAC);
    let (_, bytes) = pair.frame(world::SIDE, &syn.bytes());
    let got = inspect::read(&bytes).expect("a packet");
    let answer = Draft::tcp(got.dst, got.src, SYN | ACK);
    let mac = pair.world.tables.interfaces.remove(&world::SIDE).expect("an interface");
    let place = pair.world.tables.settings.place_of_interface(world::SIDE);
    pair.kernel.interfaces.set(place, Interface::default(), 0).expect("a place");
    counted(pair, seen, "no-next-hop", "the client's interface is gone", &answer.bytes());
    pair.world.tables.interfaces.insert(world::SIDE, mac);
    let interface = Interface { ifindex: world::SIDE, pad: 0, mac };
    pair.kernel.interfaces.set(place, interface, 0).expect("a place");
}

fn ports_exhausted(pair: &mut Pair, seen: &mut BTreeSet<&'static str>, four: bool) {
    let service = pair.world.service(Mode::Snat, protocol::UDP, four);
    let settings = pair.world.tables.settings;
    pair.world.tables.settings.snat_count = 1;
    pair.publish_settings();
    pair.fill_ring(&service, &[1]);
    let request = |port| Draft::udp(world::client(four, 9, port), service.at).bytes();
    assert_eq!(pair.label(world::FRONT, &request(40_000)), "forward");
    counted(pair, seen, "ports-exhausted", "the only port is taken", &request(40_001));
    assert_eq!(pair.label(world::FRONT, &request(40_000)), "forward", "who has it keeps it");
    pair.world.tables.settings = settings;
    pair.publish_settings();
}

#[test]
fn without_settings_vips_and_servers_everything_passes() {
    needs_kernel_program!();
    place(|| {
        let world = World { tables: HostTables::new(16, 16), services: Vec::new(), epoch: 0, aged: 0 };
        let mut pair = Pair::with(world);
        for case in lb_testkit::golden::cases() {
            for step in case.steps {
                let (outcome, _) = pair.frame(step.ifindex, &step.bytes);
                assert!(matches!(outcome, Outcome::Pass(_)), "{}: {outcome:?}", case.title);
            }
        }
        pair.agree();
    });
}
