//! What user space and time do to the tables.

use lb_common::{
    abi::{Claim, FlowTag, Slot, server_flags},
    conntrack,
    family::{V4, V6},
    host::{FamilyTables, HostFamily},
};

use crate::world::{Health, Service, World};

/// A change of the tables by user space or by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A server, by index, is found to be as said. Its slots are tagged before it stops taking new flows, for then
    /// they will be elsewhere.
    Health(u16, Health),
    /// A server's entry gets a new owner, as soon as no flow tag names the old one.
    Replaced(u16),
    /// The ring of a VIP is made anew from the servers that take new flows.
    Ring(Service),
    /// All slots of a VIP are tagged, as before a planned change, or settled, when no flow can be elsewhere.
    Tagged(Service, bool),
    /// Everything happened so many ticks earlier.
    Aged(u32),
    /// The sweep: flows that have been silent for too long are taken out.
    Swept,
}

impl Change {
    /// Carries it out.
    pub fn apply(self, world: &mut World) {
        match self {
            Self::Health(index, health) => {
                if health != Health::Up {
                    tag_slots_of(world, index);
                }
                let server = world.tables.servers.get_mut(&index).expect("an entry of this world");
                let states = server_flags::ACCEPTS_NEW | server_flags::KEEPS_FLOWS | server_flags::HALTED;
                server.flags = server.flags & !states | health.flags();
            }
            Self::Replaced(index) => {
                world.tables.servers.get_mut(&index).expect("an entry of this world").generation += 1;
                world.forget_tags(|tag| tag.server() == index);
            }
            Self::Ring(service) => {
                let up = world.accepting(&service);
                world.fill_ring(&service, &up);
            }
            Self::Tagged(service, tagged) => world.tag_ring(&service, tagged),
            Self::Aged(ticks) => age(world, ticks),
            Self::Swept => sweep(world),
        }
    }
}

impl World {
    /// The servers of a VIP that take new flows, by number.
    #[must_use]
    pub fn accepting(&self, service: &Service) -> Vec<u16> {
        let flags = |number: &u16| self.tables.servers[&service.server(*number)].flags;
        (1..=service.servers).filter(|number| flags(number) & server_flags::ACCEPTS_NEW != 0).collect()
    }

    /// Whether all servers of a VIP take new flows, and its ring knows.
    #[must_use]
    pub fn is_whole(&self, service: &Service) -> bool {
        let current = |slot: &u32| {
            let server = Slot(*slot).server();
            !server.is_none() && self.tables.servers[&server.index()].generation == server.generation()
        };
        service.servers > 0
            && self.accepting(service).len() == usize::from(service.servers)
            && self.tables.rings[&service.id].iter().all(current)
    }
}

fn tag_slots_of(world: &mut World, index: u16) {
    for ring in world.tables.rings.values_mut() {
        for slot in ring.iter_mut().filter(|slot| Slot(**slot).server().index() == index) {
            *slot = Slot::new(Slot(*slot).server(), true).0;
        }
    }
}

fn age(world: &mut World, ticks: u32) {
    let tables = &world.tables;
    age_flows::<V4>(V4::of(tables), ticks);
    age_flows::<V6>(V6::of(tables), ticks);
    for way in tables.tags.iter().flatten() {
        let tag = FlowTag(way.get());
        if tag.server() != 0 {
            let time = (tag.0 as u32).wrapping_sub(ticks / lb_common::abi::TAG_UNIT) & 0x3fff;
            way.set(tag.0 & !0x3fff | u64::from(time));
        }
    }
    for limit in tables.limits.values() {
        let mut aged = limit.get();
        aged.tick = aged.tick.wrapping_sub(ticks);
        limit.set(aged);
    }
    world.aged += ticks;
}

fn age_flows<F: HostFamily>(tables: &FamilyTables<F>, ticks: u32) {
    for piece in tables.fragments.borrow_mut().values_mut() {
        piece.tick = piece.tick.wrapping_sub(ticks);
    }
    for (way, record) in tables.claims.iter().flatten().zip(&tables.flows) {
        let claim = Claim(way.get());
        if claim.is_empty() {
            continue;
        }
        way.set(Claim::new(claim.fingerprint(), claim.stage(), (claim.0 as u32).wrapping_sub(ticks)).0);
        let mut flow = record.get();
        flow.seen = flow.seen.wrapping_sub(ticks);
        record.set(flow);
    }
}

fn sweep(world: &mut World) {
    sweep_flows::<V4>(V4::of(&world.tables), world.tables.now);
    sweep_flows::<V6>(V6::of(&world.tables), world.tables.now);
    world.epoch += 1;
}

fn sweep_flows<F: HostFamily>(tables: &FamilyTables<F>, now: u32) {
    let expired: Vec<u32> = tables
        .entered()
        .filter(|(_, _, flow)| conntrack::expired(flow.protocol as u8, flow.state, flow.seen, now))
        .map(|(number, ..)| number)
        .collect();
    for number in expired {
        tables.claims[number as usize / 8][number as usize % 8].set(0);
        // The reply's entry is the one that leads to the record.
        let leads_there = |way: &&std::cell::Cell<u64>| way.get() != 0 && way.get() as u32 == number;
        tables.replies.iter().flatten().find(leads_there).expect("an entry for its replies").set(0);
    }
}
