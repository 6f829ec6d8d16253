//! One VIP: what it inherits, and which keys fit to its mode.

use std::{net::IpAddr, time::Duration};

use super::{
    health, odd, options,
    pools::{Index, PoolFacts, servers_of},
    proxy::span,
    quic,
    routes::{self, Named},
};
use crate::{
    config::{
        outside::Role,
        raw::{RawConfig, RawHealth, RawNamedVip, RawTimeouts, RawTls, RawVip},
        reader::{Broken, Field, Located},
        report::{Place, Report},
        words::{choices, names, nearest, quote},
    },
    model::{Algorithm, HealthCheck, Mode, Persistence, Ports, Protocol, ProxiedVip, Tls, Vip},
};

pub(super) const LAYER4: [Mode; 5] = [Mode::Snat, Mode::Nat, Mode::Dr, Mode::Ipip, Mode::Gue];
pub(super) const PROXIED: [Mode; 2] = [Mode::Http, Mode::Tcp];
const HTTP: [Mode; 1] = [Mode::Http];

/// The keys of a VIP, its own or from `[vip_defaults]`.
pub(super) struct Inherited<'r> {
    pub(super) raw: &'r RawNamedVip,
    pub(super) address: &'r Field<IpAddr>,
    pub(super) port: &'r Field<Ports>,
    pub(super) protocol: &'r Field<Protocol>,
    pub(super) mode: &'r Field<Mode>,
    pub(super) pool: &'r Field<String>,
    redirect: &'r Field<l7_spec::Redirect>,
    defaults: &'r RawVip,
}

impl<'r> Inherited<'r> {
    pub(super) fn new(raw: &'r RawNamedVip, defaults: &'r RawVip) -> Self {
        let own = &raw.own;
        // A VIP's own redirect stands against an inherited pool, and the other way round.
        let (pool, redirect) = match (own.pool.is_absent(), own.redirect.is_absent()) {
            (true, true) => (&defaults.pool, &defaults.redirect),
            (false, true) => (&own.pool, &Field::Absent),
            (true, false) => (&Field::Absent, &own.redirect),
            (false, false) => (&own.pool, &own.redirect),
        };
        Self {
            raw,
            address: own.address.or(&defaults.address),
            port: own.port.or(&defaults.port),
            protocol: own.protocol.or(&defaults.protocol),
            mode: own.mode.or(&defaults.mode),
            pool,
            redirect,
            defaults,
        }
    }

    pub(super) fn name(&self) -> &'r str {
        &self.raw.name.value
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.value().copied().unwrap_or(Protocol::Tcp)
    }

    /// The pools that it names beside its own, wherever: some may be named twice.
    pub(super) fn named_pools(&self) -> Vec<Named<'r>> {
        let routes = self.key(|keys| &keys.routes).value().into_iter().flatten();
        let of_routes = routes.filter_map(|route| Some((route.value.pool.as_ref()?, route.at)));
        let sni_routes = self.key(|keys| &keys.sni_routes).value().into_iter().flatten();
        let of_sni_routes = sni_routes.map(|route| (&route.value.pool, route.at));
        let fallback = self.key(|keys| &keys.fallback_pool).get().map(|pool| (&pool.value, pool.at));
        let named = of_routes.chain(of_sni_routes).chain(fallback);
        named.map(|(pool, at)| Named { pool, at }).collect()
    }

    /// The names of all pools that it leads to, its own first, each once.
    pub(super) fn pools(&self) -> Vec<&'r str> {
        let mut pools: Vec<_> = self.pool.value().map(String::as_str).into_iter().collect();
        for Named { pool, .. } in self.named_pools() {
            if !pools.contains(&pool) {
                pools.push(pool);
            }
        }
        pools
    }

    /// Whether it may lead to pools that nobody knows, because what names them is wrong.
    pub(super) fn has_broken_pool(&self) -> bool {
        let routes =
            self.key(|keys| &keys.routes).is_broken() || self.key(|keys| &keys.sni_routes).is_broken();
        self.pool.is_broken() || routes || self.key(|keys| &keys.fallback_pool).is_broken()
    }

    pub(super) fn default_health(&self) -> &'r RawHealth {
        &self.defaults.health
    }

    /// Whichever of the two a key is written in.
    pub(super) fn key<T>(&self, of: impl Fn(&'r RawVip) -> &'r Field<T>) -> &'r Field<T> {
        of(&self.raw.own).or(of(self.defaults))
    }
}

