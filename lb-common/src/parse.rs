//! From a frame to the packet in it: addresses, ports, offsets; or why it is none of our business.
//!
//! Nothing is refused here. A frame that cannot be understood cannot be known to be for a VIP either, so
//! it is passed to the host untouched, with the reason. Every length read from the packet is bounded
//! before it moves an offset: at most [`ipv6::MAX_EXTENSIONS`] headers of 2 KiB are walked.

use crate::{
    abi::{FlowKey, Mac, VipKey, protocol},
    family::{Family, V4, V6},
    verdict::PassReason,
    wire::{Frame, be16, ethernet, ipv4, ipv6, raw32, tcp, udp},
};

/// The link layer of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Destination MAC: this host, for everything that is not flooded to it by mistake.
    pub to: Mac,
    /// Source MAC: the sender, or the router it came by.
    pub from: Mac,
    /// EtherType behind any VLAN tags.
    pub ethertype: u16,
    /// Offset of the network header.
    pub l3: usize,
}

/// A TCP or UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<F: Family> {
    /// Addresses, ports and protocol: under what its flow would be found.
    pub key: FlowKey<F::Addr>,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    l3: u8,
    l4: u16,
}

impl<F: Family> Packet<F> {
    /// Offset of the IP header: at most 22.
    #[inline(always)]
    #[must_use]
    pub fn l3(&self) -> usize {
        self.l3 as usize
    }

    /// Offset of the TCP or UDP header: less than 32 KiB, which the mask repeats for the verifier.
    #[inline(always)]
    #[must_use]
    pub fn l4(&self) -> usize {
        (self.l4 & 0x7fff) as usize
    }

    /// Under what its VIP would be found.
    #[inline(always)]
    #[must_use]
    pub fn vip_key(&self) -> VipKey<F::Addr> {
        VipKey { address: self.key.dst, port: self.key.dport, protocol: self.key.protocol as u16 }
    }

    /// Whether it may start a flow: a TCP SYN, or any UDP datagram.
    #[inline(always)]
    #[must_use]
    pub fn opens(&self) -> bool {
        self.key.protocol == protocol::UDP as u32
            || self.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
    }
}

/// Reads the link layer.
///
/// # Errors
/// The reason to leave the frame alone.
#[inline(always)]
pub fn ethernet<B: Frame + ?Sized>(frame: &B) -> Result<Link, PassReason> {
    let header: [u8; ethernet::HEADER] = frame.read(0).ok_or(PassReason::Malformed)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = header;
    let to = Mac::new([a, b, c, d, e, f]);
    if to.is_group() {
        return Err(PassReason::GroupAddressed);
    }
    let mut link =
        Link { to, from: Mac::new([g, h, i, j, k, l]), ethertype: be16(&header, 12), l3: ethernet::HEADER };
    for _ in 0..2 {
        if ethernet::is_tag(link.ethertype) {
            let tag: [u8; ethernet::TAG] = frame.read(link.l3).ok_or(PassReason::Malformed)?;
            link.ethertype = be16(&tag, 2);
            link.l3 += ethernet::TAG;
        }
    }
    Ok(link)
}

/// An IP version whose header can be read.
pub trait Parse: Family {
    /// Reads the network and transport headers from `l3` on.
    ///
    /// # Errors
    /// The reason to leave the frame alone.
    fn parse<B: Frame + ?Sized>(frame: &B, l3: usize) -> Result<Packet<Self>, PassReason>;
}

