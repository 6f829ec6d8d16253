//! Servers as one VIP sees them, and the rings that choose among them.
//!
//! A server index belongs to one (VIP, server) pair: health, counters and administrative state are per
//! VIP (R20), so the same machine behind 23 VIPs has 23 indices.

use super::RING_SIZE;

/// An Ethernet address as it lies in frames.
pub type MacBytes = [u8; 6];

/// An Ethernet address as one number, its six bytes in the low end: six separate bytes would take six slots
/// of the kernel's small stack.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac(u64);

impl Mac {
    /// None at all: no six bytes are this.
    pub const NONE: Self = Self(u64::MAX);

    /// From the bytes on the wire.
    #[inline(always)]
    #[must_use]
    pub const fn new([a, b, c, d, e, f]: MacBytes) -> Self {
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// The bytes on the wire.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> MacBytes {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Whether it is a multicast or the broadcast address.
    #[inline(always)]
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0 & 1 != 0
    }
}

/// Slots of one VIP; each holds a [`Slot`], 0 where there is no server.
///
/// One word longer than there are slots: the compiler turns the scaling of a hash into byte offsets, of
/// which the verifier (6.18) only sees that they are at most 3 bytes past the last slot's. The spare word
/// makes that a valid read and saves a comparison per packet.
pub type Ring = [u32; RING_SIZE + 1];

/// What a ring holds: a server, and whether flows of the slot may be with other servers.
///
/// A *settled* slot's flows are all with its server, and nothing else has to be asked. Of a *tagged* one the
/// flow tags are asked first, and learn its flows; user space tags a slot a while before it moves it, and until
/// no flow can be left that is elsewhere.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

impl Slot {
    const TAGGED: u32 = 1 << 31;

    /// A slot of `server`.
    #[inline(always)]
    #[must_use]
    pub const fn new(server: ServerRef, tagged: bool) -> Self {
        Self(server.0 | if tagged { Self::TAGGED } else { 0 })
    }

    /// Its server.
    #[inline(always)]
    #[must_use]
    pub const fn server(self) -> ServerRef {
        ServerRef(self.0 & !Self::TAGGED)
    }

    /// Whether flows of this slot may be with other servers.
    #[inline(always)]
    #[must_use]
    pub const fn tagged(self) -> bool {
        self.0 & Self::TAGGED != 0
    }
}

/// Names a server entry and which of its successive owners is meant.
///
/// `index` in bits 0–15, generation in bits 16–30. The whole value 0 means "no server": index 0 is never given
/// out.
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
    /// This host's address towards the server, same layout: the source of SNAT and of tunnels.
    pub source: [u32; 4],
    /// MAC of the next hop; valid with [`server_flags::HOP_KNOWN`].
    pub next_hop: Mac,
    /// MAC of the interface that leads to the server; valid with [`server_flags::HOP_KNOWN`].
    pub source_mac: Mac,
    /// Interface that leads to the server; 0 where there is no route.
    pub ifindex: u32,
    /// Destination port, host order: of translated flows, where 0 keeps the client's; of GUE, where it is the
    /// tunnel's own.
    pub port: u16,
    /// Owner of this entry; a flow that names another generation has lost its server.
    pub generation: u16,
    /// The VIP this entry belongs to.
    pub vip: u16,
    /// [`server_flags`].
    pub flags: u16,
    /// Largest IP packet that the way to the server takes; 0 for any.
    pub mtu: u16,
    /// Weight among the servers of its VIP.
    pub weight: u16,
}

/// Bits of [`Server::flags`].
pub mod server_flags {
    /// New flows may be sent here.
    pub const ACCEPTS_NEW: u16 = 1;
    /// User space has resolved the next hop.
    pub const HOP_KNOWN: u16 = 2;
    /// Flows that the flow tags name stay here: it is well, or being drained.
    pub const KEEPS_FLOWS: u16 = 4;
    /// Its flows are to end at once: those that are translated get a reset on either side.
    pub const HALTED: u16 = 8;
    /// Address and source are IPv6 addresses. Differs from the VIP's family in tunnels only.
    pub const IPV6: u16 = 16;
}