/// Builds a VIP and reports what does not fit together in it.
pub(super) fn build(
    report: &Report<'_>,
    raw: &RawConfig,
    index: &Index<'_>,
    vip: &Inherited<'_>,
) -> Option<Vip> {
    let error = |place: Place, problem: String| report.vip_error(place, vip.name(), problem);
    check_needed(report, vip);
    check_mode(vip, routes::speaks(vip, index), &error);
    routes::check(report, raw, index, vip, &error);
    check_server_port(vip, &error);
    let pool = find_pool(report, raw, index, vip);
    if let Ok(Some(pool)) = pool {
        check_families(report, vip, pool);
        check_ports_of_servers(vip, pool, &error);
    }

    quic::check(report, vip, pool.ok().flatten(), &error);
    options::check(vip, &error);

    let health = health_of(report, raw, vip, pool.ok().flatten(), &error);
    options::check_probed_port(vip, &health, &error);
    odd::of_vip(report, vip, pool.ok().flatten(), &health);
    mention_files(report, vip);

    Some(Vip {
        name: vip.name().to_owned(),
        address: *vip.address.value()?,
        ports: vip.port.value()?.clone(),
        protocol: vip.protocol(),
        mode: *vip.mode.value()?,
        pool: vip.pool.value().cloned(),
        server_port: vip.key(|keys| &keys.server_port).value().copied(),
        persistence: vip.key(|keys| &keys.persistence).value().cloned().unwrap_or(Persistence::None),
        algorithm: vip.key(|keys| &keys.algorithm).value().copied().unwrap_or_else(|| usual_algorithm(vip)),
        empty: options::empty(vip),
        max_new_flows: options::max_new_flows(vip),
        mss: options::mss(vip),
        flow_state: options::flow_state(vip),
        gue_port: options::gue_port(vip),
        health,
        tls: vip.key(|keys| &keys.tls).value().map(tls),
        redirect: vip.redirect.value().cloned(),
        trusted_proxies: vip.key(|keys| &keys.trusted_proxies).value().cloned().unwrap_or_default(),
        timeouts: timeouts(vip),
        proxied: ProxiedVip {
            headers: vip.key(|keys| &keys.headers).value().cloned(),
            limits: vip.key(|keys| &keys.limits).value().cloned(),
            hash_by: vip.key(|keys| &keys.hash_by).value().cloned(),
            h2c: vip.key(|keys| &keys.h2c).value().copied(),
            proxy_protocol: vip.key(|keys| &keys.proxy_protocol).value().cloned(),
            source: vip.key(|keys| &keys.source).value().copied(),
            routes: values(vip.key(|keys| &keys.routes)),
            sni_routes: values(vip.key(|keys| &keys.sni_routes)),
            fallback_pool: vip.key(|keys| &keys.fallback_pool).value().cloned(),
            further: routes::further(report, raw, index, vip, &error),
        },
        error_pages: [&vip.defaults.error_pages, &vip.raw.own.error_pages]
            .into_iter()
            .filter_map(Field::value)
            .flatten()
            .map(|(status, file)| (*status, file.value.clone()))
            .collect(),
        quic: vip.key(|keys| &keys.quic).value().cloned().unwrap_or_default(),
    })
}

fn values<T: Clone>(list: &Field<Vec<Located<T>>>) -> Vec<T> {
    list.value().into_iter().flatten().map(|one| one.value.clone()).collect()
}

/// In the kernel every balancer must choose alike for a flow; a proxy gives each server its turn.
fn usual_algorithm(vip: &Inherited<'_>) -> Algorithm {
    let proxied = vip.mode.value().is_some_and(|mode| PROXIED.contains(mode));
    if proxied { Algorithm::RoundRobin } else { Algorithm::Maglev }
}

