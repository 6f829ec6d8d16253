//! The loop that owns the maps: takes in what happened, plans, applies, publishes.
//!
//! Health, network and sweep only send it messages; it takes them as they come, several at once if they
//! came meanwhile, and makes one plan of them. Nobody else writes maps.

pub mod apart;
mod edited;
mod run;
mod steer;
mod terms;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use l7_spec::Spec;
use lb_common::abi::{Counters, ServerRef, settings_flags};
use tracing::warn;

use self::edited::Edited;
pub use self::run::{Inbox, run};
use crate::{
    admin::version::Ledger,
    datapath::{Datapath, Error},
    health::{HealthEvent, Pair, TargetId},
    hops::Surroundings,
    memory::{Counted, Facts},
    model::{Config, PortRange},
    plan::{
        Census, Desired, Ids, Image, Inputs, Operation, Orders, Rings, Steering, Wanted,
        desired::{Shape, desired, sheet},
        diff,
        ids::Exhausted,
        orders::{Fate, Sheet},
        proxied,
        select::Settled,
    },
    snapshot::Health,
};

/// Everything that is known, and the maps made to match it.
#[derive(Debug)]
pub struct Reconciler<D> {
    pub(crate) datapath: D,
    pub(crate) config: Arc<Config>,
    pub(crate) ids: Edited<Ids>,
    /// The ranges that flows may have their ports from; the last one is in use.
    snat_ports: Edited<Vec<PortRange>>,
    shape: Shape,
    pub(crate) health: Edited<HashMap<TargetId, HealthEvent>>,
    pub(crate) surroundings: Surroundings,
    pub(crate) census: Census,
    /// How often the sweep has reported.
    pub(crate) sweeps: u64,
    pub(crate) steering: Edited<Steering>,
    /// The configuration's text, and what has changed lately.
    pub(crate) ledger: Ledger,
    /// What was counted for servers that are gone, by number of their VIP.
    retired: Edited<HashMap<u16, Counters>>,
    /// What the kernel had counted for others before an index was given to its server.
    inherited: Edited<HashMap<u16, Counters>>,
    settled: Edited<Settled>,
    /// What l7-proxy is to serve, and which VIPs it was to let clients into.
    pub(crate) proxied: (Spec, proxied::Open),
    rings: Rings,
    current: Desired,
    watched: bool,
}

impl<D: Datapath> Reconciler<D> {
    /// A reconciler for maps that are still empty.
    ///
    /// # Errors
    /// When the configuration has more VIPs or servers than the maps.
    pub fn new(
        datapath: D,
        config: impl Into<Arc<Config>>,
        snat_ports: PortRange,
        shape: Shape,
    ) -> Result<Self, Exhausted> {
        let config = config.into();
        let mut ids = Ids::default();
        let rings = Rings::new(config.flows.learn);
        ids.assign(&config, rings.next_step())?;
        Ok(Self {
            datapath,
            config,
            ids: ids.into(),
            snat_ports: vec![snat_ports].into(),
            shape,
            health: Edited::default(),
            surroundings: Surroundings::default(),
            census: Census::default(),
            sweeps: 0,
            steering: Edited::default(),
            ledger: Ledger::default(),
            retired: Edited::default(),
            inherited: Edited::default(),
            settled: Edited::default(),
            proxied: Default::default(),
            rings,
            current: Desired::default(),
            watched: false,
        })
    }

