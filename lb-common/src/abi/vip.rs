//! Virtual services: which (address, port, protocol) belongs to which VIP, and how it is forwarded.

/// Key of `VIPS4` and `VIPS6`; `A` is a family's address type.
///
/// Port 0 stands for every port of the address that has no key of its own. With an ICMP protocol number and
/// port 0 the key marks an address as a VIP's: echo requests to it are answered, see
/// [`settings_flags::ALL_PORTS`](super::settings_flags::ALL_PORTS).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipKey<A> {
    /// Destination address.
    pub address: A,
    /// Destination port, host byte order; 0 for all.
    pub port: u16,
    /// IP protocol number, wide so that the key has no padding.
    pub protocol: u16,
}

/// What the kernel knows of a VIP. One port range is many keys with the same value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vip {
    /// Index of its ring and options, below [`super::MAX_VIPS`].
    pub id: u16,
    /// A [`Mode`].
    pub mode: u8,
    /// A [`Selection`].
    pub selection: u8,
    /// [`vip_flags`].
    pub flags: u16,
    /// TCP: the largest segment that either end may announce (MSS); 0 leaves announcements alone.
    pub mss: u16,
    /// With [`vip_flags::BY_SOURCE`]: how long a client without new flows is remembered, in units of
    /// [`super::TAG_UNIT`] ticks; 0 for as long as there is room.
    pub persistence: u16,
    /// Zero.
    pub pad: u16,
}

/// Bits of [`Vip::flags`].
pub mod vip_flags {
    /// Choose by the client's address alone, not by the whole flow.
    pub const BY_SOURCE: u16 = 1;
    /// UDP: every datagram by itself, by the ring alone; no flow is remembered. Not with `nat` and `snat`.
    pub const NO_FLOW_STATE: u16 = 1 << 1;
    /// Without a server that takes new flows: refuse them (a TCP reset, ICMP port unreachable).
    pub const EMPTY_REJECT: u16 = 1 << 2;
    /// Without a server that takes new flows: leave them to the host.
    pub const EMPTY_PASS: u16 = 1 << 3;
    /// New flows are limited, see [`super::VipLimit`].
    pub const LIMITED: u16 = 1 << 4;
    /// UDP: a server may be named by the QUIC connection id.
    pub const QUIC: u16 = 1 << 5;
}

/// Limit on the new flows of a VIP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipLimit {
    /// New flows in each tick of [`crate::conntrack::TICK_NS`] (1.07 s).
    pub per_tick: u32,
    /// The tick that is being counted; written by the kernel.
    pub tick: u32,
    /// New flows in it; written by the kernel.
    pub count: u32,
    /// Flows so far under round-robin; written by the kernel.
    pub turn: u32,
}

/// How a VIP's packets reach the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Leave the packet to the host: l7-proxy has the socket. Also what an unknown number means.
    Local = 0,
    /// Change the destination MAC only.
    Dr = 1,
    /// Change destination address and port; the servers' gateway is this balancer.
    Nat = 2,
    /// Change source and destination.
    Snat = 3,
    /// Put the packet into another IP packet (RFC 2003, 2473, 4213).
    Ipip = 4,
    /// Put the packet into UDP (GUE variant 1).
    Gue = 5,
}

impl Mode {
    /// The mode of a number found in a map.
    #[inline(always)]
    #[must_use]
    pub fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Dr,
            2 => Self::Nat,
            3 => Self::Snat,
            4 => Self::Ipip,
            5 => Self::Gue,
            _ => Self::Local,
        }
    }

    /// Whether flows are translated, and so have an entry in the flow table.
    #[inline(always)]
    #[must_use]
    pub fn translates(self) -> bool {
        matches!(self, Self::Nat | Self::Snat)
    }
}

/// How the server of a new flow is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Selection {
    /// The ring slot of the flow's hash. Also what an unknown number means.
    Ring = 0,
    /// The next slot of the ring, which user space has filled in turns.
    RoundRobin = 1,
    /// Of the servers of two slots the one with fewer connections for its weight.
    LeastConnections = 2,
}

impl Selection {
    /// The selection of a number found in a map.
    #[inline(always)]
    #[must_use]
    pub fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::RoundRobin,
            2 => Self::LeastConnections,
            _ => Self::Ring,
        }
    }
}
