//! What holds for any bytes, any order of packets and any change of the tables: the laws of
//! `lb_testkit::laws`, with choices made by proptest and, for longer histories, from seeds.

use std::{collections::HashMap, sync::LazyLock};

use lb_common::host::{HostTables, process};
use lb_testkit::{dice, laws, rewriting, world::World};
use proptest::prelude::*;

static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(rewriting::golden_frames);

/// Rings here are small: what depends on their size is tested elsewhere.
fn world() -> World {
    World::new(251)
}

proptest! {
    #[test]
    fn any_bytes_are_understood_or_left_alone(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        laws::parse(&bytes);
        let mut frame = bytes.clone();
        process(&mut frame, 1, &world().tables);
    }

    #[test]
    fn bytes_behind_an_ip_ethertype_are_understood_or_left_alone(
        six in any::<bool>(),
        tag in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let version = if six { [0x86, 0xdd, 0x60] } else { [0x08, 0x00, 0x45] };
        let tag: &[u8] = if tag { &[0x81, 0, 0, 7] } else { &[] };
        laws::parse(&[&[2; 12], tag, &version, &bytes].concat());
    }

    #[test]
    fn whatever_is_done_to_the_bytes_of_a_frame_is_what_was_wanted(
        choices in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        rewriting::hold(&choices, &FRAMES);
    }

    #[test]
    fn the_laws_hold_in_any_short_history(choices in proptest::collection::vec(any::<u8>(), 0..400)) {
        laws::hold(world(), &choices, &mut HashMap::new());
    }
}

#[test]
fn the_laws_hold_in_long_histories() {
    let mut tally = HashMap::new();
    for seed in 0..30 {
        let mut world = match seed % 3 {
            // Every third time the tables are so small that flows and tags get into each other's way.
            2 => World::with_tables(251, HostTables::new(16, 128)),
            _ => world(),
        };
        // Every other time ports are so few that they run out.
        world.tables.settings.snat_count -= 17 * (seed % 2) as u16;
        // And at times there are more SYNs than are noted.
        world.tables.settings.syn_limit = if seed % 5 == 4 { 20 } else { 0 };
        laws::hold(world, &dice::noise(seed, 100_000), &mut tally);
    }
    // A law about what never happens would be easy to hold.
    let expected = [
        ("forward", 25_000),
        ("not-vip", 2_000),
        ("not-ip", 1_000),
        ("not-tcp-udp", 500),
        ("group-addressed", 100),
        ("other-host", 50),
        ("fragment", 500),
        ("malformed", 1_000),
        ("extension-headers", 100),
        ("local-vip", 500),
        ("no-flow", 1_000),
        ("empty-pool", 200),
        ("no-server", 300),
        ("ports-exhausted", 50),
        ("ttl-exceeded", 300),
        ("new-flow-limit", 50),
        ("halted", 5),
        ("echo-answered", 1_000),
        ("too-big-sent", 30),
        ("reset-sent", 200),
        ("unreachable-sent", 200),
        ("syn-flood", 50),
        ("flow-evicted", 30),
        ("tag-evicted", 50),
        ("tag-hit", 100),
        ("tag-miss", 500),
    ];
    for (label, least) in expected {
        let found = tally.get(label).copied().unwrap_or(0);
        assert!(found >= least, "{label}: {found} frames, of {tally:?}");
    }
}
