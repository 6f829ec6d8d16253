//! Connection IDs of QUIC: those that servers write come back, any other octets are read as a slower reader
//! reads them, and no entry of the map makes the reader panic.

#![no_main]

use lb_testkit::quic;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| quic::hold(data));
