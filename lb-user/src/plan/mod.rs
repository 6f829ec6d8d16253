//! What the maps must contain, and how to get there from what they contain. Pure: nothing here reads a
//! clock, a file or a map.
//!
//! ```text
//! Config ─┐
//! health ─┼─ select ─ desired ─ transition ─ diff ─ operations, in an order that is safe to apply one by one
//! hops  ──┤              │          │
//! ids   ──┘           Wanted     Desired, the picture of all maps
//! ```

pub mod desired;
pub mod diff;
mod entries;
pub mod ids;
pub mod orders;
pub mod packed;
pub mod proxied;
pub mod ring;
pub mod select;
pub mod snat;
pub mod steering;
pub mod transition;

pub use desired::{Desired, Hop, Inputs, desired};
pub use diff::{Operation, diff};
pub use entries::hop_problem;
pub use ids::Ids;
pub use orders::{Census, Orders};
pub use ring::{Image, RingSpec};
pub use steering::{Admin, Steering};
pub use transition::{Rings, Wanted};
