//! Translated flows (`nat` and `snat`), and the three tables that hold them.
//!
//! A flow has one record, in `FLOWS4` or `FLOWS6`, found from either side:
//!
//! ```text
//! client's packet ─ hash ─ line of CLAIMS  ─ way ─┐
//!                                                 ├─ record = 8 × line + way
//! server's packet ─ hash ─ line of REPLIES ─ number ┘
//! ```
//!
//! A *line* is eight 64-bit entries, one cache line, each read and written by itself; so a look-up misses the
//! cache twice, however many flows there are, and nothing takes a lock. Who puts a [`Claim`] into an empty way
//! (by compare-and-exchange) owns the record that belongs to the way. The tables never forget a living
//! connection: only flows that are not established give way, see [`Claim::rank`].

use super::{MacBytes, ServerRef};

/// A line of `CLAIMS4`, `CLAIMS6`, `REPLIES4`, `REPLIES6` and `FLOW_TAGS`.
pub type Line = [u64; WAYS];

/// Entries of a line.
pub const WAYS: usize = 8;

/// Words of 64 bits that a record of `FLOWS4` takes.
pub const RECORD4: usize = 8;

/// Words of 64 bits that a record of `FLOWS6` takes.
pub const RECORD6: usize = 16;

/// A 5-tuple as it arrives at the balancer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port, host order.
    pub sport: u16,
    /// Destination port, host order.
    pub dport: u16,
    /// IP protocol number, wide so that the key has no padding.
    pub protocol: u32,
}

impl<A: Copy> FlowKey<A> {
    /// The 5-tuple of the answers.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, protocol: self.protocol }
    }
}

/// Which packets of a flow are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Half {
    /// Those of the client.
    Client = 0,
    /// Those of the server.
    Server = 1,
}

/// The record of a translated flow. In the maps each has a room of whole cache lines, [`RECORD4`] and
/// [`RECORD6`] words of 64 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow<A> {
    /// The client's address.
    pub client: A,
    /// The VIP's address.
    pub vip: A,
    /// The address that the server sees as its client: the balancer's with `snat`, the client's with `nat`.
    pub source: A,
    /// The server's address.
    pub server: A,
    /// The client's port, host order like all of them.
    pub client_port: u16,
    /// The VIP's port.
    pub vip_port: u16,
    /// The port that goes with `source`.
    pub source_port: u16,
    /// The server's port.
    pub server_port: u16,
    /// IP protocol number in the low byte; wide for the stack.
    pub protocol: u16,
    /// Number of the VIP.
    pub vip_id: u16,
    /// The server.
    pub server_ref: ServerRef,
    /// Tick of the last packet in either direction, exact to one tick; see [`crate::conntrack`].
    pub seen: u32,
    /// [`crate::conntrack`] state; changed atomically.
    pub state: u32,
    /// Interface the client's packets come in by: replies leave there.
    pub client_ifindex: u32,
    /// MAC the client's packets come from: replies go there.
    pub client_mac: MacBytes,
    /// The lower half of the number that the client acknowledges who has had the server's answer; 0 before the answer.
    pub handshake: u16,
}

impl<A: Copy> Flow<A> {
    /// The 5-tuple of the client's packets as they arrive.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> FlowKey<A> {
        FlowKey {
            src: self.client,
            dst: self.vip,
            sport: self.client_port,
            dport: self.vip_port,
            protocol: self.protocol as u32,
        }
    }

    /// The 5-tuple of the server's packets as they arrive.
    #[inline(always)]
    #[must_use]
    pub fn reply_key(&self) -> FlowKey<A> {
        FlowKey {
            src: self.server,
            dst: self.source,
            sport: self.server_port,
            dport: self.source_port,
            protocol: self.protocol as u32,
        }
    }

    /// The 5-tuple with which packets of `half` leave.
    #[inline(always)]
    #[must_use]
    pub fn outgoing(&self, half: Half) -> FlowKey<A> {
        match half {
            Half::Client => self.reply_key().reversed(),
            Half::Server => self.key().reversed(),
        }
    }
}

/// How far a flow has come, as far as the question goes who must make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has ended; kept for stragglers. Also what an empty way says.
    Over = 0,
    /// Not every side has spoken: perhaps nobody is there.
    Opening = 1,
    /// Being entered: its record is not to be read yet.
    Entering = 2,
    /// Both sides have spoken.
    Established = 3,
}

/// An entry of `CLAIMS4` and `CLAIMS6`: the right to a record.
///
/// Fingerprint in bits 32–63, [`Stage`] in bits 30–31, the tick since when in bits 0–29. 0 is an empty way; a
/// fingerprint is never 0.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim(pub u64);

impl Claim {
    /// A claim.
    #[inline(always)]
    #[must_use]
    pub const fn new(fingerprint: u32, stage: Stage, tick: u32) -> Self {
        Self((fingerprint as u64) << 32 | (stage as u64) << 30 | tick as u64 & 0x3fff_ffff)
    }

    /// What the flow's hash says, not 0.
    #[inline(always)]
    #[must_use]
    pub const fn fingerprint(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// How far the flow has come.
    #[inline(always)]
    #[must_use]
    pub const fn stage(self) -> Stage {
        match (self.0 >> 30) & 3 {
            0 => Stage::Over,
            1 => Stage::Opening,
            2 => Stage::Entering,
            _ => Stage::Established,
        }
    }

    /// Whether the way is empty.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Ticks since it got there.
    #[inline(always)]
    #[must_use]
    pub const fn age(self, now: u32) -> u32 {
        now.wrapping_sub(self.0 as u32) & 0x3fff_ffff
    }

    /// The same flow at another stage.
    #[inline(always)]
    #[must_use]
    pub const fn at(self, stage: Stage, tick: u32) -> Self {
        Self::new(self.fingerprint(), stage, tick)
    }

    /// Who gives way to a new flow: the highest rank does, 0 never does. Empty ways and flows that are over come
    /// first, then the oldest of those that are still opening.
    ///
    /// Without a branch: it is asked of sixteen ways for every new flow, and branches are what the verifier has to
    /// follow.
    #[inline(always)]
    #[must_use]
    pub const fn rank(self, now: u32) -> u32 {
        let stage = (self.0 >> 30) as u32 & 3;
        let over = (stage.wrapping_sub(1) >> 31) << 30;
        let gives_way = (stage >> 1).wrapping_sub(1);
        ((self.age(now) + 1) | over) & gives_way
    }
}

/// An entry of `REPLIES4` and `REPLIES6`: fingerprint of the reply's 5-tuple in bits 32–63, number of the record
/// in bits 0–31. 0 is an empty way.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply(pub u64);

impl Reply {
    /// An entry for the record `number`.
    #[inline(always)]
    #[must_use]
    pub const fn new(fingerprint: u32, number: u32) -> Self {
        Self((fingerprint as u64) << 32 | number as u64)
    }

    /// What the hash of the reply's 5-tuple says, not 0.
    #[inline(always)]
    #[must_use]
    pub const fn fingerprint(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The record.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}
