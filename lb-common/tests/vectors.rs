//! Values that are part of the interface: two balancers, or two versions of one, must come to the same. The
//! frames are in `vectors/packets.txt`.

use lb_common::{
    abi::{FlowKey, RING_SIZE, ServerRef, protocol},
    family::{V4, V6, words4, words6},
    hash,
    host::{HostTables, Outcome, process},
    maglev::{self, Member},
    wire::checksum::{self, Delta},
};
use lb_testkit::{
    golden::{self, Expected},
    inspect::{self, Sums, What},
    laws::{self, Laws},
    world::World,
};

#[test]
fn the_flow_hash_is_what_it_was() {
    let four = |src: [u8; 4], sport, dport, protocol| {
        let (src, dst) = (words4(src)[0], words4([203, 0, 113, 1])[0]);
        hash::flow::<V4>(&FlowKey { src, dst, sport, dport, protocol })
    };
    let tcp = u32::from(protocol::TCP);
    let udp = u32::from(protocol::UDP);
    let found = [
        four([192, 0, 2, 1], 40_000, 443, tcp),
        four([192, 0, 2, 1], 40_001, 443, tcp),
        four([192, 0, 2, 1], 40_000, 443, udp),
        four([192, 0, 2, 2], 40_000, 443, tcp),
        four([0, 0, 0, 0], 0, 0, 0),
        four([255, 255, 255, 255], 65_535, 65_535, 255),
    ];
    assert_eq!(found.map(|hash| format!("{hash:08x}")), FLOW4);

    let six = |last, sport, protocol| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        let dst = words6(address);
        address[15] = last;
        hash::flow::<V6>(&FlowKey { src: words6(address), dst, sport, dport: 443, protocol })
    };
    let found = [six(1, 40_000, tcp), six(1, 40_001, tcp), six(1, 40_000, udp), six(2, 40_000, tcp)];
    assert_eq!(found.map(|hash| format!("{hash:08x}")), FLOW6);
}

#[test]
fn the_hash_of_a_source_is_what_it_was() {
    let found = [
        hash::source::<V4>(words4([192, 0, 2, 1])[0]),
        hash::source::<V4>(words4([192, 0, 2, 2])[0]),
        hash::source::<V6>(words6([1; 16])),
        hash::source::<V6>(words6([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])),
    ];
    assert_eq!(found.map(|hash| format!("{hash:08x}")), SOURCE);
}

/// These, and the rings below, were also computed by a second implementation in another language.
const FLOW4: [&str; 6] = ["ff243bf2", "8e3ef028", "b75c9115", "5569a721", "2f5c2ea8", "cc3c16d7"];
const FLOW6: [&str; 4] = ["91a501d2", "69325a75", "6dc67383", "4e4273ed"];
const SOURCE: [&str; 4] = ["a98da639", "0220629a", "f694ffb4", "bc479216"];

#[test]
fn the_ring_of_a_known_set_of_servers_is_what_it_was() {
    let ring = |weights: &[u16]| {
        let mut members: Vec<_> = (1..)
            .zip(weights)
            .map(|(number, &weight)| {
                Member::new(ServerRef::new(number, 1), weight, &[10, 0, 0, number as u8])
            })
            .collect();
        let mut ring = vec![0; RING_SIZE];
        maglev::populate(&mut members, &mut ring);
        ring
    };
    for (weights, first, expected) in RINGS {
        let ring = ring(weights);
        assert_eq!(ring[..8].iter().map(|slot| slot & 0xffff).collect::<Vec<_>>(), first, "{weights:?}");
        assert_eq!(format!("{:016x}", fingerprint(&ring)), expected, "{weights:?}");
    }
}

/// Weights of servers 10.0.0.1 and so on; servers in the first slots; fingerprint of all slots.
const RINGS: [(&[u16], [u32; 8], &str); 5] = [
    (&[100, 100, 100], [2, 3, 1, 1, 3, 3, 3, 1], "5e3189da6d38f3ca"),
    (&[100, 100, 0], [2, 1, 1, 1, 1, 1, 2, 1], "32936bc72a162e05"),
    (&[100, 50, 10, 1], [2, 1, 1, 1, 1, 1, 1, 1], "46afe69144cbbe07"),
    (&[100, 70, 30], [2, 1, 1, 1, 1, 1, 3, 1], "54608c6bc565fd00"),
    (&[1; 21], [2, 12, 6, 18, 4, 19, 20, 8], "d84221e334e5c7db"),
];

/// Depends on every slot and its place.
fn fingerprint(ring: &[u32]) -> u64 {
    ring.iter().fold(0, |sum: u64, slot| sum.rotate_left(5).wrapping_mul(0x0100_0000_01b3) ^ u64::from(*slot))
}

