//! What l7-proxy is to serve: the VIPs of proxied modes with their servers as they are now.
//!
//! Each VIP becomes a service with pools of its own, as health and the operator's word belong to a pair of VIP and server:
//! the service and the VIP's own pool have its name, further pools are `VIP/POOL` ([`select::key`]).

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    time::Duration,
};

use l7_spec as spec;

use super::{
    select::{self, Condition, Rule, Settled},
    steering::{Admin, Steering},
};
use crate::{
    health::Pair,
    model::{Algorithm, Config, Lead, Mode, OnDown, Persistence, Proxy, Server, Tls, Vip},
    snapshot::Health,
};

/// Everything the specification depends on.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// What the operator wants.
    pub config: &'a Config,
    /// What the operator has said for the time being.
    pub steering: &'a Steering,
    /// Which servers are well.
    pub health: &'a dyn Fn(&dyn Pair) -> Health,
}

impl Inputs<'_> {
    fn health_of(&self, vip: &Vip, lead: &Lead<'_>, server: &Server) -> Health {
        (self.health)(&(&*vip.name, &*lead.name_of(&server.name)))
    }
}

/// VIPs that clients were let into before.
pub type Open = BTreeSet<String>;

/// The specification for l7-proxy. `settled` and `open` are brought up to date.
///
/// Nobody is let in before the first check of a server of the VIP's own pool has ended: the service is closed until then. A VIP
/// that clients were let into once is not closed again for it.
#[must_use]
pub fn spec(inputs: &Inputs<'_>, settled: &mut Settled, open: &mut Open) -> spec::Spec {
    let mut spec = of_process(inputs.config);
    let proxied: Vec<_> = inputs.config.services().filter(|(vip, _)| !vip.mode.is_layer4()).collect();
    let names: HashSet<_> = proxied.iter().map(|(vip, _)| vip.name.as_str()).collect();
    open.retain(|name| names.contains(name.as_str()));
    for (vip, leads) in proxied {
        // Its own pool comes first. Those that further pools take time to answer for keep nobody else waiting.
        if !leads.first().is_some_and(|lead| all_unknown(inputs, vip, lead)) {
            open.insert(vip.name.clone());
        }
        let is_open = open.contains(&vip.name);
        let pools = leads.iter().map(|lead| pool_of(inputs, vip, *lead, is_open, settled));
        spec.pools.extend(pools);
        spec.services.push(service(vip, &leads, !is_open || !inputs.steering.is_enabled(&vip.name)));
    }
    spec
}

/// What is for the whole process.
fn of_process(config: &Config) -> spec::Spec {
    let usual = spec::Spec::default();
    let Proxy { workers, limits, admin, cookie_key, grace, drain } = config.proxy.clone();
    spec::Spec {
        log: config.access_log.clone(),
        drain: spec::Drain { grace, timeout: drain.unwrap_or(FAREWELL) },
        workers,
        limits,
        admin,
        cookie_key,
        ..usual
    }
}

/// How long requests may take to finish when everything ends, unless the configuration says.
const FAREWELL: spec::Span = spec::Span::from_secs(10);

/// What a configuration would have served if all were well.
#[must_use]
pub fn of_config(config: &Config) -> spec::Spec {
    let inputs = Inputs { config, steering: &Steering::default(), health: &|_| Health::Up };
    spec(&inputs, &mut Settled::new(), &mut Open::new())
}

/// Whether nothing is known of the servers of a pool. One without servers has nobody to wait for.
fn all_unknown(inputs: &Inputs<'_>, vip: &Vip, lead: &Lead<'_>) -> bool {
    let unknown = |server: &Server| inputs.health_of(vip, lead, server) == Health::Unknown;
    !lead.pool.servers.is_empty() && lead.pool.servers.iter().all(unknown)
}

