//! Long histories of packets, answers, errors, pieces, damage and changing tables, the same for the kernel and the
//! host: 100,000 frames and more, from seeds.

use lb_common::{
    abi::RING_SIZE,
    host::{HostTables, Outcome},
    verdict::Event,
};
use lb_testkit::{
    dice::{self, Dice},
    traffic::{Step, Traffic},
    world::World,
};
use lb_tests::needs_kernel_program;

use crate::{
    kernel::{Kernel, place},
    pair::Pair,
};

/// Frames of each history.
const FRAMES: usize = 26_000;

/// Frames between looks at all of the tables.
const LOOK: usize = 500;

/// What histories have come to, by the place of the counter.
type Reasons = Vec<u64>;

fn history(pair: Pair, seed: u64) -> Reasons {
    history_with(pair, seed, |_, _| {})
}

/// The same; now and then `meddle` may change something, by how often it could before.
fn history_with(mut pair: Pair, seed: u64, meddle: impl Fn(&mut Pair, usize)) -> Reasons {
    let (mut traffic, mut frames, mut forwarded) = (Traffic::default(), 0, 0);
    let noise = dice::noise(seed, FRAMES * 80);
    let mut dice = Dice::new(&noise);
    while frames < FRAMES {
        assert!(!dice.is_empty(), "too few choices for {FRAMES} frames");
        match traffic.next(&mut dice, &pair.world) {
            Step::Change(change) => pair.change(change),
            // The kernel's interface for test frames wants a whole Ethernet header.
            Step::Frame { bytes, .. } if bytes.len() < 14 => {}
            Step::Frame { ifindex, bytes } => {
                let (outcome, after) = pair.frame(ifindex, &bytes);
                if let Outcome::Forward { ifindex, .. } = outcome {
                    traffic.sent(&after, ifindex);
                    forwarded += 1;
                }
                frames += 1;
                if frames % LOOK == 0 {
                    pair.agree_on_tables();
                    meddle(&mut pair, frames / LOOK);
                }
            }
        }
    }
    pair.agree();
    assert!(forwarded > FRAMES / 5, "{forwarded} frames were sent on");
    let begun: u64 =
        pair.world.tables.servers.keys().map(|&index| pair.kernel.server_counters(index).connections).sum();
    assert!(begun > 1_000, "{begun} new flows");
    pair.kernel.reasons()
}

fn world() -> World {
    World::new(RING_SIZE)
}

/// How often something happened.
fn happened(reasons: &Reasons, event: Event) -> u64 {
    reasons[event.index() as usize]
}

#[test]
fn the_kernel_does_what_the_host_does() {
    needs_kernel_program!();
    place(|| {
        let reasons = history(Pair::with(world()), 1);
        let kinds = reasons.iter().filter(|packets| **packets > 0).count();
        assert!(kinds >= 22, "only {kinds} of the reasons and events came up: {reasons:?}");
        assert!(
            happened(&reasons, Event::TagHit) > 50 && happened(&reasons, Event::TagMiss) > 500,
            "{reasons:?}"
        );
    });
}

#[test]
fn the_kernel_does_what_the_host_does_when_ports_are_scarce() {
    needs_kernel_program!();
    place(|| {
        let mut world = world();
        world.tables.settings.snat_count = 3;
        history(Pair::with(world), 2);
    });
}

#[test]
fn the_kernel_does_what_the_host_does_when_ports_abound() {
    needs_kernel_program!();
    place(|| {
        let mut world = world();
        (world.tables.settings.snat_first, world.tables.settings.snat_count) = (1_024, 31_744);
        history(Pair::with(world), 3);
    });
}

#[test]
fn the_kernel_does_what_the_host_does_when_tables_are_full_and_syns_flood() {
    needs_kernel_program!();
    place(|| {
        let world = World::with_tables(RING_SIZE, HostTables::new(16, 64));
        // What is known of a flood, each CPU knows for itself.
        lb_tests::packet::stay_on_this_cpu();
        // The limit is one of SYNs in a tick, and how many there are depends on the machine. So by turns there is none,
        // and one that any machine passes.
        let reasons = history_with(Pair::with(world), 4, |pair, times| {
            pair.world.tables.settings.syn_limit = if times % 2 == 0 { 0 } else { 1 };
            pair.publish_settings();
        });
        for event in [Event::TagEvicted, Event::FlowEvicted, Event::SynFlood] {
            assert!(happened(&reasons, event) > 20, "{event:?}: {reasons:?}");
        }
    });
}

#[test]
fn so_do_the_programs_for_older_kernels() {
    needs_kernel_program!();
    place(|| {
        let world = world();
        history(Pair::of(Kernel::load_some(&world.tables, false), world), 5);
    });
}
