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
const PADDED: u8 = 8;

/// A type that nobody knows: such frames are disregarded (RFC 9113 §5.5).
const UNKNOWN: u8 = 0xff;

/// Makes DATA that has nothing in it, and ends nothing, a frame that is disregarded. Where it is not clear yet whether a frame is one,
/// its head waits for the rest; the few of which that cannot be had wear the connection out, and so do those with padding, which
/// windows count.
#[derive(Debug, Default)]
pub(super) struct Empties {
    wear: Wear,
    /// The head of a frame as far as it has passed, and what is to come of its payload.
    head: [u8; HEAD],
    have: usize,
    skip: usize,
    /// Whether the next byte is the length of the padding of a frame that ends nothing.
    is_padded: bool,
    /// Whether what may be one waits; and whether nothing may.
    waits: bool,
    must: bool,
}

impl Empties {
    pub(super) fn new(wear: Wear) -> Self {
        Self { wear, ..Self::default() }
    }
}

impl Watch for Empties {
    fn came(&mut self, bytes: &mut [u8]) -> usize {
        let must = std::mem::take(&mut self.must);
        self.waits = false;
        let mut at = 0;
        while at < bytes.len() {
            if std::mem::take(&mut self.is_padded) && usize::from(bytes[at]) + 1 >= self.skip {
                self.wear.add(Wear::EMPTY);
            }
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            at += skipped;
            let taken = (HEAD - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[at..at + taken]);
            let have = self.have + taken;
            let [a, b, c, kind, flags, ..] = self.head;
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if have < HEAD {
                self.waits = have > KIND && self.have <= KIND && (kind, length) == (DATA, 0) && !must;
                if self.waits {
                    // Up to its type it may pass.
                    at += KIND - self.have;
                    self.have = KIND;
                    return at;
                }
                self.have = have;
                break;
            }
            at += taken;
            let is_empty = length == 0 && kind == DATA && flags & END_STREAM == 0;
            if is_empty && taken >= HEAD - KIND {
                bytes[at + KIND - HEAD] = UNKNOWN;
                bytes[at + FLAGS - HEAD] = 0;
            } else if is_empty {
                self.wear.add(Wear::EMPTY);
            }
            (self.have, self.skip) = (0, length);
            self.is_padded = length > 0 && kind == DATA && flags & (PADDED | END_STREAM) == PADDED;
        }
        bytes.len()
    }

    fn wants_more(&mut self, must: bool) -> bool {
        self.must = must;
        self.waits
    }

    fn next_turn(&mut self) {}

    fn goes(&mut self, _: &mut [u8], _: usize) {}
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::Pin, task::Poll};

    use bytes::BytesMut;
    use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};

    use super::*;
    use crate::io::Gather;

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
            frame(0, 8, b"\x02x\0\0"),
            frame(0, 9, b"\x01\0"),
            frame(0, 0, &[0; 9]),
            frame(0, 0, b""),
            frame(4, 0, b""),
            frame(0, 1, b""),
        ];
        let mut expected = came.clone();
        for nothing in [1, 6] {
            expected[nothing] = frame(UNKNOWN, 0, b"");
        }
        let (came, expected) = (came.concat(), expected.concat());
        for first in 0..=came.len() {
            for must in [false, true] {
                let mut bytes = came.clone();
                let mut empties = Empties { must, ..Empties::default() };
                let passed = empties.came(&mut bytes[..first]);
                assert!(
                    passed == first || (empties.wants_more(false) && first - passed < HEAD - KIND && !must)
                );
                // What has not passed comes again.
                assert_eq!(empties.came(&mut bytes[passed..]), came.len() - passed);
                let is_cut = must && [10, 71].iter().any(|&at| (at + KIND + 1..at + HEAD).contains(&first));
                let differ = (0..came.len()).filter(|&at| bytes[at] != expected[at]).count();
                assert_eq!(differ, usize::from(is_cut), "{first}");
                // Besides the one with padding.
                assert_eq!(empties.wear.is(), if is_cut { 2 * Wear::EMPTY } else { Wear::EMPTY }, "{first}");
            }
        }
    }

    #[tokio::test]
    async fn a_head_that_waits_is_read_on_whatever_room_there_is() {
        let came = [frame(1, 4, b"\x88"), frame(0, 0, b""), frame(0, 0, &[0; 9]), frame(0, 1, b"")].concat();
        let mut expected = came.clone();
        expected[10 + KIND] = UNKNOWN;
        for piece in 1..came.len() {
            for room in 1..30 {
                let (near, mut far) = tokio::io::duplex(1_000);
                let (mut near, out) = Gather::new(near, BytesMut::new(), Empties::default());
                let mut passed = Vec::new();
                for piece in came.chunks(piece) {
                    far.write_all(piece).await.unwrap();
                    // As much as can be had now, however often that was asked.
                    tokio::task::unconstrained(poll_fn(|context| {
                        loop {
                            let mut buffer = vec![0; room];
                            let mut buffer = ReadBuf::new(&mut buffer);
                            if Pin::new(&mut near).poll_read(context, &mut buffer).is_pending() {
                                let _ = out.poll(context);
                                return Poll::Ready(());
                            }
                            assert!(!buffer.filled().is_empty(), "that would be the end");
                            passed.extend_from_slice(buffer.filled());
                        }
                    }))
                    .await;
                }
                // The end alone is never kept.
                assert_eq!(passed.len(), came.len(), "{piece}, {room}");
                // Where there is no room for a head, it passes as it is.
                assert!(passed == expected || room < HEAD, "{piece}, {room}");
                drop(far);
                let mut rest = [0; 10];
                assert_eq!(near.read(&mut rest).await.unwrap(), 0);
            }
        }
        // One that never comes whole is what there was.
        let (near, mut far) = tokio::io::duplex(1_000);
        let (mut near, _out) = Gather::new(near, BytesMut::new(), Empties::default());
        far.write_all(&came[..15]).await.unwrap();
        drop(far);
        let mut all = Vec::new();
        near.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, came[..15]);
    }
}
