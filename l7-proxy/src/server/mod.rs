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
pub use live::{Live, Slot};
pub use pool::{Ends, NoPlace, Pool, Server, Way};

/// Milliseconds on a clock that only this process knows; what [`Live`] reckons in. It began long before the process did, so
/// that what others remember of former times has a place on it.
#[must_use]
pub fn now() -> u64 {
    use std::{sync::LazyLock, time::Instant};
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    const BEFORE: u64 = 400 * 86_400_000;
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(BEFORE)
}
