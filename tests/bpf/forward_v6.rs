//! What clients and servers send over IPv6, and what becomes of it, byte by byte.

use lb_tests::needs_kernel_program;

use crate::{forward, kernel::place};

#[test]
fn every_golden_frame_leaves_as_written() {
    needs_kernel_program!();
    place(|| forward::golden_frames("IPv6", 120));
}

#[test]
fn packets_leave_by_the_interface_that_leads_on() {
    needs_kernel_program!();
    place(|| forward::interfaces(false));
}

#[test]
fn traffic_is_counted_for_the_server() {
    needs_kernel_program!();
    place(|| forward::counters(false));
}
