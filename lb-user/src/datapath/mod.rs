//! The kernel side of the daemon: loading and attaching the program, writing and reading its maps. The only
//! room that knows aya. It carries out operations; which ones is decided in [`crate::plan`].

pub mod attach;
pub mod decap;
pub mod events;
#[cfg(test)]
pub mod fake;
pub mod flows;
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the C library's heap; the line says why it is sound")
)]
pub mod heap;
pub mod kernel;
pub mod load;
#[expect(unsafe_code, reason = "memory shared with the kernel; each line says why it is sound")]
mod mapped;
pub mod maps;
pub mod moving;
mod parted;
pub mod pins;
pub mod programs;
mod rings;

use lb_common::abi::Counters;

use crate::plan::{Image, Operation};

/// The kernel program, as `cargo xtask build` put it into this file; empty in a build without BPF tools.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.o"));

/// Something that can be told to change the maps, and be asked what was counted.
pub trait Datapath {
    /// Carries out one operation.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is changed then.
    fn apply(&mut self, operation: &Operation) -> Result<(), Error>;

    /// Carries out several [`Operation::Ring`], in any order or at the same time. Packets that are under way may still go by
    /// an old one, until [`Self::settle`]; any other operation waits for that.
    ///
    /// # Errors
    /// When the kernel refuses one; others may have been carried out then.
    fn apply_rings(&mut self, rings: &[(u16, Option<Image>)]) -> Result<(), Error> {
        rings.iter().try_for_each(|(vip, image)| self.apply(&Operation::Ring(*vip, image.clone())))
    }

    /// Waits until no packet goes by a ring that was replaced.
    ///
    /// # Errors
    /// When the kernel refused one after all.
    fn settle(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Traffic of a server since its number was given out, by its index.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn server_counters(&self, server: u16) -> Result<Counters, Error>;

    /// Packets by reason, in the order of the `REASONS` map.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn reasons(&self) -> Result<Vec<u64>, Error>;
}

/// What the kernel would not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub(crate) String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// An error with its causes in one line; what only repeats its cause is left out.
    pub(crate) fn new(attempt: &str, error: &dyn std::error::Error) -> Self {
        let mut text = attempt.to_owned();
        let mut next = Some(error);
        while let Some(error) = next {
            let line = error.to_string();
            // The verifier's log is many pages; its last lines tell.
            let line = line
                .split("Verifier output")
                .next()
                .unwrap_or_default()
                .trim_end_matches(['.', ' '])
                .to_owned();
            if !text.contains(&line) {
                text = format!("{text}: {line}");
            }
            next = error.source();
        }
        Self(text)
    }
}
