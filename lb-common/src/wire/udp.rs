//! UDP header (RFC 768), and what Generic UDP Encapsulation puts behind it (draft-ietf-intarea-gue-09). Offsets from
//! its first byte.
//!
//! GUE comes in two forms. Variant 1 (§4) has no header at all: the inner packet follows the UDP header, and its
//! version number tells its family. Variant 0 (§3) puts four bytes between them:
//!
//! ```text
//! |Var|C|   Hlen  |  Proto/ctype  |             Flags             |
//! ```

/// Length.
pub const HEADER: usize = 8;
/// Checksum; 0 means that the sender computed none.
pub const CHECKSUM: usize = 6;

/// UDP port of GUE, as registered with IANA.
pub const GUE_PORT: u16 = 6080;
/// Length of the header of GUE's variant 0 without optional fields.
pub const GUE_HEADER: usize = 4;
