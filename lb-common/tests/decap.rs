//! The way out of a tunnel: what the code makes of frames, against a slower reader, RFCs and an operator's wishes.

use std::collections::HashMap;

use lb_common::decap::Outcome;
use lb_testkit::{
    dice::{Dice, noise},
    draft::Draft,
    tunnel::{Kind, Rules, Wrapping, draw, fix_sum, law, some_rules},
};
use proptest::prelude::*;

const KINDS: [Kind; 3] = [Kind::Ip, Kind::Gue(6080), Kind::Gue0(6080)];
/// Ends of an outer header: the balancer and the server.
const OUTER: [(&str, &str); 2] = [("10.20.0.1", "10.20.0.101"), ("fd00:20::1", "fd00:20::65")];
/// Ends of an inner packet: a client and the VIP.
const INNER: [(&str, &str); 2] =
    [("192.0.2.7:40000", "10.10.0.200:80"), ("[2001:db8::7]:40000", "[fd00:10::c8]:80")];

fn wrapping(outer: (&str, &str), kind: Kind) -> Wrapping {
    Wrapping::new(outer.0.parse().expect("an address"), outer.1.parse().expect("an address"), kind)
}

fn inner(ends: (&str, &str)) -> Draft {
    Draft::syn(ends.0.parse().expect("an end"), ends.1.parse().expect("an end")).payload(b"hello")
}

/// Every mix of families and kinds of tunnel: the wrapping, the inner packet, where the outer header begins.
fn every_mix(mut test: impl FnMut(Wrapping, Draft)) {
    for outer in OUTER {
        for ends in INNER {
            for kind in KINDS {
                test(wrapping(outer, kind), inner(ends));
            }
        }
    }
}

#[test]
fn the_inner_frame_comes_out_as_it_was_put_in_under_up_to_two_tags() {
    every_mix(|wrapping, draft| {
        for draft in [draft.clone(), draft.clone().tag(0x8100, 7), draft.tag(0x88a8, 7).tag(0x8100, 0x6008)] {
            let frame = draft.bytes();
            assert_eq!(law(&wrapping.wrap(&frame), &some_rules()), (Outcome::Decapsulated, frame));
        }
    });
}

#[test]
fn what_is_behind_the_packet_stays_behind_it() {
    every_mix(|wrapping, draft| {
        let mut frame = wrapping.wrap(&draft.bytes());
        frame.extend([0; 9]);
        let (outcome, after) = law(&frame, &some_rules());
        assert_eq!((outcome, after), (Outcome::Decapsulated, draft.trailer(9).bytes()));
    });
}

#[test]
fn only_tunnels_that_end_here_from_those_who_may_to_where_they_may() {
    let mut rules = some_rules();
    every_mix(|wrapping, draft| {
        let frame = wrapping.wrap(&draft.bytes());
        for (list, outcome) in
            [(0, Outcome::NotAtUs), (1, Outcome::SourceRefused), (2, Outcome::InnerRefused)]
        {
            let kept = rules.clone();
            *[&mut rules.at, &mut rules.from, &mut rules.to][list] = Vec::new();
            assert_eq!(law(&frame, &rules), (outcome, frame.clone()));
            rules = kept;
        }
    });
}

#[test]
fn no_rules_no_tunnels() {
    every_mix(|wrapping, draft| {
        let frame = wrapping.wrap(&draft.bytes());
        let (outcome, _) = law(&frame, &Rules::default());
        // Without a port, nothing is known to be GUE.
        let plain = wrapping.kind == Kind::Ip;
        assert_eq!(outcome, if plain { Outcome::NotAtUs } else { Outcome::NotTunnel });
    });
}

#[test]
fn a_mapped_address_is_no_ipv4_address() {
    let mut rules = some_rules();
    rules.at.push(("::ffff:10.20.0.101".parse().expect("an address"), 128));
    rules.to = vec![("::ffff:10.10.0.200".parse().expect("an address"), 128)];
    let frame = wrapping(OUTER[0], Kind::Ip).wrap(&inner(INNER[0]).bytes());
    assert_eq!(law(&frame, &rules).0, Outcome::InnerRefused);
}

#[test]
fn congestion_in_the_tunnel_is_told_to_the_inner_packet() {
    // RFC 6040, figure 4: inner mark, outer mark, result.
    let told = [(2, 1, 1), (2, 3, 3), (1, 3, 3), (1, 2, 1), (3, 0, 3), (0, 2, 0)];
    every_mix(|mut wrapping, draft| {
        let with_mark = |mark: u8| {
            let mut frame = draft.bytes();
            let four = frame[14] >> 4 == 4;
            frame[15] |= if four { mark } else { mark << 4 };
            if four {
                fix_sum(&mut frame[14..34]);
            }
            frame
        };
        for (before, outer, after) in told {
            wrapping.ecn = outer;
            let result = law(&wrapping.wrap(&with_mark(before)), &some_rules());
            assert_eq!(result, (Outcome::Decapsulated, with_mark(after)), "{before} {outer}");
        }
        wrapping.ecn = 3;
        let frame = wrapping.wrap(&with_mark(0));
        assert_eq!(law(&frame, &some_rules()), (Outcome::Congested, frame));
        assert!(Outcome::Congested.is_drop());
    });
}

#[test]
fn nothing_from_a_tunnel_looks_like_a_neighbours() {
    every_mix(|wrapping, draft| {
        for (before, after) in [(255, 254), (254, 254), (1, 1), (0, 0)] {
            let frame = wrapping.wrap(&draft.clone().ttl(before).bytes());
            let expected = draft.clone().ttl(after).bytes();
            assert_eq!(law(&frame, &some_rules()), (Outcome::Decapsulated, expected));
        }
    });
}

