//! Frames that are not as they should be. Edits of one field each, by offsets that the caller knows from
//! [`inspect::read`] of the undamaged frame; checksums are left as they were, and so become wrong.

use crate::{
    dice::Dice,
    inspect::{self, Seen},
};

/// Says how many 32-bit words an IPv4 header has, whatever it has.
pub fn header_words(frame: &mut [u8], seen: &Seen, words: u8) {
    frame[seen.l3] = frame[seen.l3] & 0xf0 | words & 0x0f;
}

/// Says which IP version it is.
pub fn version(frame: &mut [u8], seen: &Seen, version: u8) {
    frame[seen.l3] = frame[seen.l3] & 0x0f | version << 4;
}

/// Says how long the IPv4 packet is, or what follows the fixed IPv6 header.
pub fn length(frame: &mut [u8], seen: &Seen, bytes: u16) {
    let at = seen.l3 + if seen.src.is_ipv4() { 2 } else { 4 };
    frame[at..at + 2].copy_from_slice(&bytes.to_be_bytes());
}

/// Says how many 32-bit words the TCP header has.
pub fn data_offset(frame: &mut [u8], seen: &Seen, words: u8) {
    frame[seen.l4 + 12] = frame[seen.l4 + 12] & 0x0f | words << 4;
}

/// Says how long the UDP datagram is.
pub fn datagram_length(frame: &mut [u8], seen: &Seen, bytes: u16) {
    frame[seen.l4 + 4..seen.l4 + 6].copy_from_slice(&bytes.to_be_bytes());
}

/// Says what follows the fixed IP header.
pub fn protocol(frame: &mut [u8], seen: &Seen, number: u8) {
    frame[seen.l3 + if seen.src.is_ipv4() { 9 } else { 6 }] = number;
}

/// Damages a frame somehow. A frame that is no packet is only cut or has bytes changed.
pub fn somehow(frame: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let (seen, size) = (inspect::read(frame), frame.len());
    let choices = if seen.is_some() { 12 } else { 4 };
    match (dice.below(choices), seen) {
        (0, _) => frame.truncate(dice.below(frame.len() + 1)),
        (1, _) => {
            let more = dice.bytes(64);
            frame.extend(more);
        }
        (2 | 3, _) | (_, None) => {
            let at = dice.below(frame.len());
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= dice.byte();
            }
        }
        (4, Some(seen)) => header_words(frame, &seen, dice.byte()),
        (5, Some(seen)) => version(frame, &seen, dice.byte()),
        (6, Some(seen)) => length(frame, &seen, length_near(size - seen.l3, dice)),
        (7 | 8, Some(seen)) if seen.protocol == 6 => data_offset(frame, &seen, dice.byte()),
        (7 | 8, Some(seen)) => datagram_length(frame, &seen, length_near(size - seen.l4, dice)),
        (9, Some(seen)) => protocol(frame, &seen, dice.pick(&[0, 1, 6, 17, 43, 44, 50, 51, 58, 59, 60, 255])),
        // Destination MAC of a group; fragment.
        (10, _) => frame[0] |= 1,
        (_, Some(seen)) => frame[seen.l3 + 6] ^= dice.byte(),
    }
}

/// A length near what would be right, or any.
fn length_near(right: usize, dice: &mut Dice<'_>) -> u16 {
    match dice.below(4) {
        0 => dice.word(),
        1 => dice.byte().into(),
        _ => (right + 8).saturating_sub(dice.below(16)) as u16,
    }
}
