//! Values of QUIC-LB: lengths, keys, server IDs.

use lb_common::quic::lb::{Key, MAX_ROTATION, NONCE_LENGTHS, SERVER_ID_LENGTHS};
use toml::de::DeValue;

use super::{Read, found, integer, string};
use crate::config::words::quote;

/// Which configuration it is: the first three bits of the connection IDs.
pub(in crate::config) fn config_id(value: &DeValue<'_>) -> Read<u8> {
    octet(value, 0, MAX_ROTATION, "the number of a configuration")
}

/// Octets of a server ID.
pub(in crate::config) fn server_id_length(value: &DeValue<'_>) -> Read<u8> {
    octet(value, *SERVER_ID_LENGTHS.start(), *SERVER_ID_LENGTHS.end(), "a number of octets")
}

/// Octets of a nonce.
pub(in crate::config) fn nonce_length(value: &DeValue<'_>) -> Read<u8> {
    octet(value, *NONCE_LENGTHS.start(), *NONCE_LENGTHS.end(), "a number of octets")
}

fn octet(value: &DeValue<'_>, first: u8, last: u8, wanted: &str) -> Read<u8> {
    let number = integer(value, i64::from(first)..=i64::from(last), wanted)?;
    Ok(u8::try_from(number).unwrap_or(last))
}

/// A key of 16 octets. Nothing of it is repeated in a message: those are kept in logs.
pub(in crate::config) fn quic_key(value: &DeValue<'_>) -> Read<Key> {
    const WANTED: &str = "a key of 32 hexadecimal digits in quotes";
    let DeValue::String(text) = value else {
        let kind = if matches!(value, DeValue::Integer(_)) { "a number".into() } else { found(value) };
        return Err(format!("expected {WANTED}, found {kind}"));
    };
    if !text.chars().all(|sign| sign.is_ascii_hexdigit()) {
        return Err(format!("expected {WANTED}, found something else than 0-9 and a-f in it"));
    }
    if text.len() != 32 {
        return Err(format!("expected {WANTED}, found {} digits", text.len()));
    }
    match u128::from_str_radix(text, 16) {
        Ok(key) => Ok(Key(key.to_be_bytes())),
        Err(_) => Err(format!("expected {WANTED}")),
    }
}

/// The number by which a server is known in connection IDs.
pub(in crate::config) fn quic_id(value: &DeValue<'_>) -> Read<u64> {
    const WANTED: &str = "a server ID (0 to 0xffffffffffffffff)";
    if let DeValue::Integer(number) = value {
        return u64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("expected {WANTED}, found {number}"));
    }
    let text = string(value, WANTED)?;
    text.strip_prefix("0x")
        .filter(|digits| digits.chars().all(|sign| sign.is_ascii_hexdigit()))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| format!("expected {WANTED}, such as 17 or \"0x11\", found {}", quote(text)))
}

#[cfg(test)]
mod tests {
    use super::{super::read, *};

    #[test]
    fn lengths_have_bounds() {
        assert_eq!([read("1", server_id_length), read("8", server_id_length)], [Ok(1), Ok(8)]);
        assert_eq!([read("4", nonce_length), read("18", nonce_length)], [Ok(4), Ok(18)]);
        assert_eq!([read("0", config_id), read("6", config_id)], [Ok(0), Ok(6)]);
        let expected = "expected a number of octets (1 to 8), found 9";
        assert_eq!(read("9", server_id_length).unwrap_err(), expected);
        let expected = "expected a number of octets (4 to 18), found 3";
        assert_eq!(read("3", nonce_length).unwrap_err(), expected);
        // Seven means "no configuration" to servers (QUIC-LB §3.2).
        let expected = "expected the number of a configuration (0 to 6), found 7";
        assert_eq!(read("7", config_id).unwrap_err(), expected);
    }

    #[test]
    fn keys_are_32_digits() {
        let key = read(r#""8f95f09245765f80256934e50C66207F""#, quic_key);
        assert_eq!(key.unwrap().0[..3], [0x8f, 0x95, 0xf0]);
        for wrong in [r#""""#, r#""8f95""#, r#""8f95f09245765f80256934e50c66207f00""#] {
            assert!(read(wrong, quic_key).unwrap_err().ends_with(" digits"), "{wrong}");
        }
        assert!(read(r#""+f95f09245765f80256934e50c66207f""#, quic_key).is_err());
        assert!(read(r#""0x95f09245765f80256934e50c66207f""#, quic_key).is_err());
        assert!(read("true", quic_key).is_err());
    }

    #[test]
    fn keys_are_not_repeated() {
        for wrong in [r#""8f95f0924576""#, r#""8f95f0924576zz""#, "0x8f95f0924576", "895092457680"] {
            let message = read(wrong, quic_key).unwrap_err();
            assert!(!message.contains("9245"), "{message}");
        }
    }

    #[test]
    fn server_ids_are_numbers_of_any_base_or_hexadecimal_text() {
        assert_eq!(read("0", quic_id), Ok(0));
        assert_eq!(read("17", quic_id), Ok(17));
        assert_eq!(read("0xed793a51d49b8f5f", quic_id), Ok(0xed79_3a51_d49b_8f5f));
        assert_eq!(read("18446744073709551615", quic_id), Ok(u64::MAX));
        assert_eq!(read(r#""0xFFFFFFFFFFFFFFFF""#, quic_id), Ok(u64::MAX));
        for wrong in
            ["-1", "18446744073709551616", r#""17""#, r#""0x""#, r#""0x+1""#, r#""0x10000000000000000""#]
        {
            assert!(read(wrong, quic_id).unwrap_err().starts_with("expected a server ID (0 to"), "{wrong}");
        }
        assert!(read("1.5", quic_id).is_err());
    }
}
