//! From what the reconcile loop knows to the snapshot that everyone else reads.

use std::collections::HashMap;

use lb_common::{
    abi::Counters,
    verdict::{DropReason, Event, PassReason},
};
use tokio::sync::watch;

use crate::{
    datapath::Datapath,
    health::TargetId,
    l7,
    model::{Check, Config, Lead, Pool, Server, Vip},
    plan::{Admin, hop_problem, select::key},
    reconcile::Reconciler,
    reload::probe_port,
    snapshot::{
        FurtherPool, Health, Interface, LastReload, PoolHealth, PoolServer, PoolStatus, ReasonCount,
        ServerStatus, Snapshot, Traffic, VipStatus,
    },
};

/// What does not change while the daemon runs, and its wall clock.
#[derive(Clone, Debug)]
pub struct About {
    /// Gives seconds since 1970-01-01 UTC.
    pub now: fn() -> u64,
    /// When the daemon started.
    pub started: u64,
    /// The configuration file, if there is one.
    pub config_file: Option<String>,
    /// Where the program is attached.
    pub interfaces: Vec<Interface>,
    /// Translated flows that each family's table holds.
    pub flow_capacity: u64,
    /// Flow tags that there is room for.
    pub tag_capacity: u64,
    /// Packets by reason that were counted for former programs; empty if there were none.
    pub reasons_before: Vec<(String, u64)>,
    /// Leads to who looks after l7-proxy.
    pub proxy: l7::Handle,
    /// Tells how the last reload went.
    pub last_reload: watch::Receiver<Option<LastReload>>,
}

/// The state of the balancer now. What the kernel does not tell counts as 0.
#[must_use]
pub fn snapshot<D: Datapath>(state: &Reconciler<D>, about: &About) -> Snapshot {
    let proxy = about.proxy.report();
    Snapshot {
        version: env!("CARGO_PKG_VERSION").into(),
        etag: state.version().to_string(),
        time: (about.now)(),
        started: about.started,
        config_file: about.config_file.clone(),
        last_reload: about.last_reload.borrow().clone(),
        interfaces: about.interfaces.clone(),
        vips: state.config.services().map(|service| vip_status(state, &proxy, service)).collect(),
        reasons: reasons(&with(state.datapath.reasons().unwrap_or_default(), &about.reasons_before)),
        flows: state.census.alive,
        flow_capacity: about.flow_capacity,
        flows_taken: state.census.records,
        tags: state.census.tags,
        tag_capacity: about.tag_capacity,
        tags_taken: state.census.tags_taken,
        sweeps: state.sweeps,
        pools: pools(&state.config),
    }
}

fn pools(config: &Config) -> Vec<PoolStatus> {
    let mut vips: HashMap<&str, Vec<String>> = HashMap::new();
    for vip in &config.vips {
        for lead in config.leads_of(vip) {
            vips.entry(&lead.pool.name).or_default().push(vip.name.clone());
        }
    }
    let mut status = |pool: &Pool| pool_status(pool, vips.remove(pool.name.as_str()).unwrap_or_default());
    config.pools.iter().map(&mut status).collect()
}

fn pool_status(pool: &Pool, vips: Vec<String>) -> PoolStatus {
    let server = |server: &Server| PoolServer {
        name: server.name.clone(),
        address: server.address(),
        host: server.host().map(str::to_owned),
        weight: server.weight,
        backup: server.backup,
    };
    PoolStatus {
        name: pool.name.clone(),
        vips,
        min_healthy: pool.min_healthy,
        servers: pool.servers.iter().map(server).collect(),
    }
}

fn vip_status<D: Datapath>(
    state: &Reconciler<D>,
    proxy: &l7::Report,
    (vip, leads): (&Vip, Vec<Lead<'_>>),
) -> VipStatus {
    let leads: Vec<_> = leads.into_iter().map(|lead| Pooled::of(state, proxy, vip, lead)).collect();
    let not_served = if vip.mode.is_layer4() { None } else { proxy.why_not(&vip.name) };
    let of_proxy = proxy.status.services.iter().find(|service| service.name == vip.name);
    VipStatus {
        name: vip.name.clone(),
        address: vip.address,
        ports: vip.ports.to_string(),
        protocol: vip.protocol.to_string(),
        mode: vip.mode.to_string(),
        persistence: vip.persistence.to_string(),
        algorithm: vip.algorithm.to_string(),
        check: if vip.pool.is_some() { vip.health.check.name() } else { Check::None.name() }.into(),
        check_port: check_port(vip),
        enabled: state.steering.is_enabled(&vip.name),
        pool: vip.pool.clone(),
        served: not_served.is_none(),
        note: not_served.or_else(|| {
            let notes: Vec<_> = leads.iter().filter_map(|pooled| pooled.note(leads.len() > 1)).collect();
            (!notes.is_empty()).then(|| notes.join("; "))
        }),
        health: together(&leads),
        further_pools: leads
            .iter()
            .filter(|pooled| !pooled.lead.own)
            .map(|pooled| FurtherPool { name: pooled.lead.pool.name.clone(), health: pooled.health })
            .collect(),
        traffic: match of_proxy {
            Some(service) => Traffic {
                connections: service.accepted,
                active: service.connections.into(),
                bytes_in: service.received,
                bytes_out: service.sent,
                ..Traffic::default()
            },
            None => leads
                .iter()
                .flat_map(|pooled| &pooled.servers)
                .map(|server| &server.traffic)
                .chain([&traffic(state.retired(&vip.name), 0)])
                .sum(),
        },
        servers: leads.into_iter().flat_map(|pooled| pooled.servers).collect(),
    }
}

/// A pool in the eyes of a VIP.
struct Pooled<'a> {
    lead: Lead<'a>,
    servers: Vec<ServerStatus>,
    health: PoolHealth,
}

