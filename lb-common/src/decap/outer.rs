//! The outer headers: IP, and behind it UDP with GUE.

use super::{Gate, Outcome, Question, Role, Tunnelled as _, ecn, inner::words};
use crate::{
    abi::protocol,
    family::{V4, V6},
    wire::{Resize, be16, checksum, ipv4, ipv6, raw32, udp},
};

/// What of an outer header matters.
#[derive(Clone, Copy)]
pub(super) struct Outer {
    /// May a tunnel end here, may it begin there?
    pub(super) questions: [Question; 2],
    pub(super) ecn: u8,
    protocol: u8,
    /// Offset of what the header carries, and how long that is.
    pub(super) payload: usize,
    pub(super) length: usize,
}

/// Whether a protocol number may be a tunnel's.
#[inline(always)]
fn may_tunnel(protocol: u8) -> bool {
    matches!(protocol, protocol::IPV4 | protocol::IPV6 | protocol::UDP)
}

impl Outer {
    /// Reads an outer IPv4 header.
    #[inline(always)]
    pub(super) fn v4<B: Resize>(frame: &B, l3: usize) -> Result<Self, Outcome> {
        let Some(header) = frame.read::<{ ipv4::HEADER }>(l3) else {
            return Err(Outcome::Malformed);
        };
        let (protocol, total) = (header[9], be16(&header, 2) as usize);
        if !may_tunnel(protocol) {
            return Err(Outcome::NotTunnel);
        }
        if header[0] >> 4 != 4 || header[0] & 0x0f < 5 || total < ipv4::HEADER {
            return Err(Outcome::Malformed);
        }
        if be16(&header, 6) & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET) != 0 {
            return Err(Outcome::Fragment);
        }
        if header[0] & 0x0f > 5 {
            return Err(Outcome::Unsupported);
        }
        // Nobody sees this header again, so nobody else can find out that it is damaged (RFC 1122 §3.2.1.2).
        let sum = |at| raw32(&header, at) as u64;
        if checksum::finish(sum(0) + sum(4) + sum(8) + sum(12) + sum(16)) != 0 {
            return Err(Outcome::Malformed);
        }
        Ok(Self {
            questions: [
                Question::new::<V4>(Role::At, raw32(&header, ipv4::SOURCE + 4)),
                Question::new::<V4>(Role::From, raw32(&header, ipv4::SOURCE)),
            ],
            ecn: header[1] & ecn::MASK,
            protocol,
            payload: l3 + ipv4::HEADER,
            length: total - ipv4::HEADER,
        })
    }

    /// Reads an outer IPv6 header.
    #[inline(always)]
    pub(super) fn v6<B: Resize>(frame: &B, l3: usize) -> Result<Self, Outcome> {
        let Some(header) = frame.read::<{ ipv6::HEADER }>(l3) else {
            return Err(Outcome::Malformed);
        };
        let protocol = header[6];
        if protocol == ipv6::FRAGMENT {
            let Some([next, _]) = frame.read::<2>(l3 + ipv6::HEADER) else {
                return Err(Outcome::Malformed);
            };
            return Err(if may_tunnel(next) { Outcome::Fragment } else { Outcome::NotTunnel });
        }
        if !may_tunnel(protocol) {
            return Err(Outcome::NotTunnel);
        }
        if header[0] >> 4 != 6 {
            return Err(Outcome::Malformed);
        }
        Ok(Self {
            questions: [
                Question::new::<V6>(Role::At, words(&header, ipv6::SOURCE + 16)),
                Question::new::<V6>(Role::From, words(&header, ipv6::SOURCE)),
            ],
            ecn: header[1] >> 4 & ecn::MASK,
            protocol,
            payload: l3 + ipv6::HEADER,
            length: be16(&header, 4) as usize,
        })
    }

    /// Finds out whether what the header carries is a tunnel's: of UDP, the port tells.
    #[inline(always)]
    pub(super) fn is_tunnel<B: Resize>(&self, frame: &B, gate: &impl Gate) -> Result<(), Outcome> {
        if self.protocol != protocol::UDP {
            return Ok(());
        }
        let Some([_, _, high, low]) = frame.read::<4>(self.payload) else {
            return Err(Outcome::Malformed);
        };
        let port = gate.gue_port();
        if port != 0 && port == u16::from_be_bytes([high, low]) { Ok(()) } else { Err(Outcome::NotTunnel) }
    }

    /// Goes past UDP and GUE where there are such headers; gives the IP version that follows.
    #[inline(always)]
    pub(super) fn behind_gue<B: Resize>(self, frame: &B) -> Result<(u8, Self), Outcome> {
        match self.protocol {
            protocol::IPV4 => return Ok((V4::VERSION, self)),
            protocol::IPV6 => return Ok((V6::VERSION, self)),
            _ => {}
        }
        let Some(header) = frame.read::<{ udp::HEADER }>(self.payload) else {
            return Err(Outcome::Malformed);
        };
        let length = be16(&header, 4) as usize;
        if length < udp::HEADER + udp::GUE_HEADER || length > self.length {
            return Err(Outcome::Malformed);
        }
        let (payload, length) = (self.payload + udp::HEADER, length - udp::HEADER);
        let Some(gue) = frame.read::<{ udp::GUE_HEADER }>(payload) else {
            return Err(Outcome::Malformed);
        };
        match (gue[0] >> 4, gue) {
            // Variant 1: this is the inner header.
            (version @ (V4::VERSION | V6::VERSION), _) => Ok((version, Self { payload, length, ..self })),
            (5 | 7, _) => Err(Outcome::Malformed),
            // Variant 0 with nothing optional: zeros but for the protocol.
            (0, [0, protocol @ (protocol::IPV4 | protocol::IPV6), 0, 0]) => {
                let version = if protocol == protocol::IPV4 { V4::VERSION } else { V6::VERSION };
                let (payload, length) = (payload + udp::GUE_HEADER, length - udp::GUE_HEADER);
                Ok((version, Self { payload, length, ..self }))
            }
            _ => Err(Outcome::Unsupported),
        }
    }
}
