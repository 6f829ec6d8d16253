//! Bytes between two connections, whatever they mean.

pub mod greeting;
mod relay;
mod serve;
mod splice;

pub use relay::{Ended, Party, Passed, Plain, Times, relay};
pub use serve::serve;