fn tls(raw: &RawTls) -> Tls {
    Tls {
        certificates: raw.certificates.iter().map(|file| file.value.clone()).collect(),
        strict: raw.strict.value().copied(),
        minimum_version: raw.minimum_version.value().copied(),
        alpn: raw.alpn.value().cloned(),
        client_certificates: raw.client_certificates.value().cloned(),
        handshake_timeout: raw.handshake_timeout.value().copied().map(span),
        refuse_domain_fronting: raw.refuse_domain_fronting.value().copied(),
    }
}

/// The check of a VIP's servers.
fn health_of(
    report: &Report<'_>,
    raw: &RawConfig,
    vip: &Inherited<'_>,
    pool: Option<&PoolFacts<'_>>,
    error: &impl Fn(Place, String),
) -> HealthCheck {
    let no_pool = RawHealth::default();
    let inherited = health::inherit(pool.map_or(&no_pool, |pool| &pool.raw.health), &raw.health);
    let own = health::inherit(&vip.raw.own.health, &vip.defaults.health);
    let holds = health::inherit(&own, &inherited);
    // What [vip_defaults.health] says for one kind of check is for the VIPs that have it; the others do without.
    health::check_special_keys(&vip.raw.own.health, &holds, error);
    health::check_times(report, &own, &holds, error);
    health::check_whole(&holds, error);
    if let Some((file, role)) = health::file(&holds) {
        report.mention(file.at, role, &file.value, vip.name());
    }
    health::resolve(&holds)
}

/// Times after which it gives up, each the VIP's own, the inherited one, or the usual one.
fn timeouts(vip: &Inherited<'_>) -> l7_spec::Timeouts {
    let usual = l7_spec::Timeouts::default();
    let one = |of: fn(&RawTimeouts) -> &Field<Duration>| {
        let [own, default] =
            [&vip.raw.own, vip.defaults].map(|keys| keys.timeouts.value().and_then(|all| of(all).value()));
        own.or(default).copied().map(span)
    };
    l7_spec::Timeouts {
        client_idle: one(|all| &all.client_idle).unwrap_or(usual.client_idle),
        request_header: one(|all| &all.request_header).unwrap_or(usual.request_header),
        request_body: one(|all| &all.request_body).unwrap_or(usual.request_body),
        client_write: one(|all| &all.client_write).unwrap_or(usual.client_write),
        connect: one(|all| &all.connect).unwrap_or(usual.connect),
        response: one(|all| &all.response).unwrap_or(usual.response),
        response_body: one(|all| &all.response_body).unwrap_or(usual.response_body),
        server_idle: one(|all| &all.server_idle).unwrap_or(usual.server_idle),
        tunnel: one(|all| &all.tunnel).unwrap_or(usual.tunnel),
        queue: one(|all| &all.queue).unwrap_or(usual.queue),
        lifetime: one(|all| &all.lifetime),
    }
}

