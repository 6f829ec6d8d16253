//! Rings on their way, step by step.

use std::net::IpAddr;

use super::*;
use crate::plan::ring::Fill;

/// No slots.
const NONE: [usize; 0] = [];

const LEARN: Duration = Duration::from_secs(3);

fn server(n: u16) -> ServerRef {
    ServerRef::new(n, 1)
}

fn set(servers: &[u16]) -> HashSet<ServerRef> {
    servers.iter().map(|&n| server(n)).collect()
}

/// A ring of `members`; those and `others` keep their flows.
fn goal(memory: Memory, members: &[u16], others: &[u16]) -> Goal {
    let address = |n: u16| IpAddr::from([10, 0, 0, n as u8]);
    let spec = members.iter().map(|&n| (server(n), 100, address(n))).collect();
    let keeping = set(&[members, others].concat());
    Goal { spec: RingSpec::filled(spec, Fill::Places), memory, keeping, willing: set(members) }
}

/// One VIP, and the time.
struct Play {
    rings: Rings,
    now: Duration,
    wanted: Wanted,
}

impl Play {
    fn new(first: Goal) -> Self {
        let wanted = Wanted { maps: Desired::default(), rings: [(1, first)].into() };
        let mut play = Self { rings: Rings::new(LEARN), now: Duration::ZERO, wanted };
        play.step();
        play
    }

    /// A step `later` that is carried out; gives the ring.
    fn to(&mut self, goal: Goal, later: Duration) -> Image {
        self.wanted.rings.insert(1, goal);
        self.now += later;
        self.step()
    }

    fn later(&mut self, later: Duration) -> Image {
        self.now += later;
        self.step()
    }

    fn step(&mut self) -> Image {
        let desired = self.rings.advance(self.wanted.clone(), self.now);
        self.rings.carried_out(self.now);
        desired.rings[&1].clone()
    }

    /// A sweep that began after the last step, and found these slots held.
    fn swept(&mut self, held: &[usize]) -> Image {
        let mut census = Census { step: self.rings.step(), ..Census::default() };
        for &slot in held {
            census.held.entry(1).or_default().add(slot);
        }
        self.rings.on_census(&census);
        self.step()
    }
}

fn tags(ring: &Image) -> usize {
    ring.slots().filter(|slot| slot.tagged()).count()
}

fn of(ring: &Image, n: u16) -> usize {
    ring.slots().filter(|slot| slot.server() == server(n)).count()
}

/// The slots that differ in their servers.
fn moved(old: &Image, new: &Image) -> Vec<usize> {
    let pairs = old.slots().zip(new.slots()).enumerate();
    pairs.filter(|(_, (old, new))| old.server() != new.server()).map(|(at, _)| at).collect()
}

fn canonical(members: &[u16]) -> Image {
    goal(Memory::Changes, members, &[]).spec.build()
}

#[test]
fn a_first_ring_is_settled_at_once() {
    let mut play = Play::new(goal(Memory::Changes, &[1, 2, 3], &[]));
    assert_eq!(play.step(), canonical(&[1, 2, 3]));
    assert_eq!((play.rings.due(), play.rings.under_way().len()), (None, 0));
}

#[test]
fn a_planned_change_is_learned_moved_and_settled() {
    let old = canonical(&[1, 2]);
    let new = canonical(&[1, 2, 3]);
    let moving = moved(&old, &new);
    let mut play = Play::new(goal(Memory::Changes, &[1, 2], &[]));
    let learning = play.to(goal(Memory::Changes, &[1, 2, 3], &[]), Duration::from_secs(10));
    assert_eq!(moved(&old, &learning), NONE, "nothing moves yet");
    let tagged: Vec<_> =
        learning.slots().enumerate().filter(|(_, slot)| slot.tagged()).map(|(at, _)| at).collect();
    assert_eq!(tagged, moving, "and what will is tagged");
    assert_eq!(play.rings.due(), Some(play.now + LEARN));
    assert_eq!(play.swept(&[]), learning, "a sweep that finds nothing does not end the learning");
}

