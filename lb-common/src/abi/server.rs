//! Servers as one VIP sees them, and the rings that choose among them.
//!
//! A server index belongs to one (VIP, server) pair: health, counters and administrative state are per
//! VIP (R20), so the same machine behind 23 VIPs has 23 indices.

use super::RING_SIZE;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Slots of one VIP; each holds a [`ServerRef`], 0 where there is no server.
pub type Ring = [u32; RING_SIZE];

/// Names a server entry and which of its successive owners is meant.
///
/// `index` in bits 0–15, generation in bits 16–30; bit 31 is kept for the "slot changed recently" tag.
/// The whole value 0 means "no server": index 0 is never given out.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerRef(pub u32);

impl ServerRef {
    /// Nothing: what an empty ring is full of.
    pub const NONE: Self = Self(0);

    /// Generations wrap around at this number.
    pub const GENERATIONS: u16 = 1 << 15;

    /// A reference to generation `generation` of entry `index`.
    #[inline(always)]
    #[must_use]
    pub const fn new(index: u16, generation: u16) -> Self {
        Self((generation as u32 & 0x7fff) << 16 | index as u32)
    }

    /// Position in `SERVERS`.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0 as u16
    }

    /// Which owner of that position is meant.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u16 {
        (self.0 >> 16) as u16 & 0x7fff
    }

    /// Whether this is [`ServerRef::NONE`].
    #[inline(always)]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.index() == 0
    }
}

/// A server of a VIP; 64 bytes, one cache line's worth.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Address, network order, in the first words for IPv4.
    pub address: [u32; 4],
    /// Source address of SNAT towards this server, same layout.
    pub snat_source: [u32; 4],
    /// MAC of the next hop; valid with [`server_flags::HOP_KNOWN`].
    pub next_hop: Mac,
    /// Destination port, host order; 0 keeps the client's.
    pub port: u16,
    /// MAC of the interface that leads to the server; valid with [`server_flags::HOP_KNOWN`].
    pub source_mac: Mac,
    /// Owner of this entry; a flow that names another generation has lost its server.
    pub generation: u16,
    /// Interface that leads to the server; valid with [`server_flags::HOP_KNOWN`].
    pub ifindex: u32,
    /// The VIP this entry belongs to.
    pub vip: u16,
    /// [`server_flags`].
    pub flags: u16,
    /// Zero.
    pub pad: [u8; 8],
}

/// Bits of [`Server::flags`].
pub mod server_flags {
    /// New flows may be sent here.
    pub const ACCEPTS_NEW: u16 = 1;
    /// User space has resolved the next hop.
    pub const HOP_KNOWN: u16 = 2;
}
