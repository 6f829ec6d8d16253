//! UDP header (RFC 768). Offsets from its first byte.

/// Length.
pub const HEADER: usize = 8;
/// Checksum; 0 means that the sender computed none.
pub const CHECKSUM: usize = 6;
