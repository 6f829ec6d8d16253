//! From a connection ID to the server ID in it (QUIC-LB §5.5), and what user space works out beforehand.
//!
//! ```text
//! connection ID   first octet │ server ID │ nonce │ anything
//!                             └────── block ──────┘   5 to 19 octets, perhaps encrypted
//! ```
//!
//! Encrypted blocks of 16 octets are one AES block. All others went through four passes of a Feistel network:
//! the block was cut in two halves, and each pass changed one of them by what AES makes of the other. Three
//! passes backwards give the first half, the fourth the second one, should the server ID reach into that.
//!
//! Server IDs are numbers here, and have up to 8 octets; the draft allows 15. Longer ones serve as well if
//! their first 8 octets differ: configure 8, and count the others as nonce. That changes nothing in the ID,
//! because encryption knows of the sum of both lengths only.

use core::ops::RangeInclusive;

use super::{aes, cid::Dcid};
use crate::{
    abi::{QuicHalf, QuicLb},
    wire::Frame,
};

/// Octets that a server ID may have.
pub const SERVER_ID_LENGTHS: RangeInclusive<u8> = 1..=8;

/// Octets that a nonce may have (QUIC-LB §5.3).
pub const NONCE_LENGTHS: RangeInclusive<u8> = 4..=18;

/// Octets that server ID and nonce have at most together: QUIC version 1 has room for 20, one is the first.
pub const MAX_BLOCK: u8 = 19;

/// The last value of the three bits that name a configuration: the eighth one means "no configuration".
pub const MAX_ROTATION: u8 = 6;

/// A key for server IDs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

/// Never the key itself: this ends in logs.
impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// How servers make connection IDs, in one configuration of QUIC-LB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    server_id_length: u8,
    nonce_length: u8,
    key: Option<Key>,
}

impl Encoding {
    /// Lengths in octets. `None` where one is outside [`SERVER_ID_LENGTHS`] or [`NONCE_LENGTHS`], or their
    /// sum is above [`MAX_BLOCK`]. Without a key, server IDs can be read by everyone.
    #[must_use]
    pub fn new(server_id_length: u8, nonce_length: u8, key: Option<Key>) -> Option<Self> {
        let fits = SERVER_ID_LENGTHS.contains(&server_id_length)
            && NONCE_LENGTHS.contains(&nonce_length)
            && server_id_length + nonce_length <= MAX_BLOCK;
        fits.then_some(Self { server_id_length, nonce_length, key })
    }

    /// Octets of a server ID.
    #[must_use]
    pub fn server_id_length(&self) -> u8 {
        self.server_id_length
    }

    /// Octets of a nonce.
    #[must_use]
    pub fn nonce_length(&self) -> u8 {
        self.nonce_length
    }

    /// The key, if IDs are encrypted.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        self.key
    }

    /// The largest server ID.
    #[must_use]
    pub fn max_server_id(&self) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(self.server_id_length))
    }

    /// What [`decode`] needs, for the kernel program.
    #[must_use]
    pub fn entry(&self) -> QuicLb {
        let length = self.server_id_length + self.nonce_length;
        let (cipher, round_keys) = match self.key {
            None => (IN_THE_CLEAR, [0; aes::ROUND_KEYS]),
            Some(Key(key)) if length == ONE_BLOCK => (ONE_PASS, aes::decryption_keys(key)),
            Some(Key(key)) if self.server_id_length <= length / 2 => {
                (THREE_PASSES, aes::encryption_keys(key))
            }
            Some(Key(key)) => (FOUR_PASSES, aes::encryption_keys(key)),
        };
        let all = Half { high: u64::MAX, low: u32::MAX };
        let (left, right) = if cipher > ONE_PASS { masks(length) } else { (all, all) };
        QuicLb {
            length,
            shift: 64 - 8 * self.server_id_length,
            cipher,
            middle: 8 * (length / 2),
            expand: u32::from(length) << 8,
            left: place(length, 0, left),
            right: place(length, length / 2, right),
            round_keys,
        }
    }
}

// Values of `QuicLb::cipher`.
const IN_THE_CLEAR: u8 = 1;
const ONE_PASS: u8 = 2;
const THREE_PASSES: u8 = 3;
const FOUR_PASSES: u8 = 4;

/// Octets of an AES block.
const ONE_BLOCK: u8 = 16;