#[test]
fn learned_slots_move_and_stay_tagged_until_a_sweep_finds_nothing_there() {
    let old = canonical(&[1, 2]);
    let new = canonical(&[1, 2, 3]);
    let moving = moved(&old, &new);
    let mut play = Play::new(goal(Memory::Changes, &[1, 2], &[]));
    play.to(goal(Memory::Changes, &[1, 2, 3], &[]), Duration::from_secs(10));
    let early = Census { step: play.rings.step(), ..Census::default() };
    assert_eq!(tags(&play.later(LEARN - Duration::from_millis(1))), moving.len());
    let swapped = play.later(Duration::from_millis(1));
    assert_eq!(moved(&new, &swapped), NONE);
    assert_eq!(tags(&swapped), moving.len());
    play.rings.on_census(&early);
    assert_eq!(tags(&play.step()), moving.len(), "a sweep that began before the move says nothing");
    let held = &moving[..5];
    assert_eq!(tags(&play.swept(held)), 5, "where flows of others live, the slot stays tagged");
    assert_eq!(tags(&play.step()), 5, "until the next sweep");
    let settled = play.swept(&[]);
    assert_eq!((settled == new, play.rings.under_way().len()), (true, 0));
}

#[test]
fn a_slot_is_never_settled_while_a_flow_of_it_lives_elsewhere() {
    let mut play = Play::new(goal(Memory::Changes, &[1, 2], &[]));
    play.to(goal(Memory::Changes, &[1, 2, 3], &[]), LEARN);
    let moving = moved(&canonical(&[1, 2]), &play.later(LEARN));
    for _ in 0..3 {
        play.now += Duration::from_secs(24 * 3600);
        assert_eq!(tags(&play.swept(&moving)), moving.len(), "a session may last for days");
    }
    assert_eq!(tags(&play.swept(&[])), 0);
}

#[test]
fn in_an_old_balancer_an_algorithm_that_changes_settles_only_what_a_sweep_has_seen() {
    let mut play = Play::new(goal(Memory::Changes, &[1, 2], &[]));
    play.to(goal(Memory::Changes, &[1, 2, 3], &[]), LEARN);
    play.later(LEARN);
    play.now += Duration::from_secs(24 * 3600);
    // The same ring, but slots do not say where flows are; and back.
    play.step();
    assert_eq!(tags(&play.to(goal(Memory::Everything, &[1, 2, 3], &[]), LEARN)), RING_SIZE);
    play.later(Duration::from_secs(24 * 3600));
    assert_eq!(tags(&play.to(goal(Memory::Changes, &[1, 2, 3], &[]), LEARN)), RING_SIZE);
    assert_eq!(tags(&play.swept(&[5, 7])), 2);
    assert_eq!(tags(&play.swept(&[])), 0);
}

#[test]
fn only_the_slots_of_a_dead_server_move_at_once() {
    let old = canonical(&[1, 2, 3, 4]);
    let new = canonical(&[1, 2, 3]);
    let mut play = Play::new(goal(Memory::Changes, &[1, 2, 3, 4], &[]));
    let first = play.to(goal(Memory::Changes, &[1, 2, 3], &[]), LEARN);
    let its_own = |at: &usize| old.slots().nth(*at).unwrap().server() == server(4);
    let moved_at_once = moved(&old, &first);
    assert_eq!(moved_at_once.len(), of(&old, 4));
    assert!(moved_at_once.iter().all(its_own), "bystanders wait");
    let first_slots: Vec<_> = first.slots().collect();
    assert!(
        moved_at_once.iter().all(|&at| !first_slots[at].tagged()),
        "nobody is left who could be elsewhere"
    );
    let needless = moved(&first, &new);
    assert_eq!(tags(&first), needless.len(), "the others are learned, and moved later");
    play.later(LEARN);
    assert_eq!(play.swept(&[]), new);
}

