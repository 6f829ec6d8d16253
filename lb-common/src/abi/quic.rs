//! How the server's connection IDs of QUIC are to be read.

use crate::quic::aes::RoundKeys;

/// Which connection IDs: those of a VIP, of one of its configurations.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuicLbKey {
    /// VIP id.
    pub vip: u16,
    /// The first three bits of the connection ID; 7 never is in the map.
    pub rotation: u16,
}

/// One configuration of QUIC-LB, made by [`crate::quic::lb::Encoding::entry`]. All zero reads nothing.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QuicLb {
    /// Octets of server ID and nonce together, the *block*: 5 to 19.
    pub length: u8,
    /// Bits behind the server ID in the first 8 octets.
    pub shift: u8,
    /// 1 in the clear, 2 one AES block, 3 and 4 that many passes to undo; all else reads nothing.
    pub cipher: u8,
    /// Bits of the block before its right half, without those of an octet that both share.
    pub middle: u8,
    /// What each pass adds to its input, less the number of the pass.
    pub expand: u32,
    /// The first half of the block.
    pub left: QuicHalf,
    /// The second half.
    pub right: QuicHalf,
    /// The expanded key: for decryption of one block, else for encryption; zero without any.
    pub round_keys: RoundKeys,
}

/// Where in a block 12 octets are that begin with one of its halves, and what of them belongs to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuicHalf {
    /// Of the first 8 octets, the bits that belong to it.
    pub high_mask: u64,
    /// The same of the next 4.
    pub low_mask: u32,
    /// The end of 8 octets to read, in octets from the beginning of the block.
    pub high_end: u8,
    /// Bits by which they are to be shifted to the left.
    pub high_shift: u8,
    /// The end of 4 octets to read.
    pub low_end: u8,
    /// Bits by which those are to be shifted to the left; not below 32 where none belong to the half.
    pub low_shift: u8,
}

/// Never the key: this ends in logs.
impl core::fmt::Debug for QuicLb {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("QuicLb")
            .field("length", &self.length)
            .field("shift", &self.shift)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// Which server: the one that calls itself this in the connection IDs of a VIP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuicServerKey {
    /// The server ID.
    pub id: u64,
    /// VIP id, wide so that the key has no padding.
    pub vip: u64,
}

const _: () = {
    assert!(size_of::<QuicServerKey>() == 16);
    assert!(size_of::<QuicLbKey>() == 4);
    assert!(size_of::<QuicHalf>() == 16);
    assert!(size_of::<QuicLb>() == 216);
};