/// Which bits belong to either half of a block, both beginning with the most significant bit. Of an odd
/// number of octets the middle one is shared: four bits end the left half, four begin the right one
/// (§5.4.2.3).
fn masks(length: u8) -> (Half, Half) {
    let bits = 4 * u32::from(length);
    let ones = |bits: u32| !u128::MAX.checked_shr(bits).unwrap_or(0);
    let half = |mask: u128| Half { high: (mask >> 64) as u64, low: (mask >> 32) as u32 };
    let left = ones(bits);
    (half(left), half(left >> (bits % 8)))
}

/// Where the half that begins with this octet of a block is to be read. The datagram may end with the block,
/// and nothing behind it may be read: what is too short ends where the block does, and is shifted to its
/// place.
fn place(length: u8, begin: u8, mask: Half) -> QuicHalf {
    let end = |octets: u8| (begin + octets).min(length);
    let shift = |octets: u8| 8 * (begin + octets - end(octets));
    QuicHalf {
        high_mask: mask.high,
        low_mask: mask.low,
        high_end: end(8),
        high_shift: shift(8),
        low_end: end(12),
        low_shift: shift(12),
    }
}

/// Offsets in a frame are below 32 KiB, see [`crate::parse::Packet::l4`].
const MAX_OFFSET: usize = 0x7fff;

/// The server ID in a connection ID, or `None` if that is too short, or `entry` is none of
/// [`Encoding::entry`]. Whether there is such a server is for the caller to find out.
///
/// Nothing here depends on lengths but what is read from `entry`: every `if` would have the verifier walk
/// through all of AES once more.
#[inline(always)]
#[must_use]
pub fn decode<B: Frame + ?Sized>(frame: &B, dcid: &Dcid, entry: &QuicLb) -> Option<u64> {
    if entry.length as usize >= dcid.length {
        return None;
    }
    let left = Half::read(frame, dcid.at, &entry.left)?;
    let right = Half::read(frame, dcid.at, &entry.right)?;
    let first = match entry.cipher {
        IN_THE_CLEAR => left.high,
        ONE_PASS => {
            let [a, b] = words(left.high);
            let [c, d] = words(right.high);
            let [a, b, ..] = aes::decrypt(&entry.round_keys, [a, b, c, d]);
            joined(a, b)
        }
        THREE_PASSES | FOUR_PASSES => unmix(left, right, entry),
        _ => return None,
    };
    Some(first >> (entry.shift & 63))
}

/// Half a block: up to 10 octets, or 76 bits, beginning with the most significant one; zero behind them.
#[derive(Clone, Copy)]
struct Half {
    high: u64,
    low: u32,
}

impl Half {
    /// Reads a half of the block behind the octet at `at`.
    #[inline(always)]
    fn read<B: Frame + ?Sized>(frame: &B, at: usize, place: &QuicHalf) -> Option<Self> {
        // A block may have less than 8 octets. Reading begins before it then, though never before the frame,
        // where there are other headers. The mask changes nothing, but keeps LLVM from checking one sum and
        // reading at another, which the verifier does not follow.
        let begin = |end: u8, octets: usize| (at + 1 + end as usize).wrapping_sub(octets) & MAX_OFFSET;
        let high = u64::from_be_bytes(frame.read(begin(place.high_end, 8))?);
        let low = u32::from_be_bytes(frame.read(begin(place.low_end, 4))?);
        Some(Self {
            high: high << (place.high_shift & 63) & place.high_mask,
            low: low << (place.low_shift & 31) & place.low_mask,
        })
    }
}

/// The first 8 octets of what four passes have made this block of; without those of its right half where
/// three passes are enough (§5.5.2).
#[inline(always)]
fn unmix(left: Half, right: Half, entry: &QuicLb) -> u64 {
    let (mut input, mut target) = (right, left);
    let mut pass = |number: u32, of: &QuicHalf| {
        // The draft's expand() and truncate().
        let [a, b] = words(input.high);
        let [a, b, c, _] = aes::encrypt(&entry.round_keys, [a, b, input.low, entry.expand | number]);
        let changed =
            Half { high: (target.high ^ joined(a, b)) & of.high_mask, low: (target.low ^ c) & of.low_mask };
        (input, target) = (changed, input);
        input.high
    };
    pass(4, &entry.left);
    pass(3, &entry.right);
    let left = pass(2, &entry.left);
    if entry.cipher == THREE_PASSES {
        return left;
    }
    let right = pass(1, &entry.right);
    left | right >> (entry.middle & 63)
}

#[inline(always)]
fn words(number: u64) -> [u32; 2] {
    [(number >> 32) as u32, number as u32]
}

#[inline(always)]
fn joined(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}
