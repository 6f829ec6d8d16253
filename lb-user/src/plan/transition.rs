//! From the ring that a VIP has to the one it should have, without losing a flow that could be kept.
//!
//! The kernel asks the flow tags only about *tagged* slots; flows of the others are all with their slot's server. So a
//! slot that is to move is tagged first, and stays so for a while (*learning*): whatever is heard of its flows writes
//! itself into the flow tags. Then it moves, still tagged, and is settled once a sweep of the tags has found no flow
//! in it that lives elsewhere.
//!
//! ```text
//! settled ─ tag ─ learning ─ move ─ tagged ─ a sweep finds nothing ─ settled
//!    └────────── its server keeps no flows: moves at once ──────────────┘
//! ```
//!
//! A slot that had no server is tagged when it gets one: when a balancer starts, its servers turn out to be well one after
//! the other.
//!
//! Pure: the time is passed in, and what a sweep found. Steps are numbered, so that it can be told whether a sweep
//! began before or after a slot changed.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};

use lb_common::abi::{RING_SIZE, ServerRef, Slot, server_flags};

use super::{
    Desired, RingSpec,
    orders::{Census, Held},
    packed::Packed,
    ring::Image,
};

/// So many slots of a ring may name servers that take no new flows while they are learned. The kernel tries six others
/// for a new flow: all in vain for one in seven then, whose client tries again a second later.
const MOST_CLOSED: usize = RING_SIZE / 4 * 3;

/// What must be remembered of a VIP's flows when its ring changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing: each flow has a record, or none is kept track of.
    Nothing,
    /// Where the ring has changed.
    Changes,
    /// Every flow, always: its slot does not say where it is.
    Everything,
}

/// The ring that a VIP should have, and what its servers allow on the way there.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The ring.
    pub spec: RingSpec,
    /// What must be remembered.
    pub memory: Memory,
    /// Servers that keep the flows they have, members of the ring or not.
    pub keeping: HashSet<ServerRef>,
    /// Servers that may be given new flows: the members, and those that may until no slot names them any more.
    pub willing: HashSet<ServerRef>,
}

/// What the maps are to contain, but for rings that may take time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// All maps, without rings.
    pub maps: Desired,
    /// Where the rings should get to, by VIP number.
    pub rings: BTreeMap<u16, Goal>,
}

impl Wanted {
    /// The picture when nothing is there yet and nothing has to be waited for.
    #[must_use]
    pub fn at_once(self) -> Desired {
        Rings::new(Duration::ZERO).advance(self, Duration::ZERO)
    }
}

/// The rings of all VIPs, on their way.
#[derive(Debug)]
pub struct Rings {
    learn: Duration,
    vips: BTreeMap<u16, Passage>,
    /// Number of the step under way, or of the last.
    step: u32,
    /// When steps that changed slots were carried out, in order.
    carried_out: VecDeque<(u32, Duration)>,
    /// Whether the step under way has changed slots.
    changed: bool,
    /// Rings that the kernel has had from before the first step.
    before: BTreeMap<u16, Image>,
}

/// A VIP's ring on its way.
#[derive(Debug)]
struct Passage {
    /// What it was on its way to in the last step, if there was one.
    goal: Option<Goal>,
    /// What the goal's specification makes, no slot tagged.
    aim: Image,
    /// What the kernel has, or is to have after this step.
    live: Image,
    /// For each slot, what happened to it last; empty while that is of no interest.
    since: Packed,
    /// The last sweep's result.
    swept: Option<(u32, Held)>,
    /// The earliest step in which one of the slots was tagged that wait for their move.
    waiting: Option<u32>,
    /// The servers of the slots that wait.
    staying: HashSet<ServerRef>,
}

impl Rings {
    /// No rings. `learn` is how long slots are tagged before they move.
    #[must_use]
    pub fn new(learn: Duration) -> Self {
        Self::resume(learn, [])
    }

    /// Rings that go on from what the kernel has had from before, by VIP number.
    #[must_use]
    pub fn resume(learn: Duration, before: impl IntoIterator<Item = (u16, Image)>) -> Self {
        let (vips, carried_out) = (BTreeMap::new(), VecDeque::new());
        Self { learn, vips, step: 0, carried_out, changed: false, before: before.into_iter().collect() }
    }

    /// Changes how long slots are tagged before they move.
    pub fn set_learn(&mut self, learn: Duration) {
        self.learn = learn;
    }

    /// The number of the last step.
    #[must_use]
    pub fn step(&self) -> u32 {
        self.step
    }

    /// The number of the next step.
    #[must_use]
    pub fn next_step(&self) -> u32 {
        self.step + 1
    }

