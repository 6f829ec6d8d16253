//! The flow tables of `nat` and `snat`.
//!
//! A translated flow has two entries, its *halves*: one found by packets of the client, one by packets of
//! the server. Each key is the 5-tuple as it arrives; each value is the 5-tuple as it leaves. Hence the
//! key of the other half is the value read backwards, see [`Flow::twin_key`].

use super::{MacBytes, ServerRef};

/// A 5-tuple as it arrives at the balancer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port, host order.
    pub sport: u16,
    /// Destination port, host order.
    pub dport: u16,
    /// IP protocol number, wide so that the key has no padding.
    pub protocol: u32,
}

/// Which packets an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Those of the client.
    Client,
    /// Those of the server.
    Server,
}

/// One half of a translated flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow<A> {
    /// New source address.
    pub src: A,
    /// New destination address.
    pub dst: A,
    /// New source port, host order.
    pub sport: u16,
    /// New destination port, host order.
    pub dport: u16,
    /// The server of the flow.
    pub server: ServerRef,
    /// Tick of the last packet in either direction, exact to one tick; see [`crate::conntrack`].
    pub seen: u32,
    /// Interface the client's packets come in by: replies leave there.
    pub client_ifindex: u32,
    /// MAC the client's packets come from: replies go there.
    pub client_mac: MacBytes,
    /// [`crate::conntrack`] state, the same in both halves.
    pub state: u8,
    /// 1 for [`Half::Server`], else 0.
    pub half: u8,
}

impl<A: Copy> Flow<A> {
    /// The key under which the other half is found.
    #[inline(always)]
    #[must_use]
    pub fn twin_key(&self, protocol: u32) -> FlowKey<A> {
        FlowKey { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, protocol }
    }

    /// The other half, given the key of this one.
    #[inline(always)]
    #[must_use]
    pub fn twin(&self, key: &FlowKey<A>) -> Self {
        Self {
            src: key.dst,
            dst: key.src,
            sport: key.dport,
            dport: key.sport,
            half: 1 - (self.half & 1),
            ..*self
        }
    }

    /// Which packets this entry is for.
    #[inline(always)]
    #[must_use]
    pub fn half(&self) -> Half {
        if self.half == 0 { Half::Client } else { Half::Server }
    }
}
