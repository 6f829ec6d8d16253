//! The process: threads that serve, listeners, and the one place where what is served changes.
//!
//! Whoever drives it (the command line here, a control socket elsewhere) makes an [`Engine`], gives it
//! specifications with [`Engine::apply`], and ends it with [`Engine::close`] and [`Engine::end`]. Listeners are opened by
//! [`Listeners`], or handed over to it by whoever opened them.

mod confine;
mod control;
mod current;
mod engine;
mod files;
mod listeners;
mod worker;

pub use confine::confine;
pub use control::Control;
pub use current::{Current, Phase};
pub use engine::Engine;
pub use listeners::Listeners;
