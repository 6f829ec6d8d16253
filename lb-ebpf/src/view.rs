//! The only place that reads and writes packet bytes.

use core::marker::PhantomData;

use aya_ebpf::programs::XdpContext;
use lb_common::wire::Frame;

/// The linear part of the frame that the program was called for.
pub(crate) struct XdpFrame<'a> {
    start: usize,
    end: usize,
    context: PhantomData<&'a XdpContext>,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end(), context: PhantomData }
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
