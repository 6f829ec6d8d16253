//! The bytes shared by the kernel program and user space.
//!
//! | map | kind | key | value | written by | read by |
//! |---|---|---|---|---|---|
//! | `SETTINGS` | array of 1 | 0 | [`Settings`] | user | kernel |
//! | `VIPS4`, `VIPS6` | hash | [`VipKey`] | [`Vip`] | user | kernel |
//! | `RINGS` | array of arrays of 1 | VIP id | [`Ring`] of [`Slot`]s | user | kernel |
//! | `SERVERS` | array | server index | [`Server`] | user | kernel |
//! | `INTERFACES` | array | [`Settings::place_of_interface`] | [`Interface`] | user | kernel |
//! | `CLAIMS4`, `CLAIMS6` | array, mapped | line | [`Line`] of [`Claim`]s | both | both |
//! | `FLOWS4`, `FLOWS6` | array, mapped | record | [`Flow`] | kernel | both |
//! | `REPLIES4`, `REPLIES6` | array, mapped | line | [`Line`] of [`Reply`]s | both | both |
//! | `FLOW_TAGS` | array, mapped | line | [`Line`] of [`FlowTag`]s | both | both |
//! | `FRAGMENTS4`, `FRAGMENTS6` | LRU hash | [`FragmentKey`] | [`Fragment`] | kernel | kernel |
//! | `QUIC` | hash | [`QuicLbKey`] | [`QuicLb`] | user | kernel |
//! | `QUIC_SERVERS` | hash | [`QuicServerKey`] | [`ServerRef`] | user | kernel |
//! | `LIMITS` | array | VIP id | [`VipLimit`] | both | kernel |
//! | `LOADS` | array, mapped | server index | `u32` connections alive | both | kernel |
//! | `FLOOD` | per-CPU array of 1 | 0 | [`Flood`] | kernel | both |
//! | `COUNTERS` | per-CPU array | server index | [`Counters`] | kernel | user |
//! | `REASONS` | per-CPU array | [`crate::verdict`] index | `u64` packets | kernel | user |
//! | `WORK4`, `WORK6` | per-CPU array of 1 | 0 | [`crate::pipeline::Work`] | kernel | kernel |
//! | `ROUTE` | per-CPU array of 1 | 0 | the kernel's `bpf_fib_lookup` | kernel | kernel |
//! | `TRACE` | array of 1 | 0 | [`TraceFilter`] | both | both |
//! | `EVENTS` | ring buffer | | [`TraceRecord`] | kernel | user |
//! | `END` | per-CPU array of 1 | 0 | [`crate::trace::End`] | kernel | kernel |
//! | `STAGES` | program array | [`crate::verdict::Stage`] | program | user | kernel |
//!
//! Every structure has explicit padding and a size asserted below; a change of any of them is a change of
//! [`ABI_VERSION`]. Zero is a safe value everywhere: an empty settings record forwards nothing.

mod event;
mod flow;
mod fragment;
pub mod layout;
#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "declares plain data; each line says why it is")]
mod pod;
mod server;
mod settings;
mod tag;
mod vip;

pub use event::{TRACE_BYTES, TRACE_RING, TraceEnds, TraceFilter, TraceRecord};
pub use flow::{Claim, Flow, FlowKey, Half, Line, RECORD4, RECORD6, Reply, Stage as FlowStage, WAYS};
pub use fragment::{Fragment, FragmentKey};
pub use server::{Mac, MacBytes, Ring, Server, ServerRef, Slot, server_flags};
pub use settings::{Counters, Flood, Interface, Settings, settings_flags};
pub use tag::{FlowTag, TagStage, UNIT as TAG_UNIT};
pub use vip::{Mode, Selection, Vip, VipKey, VipLimit, vip_flags};

/// Version of everything in this module.
pub const ABI_VERSION: u32 = 3;

/// Version of what a next program goes on with: the flow tables of both families, flow tags, fragments, loads, what was
/// counted for servers, and the slots of rings; of what these mean, not of where in a record a field lies, which [`layout`]
/// tells. Everything else is made anew by each start, so a change of [`ABI_VERSION`] alone leaves flows as they are.
pub const FACTS_VERSION: u32 = 1;

/// Slots of a VIP's ring: the prime of the Maglev paper (§5.3) that keeps shares within 1 % for hundreds
/// of servers.
pub const RING_SIZE: usize = 65_537;

/// VIP ids are below this number.
pub const MAX_VIPS: usize = 4_096;

/// Server indices are below this number; index 0 is never given out.
pub const MAX_SERVERS: usize = 65_536;

/// (address, port, protocol) entries per address family: what all port ranges of all VIPs add up to.
pub const MAX_VIP_PORTS: usize = 262_144;

/// Places in `INTERFACES`.
pub const INTERFACE_PLACES: usize = 256;

/// Interfaces whose MAC address the kernel program knows.
pub const MAX_INTERFACES: usize = 64;

/// Translated flows that each family's table holds unless user space says otherwise. A power of two, as every
/// other number here that counts records or tags.
pub const DEFAULT_FLOWS: usize = 524_288;

/// Flow tags that the table holds unless user space says otherwise.
pub const DEFAULT_FLOW_TAGS: usize = 1_048_576;

/// Datagrams in pieces that are remembered at once, for each family.
pub const FRAGMENTED: usize = 8_192;

/// Configurations of QUIC-LB, over all VIPs.
pub const MAX_QUIC: usize = 1_024;

/// Names of servers in QUIC connection IDs, over all VIPs.
pub const MAX_QUIC_SERVERS: usize = 65_536;

/// IP protocol numbers.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in something (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 in something (RFC 2473).
    pub const IPV6: u8 = 41;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

const _: () = {
    assert!(size_of::<VipKey<u32>>() == 8);
    assert!(size_of::<VipKey<[u32; 4]>>() == 20);
    assert!(size_of::<Vip>() == 12);
    assert!(size_of::<VipLimit>() == 16);
    assert!(size_of::<Server>() == 64);
    assert!(size_of::<Interface>() == 16);
    assert!(size_of::<FlowKey<u32>>() == 16);
    assert!(size_of::<FlowKey<[u32; 4]>>() == 40);
    assert!(size_of::<Flow<u32>>() == 52 && 52 <= 8 * RECORD4);
    assert!(size_of::<Flow<[u32; 4]>>() == 100 && 100 <= 8 * RECORD6);
    assert!(size_of::<FragmentKey<u32>>() == 16);
    assert!(size_of::<FragmentKey<[u32; 4]>>() == 40);
    assert!(size_of::<Fragment>() == 16);
    assert!(size_of::<Settings>() == 64);
    assert!(size_of::<Counters>() == 40);
    assert!(size_of::<Flood>() == 8);
    assert!(size_of::<Mac>() == 8);
};

mod quic;
pub use quic::{QuicHalf, QuicLb, QuicLbKey, QuicServerKey};
