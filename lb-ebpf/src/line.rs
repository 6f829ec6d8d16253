//! Lines of the flow tables: memory that is shared with other CPUs and with user space, an entry at a time.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg};

use lb_common::{abi, pipeline::Line};

/// A line in one of the mapped arrays.
#[derive(Clone, Copy)]
pub(crate) struct KernelLine(*mut u64);

impl KernelLine {
    /// The line that a map gave.
    #[inline(always)]
    pub(crate) fn new(line: *mut abi::Line) -> Self {
        Self(line.cast())
    }
}

impl Line for KernelLine {
    #[inline(always)]
    fn load(self, way: usize) -> u64 {
        // SAFETY: the map gave a pointer to a line, and `way` is below its length (which the verifier checks for
        // itself). Others may write the entry: a load of 8 aligned bytes is one access.
        unsafe { self.0.add(way).read_volatile() }
    }

    #[inline(always)]
    fn store(self, way: usize, value: u64) {
        // SAFETY: as for `load`.
        unsafe { self.0.add(way).write_volatile(value) }
    }

    #[inline(always)]
    fn exchange(self, way: usize, old: u64, new: u64) -> bool {
        // SAFETY: as for `load`.
        unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(self.0.add(way), old, new).1 }
    }
}
