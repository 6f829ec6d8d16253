//! A long list of numbers of which few differ, as the slots of a ring do: some bits for each instead of four bytes. With a
//! thousand VIPs of five servers that is the difference between 25 and 260 megabytes.

use std::fmt;

/// The list. Equal lists are equal, however they came about.
#[derive(Clone, PartialEq, Eq)]
pub enum Packed {
    /// Places in a palette.
    Narrow(Narrow),
    /// As it is: more than 256 differ.
    Wide(Box<[u32]>),
}

/// A list as places in a palette.
#[derive(Clone, PartialEq, Eq)]
pub struct Narrow {
    /// What differs, in the order in which it comes first.
    palette: Vec<u32>,
    /// Bits that a place takes: as many as the palette needs.
    bits: u32,
    /// The places, as many in a word as there is room for, from its lowest bits on.
    words: Box<[u64]>,
    length: usize,
}

impl Narrow {
    fn new(palette: Vec<u32>, places: &[u8]) -> Self {
        let bits = usize::BITS - palette.len().saturating_sub(1).leading_zeros();
        let word =
            |places: &[u8]| places.iter().rev().fold(0, |word, &place| word << bits | u64::from(place));
        let words = match u64::BITS.checked_div(bits) {
            Some(in_a_word) => places.chunks(in_a_word as usize).map(word).collect(),
            // All are alike.
            None => Box::default(),
        };
        Self { palette, bits, words, length: places.len() }
    }

    fn get(&self, at: usize) -> u32 {
        assert!(at < self.length, "number {at} of {}", self.length);
        let Some(in_a_word) = u64::BITS.checked_div(self.bits) else { return self.palette[0] };
        let word = self.words[at / in_a_word as usize] >> (at as u32 % in_a_word * self.bits);
        self.palette[(word & self.mask()) as usize]
    }

    const fn mask(&self) -> u64 {
        (1 << self.bits) - 1
    }
}

/// Places of numbers that were looked up lately; a power of two.
const LATELY: usize = 1_024;

impl Packed {
    /// Packs a list.
    #[must_use]
    pub fn new(numbers: &[u32]) -> Self {
        let (mut palette, mut places) = (Vec::<u32>::new(), Vec::with_capacity(numbers.len()));
        let mut lately = [0u8; LATELY];
        for &number in numbers {
            let guess = &mut lately[(number.wrapping_mul(0x9e37_79b1) >> 22) as usize % LATELY];
            if palette.get(usize::from(*guess)) != Some(&number) {
                let known = palette.iter().position(|&other| other == number);
                let place = known.unwrap_or(palette.len());
                let Ok(place) = u8::try_from(place) else { return Self::Wide(numbers.into()) };
                if known.is_none() {
                    palette.push(number);
                }
                *guess = place;
            }
            places.push(*guess);
        }
        palette.shrink_to_fit();
        Self::Narrow(Narrow::new(palette, &places))
    }

    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Narrow(narrow) => narrow.length,
            Self::Wide(numbers) => numbers.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number at a place below [`Self::len`].
    #[must_use]
    pub fn get(&self, at: usize) -> u32 {
        match self {
            Self::Narrow(narrow) => narrow.get(at),
            Self::Wide(numbers) => numbers[at],
        }
    }

    /// All numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        Numbers { list: self, at: 0, word: 0, left: 0 }
    }
}

/// A walk over a list, a word after the other: a division for each number would be most of its price.
struct Numbers<'a> {
    list: &'a Packed,
    at: usize,
    /// What is left of the word, and how many places that are.
    word: u64,
    left: u32,
}

impl Iterator for Numbers<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let at = self.at;
        if at == self.list.len() {
            return None;
        }
        self.at += 1;
        let narrow = match self.list {
            Packed::Wide(numbers) => return Some(numbers[at]),
            Packed::Narrow(narrow) if narrow.bits == 0 => return Some(narrow.palette[0]),
            Packed::Narrow(narrow) => narrow,
        };
        if self.left == 0 {
            self.left = u64::BITS / narrow.bits;
            self.word = narrow.words[at / self.left as usize];
        }
        let place = self.word & narrow.mask();
        self.word >>= narrow.bits;
        self.left -= 1;
        Some(narrow.palette[place as usize])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.list.len() - self.at;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Numbers<'_> {}

/// Not all of its numbers.
impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({})", self.len())
    }
}

impl Default for Packed {
    fn default() -> Self {
        Self::new(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        let few: Vec<u32> = (0..65_538).map(|n| 0x0001_0000 | (n % 1_000 * (n % 997) % 7)).collect();
        let of = |palette: u32| -> Vec<u32> { (0..1_000).map(|n| (n * n % palette) << 16 | 1).collect() };
        let most: Vec<u32> = (0..1_000).map(|n| (n % 256) << 16).collect();
        let many: Vec<u32> = (0..1_000).map(|n| (n % 257) << 16).collect();
        let lists = [few.clone(), Vec::new(), vec![7], most, many];
        for list in lists.into_iter().chain((1..70).map(of)) {
            let packed = Packed::new(&list);
            assert_eq!(packed.iter().collect::<Vec<_>>(), list);
            assert_eq!((0..list.len()).map(|at| packed.get(at)).collect::<Vec<_>>(), list);
            assert_eq!(
                (packed.len(), packed.is_empty(), packed.iter().len()),
                (list.len(), list.is_empty(), list.len())
            );
            let differing = list.iter().collect::<std::collections::HashSet<_>>().len();
            assert_eq!(matches!(packed, Packed::Narrow(_)), differing <= 256);
            assert!(packed == Packed::new(&list));
        }
        let Packed::Narrow(narrow) = Packed::new(&few) else { panic!("seven differ") };
        assert_eq!((narrow.bits, narrow.words.len()), (3, 65_538 / 21 + 1));
        assert!(Packed::new(&few) != Packed::new(&few[1..]));
    }
}
