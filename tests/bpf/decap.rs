//! The program of `lb-user decap`, frame by frame, beside the same code on the host and, through
//! `lb_testkit::tunnel::law`, beside a slower reader. What they say, what they make of the frame and what is counted
//! must be the same.

use std::{collections::HashMap, io::Write as _};

use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, LpmTrie, MapData, PerCpuArray, lpm_trie::Key},
    programs::{ProgramInfo, Xdp},
};
use lb_common::decap::Outcome;
use lb_testkit::{
    dice::{Dice, noise},
    golden,
    tunnel::{Kind, Rules, Wrapping, draw, law, some_rules},
};
use lb_tests::{
    needs_kernel_program,
    packet::{self, Draft},
    stack,
};
use lb_user::datapath::decap::{OBJECT, PROGRAM, PROGRAM_FRAGS};

use crate::kernel::{LARGEST, place};

/// The kernel gives up at a million; older ones see less, and take more steps.
const MOST_VERIFIED: u32 = 20_000;

/// Frames of the comparison.
const FRAMES: usize = 100_000;

/// The program in the kernel and the code on the host, with the same rules.
struct Pair {
    name: &'static str,
    ebpf: Ebpf,
    rules: Rules,
    outcomes: PerCpuArray<MapData, u64>,
    /// What the host counted.
    counted: HashMap<Outcome, u64>,
}

impl Pair {
    fn new(name: &'static str, rules: Rules) -> Self {
        let mut ebpf = EbpfLoader::new().load(OBJECT).expect("the object is one that aya understands");
        let xdp: &mut Xdp = ebpf.program_mut(name).expect("the program").try_into().expect("an XDP program");
        xdp.load().expect("the verifier accepts the program");
        let mut port: Array<_, u32> =
            ebpf.take_map("GUE_PORT").expect("its map").try_into().expect("an array");
        port.set(0, u32::from(rules.gue_port), 0).expect("a port");
        let mut trie: LpmTrie<_, [u32; 5], u32> =
            ebpf.take_map("RULES").expect("its map").try_into().expect("a trie");
        for rule in rules.encoded() {
            trie.insert(&Key::new(rule.bits, rule.key), 1, 0).expect("room for a rule");
        }
        let outcomes = ebpf.take_map("OUTCOMES").expect("its map").try_into().expect("counters");
        // A map lives as long as the program that uses it.
        Self { name, ebpf, rules, outcomes, counted: HashMap::new() }
    }

    /// Sends a frame through both; gives what became of it, and its bytes.
    #[track_caller]
    fn frame(&mut self, frame: &[u8]) -> (Outcome, Vec<u8>) {
        let (outcome, expected) = law(frame, &self.rules);
        *self.counted.entry(outcome).or_default() += 1;
        let mut after = vec![0; frame.len() + 64];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut after), ..TestRunOptions::new() };
        let program = self.ebpf.program(self.name).expect("it was loaded");
        let xdp: &Xdp = program.try_into().expect("it is an XDP program");
        let result = xdp.test_run(options).expect("a frame that the kernel runs");
        after.truncate(result.data_size_out as usize);
        // XDP_DROP and XDP_PASS.
        let action = if outcome.is_drop() { 1 } else { 2 };
        if (result.return_value, &after) != (action, &expected) {
            let file = packet::save("decap", &[frame]);
            panic!(
                "kernel: action {} {after:02x?}\nhost: {outcome:?} {expected:02x?}\nof {}",
                result.return_value,
                file.display()
            );
        }
        (outcome, after)
    }

    /// Both have counted the same.
    #[track_caller]
    fn agree(&self) {
        for outcome in Outcome::ALL {
            let kernel: u64 = self.outcomes.get(&(outcome as u32), 0).expect("a counter").iter().sum();
            assert_eq!(kernel, self.counted.get(&outcome).copied().unwrap_or_default(), "{outcome:?}");
        }
    }
}

/// Runs a test with those rules; both must have counted the same at its end.
fn with(rules: Rules, test: impl FnOnce(&mut Pair) + Send) {
    place(|| {
        let mut pair = Pair::new(PROGRAM, rules);
        test(&mut pair);
        pair.agree();
    });
}

/// Every mix of families, every kind of tunnel, up to two tags: the wrapped frame and the one inside.
fn every_mix() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut frames = Vec::new();
    for outer in [("10.20.0.1", "10.20.0.101"), ("fd00:20::1", "fd00:20::65")] {
        for inner in [("192.0.2.7:4000", "10.10.0.200:80"), ("[2001:db8::7]:4000", "[fd00:10::c8]:80")] {
            for kind in [Kind::Ip, Kind::Gue(6080), Kind::Gue0(6080)] {
                for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                    let ends = [inner.0, inner.1].map(|end| end.parse().expect("an address and a port"));
                    let draft = Draft::syn(ends[0], ends[1]).payload(b"through the tunnel");
                    let draft = tags.iter().fold(draft, |draft, tag| draft.tag(*tag, 0x2007));
                    let ends = [outer.0, outer.1].map(|end| end.parse().expect("an address"));
                    let inside = draft.bytes();
                    frames.push((Wrapping::new(ends[0], ends[1], kind).wrap(&inside), inside));
                }
            }
        }
    }
    frames
}

