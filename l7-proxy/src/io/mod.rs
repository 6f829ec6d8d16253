//! Sockets with or without TLS, buffers before and behind them, and the timer of a connection. No HTTP here.

mod behind;
mod channel;
mod deadline;
mod gather;
mod inbox;
mod out;
mod queue;
mod stream;
mod window;

pub use channel::Channel;
pub use deadline::Deadline;
pub use gather::{Gather, Watch, WriteOut};
pub use inbox::Inbox;
pub use out::Out;
pub use stream::{LINGERING, Stream, fill};
pub use window::{Window, Windows};
