//! What the program needs to know beyond VIPs and servers, and what it counts.

/// The one settings record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`super::ABI_VERSION`] of whoever wrote the maps.
    pub abi_version: u32,
    /// [`settings_flags`].
    pub flags: u32,
    /// First SNAT source port.
    pub snat_first: u16,
    /// How many SNAT source ports there are from there on; 0 when there is no `snat` VIP.
    pub snat_count: u16,
    /// Zero.
    pub pad: [u8; 4],
}

impl Settings {
    /// Whether a packet to this port may be a reply to a translated flow: spares most of the host's own
    /// packets the look-up.
    #[inline(always)]
    #[must_use]
    pub fn may_be_reply(&self, dport: u16) -> bool {
        self.flags & settings_flags::NAT_IN_USE != 0 || dport.wrapping_sub(self.snat_first) < self.snat_count
    }
}

/// Bits of [`Settings::flags`].
pub mod settings_flags {
    /// Some VIP has mode `nat`: any packet may be a reply.
    pub const NAT_IN_USE: u32 = 1;
}

/// Traffic of a VIP or of a server. Bytes count whole frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// New flows.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

impl core::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
    }
}
