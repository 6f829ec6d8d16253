//! Single frames: what is sent on, what is left alone, what ends, and under which name. What frames look like
//! when they are sent on is in `vectors.rs`.

use lb_common::{
    abi::{Mac, Mode, Settings, protocol, server_flags, settings_flags},
    host::{HostTables, Outcome, process},
    verdict::{DropReason, Hop},
    wire::tcp::{ACK, FIN, RST, SYN},
};
use lb_testkit::{
    bed::Bed,
    damage,
    draft::Draft,
    golden,
    inspect::{self, Seen},
    laws,
    world::{self, Service},
};

const BOTH: [bool; 2] = [true, false];

fn opening(service: &Service) -> Draft {
    let draft = Draft::of(service.protocol, world::client(service.at.is_ipv4(), 9, 40_000), service.at);
    if service.protocol == protocol::TCP { draft.flags(SYN) } else { draft }
}

/// The name of what becomes of these bytes, checked against the laws.
fn label(bytes: &[u8]) -> &'static str {
    let mut bed = Bed::default();
    laws::label(laws::Laws::default().frame(&mut bed.world, world::FRONT, bytes).0)
}

/// A whole packet to a VIP, and where its headers are.
fn packet(mode: Mode, protocol: u8, four: bool) -> (Vec<u8>, Seen) {
    let bytes = opening(&Bed::default().world.service(mode, protocol, four)).payload(&[7; 40]).bytes();
    let seen = inspect::read(&bytes).expect("a packet");
    (bytes, seen)
}

#[test]
fn without_tables_everything_passes() {
    for case in golden::cases() {
        for step in case.steps {
            let mut frame = step.bytes.clone();
            let outcome = process(&mut frame, step.ifindex, &HostTables::new(16, 16));
            assert!(matches!(outcome, Outcome::Pass(_)), "{}: {outcome:?}", case.title);
            assert_eq!(frame, step.bytes, "{}", case.title);
        }
    }
}

#[test]
fn every_header_length_that_ipv4_can_say() {
    for words in 0..16 {
        let (mut frame, seen) = packet(Mode::Dr, protocol::UDP, true);
        damage::header_words(&mut frame, &seen, words);
        // Further words are read from what follows, where no port of a VIP is.
        let expected = match words {
            0..5 => "malformed",
            5 => "forward",
            _ => {
                if inspect::read(&frame).is_some() {
                    "not-vip"
                } else {
                    "malformed"
                }
            }
        };
        assert_eq!(label(&frame), expected, "{words} words");
    }
}

#[test]
fn every_header_length_that_tcp_can_say() {
    for four in BOTH {
        for words in 0..16 {
            let (mut frame, seen) = packet(Mode::Snat, protocol::TCP, four);
            damage::data_offset(&mut frame, &seen, words);
            // 20 bytes of header and 40 of payload: all that is left may be options.
            assert_eq!(label(&frame), if words < 5 { "malformed" } else { "forward" }, "{words} words");
            damage::length(
                &mut frame,
                &seen,
                (seen.end - 4 - if four { seen.l3 } else { seen.l3 + 40 }) as u16,
            );
            assert_eq!(label(&frame), if (5..15).contains(&words) { "forward" } else { "malformed" });
        }
    }
}

#[test]
fn every_length_that_udp_can_say() {
    for four in BOTH {
        for length in (0..=60).chain([1_000, 65_535]) {
            let (mut frame, seen) = packet(Mode::Nat, protocol::UDP, four);
            damage::datagram_length(&mut frame, &seen, length);
            assert_eq!(
                label(&frame),
                if (8..=48).contains(&length) { "forward" } else { "malformed" },
                "{length}"
            );
        }
    }
}

#[test]
fn every_length_that_ip_can_say() {
    for four in BOTH {
        for length in (0..=120).chain([1_000, 65_535]) {
            let (mut frame, seen) = packet(Mode::Nat, protocol::TCP, four);
            damage::length(&mut frame, &seen, length);
            // The TCP header must fit. Where the packet ends, the frame does not say: the receiver sees.
            let least = if four { 40 } else { 20 };
            assert_eq!(label(&frame), if length >= least { "forward" } else { "malformed" }, "{length}");
        }
    }
}

