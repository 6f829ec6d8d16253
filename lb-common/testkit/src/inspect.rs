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

/// An IP packet, whatever is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// Ethernet destination.
    pub to: MacBytes,
    /// Ethernet source.
    pub from: MacBytes,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// IP protocol number of what is on top.
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of what is on top.
    pub l4: usize,
    /// Where the packet says that it ends; the frame may be shorter or longer.
    pub end: usize,
    /// Of a piece of a datagram: its identification, and whether it is the first.
    pub piece: Option<(u32, bool)>,
}

/// A packet that means something to a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A whole TCP or UDP packet.
    Whole(Seen),
    /// The first piece of one.
    First(Net, Seen),
    /// Another piece.
    Later(Net),
    /// A whole ICMP or ICMPv6 message.
    Message(Message),
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its packet.
    pub net: Net,
    /// Type and code, if the frame has them and a checksum.
    pub kind: Option<[u8; 2]>,
    /// What it is about, if it is an error.
    pub about: Option<About>,
}

/// The TCP or UDP packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Its 5-tuple.
    pub tuple: Tuple,
    /// Offset of the quoted IP header.
    pub l3: usize,
    /// Offset of the quoted transport header.
    pub l4: usize,
}

impl Message {
    /// Whether it asks for an echo.
    #[must_use]
    pub fn is_echo(&self) -> bool {
        matches!((self.net.src.is_ipv4(), self.kind), (true, Some([8, _])) | (false, Some([128, _])))
    }
}

/// Reads a frame. `None` if it is not an unfragmented TCP or UDP packet whose headers are whole and do not
/// contradict one another.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Seen> {
    match what(frame)? {
        What::Whole(seen) => Some(seen),
        _ => None,
    }
}

/// Reads a frame. `None` if it means nothing to a balancer.
#[must_use]
pub fn what(frame: &[u8]) -> Option<What> {
    let net = network(frame)?;
    if net.protocol == if net.src.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 } {
        return net.piece.is_none().then(|| What::Message(message(frame, net)));
    }
    if net.piece.is_some_and(|(_, first)| !first) {
        return matches!(net.protocol, protocol::TCP | protocol::UDP).then_some(What::Later(net));
    }
    let seen = transport(frame, &net)?;
    Some(if net.piece.is_some() { What::First(net, seen) } else { What::Whole(seen) })
}

/// Reads the network layer of a frame.
#[must_use]
pub fn network(frame: &[u8]) -> Option<Net> {
    let mut l3 = 14;
    let mut kind = frame.get(12..14)?;
    for _ in 0..2 {
        if matches!(kind, [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]) {
            kind = frame.get(l3 + 2..l3 + 4)?;
            l3 += 4;
        }
    }
    match kind {
        [0x08, 0x00] => ipv4(frame, l3),
        [0x86, 0xdd] => ipv6(frame, l3),
        _ => None,
    }
}

fn transport(frame: &[u8], net: &Net) -> Option<Seen> {
    let Net { to, from, protocol, ttl, l3, l4, end, .. } = *net;
    let claimed = end.checked_sub(l4)?;
    let flags = match protocol {
        protocol::TCP => {
            let header = frame.get(l4..l4 + 20)?;
            let own = usize::from(header[12] >> 4) * 4;
            (20..=claimed).contains(&own).then_some(header[13])?
        }
        protocol::UDP => {
            let header = frame.get(l4..l4 + 8)?;
            // The first piece has the length of the whole.
            let most = if net.piece.is_some() { usize::MAX } else { claimed };
            (8..=most).contains(&word(header, 4)).then_some(0)?
        }
        _ => return None,
    };
    let port = |at| word(frame, at) as u16;
    let (src, dst) = ((net.src, port(l4)).into(), (net.dst, port(l4 + 2)).into());
    Some(Seen { to, from, src, dst, protocol, flags, ttl, l3, l4, end })
}

fn message(frame: &[u8], net: Net) -> Message {
    let kind = frame.get(net.l4..net.l4 + 4).map(|kind| [kind[0], kind[1]]);
    let is_error = match kind {
        Some([kind, _]) if net.src.is_ipv4() => matches!(kind, 3 | 11 | 12),
        Some([kind, _]) => matches!(kind, 1..=4),
        None => false,
    };
    let about = is_error.then(|| quoted(frame, net.l4 + 8, net.src.is_ipv4())).flatten();
    Message { net, kind, about }
}

