//! Header blocks (RFC 7541 §6) as far as a guard has to know them: how they begin, and how many fields they have. Nothing is
//! decoded. Pure.

use super::frame::{Frame, PADDED, WITH_PRIORITY};

/// Whether the first field of a block is a pseudo-field: one of the static table's first fourteen, or a name
/// that begins with a colon (RFC 7541 §6, Appendix B: 1011100). Those of the dynamic table are not
/// known here. None where what is there of the block does not tell.
pub(super) fn begins_with_pseudo(mut block: &[u8]) -> Option<bool> {
    // Changes of the table's size may come first, two at most (RFC 7541 §4.2); more would hide what follows.
    let mut changes = 0;
    while let [first @ 0x20..=0x3f, rest @ ..] = block {
        changes += 1;
        if changes > 2 {
            return Some(true);
        }
        let more = rest.iter().take_while(|&byte| byte & 0x80 != 0).count() + 1;
        block = if *first == 0x3f { rest.get(more..).unwrap_or_default() } else { rest };
    }
    Some(match block {
        [0x81..=0x8e | 0x41..=0x4e | 0x01..=0x0e | 0x11..=0x1e, ..] => true,
        [] | [0x40 | 0x00 | 0x10] | [0x40 | 0x00 | 0x10, _] => return None,
        [0x40 | 0x00 | 0x10, length, first, ..] if length & 0x80 == 0 => *length > 0 && *first == b':',
        [0x40 | 0x00 | 0x10, _, first, ..] => first >> 1 == 0b101_1100,
        _ => false,
    })
}

/// Bytes of a name, and of a field, that are taken out of a table.
const NAME: usize = 32;
const FIELD: usize = 128;

/// Counts the fields of a block that comes in pieces.
#[derive(Debug, Default)]
struct Fields {
    count: usize,
    /// Bytes that their strings have at most when they are decoded: none of Huffman's codes has fewer than five bits (RFC 7541,
    /// Appendix B). What is in tables is not known here; few names have more than [`NAME`], and few fields more than [`FIELD`].
    bytes: usize,
    is_huffman: bool,
    /// Strings of the field that are still to come, and bytes of the one that has begun.
    strings: u8,
    skip: usize,
    /// An integer that goes on (RFC 7541 §5.1): by how much its next seven bits are to be shifted.
    shift: Option<u32>,
    /// Whether that is the length of a string, and how long it is so far.
    is_length: bool,
    length: usize,
}

impl Fields {
    /// More of the block.
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            if let Some(shift) = self.shift {
                self.more(byte, shift);
            } else if self.strings > 0 {
                self.strings -= 1;
                self.length = usize::from(byte & 0x7f);
                self.is_huffman = byte & 0x80 != 0;
                self.is_length = self.length == 0x7f;
                self.shift = self.is_length.then_some(0);
                if !self.is_length {
                    self.string();
                }
            } else {
                self.begin(byte);
            }
        }
    }

    /// The first byte of a field, or of a change of the table's size, which is none.
    fn begin(&mut self, byte: u8) {
        let (mask, is_literal) = match byte {
            0x80.. => (0x7f, false),
            0x40.. => (0x3f, true),
            0x20.. => (0x1f, false),
            _ => (0x0f, true),
        };
        let index = byte & mask;
        self.count += usize::from(mask != 0x1f);
        self.strings = match (is_literal, index) {
            (false, _) => 0,
            // With a name of its own.
            (true, 0) => 2,
            (true, _) => 1,
        };
        self.bytes += match (is_literal, index) {
            (false, _) if mask != 0x1f => FIELD,
            (true, 1..) => NAME,
            _ => 0,
        };
        self.shift = (index == mask).then_some(0);
    }

    /// The next byte of an integer. Those that are longer than any frame are for the h2 crate to refuse.
    fn more(&mut self, byte: u8, shift: u32) {
        if self.is_length {
            self.length = self.length.saturating_add(usize::from(byte & 0x7f) << shift);
        }
        self.shift = (byte & 0x80 != 0).then_some((shift + 7).min(28));
        if self.shift.is_none() && std::mem::take(&mut self.is_length) {
            self.string();
        }
    }

    /// The length of a string is known.
    fn string(&mut self) {
        self.skip = self.length;
        let decoded = if self.is_huffman { self.length.saturating_mul(8) / 5 } else { self.length };
        self.bytes = self.bytes.saturating_add(decoded);
    }
}

/// How a block begins, as far as it takes to judge it: two changes of the table's size, and the begin of a field.
#[derive(Debug, Default)]
struct Begin {
    bytes: [u8; 16],
    have: usize,
    with_pseudo: Option<bool>,
}

