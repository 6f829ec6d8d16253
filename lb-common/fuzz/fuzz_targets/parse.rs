//! Frames, once as the fuzzer makes them, once as changes of a golden frame: what is parsed must be what a
//! slower reader finds.

#![no_main]

use std::sync::LazyLock;

use lb_testkit::{dice::Dice, golden, laws};
use libfuzzer_sys::fuzz_target;

static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    golden::cases().into_iter().flat_map(|case| case.steps).map(|step| step.bytes).collect()
});

fuzz_target!(|data: &[u8]| {
    laws::parse(data);

    let mut dice = Dice::new(data);
    let mut frame = FRAMES[dice.below(FRAMES.len())].clone();
    while !dice.is_empty() {
        // Headers are at the beginning, so that is where most changes go.
        let at = dice.below(96);
        match dice.byte() {
            0 => frame.truncate(at),
            change => frame.get_mut(at).into_iter().for_each(|byte| *byte ^= change),
        }
    }
    laws::parse(&frame);
});
