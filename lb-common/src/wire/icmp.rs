//! ICMP (RFC 792) and ICMPv6 (RFC 4443) headers. Offsets from their first byte; type and code come first.

/// Length of the header of an echo or an error; the quoted packet of an error follows.
pub const HEADER: usize = 8;
/// Checksum.
pub const CHECKSUM: usize = 2;

/// ICMP: echo reply.
pub const ECHO_REPLY: u8 = 0;
/// ICMP: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// ICMP: echo request.
pub const ECHO: u8 = 8;
/// ICMP: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// ICMP: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// Code of [`UNREACHABLE`]: nobody listens on the port.
pub const PORT_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: too large, and must not be fragmented.
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// ICMPv6: destination unreachable.
pub const V6_UNREACHABLE: u8 = 1;
/// ICMPv6: packet too big.
pub const V6_TOO_BIG: u8 = 2;
/// ICMPv6: parameter problem, the last of the errors.
pub const V6_PARAMETER_PROBLEM: u8 = 4;
/// ICMPv6: echo request.
pub const V6_ECHO: u8 = 128;
/// ICMPv6: echo reply.
pub const V6_ECHO_REPLY: u8 = 129;
/// Code of [`V6_UNREACHABLE`]: nobody listens on the port.
pub const V6_PORT_UNREACHABLE: u8 = 4;