impl Parse for V4 {
    #[inline(always)]
    fn parse<B: Frame + ?Sized>(frame: &B, l3: usize) -> Result<Packet<Self>, PassReason> {
        let header: [u8; ipv4::HEADER] = frame.read(l3).ok_or(PassReason::Malformed)?;
        let length = ((header[0] & 0x0f) as usize) * 4;
        let total = be16(&header, 2) as usize;
        if header[0] >> 4 != 4 || length < ipv4::HEADER || total < length {
            return Err(PassReason::Malformed);
        }
        if be16(&header, 6) & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET) != 0 {
            return Err(PassReason::Fragment);
        }
        let transport = transport(frame, header[9], l3 + length, total - length)?;
        Ok(Packet {
            key: FlowKey {
                src: raw32(&header, ipv4::SOURCE),
                dst: raw32(&header, ipv4::SOURCE + 4),
                sport: transport.sport,
                dport: transport.dport,
                protocol: header[9] as u32,
            },
            flags: transport.flags,
            ttl: header[ipv4::TTL],
            l3: l3 as u8,
            l4: (l3 + length) as u16,
        })
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn parse<B: Frame + ?Sized>(frame: &B, l3: usize) -> Result<Packet<Self>, PassReason> {
        let header: [u8; ipv6::HEADER] = frame.read(l3).ok_or(PassReason::Malformed)?;
        if header[0] >> 4 != 6 {
            return Err(PassReason::Malformed);
        }
        let (protocol, skipped) = extensions(frame, header[6], l3 + ipv6::HEADER)?;
        // Also refuses jumbograms (RFC 2675), whose length here is 0.
        let payload = (be16(&header, 4) as usize).checked_sub(skipped).ok_or(PassReason::Malformed)?;
        let l4 = l3 + ipv6::HEADER + skipped;
        let transport = transport(frame, protocol, l4, payload)?;
        let address = |at| core::array::from_fn(|word| raw32(&header, at + word * 4));
        Ok(Packet {
            key: FlowKey {
                src: address(ipv6::SOURCE),
                dst: address(ipv6::SOURCE + 16),
                sport: transport.sport,
                dport: transport.dport,
                protocol: protocol as u32,
            },
            flags: transport.flags,
            ttl: header[ipv6::HOP_LIMIT],
            l3: l3 as u8,
            l4: l4 as u16,
        })
    }
}

/// Walks the extension headers; gives the protocol behind them and their length together.
#[inline(always)]
fn extensions<B: Frame + ?Sized>(frame: &B, first: u8, at: usize) -> Result<(u8, usize), PassReason> {
    let (mut next, mut skipped) = (first, 0);
    for _ in 0..ipv6::MAX_EXTENSIONS {
        if next == protocol::TCP || next == protocol::UDP {
            return Ok((next, skipped));
        }
        if !matches!(
            next,
            ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::FRAGMENT | ipv6::AUTHENTICATION | ipv6::DESTINATION
        ) {
            return Err(PassReason::NotTcpUdp);
        }
        let header: [u8; 8] = frame.read(at + skipped).ok_or(PassReason::Malformed)?;
        let words = header[1] as usize;
        skipped += match next {
            ipv6::FRAGMENT => {
                // An atomic fragment (RFC 6946) is the whole datagram and has its ports.
                if be16(&header, 2) & 0xfff9 != 0 {
                    return Err(PassReason::Fragment);
                }
                8
            }
            // With segments left, the destination in the IP header is not the last one (RFC 8200 §4.4).
            ipv6::ROUTING if header[3] != 0 => return Err(PassReason::ExtensionHeaders),
            ipv6::AUTHENTICATION => words * 4 + 8,
            _ => words * 8 + 8,
        };
        next = header[0];
    }
    if next == protocol::TCP || next == protocol::UDP {
        Ok((next, skipped))
    } else {
        Err(PassReason::ExtensionHeaders)
    }
}

struct Transport {
    sport: u16,
    dport: u16,
    flags: u8,
}

/// Reads what TCP and UDP have in common, from a transport packet of `length` bytes.
#[inline(always)]
fn transport<B: Frame + ?Sized>(
    frame: &B,
    protocol: u8,
    l4: usize,
    length: usize,
) -> Result<Transport, PassReason> {
    if protocol == protocol::TCP {
        let header: [u8; tcp::HEADER] = frame.read(l4).ok_or(PassReason::Malformed)?;
        let own = (header[12] >> 4) as usize * 4;
        if own < tcp::HEADER || own > length {
            return Err(PassReason::Malformed);
        }
        Ok(Transport { sport: be16(&header, 0), dport: be16(&header, 2), flags: header[13] })
    } else if protocol == protocol::UDP {
        let header: [u8; udp::HEADER] = frame.read(l4).ok_or(PassReason::Malformed)?;
        let own = be16(&header, 4) as usize;
        if own < udp::HEADER || own > length {
            return Err(PassReason::Malformed);
        }
        Ok(Transport { sport: be16(&header, 0), dport: be16(&header, 2), flags: 0 })
    } else {
        Err(PassReason::NotTcpUdp)
    }
}
