//! The tables in ordinary memory: for tests, fuzzing, and questions about where a flow would go.

use std::{collections::HashMap, vec::Vec};

use crate::{
    abi::{Flow, FlowKey, Mac, Server, ServerRef, Settings, Vip, VipKey},
    family::{Family, V4, V6},
    hash,
    parse::{self, Parse},
    pipeline::{Refused, Tables, Work, decide},
    rewrite::{self, Rewrite},
    verdict::{DropReason, Hop, PassReason, Verdict},
    wire::{Frame, ethernet},
};

/// Everything the kernel program reads, for both families. Fill the fields; absent entries are absent maps'.
#[derive(Clone, Debug, Default)]
pub struct HostTables {
    /// The present tick.
    pub now: u32,
    /// The settings record.
    pub settings: Settings,
    /// VIP id → ring.
    pub rings: HashMap<u16, Vec<u32>>,
    /// Server index → server.
    pub servers: HashMap<u16, Server>,
    /// Interface index → MAC.
    pub interfaces: HashMap<u32, Mac>,
    /// Server address → way there, as the host's routing table would say; `true` for a way over a router. Not
    /// asked, as in the kernel, about servers without an interface.
    pub routes: HashMap<[u32; 4], (Hop, bool)>,
    /// IPv4's own tables.
    pub v4: FamilyTables<V4>,
    /// IPv6's own tables.
    pub v6: FamilyTables<V6>,
}

/// The tables of one family.
#[derive(Clone, Debug)]
pub struct FamilyTables<F: Family> {
    /// VIPs.
    pub vips: HashMap<VipKey<F::Addr>, Vip>,
    /// Flows.
    pub flows: HashMap<FlowKey<F::Addr>, Flow<F::Addr>>,
    /// No more flows than these.
    pub capacity: usize,
}

impl<F: Family> Default for FamilyTables<F> {
    fn default() -> Self {
        Self { vips: HashMap::new(), flows: HashMap::new(), capacity: usize::MAX }
    }
}

/// A family whose tables are found in [`HostTables`].
pub trait HostFamily: Parse + Rewrite {
    /// Its tables.
    fn of(tables: &HostTables) -> &FamilyTables<Self>;
    /// Its tables, to change.
    fn of_mut(tables: &mut HostTables) -> &mut FamilyTables<Self>;
}

impl HostFamily for V4 {
    fn of(tables: &HostTables) -> &FamilyTables<Self> {
        &tables.v4
    }
    fn of_mut(tables: &mut HostTables) -> &mut FamilyTables<Self> {
        &mut tables.v4
    }
}

impl HostFamily for V6 {
    fn of(tables: &HostTables) -> &FamilyTables<Self> {
        &tables.v6
    }
    fn of_mut(tables: &mut HostTables) -> &mut FamilyTables<Self> {
        &mut tables.v6
    }
}

impl<F: HostFamily> Tables<F> for HostTables {
    fn now(&self) -> u32 {
        self.now
    }

    fn settings(&self) -> Settings {
        self.settings
    }

    fn vip(&self, key: &VipKey<F::Addr>) -> Option<Vip> {
        F::of(self).vips.get(key).copied()
    }

    fn slot(&self, vip: u16, hash: u32) -> ServerRef {
        self.rings
            .get(&vip)
            .map_or(ServerRef::NONE, |ring| ServerRef(ring[hash::scale(hash, ring.len() as u32) as usize]))
    }

    fn server(&self, index: u16) -> Option<Server> {
        self.servers.get(&index).copied()
    }

    fn interface(&self, ifindex: u32) -> Option<Mac> {
        self.interfaces.get(&ifindex).copied()
    }

    fn route(&self, server: &Server, direct: bool) -> Option<Hop> {
        let usable = |(_, routed): &&(Hop, bool)| server.ifindex != 0 && !(direct && *routed);
        self.routes.get(&server.address).filter(usable).map(|(hop, _)| *hop)
    }

    fn flow(&self, key: &FlowKey<F::Addr>, flow: &mut Flow<F::Addr>) -> bool {
        F::of(self).flows.get(key).map(|found| *flow = *found).is_some()
    }

    fn insert(&mut self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, replace: bool) -> Result<(), Refused> {
        let tables = F::of_mut(self);
        let exists = tables.flows.contains_key(key);
        if exists && !replace || !exists && tables.flows.len() >= tables.capacity {
            return Err(Refused);
        }
        tables.flows.insert(*key, *flow);
        Ok(())
    }

    fn refresh(&mut self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>) -> bool {
        F::of_mut(self).flows.get_mut(key).is_some_and(|entry| {
            entry.seen = flow.seen;
            entry.state = flow.state;
            entry.client_mac = flow.client_mac;
            entry.client_ifindex = flow.client_ifindex;
            true
        })
    }
}

/// What became of a frame, in terms that do not depend on its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Left to the host.
    Pass(PassReason),
    /// Dropped.
    Drop(DropReason),
    /// Sent on by this interface.
    Forward {
        /// Interface index.
        ifindex: u32,
        /// Server index.
        server: u16,
    },
}

/// Sends one frame through everything the kernel program would do to it, bytes included.
pub fn process(frame: &mut [u8], ifindex: u32, tables: &mut HostTables) -> Outcome {
    match parse::ethernet(frame) {
        Ok(link) if link.ethertype == ethernet::IPV4 => process_ip::<V4>(frame, &link, ifindex, tables),
        Ok(link) if link.ethertype == ethernet::IPV6 => process_ip::<V6>(frame, &link, ifindex, tables),
        Ok(_) => Outcome::Pass(PassReason::NotIp),
        Err(reason) => Outcome::Pass(reason),
    }
}

fn process_ip<F: HostFamily>(
    frame: &mut (impl Frame + ?Sized),
    link: &parse::Link,
    ifindex: u32,
    tables: &mut HostTables,
) -> Outcome {
    let mut work = match F::parse(frame, link.l3) {
        Ok(packet) => Work::new(*link, packet),
        Err(reason) => return Outcome::Pass(reason),
    };
    match decide(&mut work, ifindex, tables) {
        Verdict::Pass(reason) => Outcome::Pass(reason),
        Verdict::Drop(reason) => Outcome::Drop(reason),
        Verdict::Forward(forward) => match rewrite::apply(frame, &work, &forward) {
            Some(()) => Outcome::Forward { ifindex: forward.hop.ifindex, server: forward.server },
            None => Outcome::Drop(DropReason::RewriteFailed),
        },
    }
}
