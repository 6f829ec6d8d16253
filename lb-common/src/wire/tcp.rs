//! TCP header (RFC 9293 §3.1). Offsets from its first byte.

/// Length without options, which is also the least.
pub const HEADER: usize = 20;
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
