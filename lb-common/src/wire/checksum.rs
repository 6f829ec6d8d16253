//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! What confuses people: a one's complement sum is the same in either byte order as long as every word is
//! read the same way, so nothing is swapped here: words are taken as they lie in memory. And 0 and 0xffff
//! are the same number in one's complement, but not in a UDP checksum field, where 0 means "none".

/// A change to a checksummed text, to be applied to any number of checksums that cover it.
///
/// RFC 1624 eqn. 3: `HC' = ~(~HC + ~m + m')`. The sum of all `~m + m'` is kept here unfolded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);

    /// A 16-bit word changed from `old` to `new`, both as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Two adjacent words changed. Adding 32 bits at once is fine: `2^16 ≡ 1` modulo `2^16 - 1`.
    #[inline(always)]
    #[must_use]
    pub const fn long(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// An address, four longs, changed.
    #[inline(always)]
    #[must_use]
    pub const fn longs(self, old: [u32; 4], new: [u32; 4]) -> Self {
        self.long(old[0], new[0]).long(old[1], new[1]).long(old[2], new[2]).long(old[3], new[3])
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after the change, both as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + (!checksum) as u64)
    }
}

/// A sum brought down to 16 bits, with every carry added back in.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Unfolded sum of an address of four words, or of one and three zeros.
#[inline(always)]
#[must_use]
pub const fn sum_address(words: [u32; 4]) -> u64 {
    words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64
}

/// Unfolded sum of a text from its beginning; an odd last byte counts as if a zero followed.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum: u64 = words.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum();
    sum + rest.first().map_or(0, |last| u64::from(u16::from_ne_bytes([*last, 0])))
}

/// The checksum of texts whose sums were added up, as it has to lie in memory.
#[inline(always)]
#[must_use]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The UDP form of a checksum: a computed 0 is sent as 0xffff (RFC 768).
#[inline(always)]
#[must_use]
pub const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        // §3: the bytes 00 01 f2 03 f4 f5 f6 f7 sum to ddf2, so the checksum is its complement.
        let checksum = finish(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]));
        assert_eq!(checksum.to_ne_bytes(), [0x22, 0x0d]);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // §4: HC = dd2f, m = 5555, m' = 3285 gives 0000.
        let delta = Delta::NONE.word(0x5555, 0x3285);
        assert_eq!(delta.apply(0xdd2f), 0x0000);
    }

    #[test]
    fn a_text_that_holds_its_checksum_sums_to_zero() {
        let mut header = *b"\x45\x00\x00\x73\x00\x00\x40\x00\x40\x11\x00\x00\xc0\xa8\x00\x01\xc0\xa8\x00\xc7";
        let checksum = finish(sum(&header));
        assert_eq!(checksum.to_ne_bytes(), [0xb8, 0x61]);
        header[10..12].copy_from_slice(&checksum.to_ne_bytes());
        assert_eq!(finish(sum(&header)), 0);
    }

    proptest! {
        #[test]
        fn the_incremental_update_equals_a_full_sum(
            mut text in proptest::collection::vec(any::<u8>(), 40..200),
            new in any::<[u8; 16]>(),
            word in any::<[u8; 2]>(),
        ) {
            let words = |bytes: &[u8]| crate::family::words6(bytes.try_into().expect("sixteen bytes"));
            let before = finish(sum(&text));
            let delta = Delta::NONE
                .longs(words(&text[4..20]), words(&new))
                .word(u16::from_ne_bytes([text[22], text[23]]), u16::from_ne_bytes(word));
            text[4..20].copy_from_slice(&new);
            text[22..24].copy_from_slice(&word);
            let after = finish(sum(&text));
            // 0 and ffff are one number; which of them comes out may differ only for an all-zero text.
            let same = delta.apply(before) == after || (delta.apply(before) ^ after) == 0xffff;
            prop_assert!(same, "{:04x} {:04x}", delta.apply(before), after);
        }
    }
}
