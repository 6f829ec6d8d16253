//! The bytes shared by the kernel program and user space.
//!
//! | map | kind | key | value | written by | read by |
//! |---|---|---|---|---|---|
//! | `SETTINGS` | array of 1 | 0 | [`Settings`] | user | kernel |
//! | `VIPS4`, `VIPS6` | hash | [`VipKey`] | [`Vip`] | user | kernel |
//! | `RINGS` | array of arrays of 1 | VIP id | [`Ring`] | user | kernel |
//! | `SERVERS` | array | server index | [`Server`] | user | kernel |
//! | `INTERFACES` | hash | interface index | [`Mac`] | user | kernel |
//! | `FLOWS4`, `FLOWS6` | LRU hash | [`FlowKey`] | [`Flow`] | kernel (user deletes) | both |
//! | `VIP_COUNTERS` | per-CPU array | VIP id | [`Counters`] | kernel | user |
//! | `SERVER_COUNTERS` | per-CPU array | server index | [`Counters`] | kernel | user |
//! | `WORK4`, `WORK6` | per-CPU array of 1 | 0 | [`crate::pipeline::Work`] | kernel | kernel |
//! | `ROUTE` | per-CPU array of 1 | 0 | the kernel's `bpf_fib_lookup` | kernel | kernel |
//! | `REASONS` | per-CPU array | [`crate::verdict`] index | `u64` packets | kernel | user |
//!
//! Every structure has explicit padding and a size asserted below; a change of any of them is a change of
//! [`ABI_VERSION`]. Zero is a safe value everywhere: an empty settings record forwards nothing.

mod flow;
#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "declares plain data; each line says why it is")]
mod pod;
mod server;
mod settings;
mod vip;

pub use flow::{Flow, FlowKey, Half};
pub use server::{Mac, MacBytes, Ring, Server, ServerRef, server_flags};
pub use settings::{Counters, Settings, settings_flags};
pub use vip::{Mode, Vip, VipKey, vip_flags};

/// Version of everything in this module.
pub const ABI_VERSION: u32 = 1;

/// Slots of a VIP's ring: the prime of the Maglev paper (§5.3) that keeps shares within 1 % for hundreds
/// of servers.
pub const RING_SIZE: usize = 65_537;

/// VIP ids are below this number.
pub const MAX_VIPS: usize = 4_096;

/// Server indices are below this number; index 0 is never given out.
pub const MAX_SERVERS: usize = 65_536;

/// (address, port, protocol) entries per address family: what all port ranges of all VIPs add up to.
pub const MAX_VIP_PORTS: usize = 262_144;

/// Interfaces whose MAC address the kernel program knows.
pub const MAX_INTERFACES: usize = 64;

/// Default size of each flow table; every translated flow takes two entries.
pub const DEFAULT_FLOW_ENTRIES: usize = 524_288;

/// IP protocol numbers that a VIP may have.
pub mod protocol {
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
}

const _: () = {
    assert!(size_of::<VipKey<u32>>() == 8);
    assert!(size_of::<VipKey<[u32; 4]>>() == 20);
    assert!(size_of::<Vip>() == 4);
    assert!(size_of::<Server>() == 64);
    assert!(size_of::<FlowKey<u32>>() == 16);
    assert!(size_of::<FlowKey<[u32; 4]>>() == 40);
    assert!(size_of::<Flow<u32>>() == 32);
    assert!(size_of::<Flow<[u32; 4]>>() == 56);
    assert!(size_of::<Settings>() == 16);
    assert!(size_of::<Counters>() == 40);
    assert!(size_of::<Mac>() == 8);
};
