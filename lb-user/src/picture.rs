//! From what the reconcile loop knows to the snapshot that everyone else reads.

use lb_common::{
    abi::Counters,
    verdict::{DropReason, Event, PassReason},
};

use crate::{
    datapath::Datapath,
    health::TargetId,
    model::{Server, Vip},
    plan::hop_problem,
    reconcile::Reconciler,
    snapshot::{Health, Interface, PoolHealth, ReasonCount, ServerStatus, Snapshot, Traffic, VipStatus},
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
}

/// Why a VIP of a proxied mode is not served.
const NEEDS_PROXY: &str = "its mode needs l7-proxy, which serves nothing yet";

/// The state of the balancer now. What the kernel does not tell counts as 0.
#[must_use]
pub fn snapshot<D: Datapath>(state: &Reconciler<D>, about: &About) -> Snapshot {
    Snapshot {
        version: env!("CARGO_PKG_VERSION").into(),
        time: (about.now)(),
        started: about.started,
        config_file: about.config_file.clone(),
        interfaces: about.interfaces.clone(),
        vips: state.config.vips.iter().map(|vip| vip_status(state, vip)).collect(),
        reasons: reasons(&state.datapath.reasons().unwrap_or_default()),
        flows: state.census.alive,
        flow_capacity: about.flow_capacity,
        flows_taken: state.census.records,
        tags: state.census.tags,
        tag_capacity: about.tag_capacity,
        tags_taken: state.census.tags_taken,
    }
}

fn vip_status<D: Datapath>(state: &Reconciler<D>, vip: &Vip) -> VipStatus {
    let servers: Vec<_> =
        state.config.servers_of(vip).iter().map(|server| server_status(state, vip, server)).collect();
    let served = vip.mode.is_layer4();
    VipStatus {
        name: vip.name.clone(),
        address: vip.address,
        ports: vip.ports.to_string(),
        protocol: vip.protocol.to_string(),
        mode: vip.mode.to_string(),
        persistence: vip.persistence.to_string(),
        pool: vip.pool.clone(),
        served,
        note: (!served).then(|| NEEDS_PROXY.into()),
        health: pool_health(&servers),
        traffic: servers
            .iter()
            .map(|server| &server.traffic)
            .chain([&traffic(state.retired(&vip.name), 0)])
            .sum(),
        servers,
    }
}

fn server_status<D: Datapath>(state: &Reconciler<D>, vip: &Vip, server: &Server) -> ServerStatus {
    let id = TargetId { vip: vip.name.clone(), server: server.name.clone() };
    let health = state.health.get(&id);
    let reference = state.ids.server(&id);
    let counters = reference.map(|server| state.counters(server)).unwrap_or_default();
    let active = reference.and_then(|server| state.census.by_server.get(&server.index()));
    ServerStatus {
        name: server.name.clone(),
        address: server.address,
        port: vip.server_port.or_else(|| vip.ports.single()),
        weight: server.weight,
        backup: server.backup,
        active: reference.is_some_and(|server| state.is_active(server)),
        state: state.admin.get(&id).copied().unwrap_or_default(),
        health: health.map_or(Health::Unknown, |event| event.state),
        reason: health.map_or_else(|| "not checked yet".into(), |event| event.reason.clone()),
        since: health.map_or(0, |event| event.since),
        next_hop_problem: if vip.mode.is_layer4() {
            hop_problem(vip, state.surroundings.hops.get(&server.address))
        } else {
            None
        },
        traffic: traffic(counters, active.copied().unwrap_or(0)),
    }
}

/// R28. A server with weight 0 counts like the others: it is there, and well or not. One that is well but
/// cannot be reached by the clients' packets is of no use.
fn pool_health(servers: &[ServerStatus]) -> PoolHealth {
    let health = |server: &ServerStatus| match server.health {
        Health::Up if server.next_hop_problem.is_some() => Health::Down,
        health => health,
    };
    let count = |wanted| servers.iter().filter(|server| health(server) == wanted).count();
    if count(Health::Unknown) == servers.len() {
        PoolHealth::Unknown
    } else if count(Health::Up) == servers.len() {
        PoolHealth::Healthy
    } else if count(Health::Up) > 0 {
        PoolHealth::Degraded
    } else {
        PoolHealth::Down
    }
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

fn reasons(packets: &[u64]) -> Vec<ReasonCount> {
    let entry = |verdict: &str, label: &str, index: u32| ReasonCount {
        verdict: verdict.into(),
        reason: label.into(),
        packets: packets.get(index as usize).copied().unwrap_or(0),
    };
    let pass = PassReason::ALL.iter().map(|reason| entry("pass", reason.label(), reason.index()));
    let drop = DropReason::ALL.iter().map(|reason| entry("drop", reason.label(), reason.index()));
    let event = Event::ALL.iter().map(|event| entry("event", event.label(), event.index()));
    pass.chain(drop).chain(event).collect()
}
