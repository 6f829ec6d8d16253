//! From a verdict to an XDP action.

use aya_ebpf::{bindings::xdp_action, helpers::bpf_redirect};
use lb_common::verdict::Hop;

/// Sends the frame back by the interface it came in, or out by another.
#[inline(always)]
pub(crate) fn send(hop: &Hop, ingress: u32) -> u32 {
    if hop.ifindex == ingress {
        xdp_action::XDP_TX
    } else {
        // SAFETY: the helper checks the index; without such an interface the frame is dropped and traced.
        unsafe { bpf_redirect(hop.ifindex, 0) as u32 }
    }
}
