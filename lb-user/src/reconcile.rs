//! The loop that owns the maps: takes in what happened, plans, applies, publishes.
//!
//! Health, network and sweep only send it messages; it takes them as they come, several at once if they
//! came meanwhile, and makes one plan of them. Nobody else writes maps.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use l7_spec::Spec;
use lb_common::abi::{Counters, ServerRef, settings_flags};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tracing::{debug, error, warn};

use crate::{
    admin::{Command, Done, StatusRequest, version::Ledger},
    datapath::{Datapath, Error},
    health::{HealthEvent, TargetId},
    hops::Surroundings,
    memory::{Counted, Facts, Notebook},
    model::{Config, PortRange},
    notify::{Manager, Worker},
    picture::{self, About},
    plan::{
        Census, Desired, Ids, Image, Inputs, Operation, Orders, Rings, Steering, Wanted,
        desired::{Shape, desired, sheet},
        diff,
        ids::Exhausted,
        orders::{Fate, Sheet},
        proxied,
        select::Settled,
    },
    snapshot::{Health, Snapshot},
    trace,
};

/// After the kernel refused a change, try again this much later.
const RETRY: Duration = Duration::from_secs(1);

/// Slots that may move soon after each other move together.
const BREATH: Duration = Duration::from_millis(50);

/// After a step there is as much rest as it took, up to this, before the next one that nobody waits for: a thousand VIPs
/// whose servers turn out to be well one after the other need not have their rings made for each of them, and who else
/// is on this thread gets on.
const MOST_REST: Duration = Duration::from_millis(500);

/// Without any message, the loop wakes this often.
const IDLE: Duration = Duration::from_secs(3600);

/// A snapshot that nobody asked for is at most this often worth the many counters it takes.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// And at most this part of the time.
const PUBLISH_PART: u32 = 100;

/// But this often, if one took long because the machine had other things to do.
const PUBLISH_AT_LEAST: Duration = Duration::from_secs(5);

