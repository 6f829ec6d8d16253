//! IPv4 and IPv6 as one generic parameter, so that every decision is written once.
//!
//! An address is kept as it lies in the packet: network byte order, read as native words. It is compared,
//! hashed and copied, never computed with; only [`crate::wire::checksum`] adds it up, and a one's
//! complement sum does not care about byte order (RFC 1071 §2.B).

use core::{fmt::Debug, hash::Hash};

use crate::{
    abi::protocol,
    wire::{checksum, ethernet, ipv4, ipv6},
};

/// An IP version. Implemented by [`V4`] and [`V6`] only.
pub trait Family: Copy + Debug + Eq + 'static {
    /// An address in network byte order.
    type Addr: Copy + Debug + Default + Eq + Hash + 'static;

    /// The address held in the first words of a map value that serves both families.
    fn from_words(words: [u32; 4]) -> Self::Addr;

    /// The reverse of [`Family::from_words`]; unused words are zero.
    fn to_words(address: Self::Addr) -> [u32; 4];

    /// The address condensed to 64 bits for hashing; injective for IPv4.
    fn fold(address: Self::Addr) -> u64;

    /// The same with a seed that nobody outside knows: which addresses fold alike cannot be found out.
    fn fold_with(address: Self::Addr, seed: u64) -> u64;

    /// The address as it counts in a checksum, unfolded.
    #[inline(always)]
    fn sum(address: Self::Addr) -> u64 {
        checksum::sum_address(Self::to_words(address))
    }

    /// Length of its header, without options.
    const HEADER: usize;

    /// Its ICMP's protocol number.
    const ICMP: u8;

    /// Its EtherType.
    const ETHERTYPE: u16;
}

/// IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V4 {}

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V6 {}

impl Family for V4 {
    type Addr = u32;

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> u32 {
        words[0]
    }

    #[inline(always)]
    fn to_words(address: u32) -> [u32; 4] {
        [address, 0, 0, 0]
    }

    #[inline(always)]
    fn fold(address: u32) -> u64 {
        address as u64
    }

    #[inline(always)]
    fn fold_with(address: u32, seed: u64) -> u64 {
        address as u64 ^ seed
    }

    const HEADER: usize = ipv4::HEADER;
    const ICMP: u8 = protocol::ICMP;
    const ETHERTYPE: u16 = ethernet::IPV4;
}

impl Family for V6 {
    type Addr = [u32; 4];

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> [u32; 4] {
        words
    }

    #[inline(always)]
    fn to_words(address: [u32; 4]) -> [u32; 4] {
        address
    }

    #[inline(always)]
    fn fold(address: [u32; 4]) -> u64 {
        // The interface identifier is multiplied so that networks and hosts that count up together
        // (2001:db8::1:1, 2001:db8::2:2 …) do not cancel out.
        let network = (address[0] as u64) << 32 | address[1] as u64;
        let host = (address[2] as u64) << 32 | address[3] as u64;
        network ^ host.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32)
    }

    #[inline(always)]
    fn fold_with(address: [u32; 4], seed: u64) -> u64 {
        let network = (address[0] as u64) << 32 | address[1] as u64;
        let host = (address[2] as u64) << 32 | address[3] as u64;
        let network = (network ^ seed).wrapping_mul(seed | 1);
        let host = (host ^ seed.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        network ^ (network >> 29) ^ host.rotate_left(23)
    }

    const HEADER: usize = ipv6::HEADER;
    const ICMP: u8 = protocol::ICMPV6;
    const ETHERTYPE: u16 = ethernet::IPV6;
}

/// Words of an IPv4 address given as bytes in network order.
#[must_use]
pub fn words4(bytes: [u8; 4]) -> [u32; 4] {
    [u32::from_ne_bytes(bytes), 0, 0, 0]
}

/// Words of an IPv6 address given as bytes in network order.
#[must_use]
pub fn words6(bytes: [u8; 16]) -> [u32; 4] {
    core::array::from_fn(|word| {
        u32::from_ne_bytes([bytes[word * 4], bytes[word * 4 + 1], bytes[word * 4 + 2], bytes[word * 4 + 3]])
    })
}
