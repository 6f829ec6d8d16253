//! Sockets with or without TLS, buffers before and behind them, and the timer of a connection. No HTTP here.

mod channel;
mod deadline;
mod gather;
mod out;
mod stream;

pub use channel::Channel;
pub use deadline::Deadline;
pub use gather::{Gather, Watch, WriteOut};
pub use out::Out;
pub use stream::{Stream, fill};