#[test]
fn a_server_that_drains_keeps_its_slots_while_they_are_learned() {
    let old = canonical(&[1, 2, 3]);
    let mut play = Play::new(goal(Memory::Changes, &[1, 2, 3], &[]));
    let learning = play.to(goal(Memory::Changes, &[1, 2], &[3]), LEARN);
    assert_eq!(moved(&old, &learning), NONE);
    assert!(learning.slots().all(|slot| slot.tagged() || slot.server() != server(3)));
    assert_eq!(of(&play.later(LEARN), 3), 0);
}

#[test]
fn where_nearly_all_would_find_closed_doors_some_slots_do_not_wait() {
    let all: Vec<_> = (1..=10).collect();
    let mut play = Play::new(goal(Memory::Changes, &all, &[]));
    let ring = play.to(goal(Memory::Changes, &[1], &all[1..]), LEARN);
    let open = of(&ring, 1);
    assert!((RING_SIZE / 4..=RING_SIZE / 4 + 4).contains(&open), "{open}");
    assert_eq!(tags(&ring), RING_SIZE - of(&canonical(&all), 1), "all flows that may move are remembered");
    assert_eq!(of(&play.later(LEARN), 1), RING_SIZE);
}

#[test]
fn a_backup_that_is_relieved_takes_new_flows_until_it_is() {
    let mut play = Play::new(goal(Memory::Changes, &[9], &[]));
    let mut relieved = goal(Memory::Changes, &[1, 2], &[9]);
    relieved.willing.insert(server(9));
    play.wanted.maps.servers.insert(9, Default::default());
    play.wanted.rings.insert(1, relieved);
    let accepts = |play: &mut Play| {
        let desired = play.rings.advance(play.wanted.clone(), play.now);
        play.rings.carried_out(play.now);
        desired.servers[&9].flags & server_flags::ACCEPTS_NEW != 0
    };
    assert!(accepts(&mut play) && accepts(&mut play));
    play.now += LEARN;
    assert!(!accepts(&mut play));
}

#[test]
fn without_anybody_for_new_flows_the_old_ones_stay() {
    let mut play = Play::new(goal(Memory::Changes, &[1, 2], &[]));
    assert_eq!(play.to(goal(Memory::Changes, &[], &[1, 2]), LEARN), canonical(&[1, 2]));
    let dead = play.to(goal(Memory::Changes, &[], &[]), LEARN);
    assert!(dead.slots().all(|slot| slot == Slot::default()));
}

/// At a start the servers are found well one after the other: all have their share at once.
#[test]
fn servers_that_come_one_by_one_to_an_empty_ring_need_not_wait() {
    let mut play = Play::new(goal(Memory::Changes, &[], &[]));
    let blink = Duration::from_millis(10);
    for members in [&[1][..], &[1, 2], &[1, 2, 3]] {
        let ring = play.to(goal(Memory::Changes, members, &[]), blink);
        assert_eq!(moved(&canonical(members), &ring), NONE);
        assert_eq!(tags(&ring), RING_SIZE, "flows since then are remembered");
    }
    assert_eq!(play.swept(&[]), canonical(&[1, 2, 3]));
}

#[test]
fn changes_that_follow_each_other_do_not_keep_the_first_from_moving() {
    let mut play = Play::new(goal(Memory::Changes, &[1, 2], &[]));
    let second = Duration::from_secs(1);
    play.to(goal(Memory::Changes, &[1, 2, 3], &[]), second);
    for other in 4..12 {
        play.to(goal(Memory::Changes, &[1, 2, 3, other], &[]), second);
    }
    assert!(of(&play.step(), 3) > RING_SIZE / 6);
}

#[test]
fn what_was_refused_by_the_kernel_is_not_learned() {
    let mut play = Play::new(goal(Memory::Changes, &[1, 2], &[]));
    play.wanted.rings.insert(1, goal(Memory::Changes, &[1, 2, 3], &[]));
    let _ = play.rings.advance(play.wanted.clone(), play.now);
    // Not carried out; and again, later.
    play.now += LEARN;
    let _ = play.step();
    assert_eq!(of(&play.step(), 3), 0);
    assert!(of(&play.later(LEARN), 3) > 0);
}

