//! Every reason to pass or drop a packet: a packet that has it, counted under its name.

use std::collections::BTreeSet;

use lb_common::{
    abi::{Mode, protocol, server_flags},
    verdict::{DropReason, PassReason},
    wire::tcp::{ACK, SYN},
};
use lb_testkit::{
    inspect,
    world::{self, World},
};
use lb_tests::{needs_kernel_program, packet::Draft};

use crate::{kernel::place, pair::Pair};

/// Reasons that no packet of a test can have, and why.
const UNREACHABLE: [(&str, &str); 2] = [
    ("flow-table-full", "the kernel's LRU tables make room, unless it has no memory"),
    ("rewrite-failed", "a frame does not get shorter while the program runs"),
];

/// A packet of a kind that any world passes or drops.
fn packets(world: &World, four: bool) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let client = world::client(four, 9, 40_000);
    let nat = world.service(Mode::Nat, protocol::TCP, four);
    let local = world.service(Mode::Local, protocol::TCP, four);
    let mut nobody = world.services.iter().filter(|s| s.mode == Mode::Snat && s.servers == 0);
    let nobody = nobody.find(|s| s.at.is_ipv4() == four).expect("a VIP without servers");
    let syn = Draft::syn(client, nat.at);
    let mut cut = syn.bytes();
    cut.pop();
    let mut arp = syn.bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    let fragment = if four {
        syn.clone().fragment(0x2000)
    } else {
        syn.clone().extension(44, &[0, 0, 0, 1, 0, 0, 0, 0])
    };
    let mut packets = vec![
        (
            "not-vip",
            "another port of the VIP's address",
            Draft::syn(client, (nat.at.ip(), 81).into()).bytes(),
        ),
        ("not-vip", "from the VIP", Draft::syn(nat.at, client).bytes()),
        ("not-ip", "ARP", arp),
        ("not-ip", "three VLAN tags", syn.clone().tag(0x8100, 1).tag(0x8100, 1).tag(0x8100, 1).bytes()),
        ("not-tcp-udp", "an echo request", Draft::other(client, nat.at, if four { 1 } else { 58 }).bytes()),
        ("group-addressed", "a broadcast", syn.clone().macs([0xff; 6], world::CLIENT_MAC).bytes()),
        (
            "other-host",
            "flooded by a switch",
            syn.clone().macs([2, 0, 0, 0, 9, 9], world::CLIENT_MAC).bytes(),
        ),
        ("fragment", "the first of several", fragment.bytes()),
        ("malformed", "a byte short of its TCP header", cut),
        ("local-vip", "for l7-proxy", Draft::syn(client, local.at).bytes()),
        ("no-flow", "in the middle of an unknown connection", syn.clone().flags(ACK).bytes()),
        ("no-server", "a VIP that nobody serves", Draft::syn(client, nobody.at).bytes()),
        ("ttl-exceeded", "the last hop", syn.clone().ttl(1).bytes()),
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
    assert_eq!(pair.kernel.reasons(), expected, "{what}");
    seen.insert(label);
}

/// Where a reason is counted.
fn index(label: &str) -> usize {
    let pass = PassReason::ALL.iter().map(|reason| (reason.label(), reason.index()));
    let drop = DropReason::ALL.iter().map(|reason| (reason.label(), reason.index()));
    let found = pass.chain(drop).find(|(name, _)| *name == label);
    found.unwrap_or_else(|| panic!("{label} is a reason")).1 as usize
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
        }
        pair.agree();
        let unreachable = UNREACHABLE.map(|(label, _)| label);
        assert!(unreachable.iter().all(|label| !seen.contains(label)), "{seen:?}");
        let labels = PassReason::ALL.iter().map(|reason| reason.label());
        let all: BTreeSet<_> = labels.chain(DropReason::ALL.iter().map(|reason| reason.label())).collect();
        assert_eq!(&seen | &unreachable.into(), all);
    });
}

/// A server whose way nobody knows; a client whose interface is gone.
fn no_next_hop(pair: &mut Pair, seen: &mut BTreeSet<&'static str>, four: bool) {
    let service = pair.world.service(Mode::Dr, protocol::UDP, four);
    pair.fill_ring(&service, &[1]);
    let index = service.server(1);
    let server = pair.world.tables.servers.get_mut(&index).expect("an entry");
    (server.flags, server.ifindex) = (server_flags::ACCEPTS_NEW, 0);
    pair.kernel.servers.set(index.into(), *server, 0).expect("a server");
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
    pair.kernel.interfaces.remove(&world::SIDE).expect("an interface");
    counted(pair, seen, "no-next-hop", "the client's interface is gone", &answer.bytes());
    pair.world.tables.interfaces.insert(world::SIDE, mac);
    pair.kernel.interfaces.insert(world::SIDE, mac, 0).expect("an interface");
}

fn ports_exhausted(pair: &mut Pair, seen: &mut BTreeSet<&'static str>, four: bool) {
    let service = pair.world.service(Mode::Snat, protocol::UDP, four);
    let settings = pair.world.tables.settings;
    pair.world.tables.settings.snat_count = 1;
    pair.kernel.settings.set(0, pair.world.tables.settings, 0).expect("settings");
    pair.fill_ring(&service, &[1]);
    let request = |port| Draft::udp(world::client(four, 9, port), service.at).bytes();
    assert_eq!(pair.label(world::FRONT, &request(40_000)), "forward");
    counted(pair, seen, "ports-exhausted", "the only port is taken", &request(40_001));
    assert_eq!(pair.label(world::FRONT, &request(40_000)), "forward", "who has it keeps it");
    pair.world.tables.settings = settings;
    pair.kernel.settings.set(0, settings, 0).expect("settings");
}

#[test]
fn without_settings_vips_and_servers_everything_passes() {
    needs_kernel_program!();
    place(|| {
        let world = World { tables: Default::default(), services: Vec::new() };
        let mut pair = Pair::with(world);
        for case in lb_testkit::golden::cases() {
            for step in case.steps {
                let (outcome, _) = pair.frame(step.ifindex, &step.bytes);
                assert!(matches!(outcome, lb_common::host::Outcome::Pass(_)), "{}: {outcome:?}", case.title);
            }
        }
        pair.agree();
    });
}
