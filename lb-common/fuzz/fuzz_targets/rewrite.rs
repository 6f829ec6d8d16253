//! Everything that can be done to the bytes of a frame, to golden frames with some changes and to any bytes, with any
//! addresses, ports and tunnels.

#![no_main]

use std::sync::LazyLock;

use lb_testkit::rewriting;
use libfuzzer_sys::fuzz_target;

static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(rewriting::golden_frames);

fuzz_target!(|data: &[u8]| rewriting::hold(data, &FRAMES));
