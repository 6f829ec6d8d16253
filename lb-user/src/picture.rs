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
    model::{Check, Config, Pool, Server, Vip},
    plan::{Admin, hop_problem},
    reconcile::Reconciler,
    reload::probe_port,
    snapshot::{
        Health, Interface, LastReload, PoolHealth, PoolServer, PoolStatus, ReasonCount, ServerStatus,
        Snapshot, Traffic, VipStatus,
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
        vips: state.config.vips.iter().map(|vip| vip_status(state, &proxy, vip)).collect(),
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
        if let Some(pool) = &vip.pool {
            vips.entry(pool).or_default().push(vip.name.clone());
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

fn vip_status<D: Datapath>(state: &Reconciler<D>, proxy: &l7::Report, vip: &Vip) -> VipStatus {
    let servers: Vec<_> = state
        .steering
        .servers_of(&state.config, vip)
        .iter()
        .map(|server| server_status(state, proxy, vip, server))
        .collect();
    let not_served = if vip.mode.is_layer4() { None } else { proxy.why_not(&vip.name) };
    let of_proxy = proxy.status.services.iter().find(|service| service.name == vip.name);
    let needed = state.config.pool_of(vip).map_or(1, |pool| pool.min_healthy);
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
        note: not_served.or_else(|| too_few(&servers, needed)),
        health: pool_health(&servers, needed),
        traffic: match of_proxy {
            Some(service) => Traffic {
                connections: service.accepted,
                active: service.connections.into(),
                bytes_in: service.received,
                bytes_out: service.sent,
                ..Traffic::default()
            },
            None => servers
                .iter()
                .map(|server| &server.traffic)
                .chain([&traffic(state.retired(&vip.name), 0)])
                .sum(),
        },
        servers,
    }
}

fn check_port(vip: &Vip) -> Option<u16> {
    let has_port = !matches!(vip.health.check, Check::Icmp | Check::None);
    (has_port && vip.pool.is_some()).then(|| probe_port(vip, &vip.health))
}

fn server_status<D: Datapath>(
    state: &Reconciler<D>,
    proxy: &l7::Report,
    vip: &Vip,
    server: &Server,
) -> ServerStatus {
    let id = TargetId { vip: vip.name.clone(), server: server.name.clone() };
    let health = state.health.get(&id);
    let reference = state.ids.server(&id);
    let counters = reference.map(|server| state.counters(server)).unwrap_or_default();
    let active = reference.and_then(|server| state.census.by_server.get(&server.index()));
    ServerStatus {
        name: server.name.clone(),
        address: server.address(),
        host: server.host().map(str::to_owned),
        port: vip.server_port.or_else(|| vip.ports.single()),
        weight: server.weight,
        weight_of_file: state.steering.weight(&id).and_then(|_| weight_of_file(state, vip, server)),
        backup: server.backup,
        active: if vip.mode.is_layer4() {
            reference.is_some_and(|server| state.is_active(server))
        } else {
            may_get_requests(&state.proxied.0, vip, server)
        },
        state: state.steering.state(&id),
        health: health.map_or(Health::Unknown, |event| event.state),
        reason: health.map_or_else(|| "not checked yet".into(), |event| event.reason.clone()),
        since: health.map_or(0, |event| event.since),
        // One without an address is down, and says so.
        next_hop_problem: server
            .address()
            .filter(|_| vip.mode.is_layer4())
            .and_then(|address| hop_problem(vip, state.surroundings.hops.get(&address))),
        traffic: match proxy.server(&vip.name, &server.name) {
            Some(of_proxy) => {
                Traffic { connections: of_proxy.total, active: of_proxy.active.into(), ..Traffic::default() }
            }
            None => traffic(counters, active.copied().unwrap_or(0)),
        },
    }
}

/// Whether l7-proxy may send requests to a server. To a backup only while it has to.
fn may_get_requests(spec: &l7_spec::Spec, vip: &Vip, server: &Server) -> bool {
    let pool = spec.pools.iter().find(|pool| pool.name == vip.name);
    let servers = pool.map_or(&[][..], |pool| &pool.servers);
    let usable = |server: &&l7_spec::Server| server.state == l7_spec::ServerState::Up && server.weight > 0;
    let mut found = servers.iter().filter(usable).filter(|other| other.name == server.name);
    let regular = servers.iter().filter(usable).any(|other| !other.backup);
    found.any(|found| !found.backup || !regular)
}

/// The weight that the configuration gives to a server, which may have another now.
fn weight_of_file<D: Datapath>(state: &Reconciler<D>, vip: &Vip, server: &Server) -> Option<u16> {
    let servers = state.config.servers_of(vip);
    servers.iter().find(|other| other.name == server.name).map(|server| server.weight)
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
