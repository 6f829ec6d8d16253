//! What the sweep of the flow tables has to know, and what it finds.

use std::collections::HashMap;

use lb_common::abi::RING_SIZE;

use super::ring::Image;

/// What holds for a sweep that begins now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// The last step that was carried out, see [`super::transition::Rings`].
    pub step: u32,
    /// Rings whose tagged slots are to be settled, by VIP number.
    pub rings: HashMap<u16, Image>,
    /// What is known of each server, by index.
    pub servers: Vec<Sheet>,
}

/// What the sweep has to know of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    /// Number of its VIP.
    pub vip: u16,
    /// What becomes of its flows.
    pub fate: Fate,
    /// Ticks after which the tags of its clients are forgotten, if longer than usual.
    pub remember: u32,
}

/// What becomes of a server's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// No server has this index.
    #[default]
    Nobody,
    /// They go on.
    Kept,
    /// It is down: its flow tags lead nowhere, but records of translated flows may outlast a short failure.
    Down,
    /// They are to end now.
    Halted,
    /// It is no longer configured, and its index not to be given to another before nothing names it.
    Gone,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// [`Orders::step`] of when it began.
    pub step: u32,
    /// Translated flows and flow tags alive, by server index. One that has ended is not, although its entry stays a
    /// while for stragglers.
    pub by_server: HashMap<u16, u64>,
    /// Translated flows alive.
    pub alive: u64,
    /// Records taken, whatever their flows.
    pub records: u64,
    /// Flow tags of flows that are alive, and of clients.
    pub tags: u64,
    /// Flow tags taken, whatever their flows.
    pub tags_taken: u64,
    /// Flows and tags removed.
    pub removed: u64,
    /// Slots with flows of other servers than their own, by VIP number.
    pub held: HashMap<u16, Held>,
    /// Indices of servers that are gone and still named somewhere.
    pub lingering: Vec<u16>,
}

/// A set of ring slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(Vec<u64>);

impl Held {
    /// Adds a slot, below [`RING_SIZE`].
    pub fn add(&mut self, slot: usize) {
        self.0.resize(RING_SIZE.div_ceil(64), 0);
        self.0[slot / 64] |= 1 << (slot % 64);
    }

    /// Whether a slot is in it.
    #[must_use]
    pub fn has(&self, slot: usize) -> bool {
        self.0.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
    }
}