#[test]
fn every_version_and_every_protocol() {
    for four in BOTH {
        for number in 0..16 {
            let (mut frame, seen) = packet(Mode::Snat, protocol::TCP, four);
            damage::version(&mut frame, &seen, number);
            let right = if four { 4 } else { 6 };
            assert_eq!(
                label(&frame),
                if number == right { "forward" } else { "malformed" },
                "version {number}"
            );
        }
        for number in 0..=255 {
            let (mut frame, seen) = packet(Mode::Snat, protocol::TCP, four);
            damage::protocol(&mut frame, &seen, number);
            let label = label(&frame);
            match number {
                protocol::TCP => assert_eq!(label, "forward"),
                // Its ports are those of the TCP header, where no VIP speaks UDP; its length is none.
                protocol::UDP => assert!(["not-vip", "malformed"].contains(&label), "{label}"),
                0 | 43 | 44 | 51 | 60 if !four => assert_ne!(label, "forward", "extension {number}"),
                _ => assert_eq!(label, "not-tcp-udp", "protocol {number}"),
            }
        }
    }
}

#[test]
fn chains_of_extension_headers() {
    let service = Bed::default().world.service(Mode::Snat, protocol::TCP, false);
    let chain = |headers: &[(u8, &[u8])]| {
        let draft =
            headers.iter().fold(opening(&service), |draft, (kind, bytes)| draft.extension(*kind, bytes));
        label(&draft.bytes())
    };
    let plain: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let long = [[0, 255, 1, 4, 0, 0, 0, 0].as_slice(), &[0; 255 * 8]].concat();
    for (what, headers, expected) in [
        ("none", &[][..], "forward"),
        ("one of each", &[(0, plain), (60, plain), (43, &[0; 8]), (44, &[0; 8]), (51, &[0; 8])], "forward"),
        ("in an order that nobody sends", &[(60, plain), (0, plain), (44, &[0; 8]), (0, plain)], "forward"),
        ("the longest there is", &[(60, &long)], "forward"),
        (
            "an authentication header with a value",
            &[(51, &[0, 2, 0, 0, 1, 2, 3, 4, 0, 0, 0, 1, 9, 9, 9, 9])],
            "forward",
        ),
        ("eight", &[(60, plain); 8], "forward"),
        ("nine", &[(60, plain); 9], "extension-headers"),
        ("stops to come", &[(43, &[0, 0, 0, 1, 0, 0, 0, 0])], "extension-headers"),
        ("stops to come, behind others", &[(0, plain), (43, &[0, 0, 0, 9, 0, 0, 0, 0])], "extension-headers"),
        ("more fragments", &[(44, &[0, 0, 0, 1, 0, 0, 0, 0])], "forward"),
        ("a later fragment", &[(60, plain), (44, &[0, 0, 0, 8, 0, 0, 0, 0])], "fragment"),
        ("bits without meaning in a fragment header", &[(44, &[0, 9, 0, 6, 0, 0, 0, 0])], "forward"),
        ("mobility, which is not walked", &[(135, plain)], "not-tcp-udp"),
        ("encryption", &[(50, plain)], "not-tcp-udp"),
    ] {
        assert_eq!(chain(headers), expected, "{what}");
    }
    // Headers that say that they are longer than the frame, at any place of a chain.
    for at in 0..8 {
        let headers: Vec<(u8, &[u8])> =
            (0..8).map(|n| (60, if n == at { &[0, 255, 1, 4, 0, 0, 0, 0] } else { plain })).collect();
        assert_eq!(chain(&headers), "malformed", "the header at {at}");
    }
}

#[test]
fn a_translated_packet_must_have_a_hop_left() {
    for service in Bed::default().translated() {
        for ttl in [0, 1] {
            assert_eq!(label(&opening(&service).ttl(ttl).bytes()), "ttl-exceeded");
            let mut bed = Bed::default();
            let (got, _) = bed.sent_on(&opening(&service));
            let ifindex = world::interface_of_server(got.to[5].into());
            let here = world::mac_of_interface(ifindex);
            let mut late = Draft::of(got.protocol, got.dst, got.src).ttl(ttl).macs(here, got.to).bytes();
            let outcome = process(&mut late, ifindex, &bed.world.tables);
            assert_eq!(outcome, Outcome::Drop(DropReason::TtlExceeded), "an answer");
        }
    }
    // On one link it does not count: nobody sends a packet on, it only gets another address.
    for four in BOTH {
        let (frame, _) = packet(Mode::Dr, protocol::TCP, four);
        assert_eq!(label(&frame), "forward");
        let service = Bed::default().world.service(Mode::Dr, protocol::TCP, four);
        assert_eq!(label(&opening(&service).ttl(1).bytes()), "forward");
    }
}