fn service(vip: &Vip, leads: &[Lead<'_>], closed: bool) -> spec::Service {
    let own = &vip.proxied;
    // The checks of the configuration see to it that every name is found.
    let known = |pool: &String| {
        let lead = leads.iter().find(|lead| lead.pool.name == *pool);
        lead.map_or_else(|| pool.clone(), |lead| select::key(&vip.name, lead))
    };
    spec::Service {
        closed,
        pool: vip.pool.as_ref().map(known),
        fallback_pool: own.fallback_pool.as_ref().map(known),
        routes: own
            .routes
            .iter()
            .map(|route| spec::Route { pool: route.pool.as_ref().map(known), ..route.clone() })
            .collect(),
        sni_routes: own
            .sni_routes
            .iter()
            .map(|route| spec::SniRoute { pool: known(&route.pool), names: route.names.clone() })
            .collect(),
        server_port: vip.server_port,
        tls: vip.tls.as_ref().map(tls),
        headers: own.headers.clone().unwrap_or_default(),
        limits: own.limits.clone().unwrap_or_default(),
        hash_by: own.hash_by.clone().unwrap_or_default(),
        h2c: own.h2c.unwrap_or_default(),
        proxy_protocol_in: own.proxy_protocol.clone(),
        source: own.source.unwrap_or_default(),
        algorithm: algorithm(vip.algorithm),
        persistence: persistence(&vip.persistence),
        redirect: vip.redirect.clone(),
        trusted_proxies: vip
            .trusted_proxies
            .iter()
            .filter_map(|&(address, length)| spec::Network::new(address, length))
            .collect(),
        error_pages: vip.error_pages.clone(),
        timeouts: vip.timeouts.clone(),
        ..spec::Service::new(&vip.name, listen(vip), mode(vip))
    }
}

fn tls(tls: &Tls) -> spec::Tls {
    let usual = spec::Tls::with_certificates(tls.certificates.clone());
    spec::Tls {
        strict: tls.strict.unwrap_or(usual.strict),
        minimum_version: tls.minimum_version.unwrap_or(usual.minimum_version),
        alpn: tls.alpn.clone(),
        client_certificates: tls.client_certificates.clone(),
        handshake_timeout: tls.handshake_timeout.unwrap_or(usual.handshake_timeout),
        refuse_domain_fronting: tls.refuse_domain_fronting.unwrap_or(usual.refuse_domain_fronting),
        ..usual
    }
}

/// The addresses and ports that clients connect to.
#[must_use]
pub fn listen(vip: &Vip) -> Vec<SocketAddr> {
    let ports = vip.ports.ranges().iter().flat_map(|range| range.first..=range.last);
    ports.map(|port| SocketAddr::new(vip.address, port)).collect()
}

fn mode(vip: &Vip) -> spec::Mode {
    if vip.mode == Mode::Http { spec::Mode::Http } else { spec::Mode::Tcp }
}

fn span(time: Duration) -> spec::Span {
    spec::Span::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn algorithm(algorithm: Algorithm) -> spec::Algorithm {
    match algorithm {
        Algorithm::Maglev => spec::Algorithm::Maglev,
        Algorithm::RoundRobin => spec::Algorithm::RoundRobin,
        Algorithm::LeastConnections => spec::Algorithm::LeastConn,
        Algorithm::PowerOfTwo => spec::Algorithm::PowerOfTwo,
        Algorithm::Source => spec::Algorithm::Source,
        Algorithm::First => spec::Algorithm::First,
    }
}

/// The one server of `last-successful` is chosen here ([`select`]), for it must outlive the proxy.
fn persistence(persistence: &Persistence) -> Option<spec::Persistence> {
    match persistence {
        Persistence::None | Persistence::LastSuccessful => None,
        Persistence::SourceIp { timeout, entries } => {
            let mut persistence = spec::Persistence::source_ip(timeout.map(span));
            if let (spec::Persistence::SourceIp { entries: most, .. }, Some(entries)) =
                (&mut persistence, entries)
            {
                *most = *entries;
            }
            Some(persistence)
        }
        Persistence::Cookie(cookie) => Some(spec::Persistence::Cookie(cookie.clone())),
    }
}

fn pool_of(
    inputs: &Inputs<'_>,
    vip: &Vip,
    lead: Lead<'_>,
    is_open: bool,
    settled: &mut Settled,
) -> spec::Pool {
    let (pool, rule) = (lead.pool, Rule::of(vip, &lead));
    let servers = inputs.steering.servers_in(vip, lead);
    // Clients are in already, so they cannot wait for the first checks of a pool that was just added: to try it is better
    // than to refuse them for certain.
    let is_new = is_open && all_unknown(inputs, vip, &lead);
    let health = |server: &Server| match inputs.health_of(vip, &lead, server) {
        Health::Unknown if is_new && !rule.one_for_all => Health::Up,
        health => health,
    };
    let admin = |server: &Server| inputs.steering.state(&(&*vip.name, &*lead.name_of(&server.name)));
    let condition = |server: &Server| match (admin(server), health(server)) {
        (Admin::Ready, Health::Up) => Condition::Usable,
        (Admin::Ready, Health::Unknown) => Condition::Pending,
        _ => Condition::Unusable,
    };
    let conditions: Vec<_> = servers.iter().map(condition).collect();
    let active = select::active(&rule, &servers, pool.min_healthy, &conditions, settled);
    // Where one is for all, the proxy has no choice; elsewhere it has, and knows better when a backup is needed.
    let state = |position: usize, server: &Server| match (admin(server), health(server)) {
        (Admin::Halt, _) => spec::ServerState::Halt,
        (_, Health::Down) if pool.on_down == Some(OnDown::Reset) => spec::ServerState::Halt,
        (_, Health::Down | Health::Unknown) => spec::ServerState::Down,
        (Admin::Drain, Health::Up) => spec::ServerState::Drain,
        _ if active.contains(&position) || (server.backup && !rule.one_for_all) => spec::ServerState::Up,
        // Who is connected to it stays.
        _ => spec::ServerState::Down,
    };
    let entries = servers.iter().enumerate().filter_map(|(position, server)| {
        let entry = spec::Server::new(&server.name, server.address()?);
        let state = state(position, server);
        let Server { port, weight, backup, max_connections, .. } = *server;
        Some(spec::Server { port, weight, backup, max_connections, state, ..entry })
    });
    let usual = spec::Pool::default();
    let own = &pool.proxied;
    spec::Pool {
        name: select::key(&vip.name, &lead),
        title: Some(pool.name.clone()),
        servers: entries.collect(),
        mode: own.mode,
        algorithm: own.algorithm.map(algorithm),
        protocol: own.protocol.unwrap_or(usual.protocol),
        tls: own.tls.clone(),
        proxy_protocol: own.proxy_protocol,
        retries: own.retries.unwrap_or(usual.retries),
        queue: own.queue.unwrap_or(usual.queue),
        slow_start: own.slow_start,
        outliers: own.outliers,
    }
}

/// Which servers of a pool get what is new: those that are up and have a weight, backups while there is no other.
pub fn takers(pool: &spec::Pool) -> impl Iterator<Item = &str> {
    let takes = |server: &&spec::Server| server.state == spec::ServerState::Up && server.weight > 0;
    let regular = pool.servers.iter().filter(takes).any(|server| !server.backup);
    let takers = pool.servers.iter().filter(takes).filter(move |server| !(regular && server.backup));
    takers.map(|server| server.name.as_str())
}

/// What differs between two specifications, if it is only in which state servers are.
#[must_use]
pub fn server_changes(before: &spec::Spec, after: &spec::Spec) -> Option<Vec<spec::ServerChange>> {
    let same_pools = before.pools.len() == after.pools.len()
        && before.pools.iter().zip(&after.pools).all(|(before, after)| {
            let with_states_of = |pool: &spec::Pool| {
                let states = before.servers.iter().map(|server| server.state);
                let servers = pool.servers.iter().cloned().zip(states);
                let servers = servers.map(|(server, state)| spec::Server { state, ..server }).collect();
                spec::Pool { servers, ..pool.clone() }
            };
            before.servers.len() == after.servers.len() && *before == with_states_of(after)
        });
    let same = same_pools
        && before.services == after.services
        && spec::Spec { services: Vec::new(), pools: Vec::new(), ..before.clone() }
            == spec::Spec { services: Vec::new(), pools: Vec::new(), ..after.clone() };
    same.then(|| {
        let pools = before.pools.iter().zip(&after.pools);
        let servers = pools.flat_map(|(before, after)| {
            let servers = before.servers.iter().zip(&after.servers);
            servers.map(|(before, server)| (&after.name, before, server))
        });
        let changed = servers.filter(|(_, before, server)| before.state != server.state);
        let change = |(pool, _, server): (&String, _, &spec::Server)| spec::ServerChange {
            pool: pool.clone(),
            server: server.name.clone(),
            state: server.state,
        };
        changed.map(change).collect()
    })
}
