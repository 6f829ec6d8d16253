//! The side that faces servers: what is known of each, which one gets a request, and connections to it.

mod choose;
mod connection;
mod empties;
mod links;
mod live;
mod pool;
mod queue;
pub mod shortage;
pub mod transparent;

pub use choose::{Choice, Wish, hash};
pub use connection::{ConnectError, Connection, connect};
pub use links::Leave;
pub use live::Live;
pub use pool::{Ends, NoPlace, Pool, Server, Way};
pub use queue::Slot;

/// Milliseconds on a clock that only this process knows; what [`Live`] reckons in. It began long before the process did, so
/// that what others remember of former times has a place on it. It is read again and again for each request, and therefore as
/// coarse as the kernel's ticks are.
#[must_use]
pub fn now() -> u64 {
    use std::sync::LazyLock;

    use nix::time::{ClockId, clock_gettime};
    static START: LazyLock<u64> = LazyLock::new(ticks);
    const BEFORE: u64 = 400 * 86_400_000;
    fn ticks() -> u64 {
        // Every Linux has it. Neither number is negative, nor so large that it would not fit.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
        time.tv_sec() as u64 * 1_000 + time.tv_nsec() as u64 / 1_000_000
    }
    let start = *START;
    (ticks() - start).saturating_add(BEFORE)
}
