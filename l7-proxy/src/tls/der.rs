//! What a proxy wants to know of a certificate (RFC 5280 §4.1): names, how long it is valid, who issued it.
//! rustls checks certificates; this only reads those of the operator's own files, and those of clients that were
//! believed.

/// What is read of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// DNS names it is for, in lower case: alternative names, or the subject's common name where there are none.
    pub(super) names: Vec<String>,
    /// Seconds since 1970 at which it expires.
    pub(super) expires: i64,
    /// When it begins and ends to be valid, as it is written.
    pub(super) from: Vec<u8>,
    pub(super) until: Vec<u8>,
    /// Distinguished names of who issued it and whom it is for, as they are encoded.
    pub(super) issuer: Vec<u8>,
    pub(super) subject: Vec<u8>,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `dNSName` of a `GeneralName`.
const DNS_NAME: u8 = 0x82;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Takes the element at the beginning of `input`: its tag and its content.
fn take<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let [tag, first, rest @ ..] = *input else { return None };
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((*tag, content))
}

fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    take(input).filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// Reads a certificate; `None` where it is none.
pub(super) fn read(mut der: &[u8]) -> Option<Read> {
    let mut certificate = expect(&mut der, SEQUENCE)?;
    let mut body = expect(&mut certificate, SEQUENCE)?;
    if body.first() == Some(&VERSION) {
        take(&mut body)?;
    }
    let _serial = take(&mut body)?;
    let _algorithm = expect(&mut body, SEQUENCE)?;
    let issuer = expect(&mut body, SEQUENCE)?;
    let mut validity = expect(&mut body, SEQUENCE)?;
    let subject = expect(&mut body, SEQUENCE)?;
    let _key = expect(&mut body, SEQUENCE)?;
    let (_, from) = take(&mut validity)?;
    let (tag, until) = take(&mut validity)?;
    let mut names = Vec::new();
    while let Some((tag, content)) = take(&mut body) {
        if tag == EXTENSIONS {
            names = alternative_names(content).unwrap_or_default();
        }
    }
    if names.is_empty() {
        names.extend(common_name(subject).and_then(|name| text(name.as_bytes())));
    }
    Some(Read {
        names,
        expires: seconds(tag, until)?,
        from: from.to_vec(),
        until: until.to_vec(),
        issuer: issuer.to_vec(),
        subject: subject.to_vec(),
    })
}

fn alternative_names(mut extensions: &[u8]) -> Option<Vec<String>> {
    let mut list = expect(&mut extensions, SEQUENCE)?;
    while let Some(mut extension) = expect(&mut list, SEQUENCE) {
        let id = expect(&mut extension, OID)?;
        let (mut tag, mut value) = take(&mut extension)?;
        if tag == BOOLEAN {
            (tag, value) = take(&mut extension)?;
        }
        if id == SUBJECT_ALT_NAME && tag == OCTETS {
            let mut names = expect(&mut value, SEQUENCE)?;
            let mut found = Vec::new();
            while let Some((tag, name)) = take(&mut names) {
                if tag == DNS_NAME {
                    found.extend(text(name));
                }
            }
            return Some(found);
        }
    }
    None
}

/// The parts of a distinguished name: what each is, and its value.
fn parts(mut name: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut set: &[u8] = &[];
    std::iter::from_fn(move || {
        if set.is_empty() {
            set = expect(&mut name, SET)?;
        }
        let mut part = expect(&mut set, SEQUENCE)?;
        let id = expect(&mut part, OID)?;
        take(&mut part).map(|(_, value)| (id, value))
    })
}

/// The last common name of a distinguished name.
pub(super) fn common_name(name: &[u8]) -> Option<String> {
    parts(name).filter(|(id, _)| *id == COMMON_NAME).last().map(|(_, value)| shown(value))
}

/// A distinguished name in one line, as OpenSSL and HAProxy write it: `/C=CH/O=Example/CN=a.example`.
pub(super) fn one_line(name: &[u8]) -> String {
    const SHORT: [(&[u8], &str); 9] = [
        (COMMON_NAME, "CN"),
        (&[0x55, 0x04, 0x05], "serialNumber"),
        (&[0x55, 0x04, 0x06], "C"),
        (&[0x55, 0x04, 0x07], "L"),
        (&[0x55, 0x04, 0x08], "ST"),
        (&[0x55, 0x04, 0x0a], "O"),
        (&[0x55, 0x04, 0x0b], "OU"),
        (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01], "emailAddress"),
        (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    ];
    let mut line = String::new();
    for (id, value) in parts(name) {
        let short = SHORT.iter().find(|(known, _)| *known == id);
        let kind = short.map_or_else(|| dotted(id), |(_, short)| (*short).to_owned());
        line += &format!("/{kind}={}", shown(value));
    }
    line
}

/// An object identifier in digits (X.690 §8.19).
fn dotted(id: &[u8]) -> String {
    let mut text = String::new();
    let mut number = 0_u64;
    for &byte in id {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if text.is_empty() {
            let first = (number / 40).min(2);
            text = format!("{first}.{}", number - first * 40);
        } else {
            text += &format!(".{number}");
        }
        number = 0;
    }
    text
}

/// Text as it may be in a header line: what is not visible ASCII is escaped.
pub(super) fn shown(value: &[u8]) -> String {
    let shown = |&byte: &u8| match byte {
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02X}"),
    };
    value.iter().map(shown).collect()
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(text.trim_end_matches('.').to_ascii_lowercase()).filter(|text| !text.is_empty())
}

/// Seconds since 1970 of `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn seconds(tag: u8, time: &[u8]) -> Option<i64> {
    let digits = time.strip_suffix(b"Z")?;
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year)?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2).and_then(number);
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    // Days since 1 March of the year 0, when leap days come last.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(seconds(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, b"240229235959Z"), Some(1_709_251_199));
        assert_eq!(seconds(GENERALIZED_TIME, b"21000301000000Z"), Some(4_107_542_400));
        for odd in [&b""[..], b"2402292359Z", b"241329000000Z", b"24022923595Z", b"240229235959"] {
            assert_eq!(seconds(UTC_TIME, odd), None);
        }
    }

    #[test]
    fn a_name_is_one_line() {
        let part = |id: &[u8], value: &[u8]| {
            let both = [&[OID, id.len() as u8][..], id, &[0x0c, value.len() as u8], value].concat();
            let sequence = [&[SEQUENCE, both.len() as u8][..], &both].concat();
            [&[SET, sequence.len() as u8][..], &sequence].concat()
        };
        let name = [
            part(&[0x55, 4, 6], b"CH"),
            part(COMMON_NAME, "A\u{e9}\n".as_bytes()),
            part(&[0x2a, 0x86, 0x48, 3], b"x"),
            part(COMMON_NAME, b"Last"),
        ]
        .concat();
        assert_eq!(one_line(&name), "/C=CH/CN=A\\xC3\\xA9\\x0A/1.2.840.3=x/CN=Last");
        assert_eq!(common_name(&name).as_deref(), Some("Last"));
        assert_eq!((one_line(b"\x31\xff"), common_name(b"")), (String::new(), None));
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        for odd in
            [&b""[..], b"\x30", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00", b"hello"]
        {
            assert_eq!(read(odd), None);
        }
    }
}
