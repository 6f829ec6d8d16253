//! What the program needs to know beyond VIPs and servers, and what it counts.

use super::Mac;

/// The one settings record. User space writes it; the kernel only reads.
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
    /// What an interface index is multiplied with to find its place in `INTERFACES`.
    pub interface_factor: u32,
    /// Random since the start: nobody outside can know which flows share a line of a table.
    pub seed: u64,
    /// Lines of `CLAIMS4` less one, all ones in binary. `REPLIES4` has twice as many.
    pub lines4: u32,
    /// The same of `CLAIMS6` and `REPLIES6`.
    pub lines6: u32,
    /// Lines of `FLOW_TAGS` less one, all ones in binary.
    pub tag_lines: u32,
    /// SYNs that one CPU may note in a tick; beyond that is a flood, and packets of established flows are noted
    /// instead. 0 for no limit.
    pub syn_limit: u32,
    /// Until this tick no new flow is translated, and its packets are dropped to be sent again: a next program copies the
    /// flows. Passes by itself, should nobody be left to take it back. 0 for never.
    pub hold_until: u32,
    /// Zero.
    pub pad: [u8; 20],
}

impl Settings {
    /// Whether a packet to this port may be a reply to a translated flow: spares most of the host's own
    /// packets the look-up.
    #[inline(always)]
    #[must_use]
    pub fn may_be_reply(&self, dport: u16) -> bool {
        self.flags & settings_flags::ANY_PORT_REPLIES != 0
            || dport.wrapping_sub(self.snat_first) < self.snat_count
    }

    /// Whether flows are being copied.
    #[inline(always)]
    #[must_use]
    pub const fn holds(&self, now: u32) -> bool {
        // Ticks since boot are far from half of what the type holds.
        self.hold_until.wrapping_sub(now) as i32 > 0
    }

    /// The place of an interface in `INTERFACES`.
    #[inline(always)]
    #[must_use]
    pub const fn place_of_interface(&self, ifindex: u32) -> u32 {
        ifindex.wrapping_mul(self.interface_factor) >> 24
    }
}

/// Bits of [`Settings::flags`].
pub mod settings_flags {
    /// Any packet may be a reply: some VIP has mode `nat`, or flows are left that have ports of another range.
    pub const ANY_PORT_REPLIES: u32 = 1;
    /// Some VIP has all ports of its address: a packet to no VIP's port may be for it.
    pub const ALL_PORTS: u32 = 2;
    /// Somebody watches: decisions about the packets that `TRACE` describes are reported to `EVENTS`.
    pub const TRACE: u32 = 4;
}

/// An interface of the balancer, at [`Settings::place_of_interface`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index; another's packets find this entry by chance.
    pub ifindex: u32,
    /// Zero.
    pub pad: u32,
    /// Its MAC.
    pub mac: Mac,
}

/// Traffic of a server. Bytes count whole frames as they arrive.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// New flows.
    pub connections: u64,
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

/// What one CPU knows of a flood.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flood {
    /// The tick that is being counted.
    pub tick: u32,
    /// SYNs in it.
    pub syns: u32,
}