#[test]
fn checksums_of_known_texts() {
    for (text, expected) in [
        (&[][..], 0xffff),
        (&[0, 0], 0xffff),
        (&[0xff, 0xff], 0x0000),
        (&[0x01], 0xfeff),
        (&[0x00, 0x01], 0xfffe),
        // RFC 1071 §3.
        (&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0x220d),
        // Carries upon carries.
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x01], 0xfffe),
        (&[0x80, 0x00, 0x80, 0x00, 0x80, 0x00, 0x80, 0x00], 0xfffd),
    ] {
        assert_eq!(u16::from_be(checksum::finish(checksum::sum(text))), expected, "{text:02x?}");
    }
}

#[test]
fn updates_of_known_checksums() {
    let word = |old: u16, new: u16| Delta::NONE.word(old.to_be(), new.to_be());
    for (delta, before, after) in [
        (Delta::NONE, 0x1234, 0x1234),
        (word(0x1234, 0x1234), 0xabcd, 0xabcd),
        // RFC 1624 §4.
        (word(0x5555, 0x3285), 0xdd2f, 0x0000),
        (word(0x3285, 0x5555), 0x0000, 0xdd2f),
        // The time to live of a packet, less by one: the sum falls by 256, its complement rises.
        (word(0x4006, 0x3f06), 0x1234, 0x1334),
        (word(0x4006, 0x3f06), 0xff00, 0x0001),
    ] {
        assert_eq!(u16::from_be(delta.apply(u16::to_be(before))), after, "{delta:?} upon {before:04x}");
    }
    assert_eq!((checksum::never_zero(0), checksum::never_zero(1)), (0xffff, 1));
}

#[test]
fn what_goes_out_is_what_went_out_before() {
    let cases = golden::cases();
    assert!(cases.len() > 100, "the file holds {} cases", cases.len());
    let fresh = World::new(RING_SIZE);
    for case in cases {
        let (mut world, mut laws) = (fresh.clone(), Laws::default());
        for step in &case.steps {
            let (outcome, bytes) = laws.frame(&mut world, step.ifindex, &step.bytes);
            let found = Expected::of(outcome, bytes);
            assert_eq!(found, step.outcome, "{}", case.title);
        }
    }
}

#[test]
fn all_checksums_of_what_goes_out_are_right() {
    let mut checked = 0;
    for case in golden::cases() {
        for step in &case.steps {
            let (Expected::Out(_, bytes) | Expected::Answer(_, bytes)) = &step.outcome else { continue };
            let (seen, gue) = match inspect::what(bytes) {
                Some(What::Whole(seen)) => {
                    (seen, case.title.contains("in GUE") || case.title.starts_with("gue"))
                }
                Some(What::Message(message)) => {
                    let sums = (inspect::header_sum(bytes, 14), inspect::message_sum(bytes, &message));
                    assert!(sums.1 == 0 && (sums.0 == 0 || bytes[12] == 0x81), "{}: {sums:?}", case.title);
                    continue;
                }
                // In other tunnels there are only the header's, which the laws look at; pieces have none that is right.
                _ => continue,
            };
            let right = Sums::right(&seen);
            let expected = match case.title.as_str() {
                // A tunnel has one or none.
                _ if gue => {
                    Sums { transport: right.transport.and(inspect::sums(bytes, &seen).transport), ..right }
                }
                title if title.contains("no checksum") => Sums { transport: None, ..right },
                title if title.contains("wrong checksums") => inspect::sums(&step.bytes, &seen_before(step)),
                _ => right,
            };
            assert_eq!(inspect::sums(bytes, &seen), expected, "{}", case.title);
            assert!(!gue || expected.transport.is_none_or(|sum| sum == 0), "{}", case.title);
            assert_eq!(
                !gue && expected != right,
                case.title.contains("checksums") || case.title.contains("no checksum")
            );
            checked += 1;
        }
    }
    assert!(checked > 200, "{checked} frames");
}

fn seen_before(step: &golden::Step) -> inspect::Seen {
    inspect::read(&step.bytes).expect("a packet")
}

#[test]
fn a_frame_cut_anywhere_is_sent_on_only_if_its_headers_are_whole() {
    let fresh = World::with_tables(251, HostTables::new(64, 64));
    for case in golden::cases() {
        let mut world = fresh.clone();
        let mut laws = Laws::default();
        for step in &case.steps {
            for length in 0..step.bytes.len() {
                let cut = &step.bytes[..length];
                // A table for each, so that no cut packet opens a flow for the next one.
                let tables = world.tables.clone();
                let mut frame = cut.to_vec();
                let outcome = process(&mut frame, step.ifindex, &tables);
                let label = laws::label(outcome);
                assert!(label != "rewrite-failed", "{}, cut to {length}", case.title);
                match laws::parse(cut) {
                    Some(What::Whole(seen)) => assert!(seen.checksum_at() + 2 <= length),
                    Some(_) => {}
                    None => assert!(matches!(outcome, Outcome::Pass(_)), "{}, cut to {length}", case.title),
                }
                if matches!(outcome, Outcome::Pass(_)) {
                    assert_eq!(frame, cut, "{}, cut to {length}: {label}", case.title);
                }
            }
            laws.frame(&mut world, step.ifindex, &step.bytes);
        }
    }
}
