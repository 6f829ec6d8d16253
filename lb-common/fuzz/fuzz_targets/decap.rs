//! Frames that may come through a tunnel, once as the fuzzer makes them, once as it describes them: what comes out
//! must be what a slower reader takes out.

#![no_main]

use std::sync::LazyLock;

use lb_testkit::{
    dice::Dice,
    tunnel::{Rules, draw, law, some_rules},
};
use libfuzzer_sys::fuzz_target;

static RULES: LazyLock<Rules> = LazyLock::new(some_rules);

fuzz_target!(|data: &[u8]| {
    let _ = law(data, &RULES);
    let _ = law(&draw(&mut Dice::new(data)), &RULES);
});
