//! Sockets with or without TLS, buffers before and behind them, and the timer of a connection. No HTTP here.

mod deadline;
mod out;
mod prefixed;
mod stream;

pub use deadline::Deadline;
pub use out::Out;
pub use prefixed::Prefixed;
pub use stream::{Stream, fill};
