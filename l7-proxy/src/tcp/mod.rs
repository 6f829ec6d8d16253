//! Bytes between two connections, whatever they mean.

pub mod greeting;
mod relay;
mod serve;

pub use relay::{Ended, Party, Passed, Times, relay};
pub use serve::serve;