    /// Goes as far towards `wanted` as can be now: what the maps are to contain. To be followed by
    /// [`Self::carried_out`] once they do.
    pub fn advance(&mut self, wanted: Wanted, now: Duration) -> Desired {
        self.step += 1;
        self.vips.retain(|vip, _| wanted.rings.contains_key(vip));
        let mut desired = wanted.maps;
        let mut willing = HashSet::new();
        for (vip, goal) in wanted.rings {
            let clock = Clock { step: self.step, learn: self.learn, carried_out: &self.carried_out, now };
            let passage = self.vips.entry(vip).or_insert_with(|| {
                self.changed = true;
                match self.before.remove(&vip) {
                    Some(live) => Passage::resume(&goal, live, clock.step),
                    None => Passage::begin(&goal),
                }
            });
            self.changed |= passage.advance(&goal, &clock);
            willing.extend(passage.staying.intersection(&goal.willing).copied());
            desired.rings.insert(vip, passage.live.clone());
        }
        for server in willing {
            if let Some(entry) = desired.servers.get_mut(&server.index()) {
                entry.flags |= server_flags::ACCEPTS_NEW;
            }
        }
        desired
    }

    /// The maps contain what the last step wanted, since `now`.
    pub fn carried_out(&mut self, now: Duration) {
        if std::mem::take(&mut self.changed) {
            self.carried_out.push_back((self.step, now));
        }
        // The last one that has been learned is still asked for.
        while self.carried_out.get(1).is_some_and(|&(_, at)| at + self.learn < now) {
            self.carried_out.pop_front();
        }
    }

    /// Takes in what a sweep found. Gives whether a step may make something of it.
    pub fn on_census(&mut self, census: &Census) -> bool {
        let mut of_use = false;
        for (vip, passage) in &mut self.vips {
            if !passage.since.is_empty() {
                let held = census.held.get(vip).cloned().unwrap_or_default();
                passage.swept = Some((census.step, held));
                of_use = true;
            }
        }
        of_use
    }

    /// When the next slot may move; no sooner than that a step is of use, unless something else happens.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let first = self.vips.values().filter_map(|passage| passage.waiting).min()?;
        Some(time_of(&self.carried_out, first)? + self.learn)
    }

    /// The rings that have tagged slots which may be settled some day, by VIP number: the sweep is to look at them.
    #[must_use]
    pub fn under_way(&self) -> HashMap<u16, Image> {
        let under_way = self.vips.iter().filter(|(_, passage)| !passage.since.is_empty());
        under_way.map(|(vip, passage)| (*vip, passage.live.clone())).collect()
    }
}

/// When a change of this step reached the maps.
fn time_of(carried_out: &VecDeque<(u32, Duration)>, step: u32) -> Option<Duration> {
    let next = carried_out.partition_point(|&(other, _)| other < step);
    carried_out.get(next).map(|&(_, at)| at)
}

/// What a passage must know of the time.
struct Clock<'a> {
    step: u32,
    learn: Duration,
    carried_out: &'a VecDeque<(u32, Duration)>,
    now: Duration,
}

impl Clock<'_> {
    /// Slots tagged in this step or before have been learned for long enough.
    fn learned(&self) -> u32 {
        let Some(then) = self.now.checked_sub(self.learn) else { return 0 };
        let old = self.carried_out.partition_point(|&(_, at)| at <= then);
        old.checked_sub(1).map_or(0, |last| self.carried_out[last].0)
    }
}

impl Passage {
    /// A VIP's first ring: nobody can have flows elsewhere.
    fn begin(goal: &Goal) -> Self {
        let aim = goal.spec.build();
        let live = if goal.memory == Memory::Everything { aim.tagged() } else { aim.clone() };
        Self { goal: Some(goal.clone()), ..Self::at(aim, live) }
    }

    /// A ring that the kernel has had before the first step. Nobody knows when its slots were tagged.
    fn resume(goal: &Goal, live: Image, step: u32) -> Self {
        let since = Packed::new(&[Since { step, known: false }.packed(); RING_SIZE]);
        Self { since, ..Self::at(goal.spec.build(), live) }
    }

    fn at(aim: Image, live: Image) -> Self {
        let staying = HashSet::new();
        Self { goal: None, aim, live, since: Packed::default(), swept: None, waiting: None, staying }
    }

    /// Brings `live` closer to the goal. Gives whether it changed.
    fn advance(&mut self, goal: &Goal, clock: &Clock<'_>) -> bool {
        let swept = self.swept.take();
        let same = self.goal.as_ref() == Some(goal);
        if same && swept.is_none() && self.waiting.is_none_or(|since| since > clock.learned()) {
            return false;
        }
        if self.goal.as_ref().is_some_and(|old| old.spec != goal.spec) {
            self.aim = goal.spec.build();
        }
        self.goal = Some(goal.clone());
        if goal.memory == Memory::Nothing || goal.memory == Memory::Changes && self.live.is(&self.aim) {
            (self.since, self.waiting, self.staying) = (Packed::default(), None, HashSet::new());
            return self.replace(self.aim.clone());
        }
        let since: Vec<_> = std::mem::take(&mut self.since).iter().map(Since::of).collect();
        let since = if since.is_empty() { vec![Since::default(); RING_SIZE] } else { since };
        let closed = self.closed_slots(goal);
        let mut round = Round::new(goal, since, closed, clock, swept);
        let slots = self.live.slots().zip(self.aim.slots()).enumerate();
        let mut live: Vec<_> = slots.map(|(at, (live, aim))| round.next(at, live, aim).0).collect();
        live.push(0);
        let of_interest = round.tagged && goal.memory == Memory::Changes || round.waiting.is_some();
        (self.waiting, self.staying) = (round.waiting, round.staying);
        let since: Vec<_> = round.since.iter().map(|since| since.packed()).collect();
        self.since = if of_interest { Packed::new(&since) } else { Packed::default() };
        let live = Image::new(&live);
        // One and the same ring takes the room of one.
        self.replace(if live == self.aim { self.aim.clone() } else { live })
    }

