//! Frames that nobody should send: cut, contradicting themselves, with odd headers, as large as can be, or of
//! no sense at all. Both sides must agree on each, and the laws must hold: what is passed or dropped is
//! untouched, and what is sent on has whole headers.

use lb_common::{
    abi::{Mode, protocol},
    host::Outcome,
};
use lb_testkit::{damage, dice, dice::Dice, golden, inspect, inspect::Seen, world};
use lb_tests::{needs_kernel_program, packet::Draft};

use crate::{
    kernel::{LARGEST, place},
    pair::Pair,
};

/// Runs a hostile test on fresh tables; both sides must agree at its end, too.
fn against(attack: impl FnOnce(&mut Pair) + Send) {
    place(|| {
        let mut pair = Pair::new();
        attack(&mut pair);
        assert_eq!(reason(&pair, "rewrite-failed"), 0);
        pair.agree();
    });
}

fn reason(pair: &Pair, label: &str) -> u64 {
    let drop = lb_common::verdict::DropReason::ALL.iter().find(|reason| reason.label() == label);
    let pass = lb_common::verdict::PassReason::ALL.iter().find(|reason| reason.label() == label);
    let index = drop.map(|reason| reason.index()).or(pass.map(|reason| reason.index()));
    pair.kernel.reasons()[index.expect("a reason") as usize]
}

/// A frame of every mode, family and protocol, with where its headers are.
fn packets(pair: &Pair) -> Vec<(Vec<u8>, Seen)> {
    let mut packets = Vec::new();
    for mode in [Mode::Local, Mode::Dr, Mode::Ipip, Mode::Gue, Mode::Nat, Mode::Snat] {
        for four in [true, false] {
            for number in [protocol::TCP, protocol::UDP] {
                let service = pair
                    .world
                    .services
                    .iter()
                    .find(|s| (s.mode, s.protocol, s.at.is_ipv4()) == (mode, number, four));
                let Some(service) = service else { continue };
                let client = world::client(four, 7, 40_000);
                let draft = Draft::of(number, client, service.at).payload(&[7; 40]);
                let draft = if number == protocol::TCP { draft.flags(2) } else { draft };
                let bytes = draft.bytes();
                let seen = inspect::read(&bytes).expect("a packet");
                packets.push((bytes, seen));
            }
        }
    }
    assert_eq!(packets.len(), 22);
    packets
}

#[test]
fn every_golden_frame_cut_at_every_byte() {
    needs_kernel_program!();
    against(|pair| {
        for case in golden::cases() {
            for step in &case.steps {
                // The kernel's interface for test frames wants a whole Ethernet header.
                for length in 14..=step.bytes.len() {
                    pair.frame(step.ifindex, &step.bytes[..length]);
                }
            }
        }
        assert!(reason(pair, "malformed") > 5_000);
    });
}

#[test]
fn every_value_of_every_length_field() {
    needs_kernel_program!();
    against(|pair| {
        for (frame, seen) in packets(pair) {
            let mut attack = |change: &dyn Fn(&mut Vec<u8>)| {
                let mut frame = frame.clone();
                change(&mut frame);
                pair.frame(world::FRONT, &frame);
            };
            for nibble in 0..16 {
                attack(&|frame| damage::version(frame, &seen, nibble));
                attack(&|frame| damage::header_words(frame, &seen, nibble));
                if seen.protocol == protocol::TCP {
                    attack(&|frame| damage::data_offset(frame, &seen, nibble));
                }
            }
            for length in (0..200).chain([255, 256, 1_000, 0x7fff, 0x8000, 0xfffe, 0xffff]) {
                attack(&|frame| damage::length(frame, &seen, length));
                if seen.protocol == protocol::UDP {
                    attack(&|frame| damage::datagram_length(frame, &seen, length));
                }
            }
            for number in 0..=255 {
                attack(&|frame| damage::protocol(frame, &seen, number));
            }
        }
    });
}

#[test]
fn every_byte_of_the_headers_with_every_value() {
    needs_kernel_program!();
    against(|pair| {
        let packets = packets(pair);
        // One of translation over each family, with each protocol: 4 × about 60 × 256 frames; and tunnels with TCP.
        let wanted = |seen: &Seen| {
            let host = seen.dst.ip().to_string();
            host.ends_with("30") || host.ends_with("1e") || seen.protocol == 6 && host.ends_with(['2', '4'])
        };
        for (frame, seen) in packets.into_iter().filter(|(_, seen)| wanted(seen)) {
            for at in 12..seen.l4 + 14 {
                for value in 0..=255 {
                    let mut frame = frame.clone();
                    frame[at] = value;
                    pair.frame(world::FRONT, &frame);
                }
            }
        }
    });
}

