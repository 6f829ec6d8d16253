//! Long histories of packets, answers, damage and changing tables, the same for the kernel and the host.

use lb_common::host::Outcome;
use lb_testkit::{
    dice::{self, Dice},
    traffic::{Step, Traffic},
    world::World,
};
use lb_tests::needs_kernel_program;

use crate::{kernel::place, pair::Pair};

/// Frames of each history.
const FRAMES: usize = 13_000;

fn history(world: World, seed: u64) {
    let mut pair = Pair::with(world);
    let (mut traffic, mut frames, mut forwarded) = (Traffic::default(), 0, 0);
    let noise = dice::noise(seed, FRAMES * 64);
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
            }
        }
    }
    pair.agree();
    let (flows4, flows6) = pair.flows();
    assert!(forwarded > FRAMES / 4, "{forwarded} frames were sent on");
    assert!(flows4 > 200 && flows6 > 200, "{flows4} and {flows6} entries");
    let kinds = pair.kernel.reasons().iter().filter(|packets| **packets > 0).count();
    assert!(kinds >= 12, "only {kinds} of the reasons to pass or drop came up");
}

#[test]
fn the_kernel_does_what_the_host_does() {
    needs_kernel_program!();
    place(|| history(World::new(lb_common::abi::RING_SIZE), 1));
}

#[test]
fn the_kernel_does_what_the_host_does_when_ports_are_scarce() {
    needs_kernel_program!();
    place(|| {
        let mut world = World::new(lb_common::abi::RING_SIZE);
        world.tables.settings.snat_count = 6;
        history(world, 2);
    });
}

#[test]
fn the_kernel_does_what_the_host_does_when_ports_abound() {
    needs_kernel_program!();
    place(|| {
        let mut world = World::new(lb_common::abi::RING_SIZE);
        (world.tables.settings.snat_first, world.tables.settings.snat_count) = (1_024, 31_744);
        history(world, 3);
    });
}
