//! Histories: packets of clients and servers, pieces, errors, damaged frames, and changes of the tables, as the fuzzer
//! chooses, over VIPs of every mode. The laws of `lb_testkit::laws` must hold at every step.

#![no_main]

use std::collections::HashMap;

use lb_common::host::HostTables;
use lb_testkit::{laws, world::World};
use libfuzzer_sys::fuzz_target;

thread_local! {
    /// Small rings and tables, and few ports for SNAT.
    static WORLD: World = {
        let mut world = World::with_tables(251, HostTables::new(32, 256));
        world.tables.settings.snat_count = 8;
        world
    };
}

fuzz_target!(|data: &[u8]| WORLD.with(|world| laws::hold(world.clone(), data, &mut HashMap::new())));
