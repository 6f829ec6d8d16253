//! What l7-proxy is to serve: the VIPs of proxied modes with their servers as they are now.
//!
//! Each VIP becomes a service with a pool of its own, both of its name, as health and the operator's word belong to a pair
//! of VIP and server.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use l7_spec as spec;

use super::{
    select::{self, Condition, Settled},
    steering::{Admin, Steering},
};
use crate::{
    health::TargetId,
    model::{Algorithm, Config, Mode, OnDown, Persistence, Pool, Scheme, Server, Timeouts, Tls, Vip},
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
    pub health: &'a dyn Fn(&TargetId) -> Health,
}

/// VIPs that clients were let into before.
pub type Open = BTreeSet<String>;

/// The specification for l7-proxy. `settled` and `open` are brought up to date.
///
/// Nobody is let in before the first check of a server has ended: they wait to be accepted, as for layer 4 they wait for an
/// answer to their SYN. Who was let in once is not kept waiting again.
#[must_use]
pub fn spec(inputs: &Inputs<'_>, settled: &mut Settled, open: &mut Open) -> spec::Spec {
    let mut spec = spec::Spec { log: inputs.config.access_log.clone(), ..spec::Spec::default() };
    open.retain(|name| inputs.config.vips.iter().any(|vip| vip.name == *name && !vip.mode.is_layer4()));
    for vip in inputs.config.vips.iter().filter(|vip| !vip.mode.is_layer4()) {
        let pool = inputs.config.pool_of(vip).map(|pool| pool_of(inputs, vip, pool, settled));
        let waits = pool.is_some() && all_unknown(inputs, vip);
        if !waits {
            open.insert(vip.name.clone());
        }
        let may_enter = inputs.steering.is_enabled(&vip.name) && open.contains(&vip.name);
        spec.services.push(service(vip, !may_enter));
        spec.pools.extend(pool);
    }
    spec
}

/// What a configuration would have served if all were well.
#[must_use]
pub fn of_config(config: &Config) -> spec::Spec {
    let inputs = Inputs { config, steering: &Steering::default(), health: &|_| Health::Up };
    spec(&inputs, &mut Settled::new(), &mut Open::new())
}

fn all_unknown(inputs: &Inputs<'_>, vip: &Vip) -> bool {
    let unknown = |server: &Server| (inputs.health)(&id(vip, server)) == Health::Unknown;
    inputs.config.servers_of(vip).iter().all(unknown)
}

fn id(vip: &Vip, server: &Server) -> TargetId {
    TargetId { vip: vip.name.clone(), server: server.name.clone() }
}

fn service(vip: &Vip, closed: bool) -> spec::Service {
    let defaults = spec::Timeouts::default();
    let Timeouts { client_idle, server_idle, tunnel } = vip.timeouts;
    let own = &vip.proxied;
    let span = |own: Option<Duration>, default| own.map_or(default, span);
    spec::Service {
        closed,
        pool: vip.pool.clone().map(|_| vip.name.clone()),
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
        redirect: vip.redirect.as_ref().map(|redirect| {
            spec::Redirect::to_scheme(match redirect.scheme {
                Scheme::Http => spec::Scheme::Http,
                Scheme::Https => spec::Scheme::Https,
            })
        }),
        trusted_proxies: vip
            .trusted_proxies
            .iter()
            .filter_map(|&(address, length)| spec::Network::new(address, length))
            .collect(),
        error_pages: vip.error_pages.clone(),
        timeouts: spec::Timeouts {
            client_idle: span(client_idle, defaults.client_idle),
            server_idle: span(server_idle, defaults.server_idle),
            tunnel: span(tunnel, defaults.tunnel),
            ..defaults
        },
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
        Algorithm::Source => spec::Algorithm::Source,
        Algorithm::First => spec::Algorithm::First,
    }
}

/// The one server of `last-successful` is chosen here ([`select`]), for it must outlive the proxy.
fn persistence(persistence: &Persistence) -> Option<spec::Persistence> {
    match persistence {
        Persistence::None | Persistence::LastSuccessful => None,
        Persistence::SourceIp { timeout } => Some(spec::Persistence::source_ip(timeout.map(span))),
        Persistence::Cookie { name } => Some(spec::Persistence::Cookie(spec::CookiePersistence::named(name))),
    }
}

fn pool_of(inputs: &Inputs<'_>, vip: &Vip, pool: &Pool, settled: &mut Settled) -> spec::Pool {
    let servers = inputs.steering.servers_of(inputs.config, vip);
    let health = |server: &Server| (inputs.health)(&id(vip, server));
    let admin = |server: &Server| inputs.steering.state(&id(vip, server));
    let condition = |server: &Server| match (admin(server), health(server)) {
        (Admin::Ready, Health::Up) => Condition::Usable,
        (Admin::Ready, Health::Unknown) => Condition::Pending,
        _ => Condition::Unusable,
    };
    let active = select::active(vip, &servers, pool.min_healthy, condition, settled);
    // Where one is for all, the proxy has no choice; elsewhere it has, and knows better when a backup is needed.
    let one_for_all = vip.persistence == Persistence::LastSuccessful || vip.algorithm == Algorithm::First;
    let state = |position: usize, server: &Server| match (admin(server), health(server)) {
        (Admin::Halt, _) => spec::ServerState::Halt,
        (_, Health::Down) if pool.on_down == Some(OnDown::Reset) => spec::ServerState::Halt,
        (_, Health::Down | Health::Unknown) => spec::ServerState::Down,
        (Admin::Drain, Health::Up) => spec::ServerState::Drain,
        _ if active.contains(&position) || (server.backup && !one_for_all) => spec::ServerState::Up,
        // Who is connected to it stays.
        _ => spec::ServerState::Down,
    };
    let entries = servers.iter().enumerate().filter_map(|(position, server)| {
        let entry = spec::Server::new(&server.name, server.address()?);
        let state = state(position, server);
        let max_connections = server.max_connections;
        Some(spec::Server { weight: server.weight, backup: server.backup, max_connections, state, ..entry })
    });
    let usual = spec::Pool::default();
    let own = &pool.proxied;
    spec::Pool {
        name: vip.name.clone(),
        servers: entries.collect(),
        protocol: own.protocol.unwrap_or(usual.protocol),
        tls: own.tls.clone(),
        proxy_protocol: own.proxy_protocol,
        retries: own.retries.unwrap_or(usual.retries),
        queue: own.queue.unwrap_or(usual.queue),
        slow_start: own.slow_start,
        outliers: own.outliers,
        ..usual
    }
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
