//! Making connection IDs as servers do (QUIC-LB §5.4), and opening them whole, for tests and for tools.
//!
//! Octet by octet, in the order and with the words of the draft, so that it shares nothing with
//! [`super::lb::decode`] but AES.

use super::{
    aes,
    lb::{Key, MAX_BLOCK, MAX_ROTATION},
};

/// A connection ID that a server with this configuration could hand out. The first octet tells the length, as
/// servers may do (§3.3). Server IDs may have up to 15 octets here.
///
/// `None` where QUIC-LB has no such ID: no server ID, a nonce of less than 4 octets, both together longer
/// than 19, a rotation above 6.
#[must_use]
pub fn encode(rotation: u8, server_id: &[u8], nonce: &[u8], key: Option<Key>) -> Option<Vec<u8>> {
    let mut block = [server_id, nonce].concat();
    if server_id.is_empty()
        || nonce.len() < 4
        || block.len() > usize::from(MAX_BLOCK)
        || rotation > MAX_ROTATION
    {
        return None;
    }
    if let Some(Key(key)) = key {
        let keys = aes::encryption_keys(key);
        block = match <[u8; 16]>::try_from(&block[..]) {
            Ok(whole) => ecb(aes::encrypt, &keys, whole).to_vec(),
            Err(_) => feistel(&keys, &block, [1, 2, 3, 4]),
        };
    }
    let first = rotation << 5 | block.len() as u8;
    Some([&[first], &block[..]].concat())
}

/// Server ID and nonce, of `length` octets together, of a connection ID.
///
/// `None` where the ID is too short, or `length` is not 5 to 19.
#[must_use]
pub fn plaintext(id: &[u8], length: u8, key: Option<Key>) -> Option<Vec<u8>> {
    if !(5..=MAX_BLOCK).contains(&length) {
        return None;
    }
    let block = id.get(1..1 + usize::from(length))?;
    Some(match (key, <[u8; 16]>::try_from(block)) {
        (None, _) => block.to_vec(),
        (Some(Key(key)), Ok(whole)) => ecb(aes::decrypt, &aes::decryption_keys(key), whole).to_vec(),
        (Some(Key(key)), Err(_)) => feistel(&aes::encryption_keys(key), block, [4, 3, 2, 1]),
    })
}

/// The passes of §5.4.2 upon a block, in this order; the opposite order undoes them.
fn feistel(keys: &aes::RoundKeys, block: &[u8], passes: [u8; 4]) -> Vec<u8> {
    let length = block.len();
    let odd = length % 2 == 1;
    let half = length.div_ceil(2);
    let mut left = block[..half].to_vec();
    let mut right = block[length - half..].to_vec();
    let clear = |left: &mut [u8], right: &mut [u8]| {
        if odd {
            left[half - 1] &= 0xf0;
            right[0] &= 0x0f;
        }
    };
    clear(&mut left, &mut right);
    for pass in passes {
        let (from, to) = if pass % 2 == 1 { (&left, &mut right) } else { (&right, &mut left) };
        let result = ecb(aes::encrypt, keys, expand(length as u8, pass, from));
        to.iter_mut().zip(result).for_each(|(octet, other)| *octet ^= other);
        clear(&mut left, &mut right);
    }
    if odd {
        // Of the octet in the middle, each half has one half.
        right[0] |= left.pop().unwrap_or(0);
    }
    left.append(&mut right);
    left
}

fn expand(length: u8, pass: u8, input: &[u8]) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[..input.len()].copy_from_slice(input);
    octets[14] = length;
    octets[15] = pass;
    octets
}

fn ecb(
    cipher: fn(&aes::RoundKeys, aes::Block) -> aes::Block,
    keys: &aes::RoundKeys,
    octets: [u8; 16],
) -> [u8; 16] {
    let mut result = [0; 16];
    for (to, word) in result.chunks_exact_mut(4).zip(cipher(keys, aes::block(octets))) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_expand() {
        // QUIC-LB §5.4.2.2.
        let expected = 0xaaba_3c00_0000_0000_0000_0000_0000_0602_u128.to_be_bytes();
        assert_eq!(expand(6, 2, &[0xaa, 0xba, 0x3c]), expected);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        assert_eq!(encode(0, &[], &[0; 4], None), None);
        assert_eq!(encode(0, &[1], &[0; 3], None), None);
        assert_eq!(encode(0, &[1; 15], &[0; 5], None), None);
        assert_eq!(encode(7, &[1], &[0; 4], None), None);
        assert_eq!(encode(6, &[1; 15], &[0; 4], None).map(|id| id.len()), Some(20));
    }
}
