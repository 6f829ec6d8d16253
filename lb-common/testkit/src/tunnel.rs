//! Packets in tunnels: how they are put in, and how they are taken out by code that knows nothing of the code under
//! test. What `lb_common::decap` makes of any frame must be what [`take_out`] makes of it.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    decap::{Gate, Outcome, Question, Role, Rule, decapsulate},
    wire::checksum,
};

use crate::{dice::Dice, draft::Draft};

/// How a packet is wrapped up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IP in IP.
    Ip,
    /// GUE variant 1, to this port.
    Gue(u16),
    /// GUE variant 0, to this port.
    Gue0(u16),
}

/// An outer header.
#[derive(Clone, Copy, Debug)]
pub struct Wrapping {
    /// Where the tunnel begins.
    pub src: IpAddr,
    /// Where it ends; of the same family.
    pub dst: IpAddr,
    /// Kind of tunnel.
    pub kind: Kind,
    /// Congestion bits of the outer header.
    pub ecn: u8,
}

impl Wrapping {
    /// Without congestion bits.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, kind: Kind) -> Self {
        Self { src, dst, kind, ecn: 0 }
    }

    /// The frame with outer headers between its link header and its packet, checksums included.
    ///
    /// # Panics
    /// When the frame is not IPv4 or IPv6, or source and destination are not of one family.
    #[must_use]
    pub fn wrap(&self, frame: &[u8]) -> Vec<u8> {
        let l3 = link_end(frame).expect("a link header");
        let (link, packet) = frame.split_at(l3);
        let inner = if packet[0] >> 4 == 4 { 4 } else { 41 };
        let (protocol, body) = match self.kind {
            Kind::Ip => (inner, packet.to_vec()),
            Kind::Gue(port) => (17, self.datagram(port, packet)),
            Kind::Gue0(port) => (17, self.datagram(port, &[&[0, inner, 0, 0], packet].concat())),
        };
        let mut wrapped = link[..l3 - 2].to_vec();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                wrapped.extend([8, 0]);
                let mut header = vec![0x45, self.ecn];
                header.extend((20 + body.len() as u16).to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
                header.extend([src.octets(), dst.octets()].concat());
                fix_sum(&mut header);
                wrapped.extend(header);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                wrapped.extend([0x86, 0xdd, 0x60, self.ecn << 4, 0, 0]);
                wrapped.extend((body.len() as u16).to_be_bytes());
                wrapped.extend([protocol, 64]);
                wrapped.extend([src.octets(), dst.octets()].concat());
            }
            ends => panic!("{ends:?} are not of one family"),
        }
        wrapped.extend(body);
        wrapped
    }

    /// UDP without a checksum, as RFC 6935 allows to tunnels.
    fn datagram(&self, port: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = [0xc123_u16.to_be_bytes(), port.to_be_bytes()].concat();
        datagram.extend((8 + payload.len() as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        datagram
    }
}

/// Puts the right checksum into an IPv4 header.
pub fn fix_sum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(header));
    header[10..12].copy_from_slice(&sum.to_ne_bytes());
}

/// What an operator allows, as addresses with the length of a prefix.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Where tunnels may end.
    pub at: Vec<(IpAddr, u8)>,
    /// Where they may begin.
    pub from: Vec<(IpAddr, u8)>,
    /// Where inner packets may go.
    pub to: Vec<(IpAddr, u8)>,
    /// UDP port of GUE.
    pub gue_port: u16,
}

impl Rules {
    /// The rules as the kernel program reads them.
    pub fn encoded(&self) -> impl Iterator<Item = Rule> {
        let lists = [(Role::At, &self.at), (Role::From, &self.from), (Role::To, &self.to)];
        lists
            .into_iter()
            .flat_map(|(role, list)| list.iter().map(move |(address, bits)| Rule::new(role, *address, *bits)))
    }
}

/// Looks at the encoded rules one by one; a trie would find the same.
impl Gate for Rules {
    fn gue_port(&self) -> u16 {
        self.gue_port
    }

    fn allows(&self, question: Question) -> bool {
        let bytes = |key: [u32; 5]| -> [u8; 20] {
            key.map(u32::to_ne_bytes).as_flattened().try_into().expect("five words")
        };
        let asked = bytes(question.key());
        self.encoded().any(|rule| {
            let (whole, bits) = (rule.bits as usize / 8, rule.bits % 8);
            let key = bytes(rule.key);
            key[..whole] == asked[..whole] && (bits == 0 || (key[whole] ^ asked[whole]) >> (8 - bits) == 0)
        })
    }
}

