//! Frames, once as the fuzzer makes them, once as changes of a golden frame: what is parsed must be what a
//! slower reader finds.

#![no_main]

use std::sync::LazyLock;

use lb_testkit::{dice::Dice, laws, rewriting};
use libfuzzer_sys::fuzz_target;

static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(rewriting::golden_frames);

fuzz_target!(|data: &[u8]| {
    laws::parse(data);
    laws::parse(&rewriting::some_frame(&mut Dice::new(data), &FRAMES));
});