    /// A reconciler that goes on with what one before it knew, and with the rings that the kernel has. The other maps are
    /// empty.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn resume(
        datapath: D,
        config: Arc<Config>,
        snat_ports: PortRange,
        shape: Shape,
        facts: Facts<'_>,
        rings: Vec<(u16, Image)>,
    ) -> Result<Self, Exhausted> {
        let learn = config.flows.learn;
        let Facts { ids, settled, admin, weights, disabled, health, retired, inherited, snat_ports: former } =
            facts;
        let steering = Steering::resume(admin, weights, disabled);
        let Some(ids) = ids else {
            let mut fresh = Self::new(datapath, config, snat_ports, shape)?;
            (fresh.steering, fresh.settled) = (steering.into(), settled.into());
            fresh.forget_what_is_gone();
            return Ok(fresh);
        };
        let counters = |counted: BTreeMap<u16, Counted>| {
            let counted = counted.into_iter().map(|(number, counted)| (number, counted.into()));
            counted.collect::<HashMap<_, _>>().into()
        };
        let former = former.into_iter().map(|(first, last)| PortRange { first, last });
        let former = former.filter(|range| *range != snat_ports);
        let health = health.into_iter().map(|event| (event.id.clone(), event.into_owned()));
        let mut resumed = Self {
            ids: ids.into_owned().into(),
            snat_ports: former.chain([snat_ports]).collect::<Vec<_>>().into(),
            settled: settled.into(),
            steering: steering.into(),
            health: health.collect::<HashMap<_, _>>().into(),
            retired: counters(retired),
            inherited: counters(inherited),
            rings: Rings::resume(learn, rings),
            ..Self::new(datapath, Config::default(), snat_ports, shape)?
        };
        resumed.configure(config)?;
        Ok(resumed)
    }

    /// What a next start is to go on with.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        let counted = |counters: &HashMap<u16, Counters>| {
            counters.iter().map(|(number, counters)| (*number, (*counters).into())).collect()
        };
        Facts {
            ids: Some(Cow::Borrowed(&self.ids)),
            settled: Settled::clone(&self.settled),
            admin: self.steering.states(),
            weights: self.steering.weights(),
            disabled: self.steering.disabled().clone(),
            health: self.health_in_order().into_iter().map(Cow::Borrowed).collect(),
            retired: counted(&self.retired),
            inherited: counted(&self.inherited),
            snat_ports: self.snat_ports.iter().map(|range| (range.first, range.last)).collect(),
        }
    }

    /// Which [`Self::facts`] these are: the same number again means the same facts.
    #[must_use]
    pub fn edition(&self) -> u64 {
        // None of these ever becomes less, but for a word of the operator's that was only tried.
        self.ids.edits()
            + self.snat_ports.edits()
            + self.health.edits()
            + self.steering.edits()
            + self.retired.edits()
            + self.inherited.edits()
            + self.settled.edits()
    }

    /// What is known of the servers' health.
    #[must_use]
    pub fn known_health(&self) -> Vec<HealthEvent> {
        self.health_in_order().into_iter().cloned().collect()
    }

    fn health_of(&self, id: &dyn Pair) -> Health {
        self.health.get(id).map_or(Health::Unknown, |event| event.state)
    }

    /// In the order of the servers' numbers, which is always the same and sooner found than that of their names.
    fn health_in_order(&self) -> Vec<&HealthEvent> {
        let mut health: Vec<_> = self.health.values().collect();
        health.sort_by_cached_key(|event| self.ids.server(&event.id).map(|server| server.0));
        health
    }

    /// Goes over to another configuration, with the next step. What is in both keeps its number, health, counters and
    /// the state that the operator gave it.
    ///
    /// # Errors
    /// When it has more VIPs or servers than the maps; nothing is changed then.
    pub fn configure(&mut self, config: impl Into<Arc<Config>>) -> Result<(), Exhausted> {
        let config = config.into();
        if self.ids.fit(&config) {
            self.rings.set_learn(config.flows.learn);
            self.config = config;
            return Ok(());
        }
        let mut ids = Ids::clone(&self.ids);
        ids.assign(&config, self.rings.next_step())?;
        self.follow_pools(&config);
        for (id, server) in self.ids.servers().filter(|&(id, server)| ids.server(id) != Some(server)) {
            self.health.edit().remove(id);
            let counters = self.counters(server);
            if let Some(vip) = ids.vip(&id.vip) {
                *self.retired.edit().entry(vip).or_default() += counters;
            }
        }
        for (_, server) in ids.servers().filter(|&(id, server)| self.ids.server(id) != Some(server)) {
            let counters = self.datapath.server_counters(server.index()).unwrap_or_default();
            self.inherited.edit().insert(server.index(), counters);
        }
        let same_vip = |vip: &str| ids.vip(vip).is_some() && ids.vip(vip) == self.ids.vip(vip);
        let kept: HashSet<_> = config
            .vips
            .iter()
            .filter(|vip| same_vip(&vip.name))
            .filter_map(|vip| ids.vip(&vip.name))
            .collect();
        self.retired.edit().retain(|vip, _| kept.contains(vip));
        self.rings.set_learn(config.flows.learn);
        *self.ids.edit() = ids;
        self.config = config;
        self.forget_what_is_gone();
        Ok(())
    }

    /// What was counted for a server. What the kernel does not tell counts as nothing.
    pub(crate) fn counters(&self, server: ServerRef) -> Counters {
        let all = self.datapath.server_counters(server.index()).unwrap_or_default();
        let before = self.inherited.get(&server.index()).copied().unwrap_or_default();
        Counters {
            packets_in: all.packets_in.saturating_sub(before.packets_in),
            bytes_in: all.bytes_in.saturating_sub(before.bytes_in),
            packets_out: all.packets_out.saturating_sub(before.packets_out),
            bytes_out: all.bytes_out.saturating_sub(before.bytes_out),
            connections: all.connections.saturating_sub(before.connections),
        }
    }

    /// What was counted for the servers that a VIP once had.
    pub(crate) fn retired(&self, vip: &str) -> Counters {
        self.ids.vip(vip).and_then(|vip| self.retired.get(&vip)).copied().unwrap_or_default()
    }

    /// News of a server's health. Gives whether it calls for a new plan; a new reason alone does not.
    pub fn on_health(&mut self, event: HealthEvent) -> bool {
        // Of a target that has gone meanwhile.
        if self.ids.server(&event.id).is_none() {
            return false;
        }
        let state = event.state;
        let before = self.health.edit().insert(event.id.clone(), event);
        before.is_none_or(|before| before.state != state)
    }

    /// News of the network around.
    pub fn on_surroundings(&mut self, surroundings: Surroundings) {
        for (server, hop) in &surroundings.hops {
            match (self.surroundings.hops.get(server), hop) {
                (Some(Err(old)), Err(new)) if old == new => {}
                (_, Err(problem)) => warn!("no packets can be sent to server {server}: {problem}"),
                _ => {}
            }
        }
        self.surroundings = surroundings;
    }

    /// The result of a sweep of the flow tables. Gives whether it calls for a new step.
    pub fn on_census(&mut self, census: Census) -> bool {
        if self.ids.gone().next().is_some() {
            self.ids.edit().on_census(&census);
        }
        let of_use = self.rings.on_census(&census);
        self.census = census;
        self.sweeps += 1;
        of_use
    }

    /// Brings the maps to what they must contain `now`, a time since any fixed moment. Gives the number of operations it
    /// took.
    ///
    /// # Errors
    /// When the kernel refuses one; those before it stay, and the next step goes on from there.
    pub fn step(&mut self, now: Duration) -> Result<usize, Error> {
        let operations = self.plan(now);
        self.carry_out(operations, now)
    }

    /// What is to be done `now`. To be carried out, or planned anew.
    pub fn plan(&mut self, now: Duration) -> Vec<Operation> {
        let mut settled = Settled::clone(&self.settled);
        let wanted = self.wanted(&self.steering, &mut settled);
        let mut open = std::mem::take(&mut self.proxied.1);
        let health = |id: &dyn Pair| self.health_of(id);
        let inputs = proxied::Inputs { config: &self.config, steering: &self.steering, health: &health };
        self.proxied = (proxied::spec(&inputs, &mut settled, &mut open), open);
        self.settled.become_like(settled);
        let mut next = self.rings.advance(wanted, now);
        if self.watched {
            next.settings.flags |= settings_flags::TRACE;
        }
        diff(&self.current, &next)
    }

    /// What the maps are to contain in the end, if the operator says this.
    fn wanted(&self, steering: &Steering, settled: &mut Settled) -> Wanted {
        let health = |id: &dyn Pair| self.health_of(id);
        let inputs = Inputs {
            config: &self.config,
            ids: &self.ids,
            shape: self.shape,
            snat_ports: &self.snat_ports,
            health: &health,
            steering,
            hops: &self.surroundings.hops,
            interfaces: &self.surroundings.interfaces,
            own_addresses: &self.surroundings.own_addresses,
        };
        desired(&inputs, settled)
    }

    /// Carries out what was planned just now; gives how many operations it was.
    ///
    /// # Errors
    /// When the kernel refuses one; those before it stay.
    pub fn carry_out(&mut self, operations: Vec<Operation>, now: Duration) -> Result<usize, Error> {
        let count = operations.len();
        let mut operations = operations.into_iter().peekable();
        while let Some(operation) = operations.next() {
            // Rings follow each other, and may be written together.
            let mut rings: Vec<_> = ring(&operation).into_iter().collect();
            while let Some(next) = operations.next_if(|next| !rings.is_empty() && ring(next).is_some()) {
                rings.extend(ring(&next));
            }
            if rings.is_empty() {
                self.datapath.apply(&operation)?;
                self.current.note(operation);
                continue;
            }
            // It is not known which of them the kernel has taken.
            self.datapath
                .apply_rings(&rings)
                .inspect_err(|_| rings.iter().for_each(|(vip, _)| drop(self.current.rings.remove(vip))))?;
            for (vip, image) in rings {
                self.current.note(Operation::Ring(vip, image));
            }
        }
        self.rings.carried_out(now);
        Ok(count)
    }

    /// Waits until no packet goes by what was replaced.
    ///
    /// # Errors
    /// When the kernel refused something after all; it is not known what, and all of it is done again with the next step.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.datapath.settle().inspect_err(|_| self.current.rings.clear())
    }

    /// Whether somebody watches what becomes of packets.
    pub fn on_watch(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// What the maps contain.
    #[must_use]
    pub fn written(&self) -> &Desired {
        &self.current
    }

    /// When a step is due although nothing has happened, if ever.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.rings.due()
    }

    /// What the sweep is to go by, now that the last step was carried out.
    #[must_use]
    pub fn orders(&self) -> Orders {
        let mut servers = Vec::new();
        let mut set = |index: u16, sheet: Sheet| {
            let index = usize::from(index);
            if servers.len() <= index {
                servers.resize(index + 1, Sheet::default());
            }
            servers[index] = sheet;
        };
        let vips: HashMap<_, _> = self.config.vips.iter().map(|vip| (vip.name.as_str(), vip)).collect();
        for (id, server) in self.ids.servers() {
            let entry = self.current.servers.get(&server.index());
            if let (Some(entry), Some(vip)) = (entry, vips.get(id.vip.as_str())) {
                set(server.index(), sheet(vip, entry));
            }
        }
        for index in self.ids.gone() {
            set(index, Sheet { fate: Fate::Gone, ..Sheet::default() });
        }
        Orders { step: self.rings.step(), rings: self.rings.under_way(), servers }
    }

    /// Whether new flows may reach a server now.
    pub(crate) fn is_active(&self, server: ServerRef) -> bool {
        let entry = self.current.servers.get(&server.index());
        entry.is_some_and(|entry| entry.flags & lb_common::abi::server_flags::ACCEPTS_NEW != 0)
    }
}

/// The ring that an operation is about, if it is about one.
fn ring(operation: &Operation) -> Option<(u16, Option<Image>)> {
    match operation {
        Operation::Ring(vip, image) => Some((*vip, image.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod churn;

#[cfg(test)]
mod tests;