/// Where the network header begins.
fn link_end(frame: &[u8]) -> Option<usize> {
    let mut end = 14;
    while end < 22 && matches!(frame.get(end - 2..end)?, [0x81, 0] | [0x88, 0xa8] | [0x91, 0]) {
        end += 4;
    }
    frame.get(..end).map(|_| end)
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(four) => four.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).expect("an address of 4 or 16 bytes").into(),
    }
}

fn within(list: &[(IpAddr, u8)], address: IpAddr) -> bool {
    list.iter().any(|(net, bits)| match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            let shift = 32 - u32::from(*bits);
            shift == 32 || net.to_bits() >> shift == address.to_bits() >> shift
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            let shift = 128 - u32::from(*bits);
            shift == 128 || net.to_bits() >> shift == address.to_bits() >> shift
        }
        _ => false,
    })
}

/// What becomes of a frame, found out the slow way; and the frame that the host gets then, but for the inner IPv4
/// checksum, which stays as it was.
#[must_use]
pub fn take_out(frame: &[u8], rules: &Rules) -> (Outcome, Vec<u8>) {
    match find(frame, rules) {
        Ok(inner) => (Outcome::Decapsulated, inner),
        Err(outcome) => (outcome, frame.to_vec()),
    }
}

/// An outer IP header.
struct Outer {
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
    ecn: u8,
    header: usize,
    /// Bytes that follow, by its own account.
    body: usize,
}

fn find(frame: &[u8], rules: &Rules) -> Result<Vec<u8>, Outcome> {
    use Outcome::{InnerRefused, Malformed, NotAtUs, NotTunnel, SourceRefused};
    let l3 = link_end(frame).filter(|_| frame[0] & 1 == 0).ok_or(NotTunnel)?;
    let packet = &frame[l3..];
    let outer = match frame[l3 - 2..l3] {
        [8, 0] => outer4(packet)?,
        [0x86, 0xdd] => outer6(packet)?,
        _ => return Err(NotTunnel),
    };
    let body = &packet[outer.header..];
    if outer.protocol == 17 {
        let ports = body.get(..4).ok_or(Malformed)?;
        (rules.gue_port != 0 && word(ports, 2) == rules.gue_port.into()).then_some(()).ok_or(NotTunnel)?;
    }
    within(&rules.at, outer.dst).then_some(()).ok_or(NotAtUs)?;
    within(&rules.from, outer.src).then_some(()).ok_or(SourceRefused)?;
    let (version, skip, room) = match outer.protocol {
        4 => (4, 0, outer.body),
        41 => (6, 0, outer.body),
        _ => gue(body, outer.body)?,
    };
    let inner = body.get(skip..).ok_or(Malformed)?;
    let (to, ecn, hops) = if version == 4 { inner4(inner, room)? } else { inner6(inner, room)? };
    within(&rules.to, to).then_some(()).ok_or(InnerRefused)?;
    let ecn = after_tunnel(ecn, outer.ecn).ok_or(Outcome::Congested)?;

    let mut out = frame[..l3].to_vec();
    out[l3 - 2..].copy_from_slice(if version == 4 { &[8, 0] } else { &[0x86, 0xdd] });
    out.extend(inner);
    let header = &mut out[l3..];
    if version == 4 {
        (header[1], header[8]) = (header[1] & 0xfc | ecn, hops.min(254));
    } else {
        (header[1], header[7]) = (header[1] & 0xcf | ecn << 4, hops.min(254));
    }
    Ok(out)
}

fn outer4(packet: &[u8]) -> Result<Outer, Outcome> {
    let header = packet.get(..20).ok_or(Outcome::Malformed)?;
    let (protocol, words, total) = (header[9], header[0] % 16, word(header, 2));
    if ![4, 17, 41].contains(&protocol) {
        return Err(Outcome::NotTunnel);
    }
    if header[0] / 16 != 4 || words < 5 || total < 20 {
        return Err(Outcome::Malformed);
    }
    if word(header, 6) & 0x3fff != 0 {
        return Err(Outcome::Fragment);
    }
    if words > 5 {
        return Err(Outcome::Unsupported);
    }
    if checksum::finish(checksum::sum(header)) != 0 {
        return Err(Outcome::Malformed);
    }
    let (src, dst) = (address(&header[12..16]), address(&header[16..]));
    Ok(Outer { protocol, src, dst, ecn: header[1] % 4, header: 20, body: total - 20 })
}

