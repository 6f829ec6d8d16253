//! AES with keys of 128 bits (FIPS 197), one block at a time: what QUIC-LB asks for, and no more.
//!
//! Both directions are needed. Feistel passes only encrypt; an ID whose server ID and nonce have 16 octets is
//! one block, and the balancer decrypts it (§5.5.1). A key is expanded by user space, for one of the two.
//!
//! A round is 16 look-ups in tables that join the S-box with the mixing of columns, the usual way for 32-bit
//! processors. The standard itself names no such tables.
//!
//! Tables take different times for different octets because of caches. Whoever could measure that could learn the
//! key; but what it opens is only *which server* a connection has, and what reaches a client of that are a few
//! nanoseconds of one packet among many. Who is on the same machine with the rights to measure can read the map.

/// Rounds with a key of 128 bits.
const ROUNDS: usize = 10;

/// Words of an expanded key: four for the beginning and for each round.
pub const ROUND_KEYS: usize = 4 * (ROUNDS + 1);

/// A block, as four columns; the first octet is the most significant one of the first word.
pub type Block = [u32; 4];

/// An expanded key.
pub type RoundKeys = [u32; ROUND_KEYS];

/// The look-up tables. In the kernel program they are read-only data, which is a map of its own.
struct Tables {
    /// S-box and MixColumns of the octet in each of the four rows.
    forward: [[u32; 256]; 4],
    /// Inverse S-box and InvMixColumns likewise.
    backward: [[u32; 256]; 4],
    /// The inverse S-box: the last round mixes nothing.
    inverse: [u8; 256],
}

static TABLES: Tables = Tables::new();

impl Tables {
    const fn new() -> Self {
        let mut tables = Self { forward: [[0; 256]; 4], backward: [[0; 256]; 4], inverse: [0; 256] };
        let powers = powers_of_three();
        let mut octet = 0;
        let mut at = 0;
        while at < 256 {
            // Zero has no inverse, and is taken for its own (FIPS 197 §5.1.1).
            let inverse = if at == 0 { 0 } else { powers[255 - (at - 1)] };
            if at > 0 {
                octet = powers[at - 1];
            }
            let substitute = affine(inverse);
            tables.inverse[substitute as usize] = octet;
            let mixed = column(substitute, [2, 1, 1, 3]);
            let unmixed = column(octet, [14, 9, 13, 11]);
            let mut row = 0;
            while row < 4 {
                tables.forward[row][octet as usize] = mixed.rotate_right(8 * row as u32);
                tables.backward[row][substitute as usize] = unmixed.rotate_right(8 * row as u32);
                row += 1;
            }
            at += 1;
        }
        tables
    }
}

/// Three to the power of 0 to 255 in GF(2⁸): every octet but zero, and 1 once more.
const fn powers_of_three() -> [u8; 256] {
    let mut powers = [1; 256];
    let mut at = 1;
    while at < 256 {
        powers[at] = times(powers[at - 1], 3);
        at += 1;
    }
    powers
}

/// The product in GF(2⁸) modulo x⁸ + x⁴ + x³ + x + 1 (FIPS 197 §4.2).
const fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ (0x1b * (a >> 7));
        b >>= 1;
    }
    product
}

/// The second half of the S-box (FIPS 197 §5.1.1).
const fn affine(b: u8) -> u8 {
    b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4) ^ 0x63
}

/// What an octet in the first row gives to each row of its column.
const fn column(octet: u8, by: [u8; 4]) -> u32 {
    u32::from_be_bytes([times(octet, by[0]), times(octet, by[1]), times(octet, by[2]), times(octet, by[3])])
}

/// The octet of a word in `row`, counted from the most significant one, as an index that is seen to be small.
#[inline(always)]
const fn octet(word: u32, row: u32) -> usize {
    (word >> (24 - 8 * row) & 0xff) as usize
}

/// One column after a round: the octets of four rows, substituted, mixed and added to the key.
#[inline(always)]
fn mixed(tables: &[[u32; 256]; 4], [a, b, c, d]: [u32; 4], key: u32) -> u32 {
    tables[0][octet(a, 0)] ^ tables[1][octet(b, 1)] ^ tables[2][octet(c, 2)] ^ tables[3][octet(d, 3)] ^ key
}

