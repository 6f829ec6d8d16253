//! From a list of servers to the slots of a VIP's ring.

use std::{cmp::Reverse, collections::BinaryHeap, fmt, net::IpAddr, sync::Arc};

use lb_common::{
    abi::{RING_SIZE, Ring, ServerRef, Slot},
    maglev::{self, Member},
};

use super::packed::Packed;

/// How the slots are dealt out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Each server has its own places, which are the same in every ring (Maglev).
    #[default]
    Places,
    /// The servers follow each other, as often as their weights say and as evenly as can be.
    Turns,
}

/// What a ring is made from. Equal specifications make equal rings, whatever the order in the file, so a ring
/// is only computed when its specification changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingSpec {
    servers: Vec<(ServerRef, u16, IpAddr)>,
    fill: Fill,
}

impl RingSpec {
    /// Servers with their weights and addresses. The address is the identity: two balancers that call a
    /// server by different names still agree on its slots.
    #[must_use]
    pub fn new(servers: Vec<(ServerRef, u16, IpAddr)>) -> Self {
        Self::filled(servers, Fill::Places)
    }

    /// The same, dealt out in a certain way.
    #[must_use]
    pub fn filled(mut servers: Vec<(ServerRef, u16, IpAddr)>, fill: Fill) -> Self {
        servers.sort_unstable_by_key(|&(_, _, address)| address);
        Self { servers, fill }
    }

    /// Whether no server is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Whether a server is in it.
    #[must_use]
    pub fn has(&self, server: ServerRef) -> bool {
        self.servers.iter().any(|&(member, ..)| member == server)
    }

    /// The ring, none of its slots tagged.
    #[must_use]
    pub fn build(&self) -> Image {
        let mut slots = vec![0; RING_SIZE + 1];
        match self.fill {
            Fill::Places => maglev::populate(&mut self.members(), &mut slots[..RING_SIZE]),
            Fill::Turns => take_turns(&self.servers, &mut slots[..RING_SIZE]),
        }
        Image::new(&slots)
    }

    fn members(&self) -> Vec<Member> {
        let member = |&(server, weight, address): &(ServerRef, u16, IpAddr)| match address {
            IpAddr::V4(address) => Member::new(server, weight, &address.octets()),
            IpAddr::V6(address) => Member::new(server, weight, &address.octets()),
        };
        self.servers.iter().map(member).collect()
    }
}

/// Deals out slots by earliest deadline: the n-th turn of a server with weight w is due at (n + ½) / w, so that
/// nobody ever is a whole turn ahead of or behind the others.
fn take_turns(servers: &[(ServerRef, u16, IpAddr)], slots: &mut [u32]) {
    let deadline = |turn: u64, weight: u16| ((2 * turn + 1) << 40) / u64::from(weight);
    let mut waiting: BinaryHeap<_> = (0..servers.len())
        .filter(|&place| servers[place].1 > 0)
        .map(|place| Reverse((deadline(0, servers[place].1), place, 0)))
        .collect();
    for slot in slots {
        let Some(Reverse((_, place, turn))) = waiting.pop() else { return };
        let (server, weight, _) = servers[place];
        *slot = Slot::new(server, false).0;
        waiting.push(Reverse((deadline(turn + 1, weight), place, turn + 1)));
    }
}

/// A ring as the kernel has it, tags included. Cheap to clone.
#[derive(Clone)]
pub struct Image(Arc<Packed>);

impl Image {
    /// A ring of [`RING_SIZE`] slots and the spare word.
    ///
    /// # Panics
    /// When there are more or fewer.
    #[must_use]
    pub fn new(slots: &[u32]) -> Self {
        assert_eq!(slots.len(), RING_SIZE + 1, "a ring and its spare word");
        Self(Packed::new(slots).into())
    }

    /// All words of it, as the kernel has them.
    ///
    /// # Panics
    /// Never: it has as many as a ring.
    #[must_use]
    pub fn words(&self) -> Box<Ring> {
        self.0.iter().collect::<Box<[u32]>>().try_into().expect("a ring and its spare word")
    }

    /// Its slots.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().take(RING_SIZE).map(Slot)
    }

    /// One of its slots, below [`RING_SIZE`].
    #[must_use]
    pub fn slot(&self, at: usize) -> Slot {
        Slot(self.0.get(at))
    }

    /// The same ring with all slots tagged.
    #[must_use]
    pub fn tagged(&self) -> Self {
        let words = self.slots().map(|slot| Slot::new(slot.server(), true).0);
        Self::new(&words.chain([0]).collect::<Vec<_>>())
    }

    /// Whether both are one and the same in memory.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || self.0 == other.0
    }
}