/// Address, port and mode must come from somewhere.
fn check_needed(report: &Report<'_>, vip: &Inherited<'_>) {
    if report.is_incomplete() {
        return;
    }
    let missing = [
        (vip.address.is_absent(), "an address", r#"address = "192.0.2.10""#),
        (vip.port.is_absent(), "a port", "port = 80"),
        (vip.mode.is_absent(), "a mode", r#"mode = "snat" (or "nat", "dr", "ipip", "gue", "http", "tcp")"#),
    ];
    for (_, what, example) in missing.into_iter().filter(|(is_missing, ..)| *is_missing) {
        let problem = format!("{what} is missing; add {example} here or in [vip_defaults]");
        report.vip_error(vip.raw.name.at, vip.name(), problem);
    }
}

/// Keys that only some modes have.
fn check_mode(vip: &Inherited<'_>, speaks: Option<Mode>, error: &impl Fn(Place, String)) {
    let (Some(&mode), Some(speaks)) = (vip.mode.value(), speaks) else { return };
    let needs =
        |place: Option<Place>, what: &str, modes: &[Mode]| needs_mode(mode, place, what, modes, error);
    needs(place(vip.key(|keys| &keys.tls)), "tls", &PROXIED);
    needs(place(vip.key(|keys| &keys.timeouts)), "timeouts", &PROXIED);
    needs(place(vip.key(|keys| &keys.limits)), "limits", &PROXIED);
    needs(place(vip.key(|keys| &keys.proxy_protocol)), "proxy_protocol", &PROXIED);
    needs(place(vip.key(|keys| &keys.source)), "source", &PROXIED);
    needs(place(vip.key(|keys| &keys.fallback_pool)), "fallback_pool", &PROXIED);
    let http = |place: Option<Place>, what: &str| needs_mode(speaks, place, what, &HTTP, error);
    http(place(vip.key(|keys| &keys.headers)), "headers");
    http(place(vip.key(|keys| &keys.hash_by)), "hash_by");
    http(place(vip.key(|keys| &keys.h2c)), "h2c");
    http(place(vip.key(|keys| &keys.trusted_proxies)), "trusted_proxies");
    http(place(vip.key(|keys| &keys.error_pages)), "error_pages");
    http(place(vip.key(|keys| &keys.routes)), "routes");
    http(place(vip.redirect), "redirect");
    needs(place(vip.key(|keys| &keys.sni_routes)), "sni_routes", &[Mode::Tcp]);
    let persistence = |is: fn(&Persistence) -> bool| {
        let persistence = vip.key(|keys| &keys.persistence).get();
        persistence.filter(|persistence| is(&persistence.value)).map(|persistence| persistence.at)
    };
    http(persistence(|kind| matches!(kind, Persistence::Cookie(_))), "persistence of type \"cookie\"");
    let limited = persistence(|kind| matches!(kind, Persistence::SourceIp { entries: Some(_), .. }));
    needs(limited, "persistence with entries", &PROXIED);
    let algorithm = vip.key(|keys| &keys.algorithm).get();
    let algorithm = algorithm.filter(|algorithm| algorithm.value == Algorithm::PowerOfTwo);
    needs(algorithm.map(|algorithm| algorithm.at), "algorithm \"power-of-two\"", &PROXIED);
    let udp = vip.protocol.get().filter(|protocol| protocol.value == Protocol::Udp);
    needs(udp.map(|protocol| protocol.at), "protocol \"udp\"", &LAYER4);
    if let (Some(_), Some(redirect)) = (vip.pool.get(), vip.redirect.get()) {
        error(redirect.key, "a redirect answers by itself and needs no pool; remove redirect or pool".into());
    }
}

/// Reports a key, written at `place`, that only these modes have.
pub(super) fn needs_mode(
    mode: Mode,
    place: Option<Place>,
    what: &str,
    modes: &[Mode],
    error: &impl Fn(Place, String),
) {
    if let Some(place) = place
        && !modes.contains(&mode)
    {
        let shown: Vec<String> = modes.iter().map(Mode::to_string).collect();
        let modes = choices(shown.iter().map(String::as_str));
        error(place, format!("{what} needs mode {modes}, but the mode is \"{mode}\""));
    }
}

/// Where the key of a field was written.
pub(super) fn place<T>(field: &Field<T>) -> Option<Place> {
    field.get().map(|located| located.key)
}

fn check_server_port(vip: &Inherited<'_>, error: &impl Fn(Place, String)) {
    let server_port = vip.key(|keys| &keys.server_port).get();
    let (Some(mode), Some(ports), Some(server_port)) = (vip.mode.value(), vip.port.value(), server_port)
    else {
        return;
    };
    if matches!(mode, Mode::Dr | Mode::Ipip | Mode::Gue) && ports.single() != Some(server_port.value) {
        error(
            server_port.at,
            format!(
                "mode \"{mode}\" cannot change the port {ports} to server_port {}; remove server_port, or use mode \
                 \"snat\" or \"nat\"",
                server_port.value
            ),
        );
    }
}

/// The pool of a VIP; none where it needs none or where that it has none was reported.
fn find_pool<'i, 'r>(
    report: &Report<'_>,
    raw: &RawConfig,
    index: &'i Index<'r>,
    vip: &Inherited<'_>,
) -> Result<Option<&'i PoolFacts<'r>>, Broken> {
    let Some(name) = vip.pool.known()? else {
        let mode = vip.mode.value().ok_or(Broken)?;
        // A redirect in a mode that has none was reported; the pool is not what is wrong then.
        let leads_elsewhere = !vip.redirect.is_absent() || !vip.pools().is_empty() || vip.has_broken_pool();
        let answers = vip.key(|keys| &keys.routes).value().is_some_and(|routes| !routes.is_empty());
        if !leads_elsewhere && !answers && !report.is_incomplete() {
            let instead = if *mode == Mode::Http { " or redirect = { scheme = \"https\" }" } else { "" };
            let problem = format!("mode \"{mode}\" needs a pool; add pool = \"NAME\"{instead}");
            report.vip_error(vip.raw.name.at, vip.name(), problem);
        }
        return Ok(None);
    };
    if let Some(pool) = index.pool(&name.value) {
        return Ok(Some(pool));
    }
    if !report.is_incomplete() {
        report.vip_error(name.at, vip.name(), unknown_pool(raw, &name.value));
    }
    Err(Broken)
}

pub(super) fn unknown_pool(raw: &RawConfig, name: &str) -> String {
    let pools = || raw.pools.iter().map(|pool| pool.name.value.as_str());
    let hint = match nearest(name, pools()) {
        Some(near) => format!("; did you mean {near:?}?"),
        None if raw.pools.is_empty() => ", nor any other; add [pool.NAME] with its servers".into(),
        None => format!("; the pools are {}", names(pools().collect::<Vec<_>>().into_iter(), 8)),
    };
    format!("there is no pool {}{hint}", quote(name))
}

/// The kernel program does not translate between IPv4 and IPv6. Tunnels carry either through either.
fn check_families(report: &Report<'_>, vip: &Inherited<'_>, pool: &PoolFacts<'_>) {
    let (Some(address), Some(mode)) = (vip.address.get(), vip.mode.value()) else { return };
    let (family, other, server) =
        if address.value.is_ipv4() { ("IPv4", "IPv6", pool.v6) } else { ("IPv6", "IPv4", pool.v4) };
    let Some(server) = server.filter(|_| mode.is_layer4() && !mode.is_tunnel()) else { return };
    let (Some(name), Some(server)) = (server.name.value(), server.address.get()) else { return };
    let problem = format!(
        "its address {} is {family}, but server {name:?} of pool {:?} (line {}) is {other}; mode \"{mode}\" cannot \
         translate; modes \"ipip\", \"gue\", \"http\" and \"tcp\" can reach it",
        address.value,
        pool.raw.name.value,
        report.line(server.at)
    );
    report.vip_error(address.at, vip.name(), problem);
}

/// The kernel program knows one port for all servers of a VIP.
fn check_ports_of_servers(vip: &Inherited<'_>, pool: &PoolFacts<'_>, error: &impl Fn(Place, String)) {
    let Some(mode) = vip.mode.value().filter(|mode| mode.is_layer4()) else { return };
    if let Some(port) = servers_of(pool.raw).iter().find_map(|server| server.port.get()) {
        error(
            port.key,
            format!(
                "port of a server in pool {} needs mode \"http\" or \"tcp\", but the mode is \"{mode}\"; write server_port \
                 in the VIP",
                quote(&pool.raw.name.value)
            ),
        );
    }
}

/// The files that l7-proxy reads for a VIP.
fn mention_files(report: &Report<'_>, vip: &Inherited<'_>) {
    for file in vip.key(|keys| &keys.tls).value().into_iter().flat_map(|tls| &tls.certificates) {
        report.mention(file.at, Role::Certificate, &file.value, vip.name());
    }
    let own = vip.raw.own.error_pages.value();
    let inherited = vip.defaults.error_pages.value().into_iter().flatten();
    let inherited =
        inherited.filter(|(status, _)| !own.is_some_and(|own| own.iter().any(|(other, _)| other == status)));
    for (status, file) in own.into_iter().flatten().chain(inherited) {
        report.mention(file.at, Role::ErrorPage(*status), &file.value, vip.name());
    }
}
