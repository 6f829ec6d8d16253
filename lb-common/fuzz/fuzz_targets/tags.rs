//! Histories of VIPs that do not translate, with few flow tags and more SYNs than are noted: rings that move under flows,
//! and tags that give way to each other. The laws of `lb_testkit::laws` must hold at every step.

#![no_main]

use std::collections::HashMap;

use lb_common::{abi::Mode, host::HostTables};
use lb_testkit::{laws, world::World};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static WORLD: World = {
        let tables = HostTables::new(16, 32);
        let mut world = World::with_some(61, tables, |service| {
            matches!(service.mode, Mode::Dr | Mode::Ipip | Mode::Gue)
        });
        world.tables.settings.syn_limit = 5;
        world
    };
}

fuzz_target!(|data: &[u8]| WORLD.with(|world| laws::hold(world.clone(), data, &mut HashMap::new())));
