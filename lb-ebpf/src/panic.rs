//! A panic that can be reached becomes a load failure: the verifier refuses an endless loop.

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
