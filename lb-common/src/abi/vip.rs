//! Virtual services: which (address, port, protocol) belongs to which VIP, and how it is forwarded.

/// Key of `VIPS4` and `VIPS6`; `A` is a family's address type.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipKey<A> {
    /// Destination address.
    pub address: A,
    /// Destination port, host byte order.
    pub port: u16,
    /// IP protocol number, wide so that the key has no padding.
    pub protocol: u16,
}

/// What the kernel knows of a VIP. One port range is many keys with the same value.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Index of its ring and counters, below [`super::MAX_VIPS`].
    pub id: u16,
    /// A [`Mode`].
    pub mode: u8,
    /// [`vip_flags`].
    pub flags: u8,
}

/// Bits of [`Vip::flags`].
pub mod vip_flags {
    /// Choose the server by the client's address alone, not by the whole flow.
    pub const SOURCE_HASH: u8 = 1;
}

/// How a VIP's packets reach the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Leave the packet to the host: l7-proxy has the socket. Also what an unknown number means.
    Local = 0,
    /// Change the destination MAC only.
    Dr = 1,
    /// Change destination address and port; the servers' gateway is this balancer.
    Nat = 2,
    /// Change source and destination.
    Snat = 3,
}

impl Mode {
    /// The mode of a number found in a map.
    #[inline(always)]
    #[must_use]
    pub fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Dr,
            2 => Self::Nat,
            3 => Self::Snat,
            _ => Self::Local,
        }
    }
}