impl Begin {
    fn take(&mut self, bytes: &[u8]) {
        if self.with_pseudo.is_some() {
            return;
        }
        let room = &mut self.bytes[self.have..];
        let taken = room.len().min(bytes.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.have += taken;
        self.with_pseudo = begins_with_pseudo(&self.bytes[..self.have]);
        // Nobody needs so many, unless to hide what follows.
        if self.have == self.bytes.len() {
            self.with_pseudo.get_or_insert(true);
        }
    }
}

/// Trailers that come, in a frame or some of them.
#[derive(Debug)]
pub(super) struct Trailers {
    fields: Fields,
    begin: Begin,
    /// Of this frame: whether the length of its padding is still to come, bytes before the block, and bytes of the block.
    is_padded: bool,
    before: usize,
    left: usize,
}

impl Trailers {
    /// They begin; `is_open` where it has to be seen yet whether by a pseudo-field.
    pub(super) fn new(frame: &Frame<'_>, is_open: bool) -> Self {
        let is_padded = frame.flags & PADDED != 0;
        let before = if frame.flags & WITH_PRIORITY != 0 { 5 } else { 0 };
        let left = frame.length.saturating_sub(before);
        let begin = Begin { with_pseudo: (!is_open).then_some(false), ..Begin::default() };
        Self { fields: Fields::default(), begin, is_padded, before, left }
    }

    /// They go on in this frame.
    pub(super) fn go_on(self, frame: &Frame<'_>) -> Self {
        Self { is_padded: false, before: 0, left: frame.length, ..self }
    }

    /// How many fields have begun.
    pub(super) fn fields(&self) -> usize {
        self.fields.count
    }

    /// How large they are by then, as SETTINGS_MAX_HEADER_LIST_SIZE counts (RFC 9113 §6.5.2); no less, unless by what is in tables.
    pub(super) fn size(&self) -> usize {
        self.fields.bytes.saturating_add(32 * self.fields.count)
    }

    /// More of the frame.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        if let (true, Some((&padding, rest))) = (self.is_padded, bytes.split_first()) {
            self.is_padded = false;
            self.left = self.left.saturating_sub(1 + usize::from(padding));
            bytes = rest;
        }
        let before = self.before.min(bytes.len());
        self.before -= before;
        bytes = &bytes[before..];
        let block = self.left.min(bytes.len());
        self.left -= block;
        self.begin.take(&bytes[..block]);
        self.fields.take(&bytes[..block]);
    }

    /// Whether they are seen to begin with a pseudo-field.
    pub(super) fn begin_with_pseudo(&self) -> bool {
        self.begin.with_pseudo == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of a block that comes in pieces of `step`.
    fn fields(block: &[u8], step: usize) -> usize {
        let mut fields = Fields::default();
        block.chunks(step).for_each(|piece| fields.take(piece));
        fields.count
    }

    #[test]
    fn fields_are_counted_however_they_are_cut() {
        // RFC 7541 Appendix C.2.1 and C.2.2.
        let named = [&[0x40, 0x0a][..], b"custom-key", &[0x0d], b"custom-header"].concat();
        let indexed = [&[0x04, 0x0c][..], b"/sample/path"].concat();
        let long = [&[0x10, 1, b'a', 0x7f, 0xe9, 0x06][..], &[0x82; 1_000]].concat();
        let far = [0x7f, 0x80, 0x01, 1, 0x82, 0x0f, 0x80, 0x01, 1, 0x82];
        for step in 1..50 {
            assert_eq!(fields(b"", step), 0);
            assert_eq!(fields(&[0x82, 0x86, 0xff, 0x80, 0x01, 0xbe], step), 4);
            assert_eq!(fields(&[0x20, 0x3f, 0xe1, 0x1f, 0x82], step), 1, "the table's size is no field");
            assert_eq!(fields(&[&named[..], &indexed, &long, &far, &[0xbe]].concat(), step), 6);
            assert_eq!(fields(&[0xbe; 1_900], step), 1_900);
            let mut strings = Fields::default();
            // Five and two bytes in Huffman's code may be eight and three.
            let huffman = [0x10, 0x85, 1, 2, 3, 4, 5, 0x82, 1, 2];
            let block = [&named[..], &indexed, &long, &huffman].concat();
            block.chunks(step).for_each(|piece| strings.take(piece));
            assert_eq!(strings.bytes, 10 + 13 + (NAME + 12) + 1 + 1_000 + 8 + 3);
            // What is no block: it ends.
            fields(&[0xff; 100], step);
            fields(&[&[0, 0x7f][..], &[0xff; 100]].concat(), step);
        }
    }
}
