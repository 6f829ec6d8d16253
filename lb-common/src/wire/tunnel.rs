//! What carries an IP packet within another: IP in IP (RFC 2003, 2473, 4213) and Generic UDP Encapsulation
//! (draft-ietf-intarea-gue-09).
//!
//! GUE comes in two forms. Variant 1 (§4) has no header at all: the inner packet follows the UDP header, and its
//! version number tells its family. Variant 0 (§3) puts four bytes between them:
//!
//! ```text
//! |Var|C|   Hlen  |  Proto/ctype  |             Flags             |
//! ```

/// IP protocol number, or IPv6 next header: an IPv4 packet.
pub const IPV4: u8 = 4;
/// IP protocol number, or IPv6 next header: an IPv6 packet.
pub const IPV6: u8 = 41;

/// UDP port of GUE, as registered with IANA.
pub const GUE_PORT: u16 = 6080;

/// Length of the header of GUE's variant 0 without optional fields.
pub const GUE_HEADER: usize = 4;

/// Explicit congestion notification (RFC 3168 §5), two bits in the byte that IPv4 calls type of service and IPv6
/// traffic class.
pub mod ecn {
    /// Where the bits are.
    pub const MASK: u8 = 0b11;
    /// The sender does not take part.
    pub const NOT_ECT: u8 = 0b00;
    /// The sender takes part.
    pub const ECT_1: u8 = 0b01;
    /// The sender takes part, likewise.
    pub const ECT_0: u8 = 0b10;
    /// A router on the way was congested.
    pub const CE: u8 = 0b11;
}
