//! Lowers the largest segment that a SYN announces (MSS, RFC 9293 §3.7.1).

use crate::{
    family::Family,
    parse::Packet,
    wire::{Frame, checksum::Delta, tcp},
};

/// Options walked before giving up: more come before the MSS in no SYN that means well.
const OPTIONS: usize = 6;

/// Announces `mss` if the packet announces more. Leaves alone what has no such option, or is malformed.
#[inline(always)]
pub fn clamp<F: Family, B: Frame>(frame: &mut B, packet: &Packet<F>, mss: u16) -> Option<()> {
    let l4 = packet.l4();
    let [offset, _] = frame.read(l4 + 12)?;
    let end = (offset >> 4) as usize * 4;
    let mut at = tcp::HEADER;
    for _ in 0..OPTIONS {
        if at + 4 > end {
            return Some(());
        }
        let Some([kind, length, high, low]) = frame.read(l4 + at) else {
            return Some(());
        };
        match (kind, length) {
            (tcp::OPTION_END, _) => return Some(()),
            (tcp::OPTION_NOTHING, _) => at += 1,
            (tcp::OPTION_MSS, 4) => {
                let old = u16::from_be_bytes([high, low]);
                return if old > mss { lower(frame, l4, l4 + at + 2, old, mss) } else { Some(()) };
            }
            (_, 0 | 1) => return Some(()),
            (_, length) => at += (length & 0x3f) as usize,
        }
    }
    Some(())
}

#[inline(always)]
fn lower<B: Frame>(frame: &mut B, l4: usize, at: usize, old: u16, mss: u16) -> Option<()> {
    let [high, low] = mss.to_be_bytes();
    frame.write(at, [high, low])?;
    // At an odd offset the word straddles two: then its bytes count swapped (RFC 1071 §2.B).
    let turn =
        |value: u16| if (at - l4).is_multiple_of(2) { value.to_be() } else { value.to_be().swap_bytes() };
    let sum = u16::from_ne_bytes(frame.read(l4 + tcp::CHECKSUM)?);
    frame.write(l4 + tcp::CHECKSUM, Delta::NONE.word(turn(old), turn(mss)).apply(sum).to_ne_bytes())
}
