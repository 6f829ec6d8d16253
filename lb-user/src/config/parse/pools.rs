//! Pools: what must hold within one, and how VIPs find them.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use super::health;
use crate::{
    config::{
        raw::{RawConfig, RawPool, RawServer},
        reader::{Field, Located},
        report::{Place, Report},
        values::Whereabouts,
        words::quote,
    },
    model::{Address, Found, Name, Pool, ProxiedPool, Server},
};

/// The weight of a server that has none written.
const WEIGHT: u16 = 100;

/// Builds all pools.
pub(super) fn build(report: &Report<'_>, raw: &RawConfig) -> Vec<Pool> {
    raw.pools.iter().map(|pool| build_pool(report, raw, pool)).collect()
}

fn build_pool(report: &Report<'_>, raw: &RawConfig, pool: &RawPool) -> Pool {
    let name = &pool.name.value;
    let holds = health::inherit(&pool.health, &raw.health);
    let error = |place: Place, problem: String| report.error(place, format!("pool {name:?}: {problem}"));
    health::check_special_keys(&pool.health, &holds, error);
    health::check_times(report, &pool.health, &holds, error);
    check_servers(report, pool);
    check_min_healthy(report, pool);
    Pool {
        name: name.clone(),
        servers: servers_of(pool).iter().filter_map(build_server).collect(),
        health: health::resolve(&holds),
        on_down: pool.on_down.value().copied(),
        min_healthy: pool.min_healthy.value().copied().unwrap_or(1),
        proxied: ProxiedPool {
            mode: pool.mode.value().copied(),
            algorithm: pool.algorithm.value().copied(),
            protocol: pool.protocol.value().copied(),
            tls: pool.tls.value().cloned(),
            proxy_protocol: pool.proxy_protocol.value().copied(),
            retries: pool.retries.value().copied(),
            queue: pool.queue.value().copied(),
            slow_start: pool.slow_start.value().copied(),
            outliers: pool.outliers.value().copied(),
        },
    }
}

/// A pool that can never have as many servers as it needs.
fn check_min_healthy(report: &Report<'_>, pool: &RawPool) {
    let Some(needed) = pool.min_healthy.get() else { return };
    let servers = servers_of(pool);
    let unknown = pool.servers.is_broken()
        || servers.iter().any(|server| server.backup.is_broken() || server.weight.is_broken());
    let serving = servers.iter().filter(|server| !is_backup(server) && weight(server) > 0).count();
    if !unknown && !report.is_incomplete() && needed.value > serving {
        report.error(
            needed.at,
            format!(
                "pool {} needs {} healthy servers, but has only {serving} that serve and are no backups; make \
                 min_healthy smaller, or add servers",
                quote(&pool.name.value),
                needed.value
            ),
        );
    }
}

fn build_server(server: &RawServer) -> Option<Server> {
    Some(Server {
        name: server.name.value()?.clone(),
        address: match server.address.value()? {
            Whereabouts::Address(address) => Address::Fixed(*address),
            Whereabouts::Host(host) => {
                Address::Named(Name { host: host.clone(), family: None }, Found::NotYet)
            }
        },
        weight: weight(server),
        port: server.port.value().copied(),
        backup: is_backup(server),
        max_connections: server.max_connections.value().copied(),
        quic_id: server.quic_id.value().copied(),
    })
}

fn weight(server: &RawServer) -> u16 {
    server.weight.value().copied().unwrap_or(WEIGHT)
}

fn is_backup(server: &RawServer) -> bool {
    server.backup.value().copied().unwrap_or(false)
}

/// The servers of a pool that could be read.
pub(super) fn servers_of(pool: &RawPool) -> &[RawServer] {
    pool.servers.value().map_or(&[], Vec::as_slice)
}

fn check_servers(report: &Report<'_>, pool: &RawPool) {
    let name = quote(&pool.name.value);
    let servers = servers_of(pool);
    check_unique(
        report,
        servers,
        |server| &server.name,
        |_| None,
        |server, line| {
            format!(
                "pool {name} has two servers named {server:?}, the other in line {line}; rename one of them"
            )
        },
    );
    check_unique(
        report,
        servers,
        |server| &server.address,
        |server| server.port.value().copied(),
        |address, line| {
            format!(
                "pool {name} has two servers with address {address}, the other in line {line}; remove one of them"
            )
        },
    );
    check_unique(
        report,
        servers,
        |server| &server.quic_id,
        |_| None,
        |id, line| {
            format!(
                "pool {name} has two servers with quic_id {id:#x}, the other in line {line}; give each its own"
            )
        },
    );
    if servers.is_empty() {
        if !pool.servers.is_broken() && !report.is_incomplete() {
            report.warning(pool.name.at, format!("pool {name} has no servers: it serves nobody"));
        }
        return;
    }
    if servers.iter().all(|server| !server.backup.is_broken() && is_backup(server)) {
        // As OpenStack's installers mark databases (E9).
        report.warning(
            pool.name.at,
            format!("every server of pool {name} is a backup, so they all serve, as if none were; for one at a time, give its VIPs algorithm = \"first\" or persistence \"last-successful\""),
        );
    }
    if servers.iter().all(|server| !server.weight.is_broken() && weight(server) == 0) {
        report
            .warning(pool.name.at, format!("every server of pool {name} has weight 0: none takes new flows"));
    }
}

/// Reports every value of a field that an earlier server has too, if their ports do not tell them apart.
fn check_unique<T: Eq + Hash>(
    report: &Report<'_>,
    servers: &[RawServer],
    field: impl Fn(&RawServer) -> &Field<T>,
    port: impl Fn(&RawServer) -> Option<u16>,
    message: impl Fn(&T, usize) -> String,
) {
    let mut first: HashMap<(&T, Option<u16>), &Located<T>> = HashMap::new();
    for server in servers {
        let Some(located) = field(server).get() else { continue };
        if let Some(other) = first.get(&(&located.value, port(server))) {
            report.error(located.at, message(&located.value, report.line(other.at)));
        } else {
            first.insert((&located.value, port(server)), located);
        }
    }
}

/// What VIPs must know about a pool.
pub(super) struct PoolFacts<'r> {
    pub(super) raw: &'r RawPool,
    /// First server with an IPv4 address.
    pub(super) v4: Option<&'r RawServer>,
    /// First server with an IPv6 address.
    pub(super) v6: Option<&'r RawServer>,
}

/// Pools by name, servers by address.
pub(super) struct Index<'r> {
    pools: HashMap<&'r str, PoolFacts<'r>>,
    servers: HashMap<IpAddr, (&'r RawPool, &'r RawServer)>,
}

impl<'r> Index<'r> {
    pub(super) fn new(pools: &'r [RawPool]) -> Self {
        let mut index = Self { pools: HashMap::new(), servers: HashMap::new() };
        for raw in pools {
            let mut facts = PoolFacts { raw, v4: None, v6: None };
            for server in servers_of(raw) {
                let Some(address) = server.address.value().and_then(Whereabouts::address) else { continue };
                index.servers.entry(address).or_insert((raw, server));
                let first = if address.is_ipv4() { &mut facts.v4 } else { &mut facts.v6 };
                first.get_or_insert(server);
            }
            index.pools.insert(&raw.name.value, facts);
        }
        index
    }

    pub(super) fn pool(&self, name: &str) -> Option<&PoolFacts<'r>> {
        self.pools.get(name)
    }

    /// The first server with this address.
    pub(super) fn server(&self, address: IpAddr) -> Option<(&'r RawPool, &'r RawServer)> {
        self.servers.get(&address).copied()
    }
}
