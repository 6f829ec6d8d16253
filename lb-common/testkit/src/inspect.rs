//! What is in a frame. Written without looking at the code under test, the slow way: tests compare the two.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{MacBytes, protocol};

/// A TCP or UDP packet with whole headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Ethernet destination.
    pub to: MacBytes,
    /// Ethernet source.
    pub from: MacBytes,
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// IP protocol number: TCP or UDP.
    pub protocol: u8,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    /// Where the packet says that it ends; the frame may be shorter or longer.
    pub end: usize,
}

impl Seen {
    /// Source, destination and protocol.
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        Tuple { src: self.src, dst: self.dst, protocol: self.protocol }
    }

    /// Offset of the transport checksum.
    #[must_use]
    pub fn checksum_at(&self) -> usize {
        self.l4 + if self.protocol == protocol::UDP { 6 } else { 16 }
    }

    /// Whether it may start a flow: UDP, or a SYN and nothing else that counts.
    #[must_use]
    pub fn opens(&self) -> bool {
        self.protocol == protocol::UDP || self.flags & 0x17 == 0x02
    }
}

/// What names a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// That of the answers.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, ..self }
    }
}

/// Reads a frame. `None` if it is not an unfragmented TCP or UDP packet whose headers are whole and do not
/// contradict one another.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Seen> {
    let mut l3 = 14;
    let mut kind = frame.get(12..14)?;
    for _ in 0..2 {
        if matches!(kind, [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]) {
            kind = frame.get(l3 + 2..l3 + 4)?;
            l3 += 4;
        }
    }
    let (src, dst, protocol, ttl, l4, end) = match kind {
        [0x08, 0x00] => ipv4(frame, l3)?,
        [0x86, 0xdd] => ipv6(frame, l3)?,
        _ => return None,
    };
    let claimed = end.checked_sub(l4)?;
    let flags = match protocol {
        protocol::TCP => {
            let header = frame.get(l4..l4 + 20)?;
            let own = usize::from(header[12] >> 4) * 4;
            (20..=claimed).contains(&own).then_some(header[13])?
        }
        protocol::UDP => {
            let header = frame.get(l4..l4 + 8)?;
            (8..=claimed).contains(&word(header, 4)).then_some(0)?
        }
        _ => return None,
    };
    let port = |at| word(frame, at) as u16;
    Some(Seen {
        to: frame[..6].try_into().ok()?,
        from: frame[6..12].try_into().ok()?,
        src: (src, port(l4)).into(),
        dst: (dst, port(l4 + 2)).into(),
        protocol,
        flags,
        ttl,
        l3,
        l4,
        end,
    })
}

type Network = (IpAddr, IpAddr, u8, u8, usize, usize);

fn ipv4(frame: &[u8], l3: usize) -> Option<Network> {
    let header = frame.get(l3..l3 + 20)?;
    let length = usize::from(header[0] % 16) * 4;
    let whole = header[0] / 16 == 4 && length >= 20 && word(header, 2) >= length;
    let fragment = word(header, 6) & 0x3fff != 0;
    let address = |at| <[u8; 4]>::try_from(&header[at..at + 4]).ok().map(IpAddr::from);
    (whole && !fragment).then_some(())?;
    Some((address(12)?, address(16)?, header[9], header[8], l3 + length, l3 + word(header, 2)))
}

fn ipv6(frame: &[u8], l3: usize) -> Option<Network> {
    let header = frame.get(l3..l3 + 40)?;
    (header[0] / 16 == 6).then_some(())?;
    let (mut next, mut at) = (header[6], l3 + 40);
    for _ in 0..8 {
        let Some(length) = extension(next, frame, at) else { break };
        // Not a whole packet, or not for the address in the header.
        if next == 44 && word(frame, at + 2) & 0xfff9 != 0 || next == 43 && frame[at + 3] != 0 {
            return None;
        }
        next = frame[at];
        at += length;
    }
    let address = |at| <[u8; 16]>::try_from(&header[at..at + 16]).ok().map(IpAddr::from);
    Some((address(8)?, address(24)?, next, header[7], at, l3 + 40 + word(header, 4)))
}

/// Length of an extension header that may stand before TCP and UDP.
fn extension(kind: u8, frame: &[u8], at: usize) -> Option<usize> {
    let length = usize::from(*frame.get(at..at + 8)?.get(1)?);
    match kind {
        0 | 43 | 60 => Some(8 + 8 * length),
        44 => Some(8),
        51 => Some(8 + 4 * length),
        _ => None,
    }
}

/// What the checksums of a packet come to; 0 is right. A frame that was cut short is summed as far as it
/// goes: then no value is right, but the value still tells whether a rewriting kept it as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Of the IPv4 header; `None` for IPv6.
    pub header: Option<u16>,
    /// Of pseudo-header, transport header and payload; `None` for UDP without a checksum.
    pub transport: Option<u16>,
}

impl Sums {
    /// Those of an undamaged packet with checksums.
    #[must_use]
    pub fn right(seen: &Seen) -> Self {
        Self { header: seen.src.is_ipv4().then_some(0), transport: Some(0) }
    }
}

/// Sums up the packet `seen` in `frame`.
#[must_use]
pub fn sums(frame: &[u8], seen: &Seen) -> Sums {
    let four = seen.src.is_ipv4();
    let length = usize::from(frame[seen.l3] % 16) * 4;
    let header = four.then(|| add_up(&[&frame[seen.l3..(seen.l3 + length).min(frame.len())]]));
    let segment = &frame[seen.l4..seen.end.min(frame.len())];
    let claimed = match seen.protocol {
        protocol::UDP => word(frame, seen.l4 + 4),
        _ => seen.end - seen.l4,
    };
    // A UDP datagram may be shorter than what IP carries.
    let segment = &segment[..claimed.min(segment.len())];
    let addresses = if four { &frame[seen.l3 + 12..seen.l3 + 20] } else { &frame[seen.l3 + 8..seen.l3 + 40] };
    let length = (claimed as u32).to_be_bytes();
    let none = seen.protocol == protocol::UDP && word(frame, seen.l4 + 6) == 0;
    let transport = (!none).then(|| add_up(&[addresses, &length, &[0, seen.protocol], segment]));
    Sums { header, transport }
}

/// One's complement sum of texts, each from a word boundary on, as a number from 0 to 65,534: so 0 and ffff
/// are the same.
fn add_up(texts: &[&[u8]]) -> u16 {
    let words = texts.iter().flat_map(|text| text.chunks(2));
    let sum: u64 =
        words.map(|pair| u64::from(pair[0]) * 256 + pair.get(1).map_or(0, |&low| low.into())).sum();
    (sum % 65_535) as u16
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) * 256 + usize::from(bytes[at + 1])
}
