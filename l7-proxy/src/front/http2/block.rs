//! Header blocks (RFC 7541 §6) as far as a guard has to know them: how they begin, and how many fields they have. Nothing is
//! decoded. Pure.

/// Whether the first field of a block is a pseudo-field: one of the static table's first fourteen, or a name
/// that begins with a colon (RFC 7541 §6, Appendix B: 1011100).
pub(super) fn begins_with_pseudo(block: &[u8]) -> bool {
    match block {
        [0x81..=0x8e | 0x41..=0x4e | 0x01..=0x0e | 0x11..=0x1e, ..] => true,
        [0x40 | 0x00 | 0x10, length, first, ..] if length & 0x80 == 0 => *length > 0 && *first == b':',
        [0x40 | 0x00 | 0x10, _, first, ..] => first >> 1 == 0b101_1100,
        _ => false,
    }
}

/// Fields of a block; of one that is broken, as many as it could have at most.
pub(super) fn fields(block: &[u8]) -> usize {
    let mut rest = block;
    let mut fields = 0;
    while let Some(&first) = rest.first() {
        let after = match first {
            // From a table.
            0x80.. => number(rest, 7).map(|(_, rest)| rest),
            // The table's size, which is no field.
            0x20..=0x3f => match number(rest, 5) {
                Some((_, after)) => {
                    rest = after;
                    continue;
                }
                None => None,
            },
            _ => literal(rest, if first & 0x40 == 0 { 4 } else { 6 }),
        };
        let Some(after) = after else { return block.len() };
        rest = after;
        fields += 1;
    }
    fields
}

/// What is behind a literal field, whose name is from a table unless it is number 0.
fn literal(block: &[u8], prefix: u32) -> Option<&[u8]> {
    let (name, rest) = number(block, prefix)?;
    let rest = if name == 0 { text(rest)? } else { rest };
    text(rest)
}

/// What is behind a string.
fn text(block: &[u8]) -> Option<&[u8]> {
    let (length, rest) = number(block, 7)?;
    rest.get(length..)
}

/// An integer (RFC 7541 §5.1) and what is behind it. None that is longer than any block.
fn number(block: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    let (&first, mut rest) = block.split_first()?;
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(first) & most;
    if value < most {
        return Some((value, rest));
    }
    for shift in [0, 7, 14] {
        let (&next, after) = rest.split_first()?;
        rest = after;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_and_what_is_broken_is_taken_for_many() {
        assert_eq!(fields(b""), 0);
        assert_eq!(fields(&[0x82, 0x86, 0xff, 0x80, 0x01]), 3);
        assert_eq!(fields(&[0x20, 0x3f, 0xe1, 0x1f, 0x82]), 1, "the table's size is no field");
        // RFC 7541 Appendix C.2.1 and C.2.2.
        let named = [&[0x40, 0x0a][..], b"custom-key", &[0x0d], b"custom-header"].concat();
        let indexed = [&[0x04, 0x0c][..], b"/sample/path"].concat();
        assert_eq!((fields(&named), fields(&indexed)), (1, 1));
        let long = [&[0x10, 1, b'a', 0x7f, 0xe9, 0x06][..], &[b'x'; 1_000]].concat();
        assert_eq!(fields(&[named, indexed, long.clone()].concat()), 3);
        assert_eq!(fields(&long[..900]), 900);
        assert_eq!(fields(&[0xff, 0xff, 0xff, 0xff, 0xff]), 5);
    }
}
