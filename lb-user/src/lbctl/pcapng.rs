//! Captures with what was decided about each packet as its comment, for Wireshark and tshark.
//!
//! The format is draft-ietf-opsawg-pcapng: §4.1 section header, §4.2 interface description, §4.3 enhanced packet, §3.5
//! options. All numbers are little-endian, which the section header says.

use std::collections::HashMap;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// `opt_comment`, of any block.
const COMMENT: u16 = 1;
/// `shb_userappl`.
const APPLICATION: u16 = 4;
/// `if_name`.
const NAME: u16 = 2;
/// `if_tsresol`: the next byte is a negative power of ten.
const RESOLUTION: u16 = 9;
/// `epb_flags`, whose low two bits say inbound (1) or outbound (2).
const FLAGS: u16 = 2;

/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// One frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Where it was, or went.
    pub interface: &'a str,
    /// Whether it went out there.
    pub outbound: bool,
    /// Nanoseconds since 1970-01-01 UTC.
    pub time: u64,
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// How many there are in all.
    pub length: u32,
    /// What is to be said about it.
    pub comment: &'a str,
}

/// Makes the bytes of a capture, a frame at a time.
#[derive(Debug, Default)]
pub struct Capture {
    interfaces: HashMap<String, u32>,
    begun: bool,
}

impl Capture {
    /// The bytes that add a frame, and before it whatever a reader must know first.
    #[must_use]
    pub fn add(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = self.begin();
        let next = self.interfaces.len() as u32;
        let interface = *self.interfaces.entry(frame.interface.to_owned()).or_insert_with(|| {
            bytes.extend(interface_description(frame.interface));
            next
        });
        let mut body = Vec::new();
        body.extend(interface.to_le_bytes());
        body.extend(((frame.time >> 32) as u32).to_le_bytes());
        body.extend((frame.time as u32).to_le_bytes());
        body.extend((frame.bytes.len() as u32).to_le_bytes());
        body.extend(frame.length.max(frame.bytes.len() as u32).to_le_bytes());
        body.extend(frame.bytes);
        pad(&mut body);
        option(&mut body, COMMENT, frame.comment.as_bytes());
        option(&mut body, FLAGS, &(if frame.outbound { 2u32 } else { 1 }).to_le_bytes());
        end_of_options(&mut body);
        bytes.extend(block(ENHANCED_PACKET, &body));
        bytes
    }

    /// The bytes that a capture begins with, if they were not given yet.
    #[must_use]
    pub fn begin(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.begun, true) {
            return Vec::new();
        }
        let mut body = Vec::new();
        body.extend(0x1a2b_3c4du32.to_le_bytes());
        body.extend([1, 0, 0, 0]);
        // The length of the section is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, APPLICATION, concat!("lbctl ", env!("CARGO_PKG_VERSION")).as_bytes());
        end_of_options(&mut body);
        block(SECTION_HEADER, &body)
    }
}

fn interface_description(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(ETHERNET.to_le_bytes());
    body.extend([0; 2]);
    // No limit to the length of a frame.
    body.extend([0; 4]);
    option(&mut body, NAME, name.as_bytes());
    option(&mut body, RESOLUTION, &[9]);
    end_of_options(&mut body);
    block(INTERFACE, &body)
}

/// A block: type, length, body, length again.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes(), &length[..], body, &length].concat()
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

/// To a multiple of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// The blocks of a capture, by type, each checked to be well-formed.
    fn blocks(bytes: &[u8]) -> Vec<(u32, &[u8])> {
        let (mut blocks, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let length = word(rest, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(rest, length - 4) as usize, length, "the length is there twice");
            blocks.push((word(rest, 0), &rest[8..length - 4]));
            rest = &rest[length..];
        }
        blocks
    }

    fn options(mut rest: &[u8]) -> Vec<(u16, &[u8])> {
        let mut options = Vec::new();
        loop {
            let (code, length) = (word(rest, 0) as u16, (word(rest, 0) >> 16) as usize);
            if code == 0 {
                assert_eq!(rest.len(), 4, "nothing follows the end");
                return options;
            }
            options.push((code, &rest[4..4 + length]));
            rest = &rest[4 + length.next_multiple_of(4)..];
        }
    }

    fn frame<'a>(interface: &'a str, bytes: &'a [u8]) -> Frame<'a> {
        let time = 0x0123_4567_89ab_cdef;
        Frame { interface, outbound: true, time, bytes, length: 1_500, comment: "dropped: no server" }
    }

    #[test]
    fn a_capture_has_a_header_its_interfaces_and_its_packets() {
        let mut capture = Capture::default();
        let mut bytes = capture.add(&frame("eth0", &[1, 2, 3, 4, 5]));
        bytes.extend(capture.add(&frame("eth1", &[6; 8])));
        bytes.extend(capture.add(&frame("eth0", &[7; 4])));
        let blocks = blocks(&bytes);
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        let (section, interface, packet) = (SECTION_HEADER, INTERFACE, ENHANCED_PACKET);
        assert_eq!(kinds, [section, interface, packet, interface, packet, packet]);
        assert_eq!((word(blocks[0].1, 0), word(blocks[0].1, 4)), (0x1a2b_3c4d, 1), "byte order, version 1.0");
        assert_eq!(options(&blocks[1].1[8..]), [(NAME, &b"eth0"[..]), (RESOLUTION, &[9][..])]);

        let first = blocks[2].1;
        let words: Vec<_> = (0..5).map(|index| word(first, 4 * index)).collect();
        assert_eq!(words, [0, 0x0123_4567, 0x89ab_cdef, 5, 1_500]);
        assert_eq!(first[20..28], [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(
            options(&first[28..]),
            [(COMMENT, &b"dropped: no server"[..]), (FLAGS, &[2, 0, 0, 0][..])]
        );
        let numbers: Vec<_> = [2, 4, 5].iter().map(|&index| word(blocks[index].1, 0)).collect();
        assert_eq!(numbers, [0, 1, 0], "each packet names its interface");
    }

    #[test]
    fn a_capture_of_nothing_is_one() {
        let bytes = Capture::default().begin();
        assert_eq!(blocks(&bytes).len(), 1);
    }
}
