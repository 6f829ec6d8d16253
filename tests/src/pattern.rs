//! Reproducible bytes and a hash over them: both ends of a transfer can say what should have arrived.

/// FNV-1a, 64 bits: enough to notice a changed, lost, doubled or moved byte; no protection against intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash of everything taken in.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

/// An endless stream of bytes without a short period, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Pattern(u64);

impl Pattern {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // xorshift stands still at zero.
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// Fills the buffer with the stream's next bytes. A seed always gives the same bytes as long as the
    /// buffers but the last are multiples of 8 long.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }

    /// Hash of the first `length` bytes of the stream of `seed`.
    #[must_use]
    pub fn hash(seed: u64, length: usize) -> Hash {
        let mut hash = Hash::default();
        Self::chunks(seed, length, |bytes| {
            hash.update(bytes);
            Ok::<(), ()>(())
        })
        .unwrap_or_default();
        hash
    }

    /// Gives the first `length` bytes of the stream of `seed` to `take`, chunk by chunk.
    ///
    /// # Errors
    /// The first error of `take`.
    pub fn chunks<E>(
        seed: u64,
        length: usize,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pattern = Self::new(seed);
        let mut buffer = [0; 16 * 1024];
        let mut left = length;
        while left > 0 {
            let now = left.min(buffer.len());
            pattern.fill(&mut buffer[..now]);
            take(&buffer[..now])?;
            left -= now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut hash = Hash::default();
        hash.update(b"foobar");
        assert_eq!(hash.value(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_changed_or_moved_byte_changes_the_hash() {
        let mut bytes = [0; 100];
        Pattern::new(7).fill(&mut bytes);
        assert_eq!(hash_of(&bytes), Pattern::hash(7, 100));
        bytes.swap(10, 11);
        assert_ne!(hash_of(&bytes), Pattern::hash(7, 100));
        assert_ne!(Pattern::hash(7, 100), Pattern::hash(8, 100));
    }

    fn hash_of(bytes: &[u8]) -> Hash {
        let mut hash = Hash::default();
        hash.update(bytes);
        hash
    }
}
