//! The inner header: what of it is looked at, and the two things that change.

use super::{Outcome, Question, Role, ecn};
use crate::{
    family::{Family, V4, V6},
    wire::{Resize, be16, checksum::Delta, ipv4, ipv6, raw32},
};

/// What of an inner header matters.
pub struct Inner {
    /// May it go to its destination?
    pub(super) question: Question,
    pub(super) ecn: u8,
    pub(super) hops: u8,
}

/// An IP version that tunnels are made of.
pub trait Tunnelled: Family {
    /// The number in the first four bits.
    const VERSION: u8;
    /// Bits of an address.
    const BITS: u32;

    /// An address in the last of four words, the others being zero.
    fn last_words(address: Self::Addr) -> [u32; 4];

    /// Reads an inner header at `at`, of a packet that has `available` bytes to lie in.
    ///
    /// # Errors
    /// [`Outcome::Malformed`].
    fn inner<B: Resize>(frame: &B, at: usize, available: usize) -> Result<Inner, Outcome>;

    /// Writes the congestion mark and the hop limit of the header at `at`; `None` where the frame ends before.
    fn mark<B: Resize>(frame: &mut B, at: usize, ecn: u8, hops: u8) -> Option<()>;
}

impl Tunnelled for V4 {
    const VERSION: u8 = 4;
    const BITS: u32 = 32;

    #[inline(always)]
    fn last_words(address: u32) -> [u32; 4] {
        [0, 0, 0, address]
    }

    #[inline(always)]
    fn inner<B: Resize>(frame: &B, at: usize, available: usize) -> Result<Inner, Outcome> {
        let Some(header) = frame.read::<{ ipv4::HEADER }>(at) else {
            return Err(Outcome::Malformed);
        };
        let length = ((header[0] & 0x0f) as usize) * 4;
        let total = be16(&header, 2) as usize;
        if header[0] >> 4 != 4 || length < ipv4::HEADER || total < length || total > available {
            return Err(Outcome::Malformed);
        }
        Ok(Inner {
            question: Question::new::<V4>(Role::To, raw32(&header, ipv4::SOURCE + 4)),
            ecn: header[1] & ecn::MASK,
            hops: header[ipv4::TTL],
        })
    }

    #[inline(always)]
    fn mark<B: Resize>(frame: &mut B, at: usize, ecn: u8, hops: u8) -> Option<()> {
        let first: [u8; 2] = frame.read(at)?;
        let [ttl, protocol, sum @ ..]: [u8; 4] = frame.read(at + ipv4::TTL)?;
        let marked = [first[0], first[1] & !ecn::MASK | ecn];
        let delta = Delta::NONE
            .word(u16::from_ne_bytes(first), u16::from_ne_bytes(marked))
            .word(u16::from_ne_bytes([ttl, protocol]), u16::from_ne_bytes([hops, protocol]));
        let [high, low] = delta.apply(u16::from_ne_bytes(sum)).to_ne_bytes();
        frame.write(at, marked)?;
        frame.write(at + ipv4::TTL, [hops, protocol, high, low])
    }
}

impl Tunnelled for V6 {
    const VERSION: u8 = 6;
    const BITS: u32 = 128;

    #[inline(always)]
    fn last_words(address: [u32; 4]) -> [u32; 4] {
        address
    }

    #[inline(always)]
    fn inner<B: Resize>(frame: &B, at: usize, available: usize) -> Result<Inner, Outcome> {
        let Some(header) = frame.read::<{ ipv6::HEADER }>(at) else {
            return Err(Outcome::Malformed);
        };
        if header[0] >> 4 != 6 || ipv6::HEADER + be16(&header, 4) as usize > available {
            return Err(Outcome::Malformed);
        }
        Ok(Inner {
            question: Question::new::<V6>(Role::To, words(&header, ipv6::SOURCE + 16)),
            ecn: header[1] >> 4 & ecn::MASK,
            hops: header[ipv6::HOP_LIMIT],
        })
    }

    #[inline(always)]
    fn mark<B: Resize>(frame: &mut B, at: usize, ecn: u8, hops: u8) -> Option<()> {
        let [version, class]: [u8; 2] = frame.read(at)?;
        let [next_header, _]: [u8; 2] = frame.read(at + ipv6::HOP_LIMIT - 1)?;
        frame.write(at, [version, class & !(ecn::MASK << 4) | ecn << 4])?;
        frame.write(at + ipv6::HOP_LIMIT - 1, [next_header, hops])
    }
}

/// The IPv6 address at `at`. Word by word: what a closure makes of it is not inlined (LLVM 22).
#[inline(always)]
pub(super) fn words(header: &[u8; ipv6::HEADER], at: usize) -> [u32; 4] {
    [raw32(header, at), raw32(header, at + 4), raw32(header, at + 8), raw32(header, at + 12)]
}
