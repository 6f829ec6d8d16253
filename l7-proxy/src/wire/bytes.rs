//! Which bytes may stand where (RFC 9110 §5.5, §5.6.2).

/// For each byte whether it may be part of a token.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9'
            | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// Whether `byte` may be part of a token (a method, a field name).
#[must_use]
pub fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Whether `text` is a token.
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| TOKEN[byte as usize])
}

/// Whether `text` may be the value of a field: no control characters but tabs. Eight bytes at once, since this
/// looks at most bytes of every head.
pub(super) fn is_value(text: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut words = text.chunks_exact(8);
    let odd = words.by_ref().any(|word| {
        let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
        // A byte below 0x20 borrows from its high bit; 0x7f is zero after the xor.
        let below = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = (word ^ (ONES * 0x7f)).wrapping_sub(ONES) & !(word ^ (ONES * 0x7f));
        (below | delete) & HIGH != 0
    });
    // A borrow may blame the neighbour of a tab, so what looks odd is looked at byte by byte.
    if odd {
        text.iter().all(|&byte| is_value_byte(byte))
    } else {
        words.remainder().iter().all(|&byte| is_value_byte(byte))
    }
}

fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// `text` without spaces and tabs around it.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(first) = text.iter().position(|byte| !blank(byte)) else { return &[] };
    let last = text.iter().rposition(|byte| !blank(byte)).unwrap_or(first);
    &text[first..=last]
}

/// The elements of a comma-separated list, without blanks around them; empty ones are left out.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Bytes in base64 (RFC 4648 §4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number =
            (0..3).fold(0, |number, at| number << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = DIGITS[(number >> shift) as usize & 63];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_as_in_rfc_9110() {
        for byte in 0..=255_u8 {
            let expected = b"!#$%&'*+-.^_`|~".contains(&byte) || byte.is_ascii_alphanumeric();
            assert_eq!(is_token_byte(byte), expected, "{byte:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn a_byte_that_may_not_be_in_a_value_is_found_at_every_place() {
        for length in 1..20 {
            for place in 0..length {
                for byte in 0..=255_u8 {
                    let mut text = vec![b'x'; length];
                    text[place] = byte;
                    assert_eq!(is_value(&text), is_value_byte(byte), "{byte:#x} at {place} of {length}");
                }
            }
        }
    }

    #[test]
    fn base64_is_as_in_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn lists_leave_out_what_is_empty() {
        assert_eq!(list(b" a ,, b\t, ").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(trim(b"  "), b"");
    }
}