/// Not its 65,537 slots.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tagged = self.slots().filter(|slot| slot.tagged()).count();
        write!(f, "Image({tagged} slots tagged)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn servers(count: u16) -> Vec<(ServerRef, u16, IpAddr)> {
        let address = |n: u16| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
        (1..=count).map(|n| (ServerRef::new(n, 1), 100, address(n))).collect()
    }

    fn counts(slots: impl Iterator<Item = Slot>) -> HashMap<u16, usize> {
        let mut counts = HashMap::new();
        slots.for_each(|slot| *counts.entry(slot.server().index()).or_default() += 1);
        counts
    }

    #[test]
    fn the_order_of_the_file_does_not_matter() {
        let forward = servers(5);
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        for fill in [Fill::Places, Fill::Turns] {
            let (one, other) =
                (RingSpec::filled(forward.clone(), fill), RingSpec::filled(backward.clone(), fill));
            assert_eq!(one, other);
            assert_eq!(one.build(), other.build());
        }
    }

    #[test]
    fn no_servers_make_an_empty_ring() {
        for fill in [Fill::Places, Fill::Turns] {
            let idle = vec![(ServerRef::new(1, 1), 0, IpAddr::from([10, 0, 0, 1]))];
            for servers in [Vec::new(), idle] {
                let ring = RingSpec::filled(servers, fill).build();
                assert!(ring.slots().all(|slot| slot.server().is_none()));
            }
        }
    }

    #[test]
    fn turns_follow_each_other_evenly() {
        let ring = RingSpec::filled(servers(3), Fill::Turns).build();
        let order: Vec<_> = ring.slots().take(7).map(|slot| slot.server().index()).collect();
        assert_eq!(order, [1, 2, 3, 1, 2, 3, 1]);

        let mut uneven = servers(3);
        uneven[0].1 = 200;
        let ring = RingSpec::filled(uneven, Fill::Turns).build();
        // In any row of slots, nobody has a whole turn more or less than its share.
        for length in [4, 40, 1_000, RING_SIZE] {
            let counts = counts(ring.slots().take(length));
            for (server, share) in [(1, 0.5), (2, 0.25), (3, 0.25)] {
                let off = counts[&server] as f64 - share * length as f64;
                assert!(off.abs() <= 1.0, "server {server} has {off} turns too many of {length}");
            }
        }
    }

    /// §5.3 of the paper, and what operators expect of weights.
    #[test]
    fn shares_are_within_a_percent_up_to_655_servers() {
        for count in [1, 2, 3, 10, 100, 655] {
            for fill in [Fill::Places, Fill::Turns] {
                let counts = counts(RingSpec::filled(servers(count), fill).build().slots());
                let (most, least) = (counts.values().max().unwrap(), counts.values().min().unwrap());
                let mean = RING_SIZE as f64 / f64::from(count);
                assert_eq!(counts.len(), usize::from(count));
                assert!((most - least) as f64 <= 1.0f64.max(mean / 100.0), "{count}: {least} to {most}");
            }
        }
    }

    /// How many slots move although their server stays, when one of several leaves. Printed by
    /// `cargo test -p lb-user moved_without_need -- --nocapture`; ARCHITECTURE.md has the figures.
    #[test]
    fn slots_moved_without_need() {
        for (count, most) in [(3u16, 0.005), (10, 0.01), (100, 0.015), (655, 0.02)] {
            let before = RingSpec::new(servers(count)).build();
            // Several may leave; what is told is the mean.
            let leavers: Vec<u16> = (0..5).map(|n| 1 + n * (count - 1) / 4).collect();
            let needless = leavers.iter().map(|&leaver| {
                let mut rest = servers(count);
                rest.retain(|(server, ..)| server.index() != leaver);
                let after = RingSpec::new(rest).build();
                let moved = |&(old, new): &(Slot, Slot)| old != new && old.server().index() != leaver;
                before.slots().zip(after.slots()).filter(moved).count()
            });
            let share = needless.sum::<usize>() as f64 / leavers.len() as f64 / RING_SIZE as f64;
            println!(
                "1 of {count} leaves: {:.2} % must move, {:.2} % move without need",
                100.0 / f64::from(count),
                100.0 * share
            );
            assert!(share < most, "{share}");
        }
    }
}
