//! Headers as they lie on the wire: offsets and field meanings, no policy.
//!
//! RFC 791 (IPv4), 8200 (IPv6), 9293 (TCP), 768 (UDP); IEEE 802.1Q for tags. Ports and lengths are handed
//! out in host byte order; addresses stay as they lie in the packet, see [`crate::family`].

pub mod checksum;
pub mod ethernet;
pub mod icmp;
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

/// A frame whose beginning can be moved, as a tunnel wants it: an outer header is put before a packet, or taken
/// off.
///
/// Offsets count from the beginning, so all that were known before mean other bytes afterwards. A frame keeps at
/// least an untagged link header of 14 bytes: the kernel insists on it.
pub trait Resize: Frame {
    /// Takes off the first `bytes` bytes; `None`, and nothing taken, where too little would be left.
    fn pop_front(&mut self, bytes: usize) -> Option<()>;

    /// Puts `bytes` bytes, of any content, before the first; `None`, and nothing put, where there is no room.
    fn push_front(&mut self, bytes: usize) -> Option<()>;

    /// Cuts the frame off after `length` bytes, or lengthens it with bytes of any content; `None`, and nothing
    /// changed, where that is not possible.
    fn set_len(&mut self, length: usize) -> Option<()>;
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

#[cfg(any(test, feature = "host"))]
impl Frame for Vec<u8> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.as_slice().read(offset)
    }

    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.as_mut_slice().write(offset, bytes)
    }
}

/// Memory has room for anything.
#[cfg(any(test, feature = "host"))]
impl Resize for Vec<u8> {
    fn pop_front(&mut self, bytes: usize) -> Option<()> {
        (self.len() >= bytes.checked_add(ethernet::HEADER)?).then(|| drop(self.drain(..bytes)))
    }

    fn push_front(&mut self, bytes: usize) -> Option<()> {
        self.splice(..0, core::iter::repeat_n(0, bytes));
        Some(())
    }

    fn set_len(&mut self, length: usize) -> Option<()> {
        (length >= ethernet::HEADER).then(|| self.resize(length, 0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_frame_moves_and_a_link_header_stays() {
        let mut frame: Vec<u8> = (0..20).collect();
        assert_eq!(frame.pop_front(4), Some(()));
        assert_eq!(frame.read(0), Some([4, 5]));
        assert_eq!(frame.pop_front(3), None, "13 bytes would be left");
        assert_eq!(frame.pop_front(usize::MAX), None);
        assert_eq!(frame.len(), 16);
        assert_eq!(frame.push_front(2), Some(()));
        assert_eq!((frame.len(), frame.read(2)), (18, Some([4, 5])));
    }
}
