//! The way out of a tunnel: what a server does with the packets that a balancer has wrapped up for it.
//!
//! ```text
//! link layer ─ outer IP ─ (UDP ─ GUE) ─ inner packet     ⟶     link layer ─ inner packet
//! ```
//!
//! Whoever may send into a tunnel can put any packet on the other side of it. So three questions are asked of the
//! operator's lists (see [`Gate`]): does the tunnel end here, may its sender use it, and is the inner packet for
//! this host? What fails one of them, and what cannot be understood, is left to the host as it came, with a named
//! reason.
//!
//! What is not done here is left to the host as well: fragments of outer packets, options and extension headers
//! on them (no balancer of ours sends any). An outer UDP checksum is not verified: the inner packet has its own,
//! which the host verifies, and a sum over every byte is most of what the kernel program would cost. The lengths
//! are believed as far as the headers go; that the frame is as long as they say is for the host to see, as ever.

mod ecn;
mod gate;
mod inner;
mod outer;

pub use gate::{Gate, MAX_RULES, Question, Role, Rule};
pub use inner::{Inner, Tunnelled};

use crate::{
    family::{V4, V6},
    parse,
    wire::{Resize, ethernet},
};
use outer::Outer;

/// What became of a frame. Its number is its place among the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Outcome {
    /// The host gets the inner packet.
    Decapsulated,
    /// Anything that does not come through a tunnel.
    NotTunnel,
    /// A tunnel that does not end at an address we accept tunnels at.
    NotAtUs,
    /// A tunnel whose sender may not use it.
    SourceRefused,
    /// The inner packet is for an address that it may not be for.
    InnerRefused,
    /// A fragment of what may be a tunnel's packet.
    Fragment,
    /// A header ends too early, or contradicts another.
    Malformed,
    /// A tunnel's packet as standards allow it and we do not handle it: options in the outer IPv4 header, a GUE
    /// header with optional fields, a GUE control message.
    Unsupported,
    /// Dropped: there was congestion in the tunnel and the inner packet's sender does not take notice of marks,
    /// so a loss has to tell it (RFC 6040 §4.2).
    Congested,
    /// Dropped: the frame could not be shortened. Must never count.
    ResizeFailed,
}

impl Outcome {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 10] = [
        Self::Decapsulated,
        Self::NotTunnel,
        Self::NotAtUs,
        Self::SourceRefused,
        Self::InnerRefused,
        Self::Fragment,
        Self::Malformed,
        Self::Unsupported,
        Self::Congested,
        Self::ResizeFailed,
    ];

    /// Its name in counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Decapsulated => "decapsulated",
            Self::NotTunnel => "not-tunnel",
            Self::NotAtUs => "not-at-us",
            Self::SourceRefused => "source-refused",
            Self::InnerRefused => "inner-refused",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Congested => "congested",
            Self::ResizeFailed => "resize-failed",
        }
    }

    /// Whether the frame ends here. The host gets all others.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop(self) -> bool {
        matches!(self, Self::Congested | Self::ResizeFailed)
    }
}

/// Takes the outer headers off a frame that comes through a tunnel, if the operator allows it.
#[inline(always)]
pub fn decapsulate<B: Resize>(frame: &mut B, gate: &impl Gate) -> Outcome {
    match open(frame, gate) {
        Ok(()) => Outcome::Decapsulated,
        Err(outcome) => outcome,
    }
}

#[inline(always)]
fn open<B: Resize>(frame: &mut B, gate: &impl Gate) -> Result<(), Outcome> {
    let link = parse::ethernet(frame).map_err(|_| Outcome::NotTunnel)?;
    let outer = match link.ethertype {
        ethernet::IPV4 => Outer::v4(frame, link.l3)?,
        ethernet::IPV6 => Outer::v6(frame, link.l3)?,
        _ => return Err(Outcome::NotTunnel),
    };
    outer.is_tunnel(frame, gate)?;
    let [at, from] = outer.questions;
    if !gate.allows(at) {
        return Err(Outcome::NotAtUs);
    }
    if !gate.allows(from) {
        return Err(Outcome::SourceRefused);
    }
    let (version, outer) = outer.behind_gue(frame)?;
    if version == V4::VERSION {
        release::<V4, B>(frame, link.l3, &outer, gate)
    } else {
        release::<V6, B>(frame, link.l3, &outer, gate)
    }
}

/// Takes off what is before the inner packet, if that is one and may come in.
#[inline(always)]
fn release<F: Tunnelled, B: Resize>(
    frame: &mut B,
    l3: usize,
    outer: &Outer,
    gate: &impl Gate,
) -> Result<(), Outcome> {
    let inner = F::inner(frame, outer.payload, outer.length)?;
    if !gate.allows(inner.question) {
        return Err(Outcome::InnerRefused);
    }
    let ecn = ecn::leave(outer.ecn, inner.ecn).ok_or(Outcome::Congested)?;
    // A hop limit of 255 proves to the receiver that a packet was sent on its own link (RFC 5082, RFC 4861 §3.1):
    // nothing from a tunnel may claim that, or it could pose as a neighbour.
    let hops = inner.hops.min(254);
    let bytes = outer.payload - l3;
    let shortened = match l3 {
        ethernet::HEADER => shorten::<{ ethernet::HEADER }, F, B>(frame, bytes),
        ONE_TAG => shorten::<ONE_TAG, F, B>(frame, bytes),
        _ => shorten::<TWO_TAGS, F, B>(frame, bytes),
    };
    shortened.ok_or(Outcome::ResizeFailed)?;
    if (ecn, hops) != (inner.ecn, inner.hops) {
        F::mark(frame, l3, ecn, hops).ok_or(Outcome::ResizeFailed)?;
    }
    Ok(())
}

const ONE_TAG: usize = ethernet::HEADER + ethernet::TAG;
const TWO_TAGS: usize = ONE_TAG + ethernet::TAG;

/// Takes `bytes` bytes out from behind a link header of `L` bytes, which announces family `F` afterwards.
#[inline(always)]
fn shorten<const L: usize, F: Tunnelled, B: Resize>(frame: &mut B, bytes: usize) -> Option<()> {
    let mut link: [u8; L] = frame.read(0)?;
    [link[L - 2], link[L - 1]] = F::ETHERTYPE.to_be_bytes();
    frame.pop_front(bytes)?;
    frame.write(0, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_name_and_place() {
        for (place, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
            assert_eq!(Outcome::ALL.iter().filter(|other| other.label() == outcome.label()).count(), 1);
        }
    }
}
