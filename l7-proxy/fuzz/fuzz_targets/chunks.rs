//! Bodies: whatever comes, and however it is cut, the same bytes, trailers and faults come of it.

#![no_main]

use bytes::BytesMut;
use l7_proxy::wire::{Body, Fault, Framing, Piece};
use libfuzzer_sys::fuzz_target;

/// Reads a body that comes in pieces of `step` bytes: its bytes, and whether and with how many trailers it ended.
fn read(framing: Framing, bytes: &[u8], step: usize) -> (Vec<u8>, Result<Option<usize>, Fault>) {
    let (mut body, mut buffer, mut data) = (Body::from(framing), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match body.take(&mut buffer) {
                Ok(Some(Piece::Data(bytes))) => data.extend_from_slice(&bytes),
                Ok(Some(Piece::Trailers(fields))) => return (data, Ok(Some(fields.len()))),
                Ok(Some(Piece::End)) => return (data, Ok(Some(0))),
                Ok(None) => break,
                Err(fault) => return (data, Err(fault)),
            }
        }
    }
    (data, Ok(None))
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else { return };
    let framing = match first % 4 {
        0 => Framing::Length(u64::from(first)),
        1 => Framing::UntilClose,
        _ => Framing::Chunked,
    };
    let whole = read(framing, bytes, bytes.len().max(1));
    for step in [1, 2, 3, 7, 1 + usize::from(first)] {
        let cut = read(framing, bytes, step);
        assert_eq!((&cut.0, cut.1), (&whole.0, whole.1), "in pieces of {step}");
    }
    assert!(whole.0.len() <= bytes.len());
});