fn outer6(packet: &[u8]) -> Result<Outer, Outcome> {
    let header = packet.get(..40).ok_or(Outcome::Malformed)?;
    let protocol = header[6];
    if protocol == 44 {
        let next = packet.get(40..42).ok_or(Outcome::Malformed)?[0];
        return Err(if [4, 17, 41].contains(&next) { Outcome::Fragment } else { Outcome::NotTunnel });
    }
    if ![4, 17, 41].contains(&protocol) {
        return Err(Outcome::NotTunnel);
    }
    if header[0] / 16 != 6 {
        return Err(Outcome::Malformed);
    }
    let (src, dst) = (address(&header[8..24]), address(&header[24..]));
    Ok(Outer { protocol, src, dst, ecn: header[1] / 16 % 4, header: 40, body: word(header, 4) })
}

/// IP version, bytes before the inner packet, and bytes that it has room in.
fn gue(body: &[u8], room: usize) -> Result<(u8, usize, usize), Outcome> {
    let header = body.get(..8).ok_or(Outcome::Malformed)?;
    let claimed = word(header, 4);
    if claimed < 12 || claimed > room {
        return Err(Outcome::Malformed);
    }
    match body.get(8..12).ok_or(Outcome::Malformed)? {
        [first, ..] if first / 16 == 4 || first / 16 == 6 => Ok((first / 16, 8, claimed - 8)),
        [first, ..] if first / 64 == 1 => Err(Outcome::Malformed),
        [0, 4, 0, 0] => Ok((4, 12, claimed - 12)),
        [0, 41, 0, 0] => Ok((6, 12, claimed - 12)),
        _ => Err(Outcome::Unsupported),
    }
}

/// Destination, congestion bits, hop limit.
fn inner4(packet: &[u8], room: usize) -> Result<(IpAddr, u8, u8), Outcome> {
    let header = packet.get(..20).ok_or(Outcome::Malformed)?;
    let (own, total) = (usize::from(header[0] % 16) * 4, word(header, 2));
    let whole = header[0] / 16 == 4 && own >= 20 && (own..=room).contains(&total);
    whole.then_some((address(&header[16..]), header[1] % 4, header[8])).ok_or(Outcome::Malformed)
}

fn inner6(packet: &[u8], room: usize) -> Result<(IpAddr, u8, u8), Outcome> {
    let header = packet.get(..40).ok_or(Outcome::Malformed)?;
    let whole = header[0] / 16 == 6 && 40 + word(header, 4) <= room;
    whole.then_some((address(&header[24..]), header[1] / 16 % 4, header[7])).ok_or(Outcome::Malformed)
}