/// Everything that is known, and the maps made to match it.
#[derive(Debug)]
pub struct Reconciler<D> {
    pub(crate) datapath: D,
    pub(crate) config: Config,
    pub(crate) ids: Ids,
    /// The ranges that flows may have their ports from; the last one is in use.
    snat_ports: Vec<PortRange>,
    shape: Shape,
    pub(crate) health: HashMap<TargetId, HealthEvent>,
    pub(crate) surroundings: Surroundings,
    pub(crate) census: Census,
    /// How often the sweep has reported.
    pub(crate) sweeps: u64,
    pub(crate) steering: Steering,
    /// The configuration's text, and what has changed lately.
    pub(crate) ledger: Ledger,
    /// What was counted for servers that are gone, by number of their VIP.
    retired: HashMap<u16, Counters>,
    /// What the kernel had counted for others before an index was given to its server.
    inherited: HashMap<u16, Counters>,
    settled: Settled,
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
    pub fn new(datapath: D, config: Config, snat_ports: PortRange, shape: Shape) -> Result<Self, Exhausted> {
        let mut ids = Ids::default();
        let rings = Rings::new(config.flows.learn);
        ids.assign(&config, rings.next_step())?;
        Ok(Self {
            datapath,
            config,
            ids,
            snat_ports: vec![snat_ports],
            shape,
            health: HashMap::new(),
            surroundings: Surroundings::default(),
            census: Census::default(),
            sweeps: 0,
            steering: Steering::default(),
            ledger: Ledger::default(),
            retired: HashMap::new(),
            inherited: HashMap::new(),
            settled: Settled::new(),
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
        config: Config,
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
            (fresh.steering, fresh.settled) = (steering, settled);
            fresh.forget_what_is_gone();
            return Ok(fresh);
        };
        let counters = |counted: BTreeMap<u16, Counted>| {
            counted.into_iter().map(|(number, counted)| (number, counted.into())).collect()
        };
        let former = former.into_iter().map(|(first, last)| PortRange { first, last });
        let former = former.filter(|range| *range != snat_ports);
        let mut resumed = Self {
            ids: ids.into_owned(),
            snat_ports: former.chain([snat_ports]).collect(),
            settled,
            steering,
            health: health.into_iter().map(|event| (event.id.clone(), event.into_owned())).collect(),
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
            settled: self.settled.clone(),
            admin: self.steering.states(),
            weights: self.steering.weights(),
            disabled: self.steering.disabled().clone(),
            health: self.health_in_order().into_iter().map(Cow::Borrowed).collect(),
            retired: counted(&self.retired),
            inherited: counted(&self.inherited),
            snat_ports: self.snat_ports.iter().map(|range| (range.first, range.last)).collect(),
        }
    }

    /// What is known of the servers' health.
    #[must_use]
    pub fn known_health(&self) -> Vec<HealthEvent> {
        self.health_in_order().into_iter().cloned().collect()
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
    pub fn configure(&mut self, config: Config) -> Result<(), Exhausted> {
        if self.ids.fit(&config) {
            self.rings.set_learn(config.flows.learn);
            self.config = config;
            return Ok(());
        }
        let mut ids = self.ids.clone();
        ids.assign(&config, self.rings.next_step())?;
        self.follow_pools(&config);
        for (id, server) in self.ids.servers().filter(|&(id, server)| ids.server(id) != Some(server)) {
            self.health.remove(id);
            let counters = self.counters(server);
            if let Some(vip) = ids.vip(&id.vip) {
                *self.retired.entry(vip).or_default() += counters;
            }
        }
        for (_, server) in ids.servers().filter(|&(id, server)| self.ids.server(id) != Some(server)) {
            let counters = self.datapath.server_counters(server.index()).unwrap_or_default();
            self.inherited.insert(server.index(), counters);
        }
        let same_vip = |vip: &str| ids.vip(vip).is_some() && ids.vip(vip) == self.ids.vip(vip);
        let kept: HashSet<_> = config
            .vips
            .iter()
            .filter(|vip| same_vip(&vip.name))
            .filter_map(|vip| ids.vip(&vip.name))
            .collect();
        self.retired.retain(|vip, _| kept.contains(vip));
        self.rings.set_learn(config.flows.learn);
        (self.ids, self.config) = (ids, config);
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
        let before = self.health.insert(event.id.clone(), event);
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
        self.ids.on_census(&census);
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
        let mut settled = std::mem::take(&mut self.settled);
        let wanted = self.wanted(&self.steering, &mut settled);
        let mut open = std::mem::take(&mut self.proxied.1);
        let health = |id: &TargetId| self.health.get(id).map_or(Health::Unknown, |event| event.state);
        let inputs = proxied::Inputs { config: &self.config, steering: &self.steering, health: &health };
        self.proxied = (proxied::spec(&inputs, &mut settled, &mut open), open);
        self.settled = settled;
        let mut next = self.rings.advance(&wanted, now);
        if self.watched {
            next.settings.flags |= settings_flags::TRACE;
        }
        diff(&self.current, &next)
    }

    /// What the maps are to contain in the end, if the operator says this.
    fn wanted(&self, steering: &Steering, settled: &mut Settled) -> Wanted {
        let health = |id: &TargetId| self.health.get(id).map_or(Health::Unknown, |event| event.state);
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
            self.datapath.apply_rings(&rings)?;
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

/// What reaches the loop.
#[derive(Debug)]
pub struct Inbox {
    /// From the health checks.
    pub health: mpsc::Receiver<HealthEvent>,
    /// From the watch over the network.
    pub surroundings: mpsc::Receiver<Surroundings>,
    /// From the sweep: what it found.
    pub census: mpsc::Receiver<Census>,
    /// From the admin interface: who wants to see the state.
    pub status: mpsc::Receiver<StatusRequest>,
    /// From the admin interface and who reads the configuration: what is to change.
    pub commands: mpsc::Receiver<Command>,
    /// From those who look into packets.
    pub eyes: mpsc::UnboundedReceiver<trace::Question>,
}

/// Runs until one of those who report to it has ended, publishing the state when asked and now and then.
pub async fn run<D: Datapath>(
    mut reconciler: Reconciler<D>,
    about: About,
    mut notebook: Option<Notebook>,
    manager: Arc<Manager>,
    mut inbox: Inbox,
    orders: std::sync::mpsc::Sender<Orders>,
    publish: watch::Sender<Arc<Snapshot>>,
) {
    // Also if it is nothing: a proxy that was left may serve what is not configured any more.
    let mut served: Option<Spec> = None;
    let began = Instant::now();
    let mut stale = true;
    let mut refused: Option<(Instant, Error)> = None;
    let (mut publish_at, mut rests_until) = (Instant::now(), Instant::now());
    let beat = manager.beat().unwrap_or(IDLE);
    let mut next_beat = Instant::now();
    loop {
        let due = reconciler.due().map_or(IDLE, |due| due.saturating_sub(began.elapsed()).max(BREATH));
        let again = refused.as_ref().map_or_else(|| Instant::now() + due, |(at, _)| *at + RETRY);
        let again = if stale && refused.is_none() { again.min(rests_until) } else { again };
        let (mut asked, mut answer): (_, Option<Box<dyn FnOnce() + Send>>) = (None, None);
        // Dropped at the end of this round, by which those who want to watch know that they do.
        let mut switched = None;
        tokio::select! {
            event = inbox.health.recv() => {
                let Some(event) = event else { return };
                stale |= reconciler.on_health(event);
                // What else came meanwhile goes into the same plan.
                while let Ok(event) = inbox.health.try_recv() {
                    stale |= reconciler.on_health(event);
                }
            }
            surroundings = inbox.surroundings.recv() => {
                let Some(surroundings) = surroundings else { return };
                reconciler.on_surroundings(surroundings);
                stale = true;
            }
            census = inbox.census.recv() => {
                let Some(census) = census else { return };
                stale |= reconciler.on_census(census);
            }
            request = inbox.status.recv() => asked = request,
            Some(command) = inbox.commands.recv() => {
                // A question calls for no plan.
                stale |= !matches!(command, Command::InUse(..));
                answer = Some(obey(&mut reconciler, command));
            }
            Some(question) = inbox.eyes.recv() => match question {
                trace::Question::Insight(answer) => {
                    // Whoever asked may be gone.
                    let _ = answer.send(Arc::new(trace::Insight::of(&reconciler, &about)));
                }
                trace::Question::Watch(on, done) => {
                    reconciler.on_watch(on);
                    (stale, switched) = (true, Some(done));
                }
            },
            () = sleep_until(again) => stale |= reconciler.due().is_some(),
            () = sleep_until(next_beat) => {}
        }
        if next_beat <= Instant::now() {
            manager.alive(Worker::Loop);
            next_beat = Instant::now() + beat;
        }
        let wait = refused.as_ref().is_some_and(|(at, _)| at.elapsed() < RETRY);
        // Who looks is to see what holds in the maps.
        let waited_for = answer.is_some() || asked.is_some() || switched.is_some();
        let rests = !waited_for && Instant::now() < rests_until;
        if stale && !wait && !rests {
            let (now, set_out) = (began.elapsed(), Instant::now());
            let operations = reconciler.plan(now);
            // First, so that it knows of everything that the maps may name.
            if let Some(notebook) = &mut notebook {
                notebook.write(reconciler.facts());
            }
            let mut outcome = reconciler.carry_out(operations, now);
            if outcome.is_ok() {
                if served.as_ref() != Some(&reconciler.proxied.0) {
                    about.proxy.serve(reconciler.proxied.0.clone());
                    served = Some(reconciler.proxied.0.clone());
                }
                // All new packets go by it.
                if let Some(answer) = answer.take() {
                    answer();
                }
                outcome = reconciler.settle().and(outcome);
            }
            match outcome {
                Ok(operations) => {
                    debug!("{operations} map operations");
                    // Without a sweep there is nobody to go by them, and the census ends this loop.
                    let _ = orders.send(reconciler.orders());
                    (stale, refused) = (false, None);
                }
                Err(error) => {
                    if refused.as_ref().is_none_or(|(_, last)| *last != error) {
                        error!("{error}; trying again every {RETRY:?}");
                    }
                    refused = Some((Instant::now(), error));
                }
            }
            rests_until = Instant::now() + set_out.elapsed().min(MOST_REST);
        }
        // Who waits for an answer does not wait for a snapshot that nobody asked for.
        let due = !waited_for && publish_at <= Instant::now();
        if let Some(answer) = answer {
            answer();
        }
        if asked.is_some() || due {
            let set_out = Instant::now();
            let snapshot = Arc::new(picture::snapshot(&reconciler, &about));
            if let Some(request) = asked {
                request.answer(Arc::clone(&snapshot));
            }
            publish.send_replace(snapshot);
            let pause = (set_out.elapsed() * PUBLISH_PART).clamp(PUBLISH_EVERY, PUBLISH_AT_LEAST);
            publish_at = Instant::now() + pause;
        }
    }
}

/// Does what a command says, as far as the plan goes; gives what is to be done when the kernel knows.
fn obey<D: Datapath>(reconciler: &mut Reconciler<D>, command: Command) -> Box<dyn FnOnce() + Send> {
    // Who asked may have given up.
    match command {
        Command::Server(request, terms, answer) => {
            let outcome = reconciler.on_server_request(&request, &terms);
            Box::new(move || drop(answer.send(outcome)))
        }
        Command::Vip(request, terms, answer) => {
            let outcome = reconciler.on_vip_request(&request, &terms);
            Box::new(move || drop(answer.send(outcome)))
        }
        Command::Configure(config, adoption, answer) => {
            let outcome = reconciler.adopt(*config, adoption);
            let (carried_out, told) = oneshot::channel();
            drop(answer.send(outcome.map(|Done { version, .. }| Done { what: told, version })));
            Box::new(move || drop::<oneshot::Sender<()>>(carried_out))
        }
        Command::InUse(terms, answer) => {
            let outcome = reconciler.in_use(&terms);
            Box::new(move || drop(answer.send(outcome)))
        }
    }
}

pub mod apart;
mod steer;
mod terms;

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
mod tests {
    use std::net::IpAddr;

    use lb_common::abi::Mac;

    use super::*;
    use crate::{config, datapath::fake::Fake, plan::desired::Way, snapshot::PoolHealth};

    const CONFIG: &str = r#"
        [pool.web]
        servers = [{ name = "s1", address = "10.0.0.1" }, { name = "s2", address = "10.0.0.2" }]
        [vip.a]
        address = "192.0.2.1"
        port = 80
        mode = "snat"
        pool = "web"
        [vip.b]
        address = "192.0.2.1"
        port = 81
        mode = "snat"
        pool = "web"
        [vip.proxied]
        address = "192.0.2.1"
        port = 82
        mode = "http"
        pool = "web"
    "#;

    pub(super) fn reconciler() -> Reconciler<Fake> {
        let config = config::check("test.toml", CONFIG).expect("a valid configuration").config;
        let ports = PortRange { first: 1_024, last: 2_047 };
        let mut reconciler = Reconciler::new(Fake::default(), config, ports, Shape::default()).unwrap();
        let way = Way {
            ifindex: 2,
            source_mac: Mac::new([2; 6]),
            next_hop: Some(Mac::new([4; 6])),
            routed: false,
            source: Some(IpAddr::from([10, 0, 0, 9])),
            mtu: 1_500,
        };
        let servers = [1, 2].map(|last| (IpAddr::from([10, 0, 0, last]), Ok(way)));
        let hops = servers.into_iter().collect();
        let interfaces = [(2, way.source_mac)].into();
        reconciler.on_surroundings(Surroundings { hops, interfaces, ..Surroundings::default() });
        reconciler
    }

    pub(super) fn health(vip: &str, server: &str, state: Health) -> HealthEvent {
        let id = TargetId { vip: vip.into(), server: server.into() };
        HealthEvent { id, state, reason: "said so".into(), since: 7, changed: true }
    }

    pub(super) fn about() -> About {
        About {
            now: || 100,
            started: 90,
            config_file: None,
            interfaces: Vec::new(),
            flow_capacity: 1_000,
            tag_capacity: 2_000,
            reasons_before: Vec::new(),
            last_reload: watch::channel(None).1,
            proxy: crate::l7::Handle::of_nobody(),
        }
    }

    #[test]
    fn health_moves_one_server_of_one_vip_and_nothing_else() {
        let mut reconciler = reconciler();
        for vip in ["a", "b"] {
            for server in ["s1", "s2"] {
                reconciler.on_health(health(vip, server, Health::Up));
            }
        }
        reconciler.step(Duration::ZERO).unwrap();
        let before = reconciler.datapath.contents.clone();
        assert_eq!(reconciler.step(Duration::ZERO), Ok(0), "nothing happened, nothing is written");

        reconciler.on_health(health("a", "s1", Health::Down));
        assert_eq!(reconciler.step(Duration::ZERO), Ok(2), "the server's entry and the ring of its VIP");
        let after = &reconciler.datapath.contents;
        assert_ne!(before.rings[&1], after.rings[&1]);
        assert_eq!(before.rings[&2], after.rings[&2]);
        assert_eq!(before.vips4, after.vips4);
    }

    #[test]
    fn after_a_refusal_the_next_step_goes_on() {
        let mut reconciler = reconciler();
        reconciler.datapath.refuse_after = Some(2);
        reconciler.step(Duration::ZERO).unwrap_err();
        reconciler.datapath.refuse_after = None;
        reconciler.step(Duration::ZERO).unwrap();
        assert_eq!(reconciler.step(Duration::ZERO), Ok(0));
        assert_eq!(reconciler.datapath.contents, reconciler.current);
    }

    #[tokio::test(start_paused = true)]
    async fn the_loop_ends_with_those_who_report_to_it() {
        for silent in 0..3 {
            let (health, health_inbox) = mpsc::channel(1);
            let (surroundings, surroundings_inbox) = mpsc::channel(1);
            let (census, census_inbox) = mpsc::channel(1);
            let (publish, last) = watch::channel(Arc::default());
            let (_handle, requests) = crate::admin::Handle::new(last);
            let inbox = Inbox {
                health: health_inbox,
                surroundings: surroundings_inbox,
                census: census_inbox,
                status: requests.status,
                commands: requests.commands,
                eyes: mpsc::unbounded_channel().1,
            };
            let running = tokio::spawn(run(
                reconciler(),
                about(),
                None,
                Arc::default(),
                inbox,
                std::sync::mpsc::channel().0,
                publish,
            ));
            let mut reporters = (Some(health), Some(surroundings), Some(census));
            match silent {
                0 => reporters.0 = None,
                1 => reporters.1 = None,
                _ => reporters.2 = None,
            }
            let ended = tokio::time::timeout(Duration::from_secs(9), running).await;
            assert!(matches!(ended, Ok(Ok(()))), "reporter {silent}");
        }
    }

    #[test]
    fn a_vip_whose_servers_cannot_be_reached_is_not_healthy() {
        let mut reconciler = reconciler();
        for server in ["s1", "s2"] {
            reconciler.on_health(health("a", server, Health::Up));
        }
        let mut surroundings = reconciler.surroundings.clone();
        for hop in surroundings.hops.values_mut() {
            *hop = Err("no way".into());
        }
        reconciler.on_surroundings(surroundings);
        reconciler.step(Duration::ZERO).unwrap();
        let vip = &picture::snapshot(&reconciler, &about()).vips[0];
        assert_eq!(vip.health, PoolHealth::Down);
        assert_eq!(vip.servers[0].next_hop_problem.as_deref(), Some("no way"));
    }

    #[test]
    fn the_snapshot_says_what_is_going_on() {
        let mut reconciler = reconciler();
        reconciler.on_health(health("a", "s1", Health::Up));
        reconciler.on_health(health("a", "s2", Health::Down));
        reconciler.on_health(health("proxied", "s1", Health::Up));
        reconciler.census.alive = 5;
        reconciler.census.by_server.insert(1, 5);
        reconciler.step(Duration::ZERO).unwrap();
        let snapshot = picture::snapshot(&reconciler, &about());
        let [a, b, proxied] = &snapshot.vips[..] else { panic!("three VIPs") };
        assert_eq!((a.health, b.health), (PoolHealth::Degraded, PoolHealth::Unknown));
        assert_eq!((a.served, proxied.served), (true, false));
        assert!(proxied.note.as_deref().is_some_and(|note| note.contains("l7-proxy")));
        let [s1, s2] = &a.servers[..] else { panic!("two servers") };
        assert_eq!((s1.active, s2.active), (true, false));
        assert_eq!((s1.health, s1.since, s1.reason.as_str()), (Health::Up, 7, "said so"));
        assert_eq!((s1.port, s1.weight), (Some(80), 100));
        assert_eq!((a.traffic.active, s1.traffic.active, s2.traffic.active), (5, 5, 0));
        assert_eq!((snapshot.flows, snapshot.flow_capacity), (5, 1_000));
        use lb_common::verdict::{DropReason, Event, PassReason};
        let reasons = PassReason::ALL.len() + DropReason::ALL.len() + Event::ALL.len();
        assert_eq!(snapshot.reasons.len(), reasons, "also those that did not happen");
    }

    pub(super) fn all_up(reconciler: &mut Reconciler<Fake>) {
        for vip in ["a", "b"] {
            for server in ["s1", "s2"] {
                reconciler.on_health(health(vip, server, Health::Up));
            }
        }
        reconciler.step(Duration::ZERO).unwrap();
    }

    pub(super) fn with(change: impl FnOnce(String) -> String) -> Config {
        config::check("test.toml", &change(CONFIG.into())).expect("a valid configuration").config
    }

    #[test]
    fn another_configuration_touches_nothing_that_is_in_both() {
        let mut reconciler = reconciler();
        all_up(&mut reconciler);
        let before = reconciler.datapath.contents.clone();
        reconciler.configure(with(|text| text)).unwrap();
        assert_eq!(reconciler.step(Duration::ZERO), Ok(0), "the same again is nothing");

        reconciler.configure(with(|text| text.replace("port = 81", "port = 91"))).unwrap();
        assert_eq!(reconciler.step(Duration::ZERO), Ok(2), "one key comes, one goes");
        let after = &reconciler.datapath.contents;
        assert_eq!((&after.rings, &after.servers), (&before.rings, &before.servers));
    }

    #[test]
    fn counters_of_a_vip_do_not_go_back_when_a_server_leaves() {
        let mut reconciler = reconciler();
        all_up(&mut reconciler);
        let packets = |reconciler: &Reconciler<Fake>| {
            let vip = &picture::snapshot(reconciler, &about()).vips[0];
            (vip.traffic.packets_in, vip.servers.last().unwrap().traffic.packets_in)
        };
        let all = packets(&reconciler).0;
        let one = |text: String| text.replace(r#", { name = "s2", address = "10.0.0.2" }"#, "");
        reconciler.configure(with(one)).unwrap();
        reconciler.step(Duration::ZERO).unwrap();
        assert_eq!(packets(&reconciler).0, all);
        reconciler.configure(with(|text| text)).unwrap();
        reconciler.step(Duration::ZERO).unwrap();
        assert_eq!(
            packets(&reconciler),
            (all, 0),
            "one that returns begins anew, whatever its number counted"
        );
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut reconciler = reconciler();
        all_up(&mut reconciler);
        let many: String = (1..5_000)
            .map(|n| {
                format!("[vip.v{n}]\naddress = \"192.0.2.9\"\nport = {n}\nmode = \"snat\"\npool = \"web\"\n")
            })
            .collect();
        let mut config = with(|text| text);
        // The check of configurations would refuse it first.
        let more =
            config::check("many.toml", &format!("{CONFIG}{}", &many[..many.find("[vip.v3000]").unwrap()]));
        config.vips = more.unwrap().config.vips;
        let again: Vec<_> = config
            .vips
            .iter()
            .cloned()
            .map(|mut vip| {
                vip.name += "x";
                vip
            })
            .collect();
        config.vips.extend(again);
        assert!(reconciler.configure(config).is_err());
        assert_eq!(reconciler.step(Duration::ZERO), Ok(0));
        assert_eq!(reconciler.config.vips.len(), 3);
    }

    #[test]
    fn news_of_a_server_that_is_gone_are_none() {
        let mut reconciler = reconciler();
        assert!(!reconciler.on_health(health("a", "s9", Health::Up)));
        assert!(reconciler.health.is_empty());
    }
}
