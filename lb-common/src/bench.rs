//! What `cargo xtask bench` and its program in the kernel (`lb-ebpf/src/bench.rs`) share.
//!
//! | map | kind | key | value | written by | read by |
//! |---|---|---|---|---|---|
//! | `COURSE` | array of 1 | 0 | [`Course`] | both | kernel |
//! | `FLOWS` | array | number of a chunk | [`Chunk`] | user | kernel |
//! | `RECORD` | array | number of a chunk | [`Chunk`] | kernel | user |
//! | `PROGRAMS` | program array of 1 | 0 | the program to measure | user | kernel |
//!
//! Nothing here is part of the product's map ABI.

/// Bytes at the start of a frame that are restored before every run: more than any header that the program
/// under test changes. Frames are at least this long.
pub const HEAD: usize = 128;

/// Flows in one value of `FLOWS`. Large values, because writing a value is a system call.
pub const CHUNK: usize = 4_096;

/// Values of `FLOWS`: room for 1,048,576 flows.
pub const CHUNKS: usize = 256;

/// Flows that lie in a row in memory, in the order in which they are visited. (A structure, because aya 0.14
/// takes the size of an array of arrays for that of one of its elements.)
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Chunk(pub [Flow; CHUNK]);

/// What distinguishes the packets of one flow from another's: four words as they lie in the frame, native
/// byte order, at the places that [`Course::places`] names.
pub type Flow = [u32; WORDS];

/// Words of a [`Flow`].
pub const WORDS: usize = 4;

/// What the program does before each run of the program under test.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The first bytes of the frame.
    pub head: [u64; HEAD / 8],
    /// Length of the frame, [`HEAD`] at least.
    pub length: u32,
    /// Flows to visit, one after the other and then again; 1 at least.
    pub flows: u32,
    /// The flow of the next run.
    pub position: u32,
    /// Where the words of a flow go: offsets in the frame, below [`HEAD`] − 4.
    pub places: [u32; WORDS],
    /// Where the words of a [`Flow`] are found in what the program under test made of a frame, for `RECORD`.
    pub recorded: [u32; WORDS],
    /// Zero.
    pub pad: u32,
}

const _: () = {
    assert!(size_of::<Course>() == HEAD + 48);
    assert!(size_of::<Flow>() == 16);
};