impl<'a> Pooled<'a> {
    fn of<D: Datapath>(state: &Reconciler<D>, proxy: &l7::Report, vip: &Vip, lead: Lead<'a>) -> Self {
        let servers = state.steering.servers_in(vip, lead);
        let servers: Vec<_> =
            servers.iter().map(|server| server_status(state, proxy, vip, &lead, server)).collect();
        Self { lead, health: pool_health(&servers, lead.pool.min_healthy), servers }
    }

    /// What an operator must know of it; of one of several also that it is down.
    fn note(&self, several: bool) -> Option<String> {
        let name = &self.lead.pool.name;
        let note = too_few(&self.servers, self.lead.pool.min_healthy);
        match note {
            Some(note) if several => Some(format!("pool {name}: {note}")),
            None if several && self.health == PoolHealth::Down => {
                Some(format!("no server of pool {name} is up"))
            }
            note => note,
        }
    }
}

/// Health of several pools together: while one of them is of use, some requests are served.
fn together(pools: &[Pooled<'_>]) -> PoolHealth {
    let all = |wanted| pools.iter().all(|pooled| pooled.health == wanted);
    let of_use = |pooled: &Pooled<'_>| matches!(pooled.health, PoolHealth::Healthy | PoolHealth::Degraded);
    if all(PoolHealth::Unknown) {
        PoolHealth::Unknown
    } else if all(PoolHealth::Healthy) {
        PoolHealth::Healthy
    } else if pools.iter().any(of_use) {
        PoolHealth::Degraded
    } else {
        PoolHealth::Down
    }
}

fn check_port(vip: &Vip) -> Option<u16> {
    let has_port = !matches!(vip.health.check, Check::Icmp | Check::None);
    (has_port && vip.pool.is_some()).then(|| probe_port(vip, &vip.health, None))
}

fn server_status<D: Datapath>(
    state: &Reconciler<D>,
    proxy: &l7::Report,
    vip: &Vip,
    lead: &Lead<'_>,
    server: &Server,
) -> ServerStatus {
    let id = TargetId::new(&vip.name, lead.name_of(&server.name));
    let pool = key(&vip.name, lead);
    let health = state.health.get(&id);
    let reference = state.ids.server(&id);
    let counters = reference.map(|server| state.counters(server)).unwrap_or_default();
    let active = reference.and_then(|server| state.census.by_server.get(&server.index()));
    let of_proxy = proxy.server(&vip.name, &pool, &server.name);
    let paused = of_proxy.is_some_and(|server| server.paused);
    ServerStatus {
        name: id.server.clone(),
        pool: (!lead.own).then(|| lead.pool.name.clone()),
        address: server.address(),
        host: server.host().map(str::to_owned),
        port: server.port.or(vip.server_port).or_else(|| vip.ports.single()),
        weight: server.weight,
        weight_of_file: state.steering.weight(&id).and_then(|_| weight_of_file(lead, server)),
        backup: server.backup,
        active: if vip.mode.is_layer4() {
            reference.is_some_and(|server| state.is_active(server))
        } else {
            !paused && may_get_requests(&state.proxied.0, &pool, server)
        },
        state: state.steering.state(&id),
        health: health.map_or(Health::Unknown, |event| event.state),
        reason: health.map_or_else(|| "not checked yet".into(), |event| event.reason.clone()),
        since: health.map_or(0, |event| event.since),
        paused,
        // One without an address is down, and says so.
        next_hop_problem: server
            .address()
            .filter(|_| vip.mode.is_layer4())
            .and_then(|address| hop_problem(vip, state.surroundings.hops.get(&address))),
        traffic: match of_proxy {
            Some(of_proxy) => {
                Traffic { connections: of_proxy.total, active: of_proxy.active.into(), ..Traffic::default() }
            }
            None => traffic(counters, active.copied().unwrap_or(0)),
        },
    }
}

/// Whether l7-proxy may send requests to a server. To a backup only while it has to.
fn may_get_requests(spec: &l7_spec::Spec, pool: &str, server: &Server) -> bool {
    let pool = spec.pools.iter().find(|one| one.name == pool);
    let servers = pool.map_or(&[][..], |pool| &pool.servers);
    let usable = |server: &&l7_spec::Server| server.state == l7_spec::ServerState::Up && server.weight > 0;
    let mut found = servers.iter().filter(usable).filter(|other| other.name == server.name);
    let regular = servers.iter().filter(usable).any(|other| !other.backup);
    found.any(|found| !found.backup || !regular)
}

/// The weight that the configuration gives to a server, which may have another now.
fn weight_of_file(lead: &Lead<'_>, server: &Server) -> Option<u16> {
    lead.pool.servers.iter().find(|other| other.name == server.name).map(|server| server.weight)
}

/// R28. A server with weight 0 counts like the others: it is there, and well or not. One that is well but
/// cannot be reached by the clients' packets is of no use.
///
/// With fewer than `needed` regular servers that take new flows, those there are count for nothing.
fn pool_health(servers: &[ServerStatus], needed: usize) -> PoolHealth {
    let count = |wanted| servers.iter().filter(|server| health(server) == wanted).count();
    let backup = servers.iter().any(|server| server.backup && health(server) == Health::Up);
    if count(Health::Unknown) == servers.len() {
        PoolHealth::Unknown
    } else if count(Health::Up) == servers.len() {
        PoolHealth::Healthy
    } else if count(Health::Up) > 0 && (needed == 1 || regular(servers) >= needed || backup) {
        PoolHealth::Degraded
    } else {
        PoolHealth::Down
    }
}

fn health(server: &ServerStatus) -> Health {
    match server.health {
        Health::Up if server.next_hop_problem.is_some() => Health::Down,
        health => health,
    }
}

/// How many servers that are no backups could take new flows.
fn regular(servers: &[ServerStatus]) -> usize {
    let takes = |server: &&ServerStatus| !server.backup && server.weight > 0 && server.state == Admin::Ready;
    servers.iter().filter(takes).filter(|server| health(server) == Health::Up).count()
}

/// What to say when servers are up and yet get nothing.
fn too_few(servers: &[ServerStatus], needed: usize) -> Option<String> {
    let regular = regular(servers);
    let few = (1..needed).contains(&regular);
    few.then(|| format!("too few servers: {regular} of the {needed} that the pool needs (min_healthy)"))
}

fn traffic(counters: Counters, active: u64) -> Traffic {
    Traffic {
        connections: counters.connections,
        active,
        packets_in: counters.packets_in,
        bytes_in: counters.bytes_in,
        packets_out: counters.packets_out,
        bytes_out: counters.bytes_out,
    }
}

/// Kind, name and index of every reason.
fn all_reasons() -> impl Iterator<Item = (&'static str, &'static str, usize)> {
    let pass = PassReason::ALL.iter().map(|reason| ("pass", reason.label(), reason.index()));
    let drop = DropReason::ALL.iter().map(|reason| ("drop", reason.label(), reason.index()));
    let event = Event::ALL.iter().map(|event| ("event", event.label(), event.index()));
    pass.chain(drop).chain(event).map(|(kind, label, index)| (kind, label, index as usize))
}

fn reasons(packets: &[u64]) -> Vec<ReasonCount> {
    let entry = |(verdict, label, index): (&str, &str, usize)| ReasonCount {
        verdict: verdict.into(),
        reason: label.into(),
        packets: packets.get(index).copied().unwrap_or(0),
    };
    all_reasons().map(entry).collect()
}

/// What the kernel has counted, and what was counted before.
fn with(packets: Vec<u64>, before: &[(String, u64)]) -> Vec<u64> {
    if before.is_empty() {
        return packets;
    }
    let before = |index: usize| before.get(index).map_or(0, |(_, packets)| *packets);
    packets.into_iter().enumerate().map(|(index, packets)| packets + before(index)).collect()
}

/// Packets by reason that were counted up to the end of a program: `before` it with the names of its reasons, and by it.
/// In the order of this program's reasons; what it has no name for is dropped.
#[must_use]
pub fn carried_over(before: &[(String, u64)], counted: &[u64]) -> Vec<(String, u64)> {
    let counted = |index: usize| counted.get(index).copied().unwrap_or(0);
    let total = |name: &str| {
        let index = before.iter().position(|(other, _)| other == name)?;
        Some(before[index].1 + counted(index))
    };
    let mut reasons: Vec<_> = all_reasons().collect();
    reasons.sort_unstable_by_key(|&(.., index)| index);
    let named = reasons.into_iter().map(|(kind, label, _)| format!("{kind} {label}"));
    named.map(|name| (total(&name).unwrap_or(0), name)).map(|(packets, name)| (name, packets)).collect()
}
