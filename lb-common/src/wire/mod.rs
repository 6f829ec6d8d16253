//! Headers as they lie on the wire: offsets and field meanings, no policy.
//!
//! RFC 791 (IPv4), 8200 (IPv6), 9293 (TCP), 768 (UDP); IEEE 802.1Q for tags. Ports and lengths are handed
//! out in host byte order; addresses stay as they lie in the packet, see [`crate::family`].

pub mod checksum;
pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

/// Bytes of a frame that can be read and overwritten in place.
///
/// The kernel implements it over the XDP context, tests over a slice. Every access is checked against the
/// end of the frame; offsets may be anything.
pub trait Frame {
    /// `N` bytes from `offset`, or `None` where the frame ends before that.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Overwrites `N` bytes from `offset`; `None`, and nothing written, where the frame ends before that.
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;
}

/// A frame in ordinary memory.
impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.get_mut(offset..offset.checked_add(N)?)?.copy_from_slice(&bytes);
        Some(())
    }
}

/// Big-endian 16-bit number at `at`.
#[inline(always)]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Four bytes at `at` as they lie.
#[inline(always)]
pub(crate) fn raw32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