/// RFC 6040, figure 4: rows by the inner mark, columns by the outer one; 4 means to drop.
fn after_tunnel(inner: u8, outer: u8) -> Option<u8> {
    let table = [[0, 0, 0, 4], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
    Some(table[usize::from(inner)][usize::from(outer)]).filter(|mark| *mark < 4)
}

/// Insists that the code under test makes the same of a frame as [`take_out`]; gives what it made.
///
/// # Panics
/// When it does not.
pub fn law(frame: &[u8], rules: &Rules) -> (Outcome, Vec<u8>) {
    let mut made = frame.to_vec();
    let outcome = decapsulate(&mut made, rules);
    let (expected, mut bytes) = take_out(frame, rules);
    assert_eq!(outcome, expected, "{frame:02x?}");
    if outcome == Outcome::Decapsulated {
        let l3 = link_end(&made).expect("a link header");
        let inner = &frame[frame.len() - (bytes.len() - l3)..];
        if inner[0] / 16 == 4 {
            assert_eq!(error(inner), error(&made[l3..]), "{frame:02x?} became {made:02x?}");
            bytes[l3 + 10..l3 + 12].copy_from_slice(&made[l3 + 10..l3 + 12]);
        }
    }
    assert_eq!(made, bytes, "{frame:02x?}");
    (outcome, made)
}

/// By how much the checksum of an IPv4 header is wrong; 0 is right. Of the two forms of zero, either will do.
fn error(packet: &[u8]) -> u16 {
    let end = (usize::from(packet[0] % 16) * 4).min(packet.len());
    checksum::finish(checksum::sum(&packet[..end])) % 0xffff
}

/// Rules to try frames with: every list has addresses, networks and others that are not in it.
#[must_use]
pub fn some_rules() -> Rules {
    let list = |texts: &[(&str, u8)]| {
        texts.iter().map(|(text, bits)| (text.parse().expect("an address"), *bits)).collect()
    };
    Rules {
        at: list(&[("10.20.0.101", 32), ("fd00:20::65", 128)]),
        from: list(&[("10.20.0.0", 30), ("10.99.0.0", 16), ("fd00:20::", 127), ("fd00:99::", 20)]),
        to: list(&[("10.10.0.200", 32), ("fd00:10::c8", 128), ("198.51.100.0", 25)]),
        gue_port: 6080,
    }
}

/// A frame that may come through a tunnel to those rules: of every kind and family, some refused, some damaged.
#[must_use]
pub fn draw(dice: &mut Dice<'_>) -> Vec<u8> {
    let four = dice.chance(128);
    let clients = if four { ["192.0.2.7", "10.20.0.9"] } else { ["2001:db8::7", "fd00:20::9"] };
    let vips: [&str; 3] = if four {
        ["10.10.0.200", "198.51.100.127", "198.51.100.128"]
    } else {
        ["fd00:10::c8", "fd00:10::c8", "fd00:10::c9"]
    };
    let end = |address: &str, port| SocketAddr::new(address.parse().expect("an address"), port);
    let protocol = dice.pick(&[6, 17, 1, 58]);
    let (client, vip) = (end(dice.pick(&clients), 40_000), end(dice.pick(&vips), 80));
    let mut draft =
        Draft::of(protocol, client, vip).payload(&dice.bytes(40)).ttl(dice.pick(&[64, 1, 255, 254, 0]));
    let tags = dice.below(4);
    for _ in 0..tags {
        draft = draft.tag(dice.pick(&[0x8100, 0x88a8, 0x9100]), dice.word());
    }
    if four && dice.chance(40) {
        draft = draft.options(&[1; 8]);
    }
    let mut inner = draft.trailer(dice.below(3)).bytes();
    if dice.chance(128) && tags <= 2 {
        let l3 = 14 + 4 * tags;
        inner[l3 + 1] ^= dice.byte();
        if four {
            let end = l3 + usize::from(inner[l3] % 16) * 4;
            fix_sum(&mut inner[l3..end]);
        }
    }

    let ends: [&str; 7] = if dice.chance(128) {
        ["10.20.0.101", "10.20.0.102", "10.20.0.1", "10.20.0.3", "10.20.0.4", "10.99.255.1", "10.98.0.1"]
    } else {
        ["fd00:20::65", "fd00:20::66", "fd00:20::", "fd00:20::1", "fd00:20::2", "fd00:fff::1", "fd00:1000::1"]
    };
    let dst = if dice.chance(230) { ends[0] } else { ends[1] };
    let kind = dice.pick(&[Kind::Ip, Kind::Gue(6080), Kind::Gue0(6080), Kind::Ip, Kind::Gue(6081)]);
    let src = dice.pick(&ends[2..]);
    let mut wrapping = Wrapping::new(src.parse().expect("one"), dst.parse().expect("one"), kind);
    wrapping.ecn = dice.below(4) as u8;
    let mut frame = if tags > 2 { inner } else { wrapping.wrap(&inner) };
    for _ in 0..if dice.chance(100) { 1 + dice.below(3) } else { 0 } {
        let at = dice.below(128);
        match dice.below(6) {
            0 => frame.truncate(at.max(14)),
            // A true checksum gives a damaged outer header a chance to be read on.
            1 if frame.len() >= 34 && frame[12..14] == [8, 0] => fix_sum(&mut frame[14..34]),
            _ => frame.get_mut(at).into_iter().for_each(|byte| *byte = dice.byte()),
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrapped_up_is_taken_out() {
        let rules = some_rules();
        for (inner, client) in
            [("10.10.0.200:80", "192.0.2.7:4000"), ("[fd00:10::c8]:80", "[2001:db8::7]:4000")]
        {
            let ends = [inner, client].map(|end| end.parse().expect("an address and a port"));
            for tags in 0..3 {
                let draft = Draft::syn(ends[1], ends[0]);
                let draft = (0..tags).fold(draft, |draft, tag| draft.tag(0x8100, tag)).bytes();
                for (src, dst) in [("10.20.0.1", "10.20.0.101"), ("fd00:20::1", "fd00:20::65")] {
                    for kind in [Kind::Ip, Kind::Gue(6080), Kind::Gue0(6080)] {
                        let ends = [src, dst].map(|end| end.parse().expect("an address"));
                        let wrapped = Wrapping::new(ends[0], ends[1], kind).wrap(&draft);
                        assert_eq!(take_out(&wrapped, &rules), (Outcome::Decapsulated, draft.clone()));
                    }
                }
            }
        }
    }
}
