//! What is reported of packets to those who watch, and of which packets.

/// Bytes of a frame in a [`TraceRecord`].
pub const TRACE_BYTES: usize = 128;

/// Bytes of the ring buffer `EVENTS`: room for some four thousand records.
pub const TRACE_RING: usize = 1 << 20;

/// Which packets are wanted: the one element of `TRACE`. Every field that is not 0 is a condition, and all must hold;
/// see [`crate::trace::wants`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// An address, network order, in the first words for IPv4.
    pub address: [u32; 4],
    /// Which of its bits count.
    pub mask: [u32; 4],
    /// One bit for each ending, by [`TraceRecord::ending`]; here 0 means that none is wanted.
    pub endings: u64,
    /// Who asked; records of somebody who asked before may still be in the ring.
    pub session: u32,
    /// Of this many flows one is wanted.
    pub sample: u32,
    /// Records that found no room; written by the kernel.
    pub lost: u32,
    /// A port, host order.
    pub port: u16,
    /// Number of a VIP.
    pub vip: u16,
    /// 4 or 6, the family of `address`.
    pub family: u8,
    /// IP protocol number; that of ICMP also stands for ICMPv6.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 6],
}

/// Addresses and ports of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceEnds {
    /// Source address, network order, in the first words for IPv4.
    pub src: [u32; 4],
    /// Destination address.
    pub dst: [u32; 4],
    /// Source port, host order; 0 where there is none.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

/// What was decided about one packet, and how it came about.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRecord {
    /// When, in nanoseconds since boot, without suspend.
    pub time: u64,
    /// As it came. Of an ICMP error that is treated like a packet of the flow that it is about, the 5-tuple of that
    /// flow.
    pub came: TraceEnds,
    /// As it leaves, if it was translated; the outer addresses, if it was put into a tunnel.
    pub left: TraceEnds,
    /// Interface it came in by.
    pub ifindex: u32,
    /// Interface it leaves by; 0 if it does not.
    pub out: u32,
    /// [`crate::pipeline::Facts::hash`].
    pub hash: u32,
    /// [`crate::pipeline::Facts::slot`].
    pub slot: u32,
    /// [`crate::pipeline::Facts::flags`].
    pub facts: u32,
    /// [`TraceFilter::session`].
    pub session: u32,
    /// Bytes of the frame as it came, as far as its headers tell.
    pub length: u32,
    /// Bytes of the frame that `bytes` begin.
    pub left_length: u32,
    /// [`crate::pipeline::Facts::vip`].
    pub vip: u16,
    /// [`crate::pipeline::Facts::server`].
    pub server: u16,
    /// How many of `bytes` are the frame's.
    pub captured: u16,
    /// 4 or 6; 0 if the frame could not be read, and only `time`, `ifindex`, `ending` and the bytes mean anything.
    pub family: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// [`crate::parse::Kind`].
    pub kind: u8,
    /// What became of it: index of the reason to pass or drop it, or of the answer it was made into, or
    /// [`crate::trace::FORWARDED`].
    pub ending: u8,
    /// [`crate::verdict::Change`], if it was forwarded.
    pub change: u8,
    /// 4 or 6, the family of `left`.
    pub left_family: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// The first bytes of the frame as it leaves, or as it was passed or dropped.
    pub bytes: [u8; TRACE_BYTES],
}

impl Default for TraceRecord {
    #[inline(always)]
    fn default() -> Self {
        const NOTHING: TraceEnds = TraceEnds { src: [0; 4], dst: [0; 4], sport: 0, dport: 0 };
        Self {
            time: 0,
            came: NOTHING,
            left: NOTHING,
            ifindex: 0,
            out: 0,
            hash: 0,
            slot: 0,
            facts: 0,
            session: 0,
            length: 0,
            left_length: 0,
            vip: 0,
            server: 0,
            captured: 0,
            family: 0,
            protocol: 0,
            tcp_flags: 0,
            kind: 0,
            ending: 0,
            change: 0,
            left_family: 0,
            pad: [0; 3],
            bytes: [0; TRACE_BYTES],
        }
    }
}

const _: () = {
    assert!(size_of::<TraceFilter>() == 64);
    assert!(size_of::<TraceEnds>() == 36);
    assert!(size_of::<TraceRecord>() == 256);
};
