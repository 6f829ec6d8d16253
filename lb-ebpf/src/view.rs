//! The only place that reads and writes packet bytes.

use aya_ebpf::{helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::wire::{Frame, Resize};

/// The linear part of the frame that the program was called for.
pub(crate) struct XdpFrame<'a> {
    start: usize,
    end: usize,
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end(), ctx }
    }

    /// Bytes in the frame.
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        (self.end - self.start) as u64
    }

    /// The address of `N` bytes at `offset` if they lie within the frame.
    ///
    /// The verifier follows exactly this form: one pointer, one sum, one comparison. It also wants to see
    /// that an offset is below 64 KiB: parsing and `Packet` keep them below 32.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        let pointer = self.start + offset;
        if pointer + N > self.end { None } else { Some(pointer as *mut [u8; N]) }
    }

    /// Moves the beginning of the frame. The helper may put the frame elsewhere, also when it refuses: all
    /// pointers into it are read anew.
    #[inline(always)]
    fn move_start(&mut self, bytes: i32) -> Option<()> {
        // SAFETY: the context is the one that the program was called with; the helper checks the bounds.
        let refused = unsafe { bpf_xdp_adjust_head(self.ctx.ctx, bytes) } != 0;
        *self = Self::new(self.ctx);
        if refused { None } else { Some(()) }
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let pointer = self.at::<N>(offset)?;
        // SAFETY: `at` has checked that N bytes from here lie before the end of the frame.
        Some(unsafe { pointer.read() })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let pointer = self.at::<N>(offset)?;
        // SAFETY: `at` has checked that N bytes from here lie before the end of the frame.
        unsafe { pointer.write(bytes) };
        Some(())
    }
}

impl Resize for XdpFrame<'_> {
    #[inline(always)]
    fn pop_front(&mut self, bytes: usize) -> Option<()> {
        self.move_start(i32::try_from(bytes).ok()?)
    }

    #[inline(always)]
    fn push_front(&mut self, bytes: usize) -> Option<()> {
        self.move_start(-i32::try_from(bytes).ok()?)
    }
}