    /// How many of the slots that are to move are with servers that take no new flows.
    fn closed_slots(&self, goal: &Goal) -> usize {
        let closed = |&(live, aim): &(Slot, Slot)| {
            let server = live.server();
            server != aim.server() && goal.keeping.contains(&server) && !goal.willing.contains(&server)
        };
        self.live.slots().zip(self.aim.slots()).filter(closed).count()
    }

    fn replace(&mut self, live: Image) -> bool {
        let differs = self.live != live;
        self.live = live;
        differs
    }
}

/// When a slot was tagged or moved.
#[derive(Clone, Copy, Debug, Default)]
struct Since {
    step: u32,
    /// Its flows were all heard of since, or it had none then: it may move at any time.
    known: bool,
}

impl Since {
    const fn packed(self) -> u32 {
        self.step << 1 | self.known as u32
    }

    const fn of(packed: u32) -> Self {
        Self { step: packed >> 1, known: packed & 1 != 0 }
    }
}

/// One walk over the slots of a ring.
struct Round<'a> {
    memory: Memory,
    keeping: &'a HashSet<ServerRef>,
    step: u32,
    since: Vec<Since>,
    swept: Option<(u32, Held)>,
    /// Slots tagged in this step or before have been learned for long enough.
    learned: u32,
    willing: &'a HashSet<ServerRef>,
    /// How many slots of servers that take no new flows may not wait: too few others are left for new flows.
    hurry: usize,
    staying: HashSet<ServerRef>,
    waiting: Option<u32>,
    tagged: bool,
}

impl<'a> Round<'a> {
    fn new(
        goal: &'a Goal,
        since: Vec<Since>,
        closed: usize,
        clock: &Clock<'_>,
        swept: Option<(u32, Held)>,
    ) -> Self {
        Self {
            memory: goal.memory,
            keeping: &goal.keeping,
            step: clock.step,
            since,
            swept,
            learned: clock.learned(),
            willing: &goal.willing,
            hurry: closed.saturating_sub(MOST_CLOSED),
            staying: HashSet::new(),
            waiting: None,
            tagged: false,
        }
    }

    /// What becomes of a slot that is `live` and should be `aim`.
    fn next(&mut self, at: usize, live: Slot, aim: Slot) -> Slot {
        let next = self.decide(at, live, aim);
        if next != live {
            // Where there was nobody, there can be no flow that is not known.
            let known = live.server().is_none() || live.tagged() && next.server() != live.server();
            self.since[at] = Since { step: self.step, known };
        }
        self.tagged |= next.tagged();
        next
    }

    fn decide(&mut self, at: usize, live: Slot, aim: Slot) -> Slot {
        let everything = self.memory == Memory::Everything;
        let server = live.server();
        if server == aim.server() {
            let settles = live.tagged() && !everything && self.is_settled(at);
            return Slot::new(server, everything || live.tagged() && !settles);
        }
        if server.is_none() {
            // From its first flow on all of them are remembered: other servers may be about to come.
            return Slot::new(aim.server(), true);
        }
        if !self.keeping.contains(&server) {
            // Its flows are lost. Tags stay: some of the slot's flows may be with others.
            return Slot::new(aim.server(), everything || live.tagged());
        }
        if aim.server().is_none() {
            // Nobody takes new flows, but the old ones stay.
            return Slot::new(server, everything || live.tagged());
        }
        let Since { step, known } = self.since[at];
        if live.tagged() && (known || step <= self.learned) {
            return Slot::new(aim.server(), true);
        }
        if self.hurry > 0 && !self.willing.contains(&server) {
            self.hurry -= 1;
            return Slot::new(aim.server(), true);
        }
        let since = if live.tagged() { step } else { self.step };
        self.waiting = Some(self.waiting.map_or(since, |first| first.min(since)));
        self.staying.insert(server);
        Slot::new(server, true)
    }

    /// Whether no flow of this tagged slot is anywhere else: none that the tags know of, and they forget only those that
    /// have been silent for very long.
    fn is_settled(&self, at: usize) -> bool {
        let since = self.since[at].step;
        self.swept.as_ref().is_some_and(|(step, held)| since <= *step && !held.has(at))
    }
}

#[cfg(test)]
mod tests;
