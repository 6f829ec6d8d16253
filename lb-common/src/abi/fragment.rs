//! Datagrams in pieces: only the first piece has ports, so what was decided about it is remembered for the rest.

/// What the pieces of a datagram have in common (RFC 791 §3.2, RFC 8200 §4.5).
///
/// Aligned by more than its words ask for: LLVM copies two of them at once, and on its stack the kernel wants that aligned.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification, as it lies in the header.
    pub ident: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// What was decided about the first piece. Aligned like its key.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// The record of its flow, if it is translated.
    pub number: u32,
    /// The server it went to or came from.
    pub server: super::ServerRef,
    /// The VIP.
    pub vip: u16,
    /// Its [`super::Mode`].
    pub mode: u8,
    /// 1 if it came from the server.
    pub half: u8,
    /// Tick of the first piece.
    pub tick: u32,
}