#[test]
fn only_a_syn_opens_a_connection() {
    for four in BOTH {
        let service = Bed::default().world.service(Mode::Snat, protocol::TCP, four);
        for flags in 0..=255 {
            let opens = flags & (SYN | ACK | RST | FIN) == SYN;
            let expected = if opens { "forward" } else { "no-flow" };
            assert_eq!(label(&opening(&service).flags(flags).bytes()), expected, "flags {flags:02x}");
        }
    }
}

#[test]
fn a_server_whose_way_is_not_known_is_reached_as_the_host_would() {
    for four in BOTH {
        for (mode, routed, expected) in [
            (Mode::Snat, None, Err(DropReason::NoNextHop)),
            (Mode::Snat, Some(false), Ok(())),
            (Mode::Snat, Some(true), Ok(())),
            // Behind a router the server's MAC is of no use, and the router's leads the packet back.
            (Mode::Dr, Some(true), Err(DropReason::NoNextHop)),
            (Mode::Dr, Some(false), Ok(())),
            (Mode::Dr, None, Err(DropReason::NoNextHop)),
        ] {
            let mut bed = Bed::default();
            let service = bed.world.service(mode, protocol::TCP, four);
            let hop =
                Hop { to: Mac::new([2, 9, 9, 9, 9, 9]), from: Mac::new([2, 8, 8, 8, 8, 8]), ifindex: 7 };
            for number in 1..=3 {
                let server = bed.world.tables.servers.get_mut(&service.server(number)).expect("an entry");
                server.flags &= !server_flags::HOP_KNOWN;
                let address = server.address;
                if let Some(routed) = routed {
                    bed.world.tables.routes.insert(address, (hop, routed));
                }
            }
            let mut frame = opening(&service).bytes();
            let outcome = process(&mut frame, world::FRONT, &bed.world.tables);
            match expected {
                Ok(()) => {
                    assert!(matches!(outcome, Outcome::Forward { ifindex: 7, .. }), "{mode:?} {outcome:?}");
                    assert_eq!(frame[..12], [[2, 9, 9, 9, 9, 9], [2, 8, 8, 8, 8, 8]].concat());
                }
                Err(reason) => assert_eq!(outcome, Outcome::Drop(reason), "{mode:?} {routed:?}"),
            }
        }
    }
}

#[test]
fn an_answer_to_an_interface_that_is_gone_is_dropped() {
    let mut bed = Bed::default();
    let service = bed.world.service(Mode::Snat, protocol::TCP, true);
    bed.world.fill_ring(&service, &[1]);
    let (got, _) = bed.sent_on(&opening(&service));
    bed.world.tables.interfaces.remove(&world::FRONT);
    let here = world::mac_of_interface(world::BACK);
    let mut answer = Draft::of(got.protocol, got.dst, got.src).flags(SYN | ACK).macs(here, got.to).bytes();
    let outcome = process(&mut answer, world::BACK, &bed.world.tables);
    assert_eq!(outcome, Outcome::Drop(DropReason::NoNextHop));
}

#[test]
fn packets_to_ports_beside_the_snat_range_are_not_looked_up() {
    for (first, count, inside, outside) in [
        (20_000, 10, &[20_000, 20_009][..], &[0, 19_999, 20_010, 65_535][..]),
        (65_535, 1, &[65_535], &[0, 1, 65_534]),
        (1_024, 64_512, &[1_024, 65_535], &[0, 1_023]),
        (1_024, 0, &[], &[0, 1_023, 1_024, 1_025, 65_535]),
        (0, 0, &[], &[0, 65_535]),
    ] {
        let settings = Settings { snat_first: first, snat_count: count, ..Settings::default() };
        assert!(inside.iter().all(|port| settings.may_be_reply(*port)), "{settings:?}");
        assert!(outside.iter().all(|port| !settings.may_be_reply(*port)), "{settings:?}");
        let with_nat = Settings { flags: settings_flags::ANY_PORT_REPLIES, ..settings };
        assert!([inside, outside].concat().iter().all(|port| with_nat.may_be_reply(*port)), "{with_nat:?}");
    }
}
