//! Frames as tests want to see them: who, to whom, which ports. A frame that is not TCP or UDP directly on
//! IPv4 or IPv6 is `None`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::veth::Mac;

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with its flags byte.
    Tcp {
        /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN from the highest bit down.
        flags: u8,
    },
    /// UDP.
    Udp,
}

/// The parts of a frame that tests ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Ethernet destination.
    pub dst_mac: Mac,
    /// Ethernet source.
    pub src_mac: Mac,
    /// IP source.
    pub src: IpAddr,
    /// IP destination.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// TCP or UDP.
    pub transport: Transport,
    /// Bytes after the transport header, going by the lengths in the headers.
    pub payload: usize,
}

impl Frame {
    /// Reads a frame of which at least the headers were captured.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (ethernet, packet) = bytes.split_at_checked(14)?;
        let dst_mac = Mac(ethernet[..6].try_into().ok()?);
        let src_mac = Mac(ethernet[6..12].try_into().ok()?);
        let (src, dst, protocol, header, total): (IpAddr, IpAddr, u8, usize, usize) = match ethernet[12..14] {
            [0x08, 0x00] => {
                let head = packet.get(..20)?;
                let header = usize::from(head[0] & 0xf) * 4;
                let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
                let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
                (address(12).into(), address(16).into(), head[9], header, total)
            }
            [0x86, 0xdd] => {
                let head = packet.get(..40)?;
                let total = 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
                let address = |at: usize| {
                    <[u8; 16]>::try_from(&head[at..at + 16]).map(Ipv6Addr::from).map(IpAddr::from).ok()
                };
                (address(8)?, address(24)?, head[6], 40, total)
            }
            _ => return None,
        };
        let segment = packet.get(header..)?;
        let (transport, length) = match protocol {
            6 => (Transport::Tcp { flags: *segment.get(13)? }, usize::from(segment[12] >> 4) * 4),
            17 => (Transport::Udp, 8),
            _ => return None,
        };
        segment.get(..length)?;
        let payload = total.checked_sub(header + length)?;
        let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let (src_port, dst_port) = (port(0), port(2));
        Some(Self { dst_mac, src_mac, src, dst, src_port, dst_port, transport, payload })
    }

    /// Whether it opens a TCP connection.
    #[must_use]
    pub fn is_syn(&self) -> bool {
        matches!(self.transport, Transport::Tcp { flags } if flags & 0x12 == 0x02)
    }

    /// Whether it accepts a TCP connection.
    #[must_use]
    pub fn is_syn_ack(&self) -> bool {
        matches!(self.transport, Transport::Tcp { flags } if flags & 0x12 == 0x12)
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src_mac, dst_mac, src, dst, src_port, dst_port, transport, payload } = self;
        write!(
            f,
            "{src_mac} > {dst_mac}, {src} {src_port} > {dst} {dst_port}, {transport:02x?}, {payload} bytes"
        )
    }
}

/// The frames in a capture file with microsecond or nanosecond times, written on this machine.
///
/// # Errors
/// What is wrong with the file.
pub fn read_pcap(file: &[u8]) -> Result<Vec<&[u8]>, String> {
    let (head, mut rest) = file.split_at_checked(24).ok_or("no capture header")?;
    if !matches!(head[..4], [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) {
        return Err(format!("{:02x?} is not the start of a capture file", &head[..4]));
    }
    let mut frames = Vec::new();
    // A record that is still being written ends the list: the writer flushes whole records.
    while let Some((record, after)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes([record[8], record[9], record[10], record[11]]) as usize;
        let Some((frame, after)) = after.split_at_checked(length) else { break };
        frames.push(frame);
        rest = after;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IPv4 with 4 bytes of options, UDP 5000 > 53 with 3 bytes, and padding as on a real wire.
    const UDP: &[u8] = &[
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x46, 0, 0, 35, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10,
        0, 0, 2, 1, 1, 1, 1, 0x13, 0x88, 0, 53, 0, 11, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn an_ipv4_header_with_options_and_padding_is_read_by_its_lengths() {
        let frame = Frame::parse(UDP).expect("a frame");
        assert_eq!(
            frame.to_string(),
            "02:00:00:00:00:02 > 02:00:00:00:00:01, 10.0.0.1 5000 > 10.0.0.2 53, Udp, 3 bytes"
        );
    }

    #[test]
    fn a_frame_cut_anywhere_in_its_headers_is_not_a_frame() {
        for length in 0..UDP.len() - 8 {
            assert_eq!(Frame::parse(&UDP[..length]), None, "cut to {length} bytes");
        }
    }

    #[test]
    fn an_unfinished_record_at_the_end_of_a_capture_is_left_out() {
        let mut file = vec![0; 24];
        file[..4].copy_from_slice(&[0xd4, 0xc3, 0xb2, 0xa1]);
        for _ in 0..2 {
            file.extend([0; 8].into_iter().chain(3_u32.to_le_bytes()).chain(3_u32.to_le_bytes()));
            file.extend(b"abc");
        }
        assert_eq!(read_pcap(&file), Ok(vec![&b"abc"[..], b"abc"]));
        assert_eq!(read_pcap(&file[..file.len() - 1]), Ok(vec![&b"abc"[..]]));
        assert!(read_pcap(b"not a capture file at all").is_err());
    }
}
