//! From when until when a certificate is valid (RFC 5280 §4.1.2.5), and nothing else of it.

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// First and last second since 1970 in which a certificate, given as DER, is valid; `None` where it is no certificate.
pub(super) fn of(mut der: &[u8]) -> Option<(i64, i64)> {
    let mut certificate = sequence(&mut der)?;
    let mut body = sequence(&mut certificate)?;
    if body.first() == Some(&VERSION) {
        element(&mut body)?;
    }
    let _serial_number = element(&mut body)?;
    let _signature = sequence(&mut body)?;
    let _issuer = sequence(&mut body)?;
    let mut validity = sequence(&mut body)?;
    let mut time = || element(&mut validity).and_then(|(tag, text)| seconds(tag, text));
    Some((time()?, time()?))
}

/// Takes an element from the beginning: its tag and what is in it.
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, length], mut rest) = input.split_first_chunk()?;
    let mut length = usize::from(length);
    if length > 0x7f {
        // So many bytes hold the length; four are more than any certificate needs.
        let (bytes, behind) = rest.split_at_checked(length & 0x7f).filter(|(bytes, _)| bytes.len() <= 4)?;
        length = bytes.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(length)?;
    *input = behind;
    Some((tag, content))
}

fn sequence<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    element(input).filter(|(tag, _)| *tag == SEQUENCE).map(|(_, content)| content)
}

/// Reads `YYMMDDHHMMSSZ`, whose years are 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let digits: Vec<i64> = digits.iter().map(|digit| i64::from(digit - b'0')).collect();
    let pairs: Vec<i64> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, digit| sum * 10 + digit)).collect();
    let (year, rest) = match (tag, &pairs[..], digits.len()) {
        (UTC_TIME, [year, rest @ ..], 12) => (if *year < 50 { 2_000 + year } else { 1_900 + year }, rest),
        (GENERALIZED_TIME, [century, year, rest @ ..], 14) => (century * 100 + year, rest),
        _ => return None,
    };
    let &[month, day, hour, minute, second] = rest else { return None };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days since 1 January 1970.
fn days(year: i64, month: i64, day: i64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days = |until: i64| until / 4 - until / 100 + until / 400;
    let leaps =
        leap_days(year) - i64::from(month <= 2 && leap_days(year) > leap_days(year - 1)) - leap_days(1969);
    (year - 1970) * 365 + leaps + BEFORE[month as usize - 1] + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_calendar() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "691231235959Z", Some(-1)),
            (UTC_TIME, "240229235959Z", Some(1_709_251_199)),
            (UTC_TIME, "240301000000Z", Some(1_709_251_200)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "21000301000000Z", Some(4_107_542_400)),
            (GENERALIZED_TIME, "20000229120000Z", Some(951_825_600)),
            (UTC_TIME, "241301000000Z", None),
            (UTC_TIME, "240100000000Z", None),
            (UTC_TIME, "2401010000Z", None),
            (UTC_TIME, "240101000000", None),
            (GENERALIZED_TIME, "240101000000Z", None),
            (SEQUENCE, "240101000000Z", None),
        ] {
            assert_eq!(seconds(tag, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_certificate() {
        for bytes in [
            &b""[..],
            b"\x30",
            b"\x30\x80",
            b"\x30\x85\x00\x00\x00\x00\x00",
            b"\x30\x84\xff\xff\xff\xff",
            b"hello",
        ] {
            assert_eq!(of(bytes), None);
        }
    }
}
