//! A long list of numbers of which few differ, as the slots of a ring do: a byte for each instead of four. With a thousand
//! VIPs that is the difference between some ten and some hundred megabytes.

use std::fmt;

/// The list. Equal lists are equal, however they came about.
#[derive(Clone, PartialEq, Eq)]
pub enum Packed {
    /// Places in a palette, which has what differs in the order in which it comes first.
    Narrow {
        /// What differs, at most 256 numbers.
        palette: Vec<u32>,
        /// A place in the palette for each number.
        cells: Box<[u8]>,
    },
    /// As it is: more differ.
    Wide(Box<[u32]>),
}

/// Places of numbers that were looked up lately; a power of two.
const LATELY: usize = 1_024;

impl Packed {
    /// Packs a list.
    #[must_use]
    pub fn new(numbers: &[u32]) -> Self {
        let (mut palette, mut cells) = (Vec::<u32>::new(), Vec::with_capacity(numbers.len()));
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
            cells.push(*guess);
        }
        palette.shrink_to_fit();
        Self::Narrow { palette, cells: cells.into() }
    }

    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Narrow { cells, .. } => cells.len(),
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
            Self::Narrow { palette, cells } => palette[usize::from(cells[at])],
            Self::Wide(numbers) => numbers[at],
        }
    }

    /// All numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }
}

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
        let most: Vec<u32> = (0..1_000).map(|n| (n % 256) << 16).collect();
        let many: Vec<u32> = (0..1_000).map(|n| (n % 257) << 16).collect();
        for (list, narrow) in [(&few, true), (&most, true), (&many, false), (&Vec::new(), true)] {
            let packed = Packed::new(list);
            assert_eq!(packed.iter().collect::<Vec<_>>(), *list);
            assert_eq!((packed.len(), packed.is_empty()), (list.len(), list.is_empty()));
            assert_eq!(matches!(packed, Packed::Narrow { .. }), narrow);
            assert!(packed == Packed::new(list));
        }
        assert!(Packed::new(&few) != Packed::new(&few[1..]));
    }
}