#[test]
fn every_mix_of_families_kinds_and_tags_comes_out() {
    needs_kernel_program!();
    with(some_rules(), |pair| {
        for (frame, inside) in every_mix() {
            assert_eq!(pair.frame(&frame), (Outcome::Decapsulated, inside));
        }
        assert_eq!(pair.counted[&Outcome::Decapsulated], 36);
    });
}

#[test]
fn marks_and_hop_limits_change_on_the_way_out() {
    needs_kernel_program!();
    with(some_rules(), |pair| {
        for (mut frame, inside) in every_mix() {
            let inner = frame.len() - inside.len() + l3(&inside);
            let hops = inner + if inside[l3(&inside)] >> 4 == 4 { 8 } else { 7 };
            frame[hops] = 255;
            let (outcome, after) = pair.frame(&frame);
            assert_eq!((outcome, after[hops + after.len() - frame.len()]), (Outcome::Decapsulated, 254));
            // The outer header says that there was congestion; the inner packet does not take notice of it.
            let mark = l3(&frame) + 1;
            frame[mark] |= if frame[mark - 1] >> 4 == 4 { 3 } else { 0x30 };
            let at = l3(&frame);
            if frame[at] >> 4 == 4 {
                lb_testkit::tunnel::fix_sum(&mut frame[at..at + 20]);
            }
            assert_eq!(pair.frame(&frame).0, Outcome::Congested);
        }
    });
}

/// Where the network header begins in a frame of [`every_mix`].
fn l3(frame: &[u8]) -> usize {
    match (frame[12], frame[16]) {
        (0x81, _) => 18,
        (0x88, _) => 22,
        _ => 14,
    }
}

#[test]
fn a_program_without_rules_leaves_everything_alone() {
    needs_kernel_program!();
    with(Rules::default(), |pair| {
        for (frame, _) in every_mix() {
            assert_eq!(pair.frame(&frame).1, frame);
        }
        assert_eq!(pair.counted.get(&Outcome::Decapsulated), None);
    });
}

#[test]
fn frames_of_no_tunnel_are_left_alone() {
    needs_kernel_program!();
    with(some_rules(), |pair| {
        for step in golden::cases().into_iter().flat_map(|case| case.steps) {
            if step.bytes.len() >= 14 {
                assert_eq!(pair.frame(&step.bytes).1, step.bytes);
            }
        }
        assert!(pair.counted[&Outcome::NotTunnel] > 50, "{:?}", pair.counted);
    });
}

#[test]
fn hostile_frames() {
    needs_kernel_program!();
    with(some_rules(), |pair| {
        for (frame, inside) in every_mix() {
            for length in 14..frame.len() {
                pair.frame(&frame[..length]);
            }
            let headers = frame.len() - inside.len() + l3(&inside) + 40;
            for at in 12..headers.min(frame.len()) {
                for value in [0, 1, 4, 5, 6, 17, 41, 44, 0x20, 0x40, 0x45, 0x46, 0x60, 0x7f, 0x80, 0xff] {
                    let mut frame = frame.clone();
                    frame[at] = value;
                    pair.frame(&frame);
                }
            }
        }
        // As large as can be without fragments.
        for (frame, inside) in every_mix() {
            let mut large = frame.clone();
            large.resize(LARGEST, 0xa5);
            let (outcome, after) = pair.frame(&large);
            assert_eq!((outcome, after.len()), (Outcome::Decapsulated, LARGEST - frame.len() + inside.len()));
        }
    });
}

#[test]
fn the_kernel_does_what_the_host_does_over_drawn_frames() {
    needs_kernel_program!();
    with(some_rules(), |pair| {
        let noise = noise(7, FRAMES * 48);
        let mut dice = Dice::new(&noise);
        for _ in 0..FRAMES {
            assert!(!dice.is_empty(), "too few choices for {FRAMES} frames");
            let frame = draw(&mut dice);
            if frame.len() >= 14 {
                pair.frame(&frame);
            }
        }
        assert_eq!(pair.counted.len(), Outcome::ALL.len() - 1, "{:?}", pair.counted);
        assert!(pair.counted[&Outcome::Decapsulated] > 10_000, "{:?}", pair.counted);
    });
}

#[test]
fn frames_in_several_pieces_come_out_as_well() {
    needs_kernel_program!();
    place(|| {
        let mut pair = Pair::new(PROGRAM_FRAGS, some_rules());
        for (mut frame, inside) in every_mix() {
            let whole = frame.len() - inside.len();
            frame.resize(9_000, 0xa5);
            let (outcome, after) = pair.frame(&frame);
            assert_eq!((outcome, after.len()), (Outcome::Decapsulated, 9_000 - whole));
        }
        pair.agree();
    });
}

#[test]
fn the_verifier_accepts_it_with_room_to_spare() {
    needs_kernel_program!();
    let stacks = stack::of_programs(OBJECT).expect("an object whose calls can be followed");
    for name in [PROGRAM, PROGRAM_FRAGS] {
        let pair = Pair::new(name, Rules::default());
        let program: &Xdp = pair.ebpf.program(name).expect("it").try_into().expect("an XDP program");
        let info: ProgramInfo = program.info().expect("what the kernel knows of it");
        let verified = info.verified_instruction_count().expect("counted since Linux 5.16");
        let stack = stacks[name];
        let _ =
            writeln!(std::io::stderr(), "{name}: {verified} instructions verified, {stack} bytes of stack");
        assert!(
            verified < MOST_VERIFIED && stack <= stack::LIMIT,
            "{name}: {verified}, {stack} bytes of stack"
        );
    }
}