/// The S-box on one octet of each word: in each row, two of the four tables hold it as it is.
#[inline(always)]
fn substituted([a, b, c, d]: [u32; 4]) -> u32 {
    let [zero, one, two, three] = &TABLES.forward;
    two[octet(a, 0)] & 0xff00_0000
        | three[octet(b, 1)] & 0x00ff_0000
        | zero[octet(c, 2)] & 0x0000_ff00
        | one[octet(d, 3)] & 0x0000_00ff
}

/// The inverse S-box on one octet of each word.
#[inline(always)]
fn unsubstituted([a, b, c, d]: [u32; 4]) -> u32 {
    let inverse = &TABLES.inverse;
    (inverse[octet(a, 0)] as u32) << 24
        | (inverse[octet(b, 1)] as u32) << 16
        | (inverse[octet(c, 2)] as u32) << 8
        | inverse[octet(d, 3)] as u32
}

/// Encrypts a block with a key from [`encryption_keys`] (FIPS 197 §5.1).
#[inline(always)]
#[must_use]
pub fn encrypt(keys: &RoundKeys, block: Block) -> Block {
    let [mut a, mut b, mut c, mut d] = block;
    (a, b, c, d) = (a ^ keys[0], b ^ keys[1], c ^ keys[2], d ^ keys[3]);
    let tables = &TABLES.forward;
    for round in 1..ROUNDS {
        let at = 4 * round;
        // Each row is shifted by its number: row 1 of a column comes from the next column, and so on.
        (a, b, c, d) = (
            mixed(tables, [a, b, c, d], keys[at]),
            mixed(tables, [b, c, d, a], keys[at + 1]),
            mixed(tables, [c, d, a, b], keys[at + 2]),
            mixed(tables, [d, a, b, c], keys[at + 3]),
        );
    }
    [
        substituted([a, b, c, d]) ^ keys[40],
        substituted([b, c, d, a]) ^ keys[41],
        substituted([c, d, a, b]) ^ keys[42],
        substituted([d, a, b, c]) ^ keys[43],
    ]
}

/// Decrypts a block with a key from [`decryption_keys`] (the equivalent inverse cipher, FIPS 197 §5.3.5).
#[inline(always)]
#[must_use]
pub fn decrypt(keys: &RoundKeys, block: Block) -> Block {
    let [mut a, mut b, mut c, mut d] = block;
    (a, b, c, d) = (a ^ keys[0], b ^ keys[1], c ^ keys[2], d ^ keys[3]);
    let tables = &TABLES.backward;
    for round in 1..ROUNDS {
        let at = 4 * round;
        (a, b, c, d) = (
            mixed(tables, [a, d, c, b], keys[at]),
            mixed(tables, [b, a, d, c], keys[at + 1]),
            mixed(tables, [c, b, a, d], keys[at + 2]),
            mixed(tables, [d, c, b, a], keys[at + 3]),
        );
    }
    [
        unsubstituted([a, d, c, b]) ^ keys[40],
        unsubstituted([b, a, d, c]) ^ keys[41],
        unsubstituted([c, b, a, d]) ^ keys[42],
        unsubstituted([d, c, b, a]) ^ keys[43],
    ]
}

/// Expands a key for [`encrypt`] (FIPS 197 §5.2).
#[must_use]
pub fn encryption_keys(key: [u8; 16]) -> RoundKeys {
    let mut keys = [0; ROUND_KEYS];
    keys[..4].copy_from_slice(&block(key));
    let mut constant = 1;
    for at in 4..ROUND_KEYS {
        let mut word = keys[at - 1];
        if at % 4 == 0 {
            word = substituted([word.rotate_left(8); 4]) ^ u32::from(constant) << 24;
            constant = times(constant, 2);
        }
        keys[at] = keys[at - 4] ^ word;
    }
    keys
}

