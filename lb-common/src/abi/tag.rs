//! Flow tags: what is remembered of the flows of `dr`, `ipip` and `gue`, and of clients that persist.
//!
//! Eight bytes in one word, written with a single store, shared by all CPUs. A tag is advice: it is asked only
//! where a ring slot is tagged, or a flow begins; if it is lost there, the flow goes where the ring says.

/// An entry of `FLOW_TAGS`: the flow's ring hash in bits 32–63, its server's index in bits 16–31, [`TagStage`]
/// in bits 14–15, and the time of its last sign of life in bits 0–13, in units of [`UNIT`] ticks. 0 is an empty
/// way; server 0 does not exist.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTag(pub u64);

/// Ticks in a unit of a tag's time: it wraps around after some 19 hours.
pub const UNIT: u32 = 4;

/// How far a tagged flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TagStage {
    /// Its client has ended it.
    Closed = 0,
    /// Only its SYN was seen.
    Opening = 1,
    /// A later packet was seen.
    Established = 2,
    /// It is no flow but a client, who persists.
    Client = 3,
}

impl FlowTag {
    /// A tag, seen last at tick `now`.
    #[inline(always)]
    #[must_use]
    pub const fn new(hash: u32, server: u16, stage: TagStage, now: u32) -> Self {
        Self(
            (hash as u64) << 32 | (server as u64) << 16 | (stage as u64) << 14 | (now / UNIT) as u64 & 0x3fff,
        )
    }

    /// The ring hash of its flow.
    #[inline(always)]
    #[must_use]
    pub const fn hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Index of its server, 0 in an empty way. Which VIP it is for, its server says.
    #[inline(always)]
    #[must_use]
    pub const fn server(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// How far the flow has come.
    #[inline(always)]
    #[must_use]
    pub const fn stage(self) -> TagStage {
        match (self.0 >> 14) & 3 {
            0 => TagStage::Closed,
            1 => TagStage::Opening,
            2 => TagStage::Established,
            _ => TagStage::Client,
        }
    }

    /// Units of time since the last sign of life.
    #[inline(always)]
    #[must_use]
    pub const fn age(self, now: u32) -> u32 {
        (now / UNIT).wrapping_sub(self.0 as u32) & 0x3fff
    }

    /// Who gives way to a new tag: the highest rank does. Empty ways and closed flows come first, then the oldest
    /// of those never confirmed, then the one longest without a sign of life, flow or client. Without a branch, see
    /// [`super::Claim::rank`].
    #[inline(always)]
    #[must_use]
    pub const fn rank(self, now: u32) -> u32 {
        let stage = (self.0 >> 14) as u32 & 3;
        let unconfirmed = (2 - (stage & 1)) & (stage >> 1).wrapping_sub(1);
        unconfirmed << 14 | self.age(now)
    }
}