#[test]
fn translated_flows_have_records_and_need_no_tags() {
    let mut play = Play::new(goal(Memory::Nothing, &[1, 2], &[]));
    assert_eq!(play.to(goal(Memory::Nothing, &[1, 2, 3], &[]), LEARN), canonical(&[1, 2, 3]));
    assert_eq!(play.to(goal(Memory::Nothing, &[2, 3], &[1]), LEARN), canonical(&[2, 3]));
}

#[test]
fn where_slots_say_nothing_about_flows_all_are_tagged_always() {
    let mut play = Play::new(goal(Memory::Everything, &[1, 2], &[]));
    let ring = play.to(goal(Memory::Everything, &[1, 2, 3], &[]), LEARN);
    assert_eq!((moved(&canonical(&[1, 2, 3]), &ring).len(), tags(&ring)), (0, RING_SIZE));
    assert_eq!(tags(&play.swept(&[])), RING_SIZE);
    assert_eq!(play.rings.under_way().len(), 0, "the sweep has nothing to look for");
}

#[test]
fn an_algorithm_that_changes_is_learned_too() {
    let mut play = Play::new(goal(Memory::Changes, &[1, 2], &[]));
    let mut turns = goal(Memory::Everything, &[1, 2, 3], &[]);
    turns.spec = RingSpec::filled(
        [1u16, 2, 3].map(|n| (server(n), 100, IpAddr::from([10, 0, 0, n as u8]))).into(),
        Fill::Turns,
    );
    let learning = play.to(turns.clone(), LEARN);
    assert_eq!((moved(&canonical(&[1, 2]), &learning).len(), tags(&learning)), (0, RING_SIZE));
    let after = play.later(LEARN);
    assert_eq!(moved(&turns.spec.build(), &after), NONE);
    let back = play.to(goal(Memory::Changes, &[1, 2, 3], &[]), LEARN);
    assert_eq!(moved(&canonical(&[1, 2, 3]), &back), NONE, "everything is known of its flows");
    assert_eq!(play.swept(&[]), canonical(&[1, 2, 3]));
}

#[test]
fn a_new_start_goes_on_where_the_ring_was_and_learns_anew() {
    let mut before = Play::new(goal(Memory::Changes, &[1, 2], &[]));
    let three = || goal(Memory::Changes, &[1, 2, 3], &[]);
    let learning = before.to(three(), Duration::from_secs(10));
    let mut after = Play {
        rings: Rings::resume(LEARN, [(1, learning.clone())]),
        now: Duration::ZERO,
        wanted: Wanted { maps: Desired::default(), rings: [(1, three())].into() },
    };
    assert_eq!(after.step(), learning, "nobody knows for how long they had been tagged");
    let moved = after.later(LEARN);
    assert_eq!((of(&moved, 3), tags(&moved)), (of(&canonical(&[1, 2, 3]), 3), tags(&learning)));
    let held: Vec<_> =
        moved.slots().enumerate().filter(|(_, slot)| slot.tagged()).map(|(at, _)| at).collect();
    assert_eq!(tags(&after.swept(&held[..1])), 1, "only where a flow is elsewhere");
    assert_eq!(after.swept(&[]), canonical(&[1, 2, 3]));
}

#[test]
fn a_ring_that_was_settled_stays_as_it_was_over_a_new_start() {
    let ring = canonical(&[1, 2]);
    let mut play = Play {
        rings: Rings::resume(LEARN, [(1, Image::new(&ring.words()[..]))]),
        now: Duration::ZERO,
        wanted: Wanted { maps: Desired::default(), rings: [(1, goal(Memory::Changes, &[1, 2], &[]))].into() },
    };
    assert_eq!(play.step(), ring);
    assert_eq!((play.rings.due(), play.rings.under_way().len()), (None, 0));
}