/// Expands a key for [`decrypt`]: the keys of encryption in the order of use, and those between the first and
/// the last with their columns unmixed (FIPS 197 §5.3.5).
#[must_use]
pub fn decryption_keys(key: [u8; 16]) -> RoundKeys {
    let forward = encryption_keys(key);
    core::array::from_fn(|at| {
        let (round, word) = (at / 4, at % 4);
        let key = forward[4 * (ROUNDS - round) + word];
        if round == 0 || round == ROUNDS {
            return key;
        }
        // `backward` begins with the inverse S-box, which this takes away again.
        mixed(&TABLES.backward, [substituted([key; 4]); 4], 0)
    })
}

/// Sixteen octets as a block.
#[inline(always)]
#[must_use]
pub fn block(octets: [u8; 16]) -> Block {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
        u32::from_be_bytes([i, j, k, l]),
        u32::from_be_bytes([m, n, o, p]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digits: &str) -> [u8; 16] {
        u128::from_str_radix(digits, 16).unwrap().to_be_bytes()
    }

    fn both_ways(key: &str, plain: &str, cipher: &str) {
        let (plain, cipher) = (block(hex(plain)), block(hex(cipher)));
        assert_eq!(encrypt(&encryption_keys(hex(key)), plain), cipher);
        assert_eq!(decrypt(&decryption_keys(hex(key)), cipher), plain);
    }

    #[test]
    fn the_standard_s_box() {
        let sbox = |at: u8| substituted([u32::from(at) * 0x0101_0101; 4]) as u8;
        // FIPS 197, figure 7: the corners, the example in the text, the octet without an inverse.
        let expected = [(0x00, 0x63), (0x0f, 0x76), (0xf0, 0x8c), (0xff, 0x16), (0x53, 0xed), (0x01, 0x7c)];
        for (from, to) in expected {
            assert_eq!(sbox(from), to);
        }
        for from in 0..=255 {
            assert_eq!(TABLES.inverse[usize::from(sbox(from))], from);
        }
    }

    #[test]
    fn the_standard_key_expansion() {
        // FIPS 197, appendix A.1: words 4, 23 and 43.
        let keys = encryption_keys(hex("2b7e151628aed2a6abf7158809cf4f3c"));
        assert_eq!([keys[4], keys[23], keys[43]], [0xa0fa_fe17, 0x11f9_15bc, 0xb663_0ca6]);
    }

    #[test]
    fn the_standard_examples() {
        // FIPS 197, appendix B and C.1.
        both_ways(
            "2b7e151628aed2a6abf7158809cf4f3c",
            "3243f6a8885a308d313198a2e0370734",
            "3925841d02dc09fbdc118597196a0b32",
        );
        both_ways(
            "000102030405060708090a0b0c0d0e0f",
            "00112233445566778899aabbccddeeff",
            "69c4e0d86a7b0430d8cdb78070b4c55a",
        );
    }

    #[test]
    fn the_examples_for_ecb() {
        // NIST SP 800-38A, F.1.1 and F.1.2.
        let key = "2b7e151628aed2a6abf7158809cf4f3c";
        both_ways(key, "6bc1bee22e409f96e93d7e117393172a", "3ad77bb40d7a3660a89ecaf32466ef97");
        both_ways(key, "ae2d8a571e03ac9c9eb76fac45af8e51", "f5d3d58503b9699de785895a96fdbaaf");
        both_ways(key, "30c81c46a35ce411e5fbc1191a0a52ef", "43b1cd7f598ece23881b00e3ed030688");
        both_ways(key, "f69f2445df4f9b17ad2b417be66c3710", "7b0c785e27e8ad3f8223207104725dd4");
    }

    #[test]
    fn what_is_encrypted_is_decrypted() {
        let mut block = [0; 4];
        let mut key = [0; 16];
        for _ in 0..1000 {
            let cipher = encrypt(&encryption_keys(key), block);
            assert_eq!(decrypt(&decryption_keys(key), cipher), block);
            // Each result makes the next case.
            key[..4].copy_from_slice(&block[0].to_be_bytes());
            key[12..].copy_from_slice(&cipher[1].to_be_bytes());
            block = cipher;
        }
    }
}
