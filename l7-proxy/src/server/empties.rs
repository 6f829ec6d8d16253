//! Frames of nothing from servers of HTTP/2. The h2 crate ends a connection, with all its streams, when a hundred of them have come
//! in its life; they are allowed (RFC 9113 §6.1), and some servers send one with each answer.

use super::links::Wear;
use crate::io::Watch;

/// Bytes of a frame's head (RFC 9113 §4.1), and where in it type and flags are.
const HEAD: usize = 9;
const KIND: usize = 3;
const FLAGS: usize = 4;

const DATA: u8 = 0;
const END_STREAM: u8 = 1;

/// A type that nobody knows: such frames are disregarded (RFC 9113 §5.5).
const UNKNOWN: u8 = 0xff;

/// Makes DATA that has nothing in it, and ends nothing, a frame that is disregarded. The few whose type has passed before the rest
/// of their head came are left as they are, and wear the connection out.
#[derive(Debug, Default)]
pub(super) struct Empties {
    wear: Wear,
    /// The head of a frame as far as it is there, and what is to come of its payload.
    head: [u8; HEAD],
    have: usize,
    skip: usize,
}

impl Empties {
    pub(super) fn new(wear: Wear) -> Self {
        Self { wear, ..Self::default() }
    }
}

impl Watch for Empties {
    fn came(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            at += skipped;
            let taken = (HEAD - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[at..at + taken]);
            self.have += taken;
            at += taken;
            if self.have < HEAD {
                break;
            }
            self.have = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let is_empty = self.skip == 0 && kind == DATA && flags & END_STREAM == 0;
            if is_empty && taken >= HEAD - KIND {
                bytes[at + KIND - HEAD] = UNKNOWN;
                bytes[at + FLAGS - HEAD] = 0;
            } else if is_empty {
                self.wear.add(Wear::EMPTY);
            }
        }
        bytes.len()
    }

    fn next_turn(&mut self) {}

    fn goes(&mut self, _: &mut [u8], _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u8;
        [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], payload].concat()
    }

    #[test]
    fn only_what_is_nothing_is_disregarded() {
        let came = [
            frame(1, 4, b"\x88"),
            frame(0, 0, b""),
            // Padding is counted in windows, and the end is one.
            frame(0, 8, b"\x00"),
            frame(0, 0, &[0; 9]),
            frame(0, 0, b""),
            frame(4, 0, b""),
            frame(0, 1, b""),
        ];
        let mut expected = came.clone();
        for nothing in [1, 4] {
            expected[nothing] = frame(UNKNOWN, 0, b"");
        }
        let (came, expected) = (came.concat(), expected.concat());
        for first in 0..=came.len() {
            let mut bytes = came.clone();
            let mut empties = Empties::default();
            let (begin, rest) = bytes.split_at_mut(first);
            assert_eq!((empties.came(begin), empties.came(rest)), (begin.len(), rest.len()));
            // Where type and flags of one do not come with the end of its head, it stays.
            let differ = (0..came.len()).filter(|&at| bytes[at] != expected[at]).count();
            let is_cut = [10, 47].iter().any(|&at| (at + KIND + 1..at + HEAD).contains(&first));
            assert_eq!(differ, usize::from(is_cut), "{first}");
            assert_eq!(empties.wear.is(), if is_cut { Wear::EMPTY } else { 0 }, "{first}");
        }
    }
}