/// What is quoted at `l3`.
fn quoted(frame: &[u8], l3: usize, four: bool) -> Option<About> {
    let (src, dst, protocol, l4) = if four {
        let header = frame.get(l3..l3 + 20)?;
        let length = usize::from(header[0] % 16) * 4;
        (header[0] / 16 == 4 && length >= 20 && word(header, 6) & 0x1fff == 0).then_some(())?;
        (four_at(header, 12)?, four_at(header, 16)?, header[9], l3 + length)
    } else {
        let header = frame.get(l3..l3 + 40)?;
        (header[0] / 16 == 6).then_some(())?;
        (six_at(header, 8)?, six_at(header, 24)?, header[6], l3 + 40)
    };
    let ports = frame.get(l4..l4 + 8)?;
    matches!(protocol, protocol::TCP | protocol::UDP).then_some(())?;
    let (src, dst) = ((src, word(ports, 0) as u16).into(), (dst, word(ports, 2) as u16).into());
    Some(About { tuple: Tuple { src, dst, protocol }, l3, l4 })
}

fn four_at(bytes: &[u8], at: usize) -> Option<IpAddr> {
    <[u8; 4]>::try_from(&bytes[at..at + 4]).ok().map(IpAddr::from)
}

fn six_at(bytes: &[u8], at: usize) -> Option<IpAddr> {
    <[u8; 16]>::try_from(&bytes[at..at + 16]).ok().map(IpAddr::from)
}

fn ipv4(frame: &[u8], l3: usize) -> Option<Net> {
    let header = frame.get(l3..l3 + 20)?;
    let length = usize::from(header[0] % 16) * 4;
    (header[0] / 16 == 4 && length >= 20 && word(header, 2) >= length).then_some(())?;
    let piece = word(header, 6) & 0x3fff;
    Some(Net {
        to: frame[..6].try_into().ok()?,
        from: frame[6..12].try_into().ok()?,
        src: four_at(header, 12)?,
        dst: four_at(header, 16)?,
        protocol: header[9],
        ttl: header[8],
        l3,
        l4: l3 + length,
        end: l3 + word(header, 2),
        piece: (piece != 0).then_some((word(header, 4) as u32, piece & 0x1fff == 0)),
    })
}

fn ipv6(frame: &[u8], l3: usize) -> Option<Net> {
    let header = frame.get(l3..l3 + 40)?;
    (header[0] / 16 == 6).then_some(())?;
    let (mut next, mut at, mut piece) = (header[6], l3 + 40, None);
    for _ in 0..8 {
        if !matches!(next, 0 | 43 | 44 | 51 | 60) || matches!(piece, Some((_, false))) {
            break;
        }
        let length = extension(next, frame, at)?;
        if next == 44 {
            let ident = u32::from_ne_bytes(frame[at + 4..at + 8].try_into().ok()?);
            // An atomic fragment is the whole datagram.
            let (offset, more) = (word(frame, at + 2) & 0xfff8, frame[at + 3] & 1 == 1);
            piece = (offset != 0 || more).then_some((ident, offset == 0));
        }
        // Not for the address in the header.
        if next == 43 && frame[at + 3] != 0 {
            return None;
        }
        next = frame[at];
        at += length;
    }
    let end = l3 + 40 + word(header, 4);
    // Still another header: too many. And the packet must have room for what was walked.
    (!matches!(next, 0 | 43 | 44 | 51 | 60) && at <= end).then_some(())?;
    Some(Net {
        to: frame[..6].try_into().ok()?,
        from: frame[6..12].try_into().ok()?,
        src: six_at(header, 8)?,
        dst: six_at(header, 24)?,
        protocol: next,
        ttl: header[7],
        l3,
        l4: at,
        end,
        piece,
    })
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

/// What the checksum of an ICMP or ICMPv6 message comes to; see [`Sums`].
#[must_use]
pub fn message_sum(frame: &[u8], message: &Message) -> u16 {
    let Net { src, l3, l4, end, .. } = message.net;
    let text = &frame[l4.min(frame.len())..end.clamp(l4, frame.len().max(l4)).min(frame.len())];
    if src.is_ipv4() {
        return add_up(&[text]);
    }
    let length = ((end - l4) as u32).to_be_bytes();
    add_up(&[&frame[l3 + 8..l3 + 40], &length, &[0, protocol::ICMPV6], text])
}

/// What the checksum of the IPv4 header of a packet comes to; 0 for IPv6.
#[must_use]
pub fn header_sum(frame: &[u8], l3: usize) -> u16 {
    let end = (l3 + usize::from(frame[l3] % 16) * 4).min(frame.len());
    if frame[l3] / 16 == 4 { add_up(&[&frame[l3..end]]) } else { 0 }
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
