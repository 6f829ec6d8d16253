//! Where in a UDP payload the destination connection ID lies (RFC 8999 §5).
//!
//! ```text
//! long header   1xxxxxxx  version (4)  DCID length (1)  DCID …  SCID length (1)  SCID …
//! short header  0xxxxxxx  DCID …                          its length is known to the server alone
//! ```
//!
//! Several QUIC packets may share a datagram; they belong to one connection (RFC 9000 §12.2), so the first
//! one speaks for all.

use crate::wire::Frame;

/// The first bit of a QUIC packet (RFC 8999 §5.1).
const LONG_HEADER: u8 = 0x80;

/// Octets before the connection ID of a packet with a long header: first byte, version, length.
const LONG_BEFORE: usize = 6;

/// The same for a short header.
const SHORT_BEFORE: usize = 1;

/// The shortest datagram that can be routed: the long header's first byte, version, length and one octet; or
/// the short header's first byte and the shortest ID of QUIC-LB, which has 6 octets.
const SHORTEST: usize = 7;

/// A destination connection ID within a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dcid {
    /// Offset of its first octet in the frame.
    pub at: usize,
    /// Octets that may belong to it: its length where the packet says it, else all to the end of the
    /// datagram.
    pub length: usize,
    /// Its first octet.
    pub first: u8,
}

impl Dcid {
    /// Which configuration its server used: the first three bits (QUIC-LB §3.1).
    #[inline(always)]
    #[must_use]
    pub fn rotation(&self) -> u8 {
        self.first >> 5
    }
}

/// Finds the connection ID in a UDP payload of `length` octets that begins at `at` in the frame. The length
/// is that of the UDP header: behind it there may be padding of the link.
///
/// `None` where there is none, or too little to be routed by. IDs longer than the 20 octets of QUIC version 1
/// are found too: which versions there will be is nothing that a balancer may know.
#[inline(always)]
#[must_use]
pub fn locate<B: Frame + ?Sized>(frame: &B, at: usize, length: usize) -> Option<Dcid> {
    if length < SHORTEST {
        return None;
    }
    let [kind, short_first, _, _, _, long_length, long_first] = frame.read::<SHORTEST>(at)?;
    if kind & LONG_HEADER == 0 {
        return Some(Dcid { at: at + SHORT_BEFORE, length: length - SHORT_BEFORE, first: short_first });
    }
    let own = long_length as usize;
    if own == 0 || own > length - LONG_BEFORE {
        return None;
    }
    Some(Dcid { at: at + LONG_BEFORE, length: own, first: long_first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(dcid_length: u8, rest: &[u8]) -> Vec<u8> {
        [&[0xc3, 0, 0, 0, 1, dcid_length], rest].concat()
    }

    fn whole(payload: &[u8]) -> Option<Dcid> {
        locate(payload, 0, payload.len())
    }

    #[test]
    fn a_long_header_says_how_long_the_id_is() {
        let payload = long(8, &[0x47, 1, 2, 3, 4, 5, 6, 7, 0, 99]);
        assert_eq!(whole(&payload), Some(Dcid { at: 6, length: 8, first: 0x47 }));
        assert_eq!(whole(&payload).unwrap().rotation(), 2);
    }

    #[test]
    fn the_version_makes_no_difference() {
        for version in [0_u32, 1, 0x6b33_43cf, 0xfafa_fafa] {
            let mut payload = long(20, &[0x20; 30]);
            payload[1..5].copy_from_slice(&version.to_be_bytes());
            assert_eq!(whole(&payload).unwrap().length, 20, "version {version:#x}");
        }
    }

    #[test]
    fn nor_do_the_bits_that_belong_to_a_version() {
        for bits in 0..0x80 {
            let mut payload = long(8, &[0x20; 30]);
            payload[0] = 0x80 | bits;
            assert_eq!(whole(&payload).unwrap().at, 6);
            payload[0] = bits;
            assert_eq!(whole(&payload).unwrap().at, 1);
        }
    }

    #[test]
    fn a_short_header_leaves_the_length_open() {
        let payload = [0x40, 0xe7, 1, 2, 3, 4, 5, 6];
        assert_eq!(whole(&payload), Some(Dcid { at: 1, length: 7, first: 0xe7 }));
        assert_eq!(whole(&payload).unwrap().rotation(), 7);
    }

    #[test]
    fn an_id_of_no_octets_is_none() {
        assert_eq!(whole(&long(0, &[8; 30])), None);
    }

    #[test]
    fn an_id_that_ends_with_the_datagram_is_found_and_one_that_does_not_is_not() {
        assert_eq!(whole(&long(4, &[9; 4])).unwrap().length, 4);
        assert_eq!(whole(&long(5, &[9; 4])), None);
        assert_eq!(whole(&long(255, &[9; 254])), None);
        assert_eq!(whole(&long(255, &[9; 255])).unwrap().length, 255);
    }

    #[test]
    fn what_is_shorter_than_any_routable_datagram_is_none() {
        for length in 0..SHORTEST {
            assert_eq!(whole(&vec![0x40; length]), None);
            assert_eq!(whole(&vec![0xc0; length]), None);
        }
    }

    #[test]
    fn padding_behind_the_datagram_is_not_part_of_it() {
        let frame = [0x40; 60];
        assert_eq!(locate(&frame[..], 0, 6), None);
        assert_eq!(locate(&frame[..], 0, 7).unwrap().length, 6);
        let payload = long(8, &[9; 40]);
        assert_eq!(locate(&payload[..], 0, 13), None);
        assert_eq!(locate(&payload[..], 0, 14).unwrap().length, 8);
    }

    #[test]
    fn a_length_that_promises_more_than_the_frame_has_is_none() {
        assert_eq!(locate(&[0x40; 6][..], 0, 1200), None);
        assert_eq!(locate(&[0x40; 60][..], 58, 1200), None);
        assert_eq!(locate(&[0x40; 60][..], usize::MAX, 1200), None);
    }
}
