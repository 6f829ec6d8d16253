//! Ethernet II with up to two VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

/// Length of an untagged header.
pub const HEADER: usize = 14;
/// Length of one VLAN tag.
pub const TAG: usize = 4;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Whether an EtherType announces a VLAN tag: 802.1Q, 802.1ad, and the old QinQ number.
#[inline(always)]
#[must_use]
pub fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}
