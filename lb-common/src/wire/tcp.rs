//! TCP header (RFC 9293 §3.1). Offsets from its first byte.

/// Length without options, which is also the least.
pub const HEADER: usize = 20;
/// Length with as many options as there can be.
pub const LONGEST_HEADER: usize = 60;
/// Checksum.
pub const CHECKSUM: usize = 16;

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset the connection.
pub const RST: u8 = 0x04;
/// The acknowledgement field counts.
pub const ACK: u8 = 0x10;

/// Option kind: the list ends.
pub const OPTION_END: u8 = 0;
/// Option kind: one byte of nothing.
pub const OPTION_NOTHING: u8 = 1;
/// Option kind: largest segment, 4 bytes in all.
pub const OPTION_MSS: u8 = 2;
