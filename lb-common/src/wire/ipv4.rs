//! IPv4 header (RFC 791 §3.1). Offsets from its first byte.

/// Length without options, which is also the least.
pub const HEADER: usize = 20;
/// Time to live.
pub const TTL: usize = 8;
/// Header checksum.
pub const CHECKSUM: usize = 10;
/// Source address; the destination follows it.
pub const SOURCE: usize = 12;

/// More-fragments flag in the flags-and-offset word.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Fragment offset in the flags-and-offset word, in units of 8 bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;
/// Do-not-fragment flag in the flags-and-offset word.
pub const DO_NOT_FRAGMENT: u16 = 0x4000;