#[test]
fn options_and_extension_headers_that_nobody_sends() {
    needs_kernel_program!();
    against(|pair| {
        let four = pair.world.service(Mode::Snat, protocol::TCP, true);
        let six = pair.world.service(Mode::Snat, protocol::TCP, false);
        // IPv4 options of every length and kind; that they are nonsense is for the server to say.
        for words in 0..=10 {
            for kind in 0..=255 {
                let draft =
                    Draft::syn(world::client(true, 8, 40_000), four.at).options(&vec![kind; words * 4]);
                assert_eq!(pair.label(world::FRONT, &draft.bytes()), "forward", "{words} words of {kind}");
            }
        }
        // Chains of up to ten extension headers of every kind, most of them impossible.
        let noise = dice::noise(3, 400_000);
        let mut dice = Dice::new(&noise);
        for _ in 0..4_000 {
            let mut draft = Draft::syn(world::client(false, 8, 40_000), six.at);
            for _ in 0..dice.below(11) {
                let kind = dice.pick(&[0, 43, 44, 51, 60, 60, 135]);
                let mut header = dice.bytes(33);
                header.resize(8 + header.len() / 8 * 8, 0);
                if dice.chance(200) {
                    // A length that is true, and no stops to come.
                    header[1] = (header.len() / 8 - 1) as u8;
                    header[2..4].fill(0);
                }
                draft = draft.extension(kind, &header);
            }
            pair.frame(world::FRONT, &draft.bytes());
        }
        assert!(reason(pair, "extension-headers") > 100 && reason(pair, "malformed") > 100);
    });
}

#[test]
fn frames_as_large_as_they_can_be() {
    needs_kernel_program!();
    against(|pair| {
        for (frame, seen) in packets(pair) {
            let head = frame.len() - 40;
            for size in [1_514, 1_518, 3_000, LARGEST - 1, LARGEST] {
                let client = world::client(seen.src.is_ipv4(), 7, 40_000);
                let draft = Draft::of(seen.protocol, client, seen.dst).payload(&vec![0xa5; size - head]);
                let draft = if seen.protocol == protocol::TCP { draft.flags(2) } else { draft };
                let bytes = draft.bytes();
                assert_eq!(bytes.len(), size);
                let (outcome, after) = pair.frame(world::FRONT, &bytes);
                assert!(!matches!(outcome, Outcome::Drop(_)), "{outcome:?} of {size} bytes");
                assert!((size..=size + 48).contains(&after.len()));
            }
        }
        // Extension headers up to the end: the transport header lies as far back as it can.
        let six = pair.world.service(Mode::Snat, protocol::TCP, false);
        for length in (8..=2_048).step_by(8) {
            let mut header = vec![0; length];
            header[1] = (length / 8 - 1) as u8;
            let draft = Draft::syn(world::client(false, 7, 40_001), six.at).extension(60, &header);
            assert_eq!(pair.label(world::FRONT, &draft.bytes()), "forward", "{length} bytes of options");
        }
    });
}

#[test]
fn jumbo_frames_are_handled_by_their_first_piece() {
    needs_kernel_program!();
    // A frame that is larger than a page comes in pieces, of which the program sees the first.
    against(|pair| {
        for (_, seen) in packets(pair) {
            let client = world::client(seen.src.is_ipv4(), 7, 40_000);
            let draft = Draft::of(seen.protocol, client, seen.dst).payload(&vec![0xa5; 8_900]);
            let draft = if seen.protocol == protocol::TCP { draft.flags(2) } else { draft };
            pair.frame(world::FRONT, &draft.bytes());
        }
        // Too large for a tunnel: cut to its first bytes, and sent back.
        for four in [true, false] {
            let small =
                pair.world.find(|s| s.mtu != 0 && s.at.is_ipv4() == four && s.protocol == protocol::TCP);
            let frame =
                Draft::ack(world::client(four, 7, 40_000), small.at).payload(&vec![0xa5; 8_900]).bytes();
            assert_eq!(pair.label(world::FRONT, &frame), "too-big-sent");
        }
    });
}

#[test]
fn noise() {
    needs_kernel_program!();
    against(|pair| {
        let noise = dice::noise(4, 800_000);
        let mut dice = Dice::new(&noise);
        let starts: [&[u8]; 4] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0, 1, 8, 0, 0x4f], &[]];
        for _ in 0..8_000 {
            let mut frame = [&[2; 12][..], dice.pick(&starts), &dice.bytes(96)].concat();
            frame.resize(frame.len().max(14), 0);
            pair.frame(world::FRONT, &frame);
        }
        // Of noise, nothing is for a VIP.
        assert_eq!(lb_testkit::entry::entries(&pair.world), []);
    });
}
