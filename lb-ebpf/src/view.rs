//! The only place that reads and writes packet bytes.

use aya_ebpf::{
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use lb_common::wire::{Frame, Resize};

/// The linear part of the frame that the program was called for.
pub(crate) struct XdpFrame<'a> {
    start: usize,
    end: usize,
    /// Bytes in all of the frame, as far as its headers tell; 0 if nobody asked.
    total: usize,
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        // Read from the context itself each time: the verifier refuses an address that was calculated from it.
        let fresh = XdpContext::new(opaque(ctx.ctx as usize) as *mut _);
        // They are fields of 32 bits, which the verifier knows for pointers: to be kept on the stack as 64.
        Self { start: opaque(fresh.data()), end: opaque(fresh.data_end()), total: 0, ctx }
    }

    /// A frame of which more may lie in other pieces, where it is known from its headers how long it is.
    #[inline(always)]
    pub(crate) fn of_packet(ctx: &'a XdpContext, bytes: u64) -> Self {
        Self { total: bytes as usize, ..Self::new(ctx) }
    }

    /// Bytes in the linear part.
    #[inline(always)]
    pub(crate) fn linear(&self) -> usize {
        // LLVM must not make comparisons of pointers into comparisons of lengths.
        opaque(self.end) - opaque(self.start)
    }

    /// The address of `N` bytes at `offset` if they lie within the frame.
    ///
    /// The verifier follows exactly this form: one pointer, one sum, one comparison. LLVM would like to prove the
    /// comparison needless from others before it, which the verifier cannot follow: so it is not told where the
    /// pointer comes from. The verifier also wants to see that an offset is below 64 KiB: parsing and `Packet` keep
    /// them below 32.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        let pointer = opaque(self.start + offset);
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

    #[inline(always)]
    fn set_len(&mut self, length: usize) -> Option<()> {
        // There may be padding behind the packet, or pieces of it that are not in the linear part.
        let more = length as i32 - self.linear().max(self.total) as i32;
        // SAFETY: the context is the one that the program was called with; the helper checks the bounds.
        let refused = unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, more) } != 0;
        *self = Self::new(self.ctx);
        // The headers may have claimed more than there was: then too much is gone.
        if refused || opaque(self.end) - opaque(self.start) != length { None } else { Some(()) }
    }
}

/// The same number, of which the compiler knows nothing.
#[inline(always)]
fn opaque(mut number: usize) -> usize {
    // An instruction there must be: the kernel refuses line numbers that belong to none.
    // SAFETY: a register is copied to itself.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags))
    };
    number
}
