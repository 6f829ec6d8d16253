//! Histories: packets of clients and servers, damaged ones, and changes of the tables, as the fuzzer chooses,
//! over VIPs of every mode. The laws of `lb_testkit::laws` must hold at every step.

#![no_main]

use std::{collections::HashMap, sync::LazyLock};

use lb_testkit::{laws, world::World};
use libfuzzer_sys::fuzz_target;

/// Small rings, and few ports for SNAT.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut world = World::new(251);
    world.tables.settings.snat_count = 8;
    world
});

fuzz_target!(|data: &[u8]| laws::hold(WORLD.clone(), data, &mut HashMap::new()));
