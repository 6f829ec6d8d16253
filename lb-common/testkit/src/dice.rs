//! Choices made from bytes. The bytes are a fuzzer's, a property test's, or those of a seed; equal bytes make
//! equal choices, and fewer bytes fewer choices.

/// A run of choices.
#[derive(Clone, Debug)]
pub struct Dice<'a> {
    bytes: &'a [u8],
}

impl<'a> Dice<'a> {
    /// Choices from these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether there is nothing left to choose from; every further choice is the first possible one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        let (&first, rest) = self.bytes.split_first().unwrap_or((&0, &[]));
        self.bytes = rest;
        first
    }

    /// Two bytes as a number.
    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number below `bound`, which is from 1 to 65,536.
    pub fn below(&mut self, bound: usize) -> usize {
        let value = if bound > 256 { self.word().into() } else { usize::from(self.byte()) };
        value % bound.max(1)
    }

    /// Whether something that happens in `parts` of 256 cases happens.
    pub fn chance(&mut self, parts: u8) -> bool {
        // The other way round: zero bytes, which an exhausted run gives, shall mean that nothing happens.
        255 - self.byte() < parts
    }

    /// One of the choices.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Some bytes, fewer than `bound`.
    pub fn bytes(&mut self, bound: usize) -> Vec<u8> {
        let length = self.below(bound).min(self.bytes.len());
        let (some, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        some.to_vec()
    }
}

/// `length` bytes that look random and depend on the seed only (SplitMix64).
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    };
    let words = std::iter::repeat_with(&mut next).take(length.div_ceil(8));
    let mut bytes: Vec<u8> = words.flatten().collect();
    bytes.truncate(length);
    bytes
}