#[test]
fn fragments_options_and_other_gue_are_left_alone() {
    let rules = some_rules();
    let outcome = |kind, outer: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = wrapping(OUTER[outer], kind).wrap(&inner(INNER[0]).bytes());
        change(&mut frame);
        if outer == 0 && frame[14] == 0x45 {
            fix_sum(&mut frame[14..34]);
        }
        let (outcome, after) = law(&frame, &rules);
        assert_eq!(after, frame, "what is left alone is left as it was");
        outcome
    };
    // Outer fragments: the first, the last; IPv6's have a header of their own.
    for kind in KINDS {
        assert_eq!(outcome(kind, 0, &|frame| frame[20] = 0x20), Outcome::Fragment);
        assert_eq!(outcome(kind, 0, &|frame| frame[21] = 1), Outcome::Fragment);
        assert_eq!(
            outcome(kind, 1, &|frame| {
                let next = frame[20];
                frame[20] = 44;
                frame.splice(54..54, [next, 0, 0, 1, 0, 0, 0, 9]);
            }),
            Outcome::Fragment
        );
        assert_eq!(outcome(kind, 0, &|frame| frame[14] = 0x46), Outcome::Unsupported);
        // Not a word of it is true any more.
        assert_eq!(outcome(kind, 0, &|frame| frame[14] = 0x35), Outcome::Malformed);
    }
    // GUE: a control message, optional fields, flags, another payload, variants 2 and 3; then no IP version.
    let gue = 14 + 20 + 8;
    for (at, value) in [(0, 0x20), (0, 1), (2, 1), (3, 1), (1, 17), (0, 0x80), (0, 0xc0)] {
        let outcome = outcome(Kind::Gue0(6080), 0, &|frame| frame[gue + at] = value);
        assert_eq!(outcome, Outcome::Unsupported, "byte {at} = {value:02x}");
    }
    for nibble in [0x50, 0x70] {
        assert_eq!(outcome(Kind::Gue(6080), 0, &|frame| frame[gue] = nibble), Outcome::Malformed);
    }
    // Other traffic: another port, another protocol, another EtherType, a group address.
    assert_eq!(outcome(Kind::Gue(6081), 0, &|_| ()), Outcome::NotTunnel);
    assert_eq!(outcome(Kind::Ip, 0, &|frame| frame[23] = 47), Outcome::NotTunnel);
    assert_eq!(outcome(Kind::Ip, 0, &|frame| frame[13] = 6), Outcome::NotTunnel);
    assert_eq!(outcome(Kind::Ip, 0, &|frame| frame[0] |= 1), Outcome::NotTunnel);
}

#[test]
fn lengths_that_contradict_each_other() {
    every_mix(|wrapping, draft| {
        let frame = wrapping.wrap(&draft.bytes());
        let six = frame[12] == 0x86;
        let inner = frame.len() - (draft.bytes().len() - 14);
        let four_inside = frame[inner] >> 4 == 4;
        // The inner packet one byte longer than its room; shorter is fine, down to its header.
        let at = inner + if four_inside { 2 } else { 4 };
        for (by, outcome) in
            [(1_i32, Outcome::Malformed), (0, Outcome::Decapsulated), (-1, Outcome::Decapsulated)]
        {
            let mut frame = frame.clone();
            let length = i32::from(u16::from_be_bytes([frame[at], frame[at + 1]])) + by;
            frame[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
            assert_eq!(law(&frame, &some_rules()).0, outcome, "{by}");
        }
        // The datagram longer than the outer packet, or too short for anything.
        if wrapping.kind != Kind::Ip {
            let at = 14 + if six { 40 } else { 20 } + 4;
            for length in [0, 7, 11, 0xffff] {
                let mut frame = frame.clone();
                frame[at..at + 2].copy_from_slice(&u16::to_be_bytes(length));
                assert_eq!(law(&frame, &some_rules()).0, Outcome::Malformed, "{length}");
            }
        }
        // Cut anywhere in its headers.
        for length in 14..inner + if four_inside { 20 } else { 40 } {
            assert_eq!(law(&frame[..length], &some_rules()).0, Outcome::Malformed, "{length} bytes");
        }
    });
}

#[test]
fn every_value_of_every_byte_of_the_headers() {
    every_mix(|wrapping, draft| {
        let frame = wrapping.wrap(&draft.tag(0x8100, 5).bytes());
        for at in 12..frame.len().min(18 + 40 + 12 + 40) {
            for value in 0..=255 {
                let mut frame = frame.clone();
                frame[at] = value;
                let _ = law(&frame, &some_rules());
            }
        }
    });
}

#[test]
fn drawn_frames_meet_every_outcome() {
    let mut met: HashMap<Outcome, u32> = HashMap::new();
    let noise = noise(5, 4_000_000);
    let mut dice = Dice::new(&noise);
    while !dice.is_empty() {
        *met.entry(law(&draw(&mut dice), &some_rules()).0).or_default() += 1;
    }
    for outcome in Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::ResizeFailed) {
        assert!(met.get(&outcome).is_some_and(|count| *count > 50), "{outcome:?} of {met:?}");
    }
    assert_eq!(met.get(&Outcome::ResizeFailed), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = law(&bytes, &some_rules());
    }

    #[test]
    fn any_choices(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut dice = Dice::new(&bytes);
        let _ = law(&draw(&mut dice), &some_rules());
    }
}
