//! IPv6 header and the extension headers that may precede TCP or UDP (RFC 8200 §3–4, RFC 4302).

/// Length of the fixed header.
pub const HEADER: usize = 40;
/// Hop limit, from the header's first byte.
pub const HOP_LIMIT: usize = 7;
/// Source address, from the header's first byte; the destination follows it.
pub const SOURCE: usize = 8;

/// How many extension headers are walked; RFC 8200 §4.1 knows six kinds, each but one at most once.
pub const MAX_EXTENSIONS: usize = 8;

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header, always 8 bytes long.
pub const FRAGMENT: u8 = 44;
/// Authentication header, its length counted in words of 4 bytes (RFC 4302 §2.2).
pub const AUTHENTICATION: u8 = 51;
/// Destination options.
pub const DESTINATION: u8 = 60;
