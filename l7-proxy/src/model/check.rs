//! From a specification to what is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    thread,
};

use aws_lc_rs::hmac;

use super::{Action, CookieLine, Edits, Location, Matching, Page, Pages, Ready, Service};
use crate::{
    server::{Live, Pool, Server, hash},
    spec::{self, Mode, Persistence, Problem, ServerProtocol, Spec},
    state::State,
    tls::{Endpoint, ToServers},
    wire::HeadLimits,
};

/// Prepares everything that `spec` says. Servers that are in `before` too keep what is known of them.
///
/// # Errors
/// Everything that is wrong with it, in the order of the specification.
pub fn check(spec: &Spec, before: Option<&Ready>) -> Result<Ready, Vec<Problem>> {
    let mut problems = Vec::new();
    let workers = spec
        .workers
        .or(before.map(|before| before.workers))
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, |processors| processors.get()));
    if workers == 0 || workers > 1_024 {
        problems.push(Problem::new("workers", "must be 1 to 1024"));
    }
    pools(spec, &mut problems);
    let mut names = BTreeSet::new();
    let mut listens: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    let mut services = Vec::new();
    for service in &spec.services {
        let place = format!("service {}", service.name);
        let mut found = Vec::new();
        if service.name.is_empty() || !names.insert(&service.name) {
            found.push(Problem::new("name", "must be given and be unique"));
        }
        for address in &service.listen {
            if let Some(other) = listens.insert(*address, &service.name) {
                found.push(Problem::new(
                    "listen",
                    format!("{address} is listened to by service {other} already"),
                ));
            }
        }
        let context = Context { spec, service, before, workers };
        services.push(Arc::new(context.service(&mut found)));
        problems.extend(found.into_iter().map(|problem| problem.within(&place)));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Ready {
        services,
        workers,
        log: spec.log.clone(),
        limits: spec.limits.clone(),
        admin: spec.admin,
        drain: spec.drain,
    })
}

/// What is wrong with pools, whoever leads to them.
fn pools(spec: &Spec, problems: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for pool in &spec.pools {
        let place = format!("pool {}", pool.name);
        let mut wrong = |message: &str| problems.push(Problem::new(&place, message));
        if pool.name.is_empty() || !names.insert(&pool.name) {
            wrong("its name must be given and be unique");
        }
        if pool.protocol == ServerProtocol::Http2 {
            wrong("protocol \"http2\": HTTP/2 towards servers is not spoken yet; use \"http1\"");
        }
        let mut servers = BTreeSet::new();
        for server in &pool.servers {
            if server.name.is_empty() || !servers.insert(&server.name) {
                wrong("the names of its servers must be given and be unique");
            }
        }
    }
}

/// A service within its specification.
struct Context<'a> {
    spec: &'a Spec,
    service: &'a spec::Service,
    before: Option<&'a Ready>,
    workers: usize,
}

impl Context<'_> {
    fn service(&self, problems: &mut Vec<Problem>) -> Service {
        let told = self.service;
        if told.listen.is_empty() {
            problems.push(Problem::new("listen", "must have an address and port"));
        }
        let mut pools = BTreeMap::new();
        let pages = Pages::read(&told.error_pages, problems);
        let routes = (0_usize..).zip(&told.routes).map(|(number, route)| {
            let place = format!("routes[{number}]");
            Matching::new(route, self.route(route, &place, &pages, &mut pools, problems))
        });
        let routes = routes.collect();
        let sni_routes = told.sni_routes.iter().enumerate().filter_map(|(number, route)| {
            match self.pool(&route.pool, &format!("sni_routes[{number}]"), &mut pools, problems) {
                Action::Pool(pool) => {
                    Some((route.names.iter().map(|name| name.to_ascii_lowercase()).collect(), pool))
                }
                _ => None,
            }
        });
        let sni_routes = sni_routes.collect();
        let action = match (&told.redirect, &told.pool) {
            (Some(redirect), None) => redirect_of(redirect, "redirect", problems),
            (None, Some(pool)) => self.pool(pool, "pool", &mut pools, problems),
            (None, None) => Action::Status(404),
            (Some(_), Some(_)) => {
                problems.push(Problem::new("redirect", "leave out either redirect or pool"));
                Action::Status(404)
            }
        };
        let fallback = told.fallback_pool.as_ref().and_then(|name| {
            match self.pool(name, "fallback_pool", &mut pools, problems) {
                Action::Pool(pool) => Some(pool),
                _ => None,
            }
        });
        self.limits(problems);
        let mode = self.mode(problems);
        let before = self.before_service().and_then(|service| service.tls.as_deref());
        let tls = told.tls.as_ref().and_then(|tls| Endpoint::new(tls, mode, before, problems));
        let cookie = match &told.persistence {
            Some(Persistence::Cookie(cookie)) => Some(CookieLine::new(cookie, problems)),
            _ => None,
        };
        if cookie.is_some() && mode == Mode::Tcp {
            problems.push(Problem::new("persistence", "a cookie needs mode http"));
        }
        Service {
            name: told.name.clone(),
            listen: told.listen.iter().copied().collect(),
            mode,
            proxy_protocol: told.proxy_protocol_in.clone(),
            tls: tls.map(Arc::new),
            h2c: told.h2c,
            routes,
            sni_routes,
            action,
            fallback,
            server_port: told.server_port,
            source: told.source,
            edits: Edits::new(&told.headers, problems),
            cookie,
            persistence: told.persistence.clone(),
            trusted: told.trusted_proxies.clone(),
            pages,
            timeouts: told.timeouts.clone(),
            head: HeadLimits {
                bytes: told.limits.header_bytes as usize,
                lines: usize::from(told.limits.header_count),
                target: told.limits.uri_bytes as usize,
            },
            limits: told.limits.clone(),
            state: self
                .before_service()
                .map_or_else(|| Arc::new(State::new(self.workers)), |service| Arc::clone(&service.state)),
            spec: told.clone(),
        }
    }

    /// What is spoken: a `tcp` service that leads to an `http` pool is served per request (R46).
    fn mode(&self, problems: &mut Vec<Problem>) -> Mode {
        let told = self.service;
        let of_pool =
            |name: &String| self.spec.pools.iter().find(|pool| pool.name == *name).and_then(|pool| pool.mode);
        if told.mode == Mode::Http {
            if !told.sni_routes.is_empty() {
                problems.push(Problem::new("sni_routes", "are for mode tcp; use routes with hosts"));
            }
            return Mode::Http;
        }
        let is_http = told.pool.as_ref().and_then(of_pool) == Some(Mode::Http);
        if !told.sni_routes.is_empty() && (is_http || told.tls.is_some()) {
            problems.push(Problem::new(
                "sni_routes",
                "pass TLS on: they need mode tcp without tls and http pools",
            ));
        }
        let others = told.sni_routes.iter().map(|route| &route.pool).chain(&told.fallback_pool);
        for name in others.filter(|name| (of_pool(name) == Some(Mode::Http)) != is_http) {
            problems.push(Problem::new("pool", format!("is of another mode than pool \"{name}\"")));
        }
        let has_routes = !told.routes.is_empty() || told.redirect.is_some();
        if has_routes && !is_http {
            problems.push(Problem::new("routes", "and redirect need mode http"));
        }
        if is_http { Mode::Http } else { Mode::Tcp }
    }

    /// The service of this name that is served already.
    fn before_service(&self) -> Option<&Arc<Service>> {
        self.before?.services.iter().find(|service| service.name == self.service.name)
    }

    fn limits(&self, problems: &mut Vec<Problem>) {
        let limits = &self.service.limits;
        if !(1_024..=1 << 24).contains(&limits.header_bytes) {
            problems.push(Problem::new("limits.header_bytes", "must be 1024 to 16777216"));
        }
        if limits.client_bits_v4 > 32 || limits.client_bits_v6 > 128 {
            problems.push(Problem::new("limits.client_bits", "an address has no so many bits"));
        }
    }

    fn route(
        &self,
        route: &spec::Route,
        place: &str,
        pages: &Pages,
        pools: &mut BTreeMap<String, Arc<Pool>>,
        problems: &mut Vec<Problem>,
    ) -> Action {
        match (&route.pool, &route.redirect, &route.answer) {
            (Some(pool), None, None) => self.pool(pool, place, pools, problems),
            (None, Some(redirect), None) => redirect_of(redirect, place, problems),
            (None, None, Some(answer)) => {
                if !(200..600).contains(&answer.status) {
                    problems
                        .push(Problem::new(place, format!("{} is no status of an answer", answer.status)));
                }
                if !answer.content_type.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                    problems.push(Problem::new(place, "content_type is not visible ASCII"));
                }
                match &answer.body {
                    None if pages.has(answer.status) => Action::Answer(pages.get(answer.status)),
                    body => Action::Answer(Page::with_body(
                        answer.status,
                        &answer.content_type,
                        body.clone().unwrap_or_default(),
                    )),
                }
            }
            _ => {
                problems.push(Problem::new(place, "needs exactly one of pool, redirect and answer"));
                Action::Status(404)
            }
        }
    }

    fn pool(
        &self,
        name: &str,
        place: &str,
        pools: &mut BTreeMap<String, Arc<Pool>>,
        problems: &mut Vec<Problem>,
    ) -> Action {
        if let Some(pool) = pools.get(name) {
            return Action::Pool(Arc::clone(pool));
        }
        let Some(told) = self.spec.pools.iter().find(|pool| pool.name == name) else {
            problems.push(Problem::new(place, format!("there is no pool \"{name}\"")));
            return Action::Status(503);
        };
        if self.service.mode == Mode::Http && told.mode == Some(Mode::Tcp) {
            problems.push(Problem::new(
                place,
                format!("pool \"{name}\" has mode tcp, which cannot serve mode http"),
            ));
        }
        let servers = told.servers.iter().map(|server| self.server(told, server)).collect();
        let algorithm = told.algorithm.unwrap_or(self.service.algorithm);
        let mut pool = Pool::new(told, servers, algorithm, self.service.hash_by.clone());
        let mut found = Vec::new();
        pool.tls = told.tls.as_ref().and_then(|tls| ToServers::new(tls, &[], &mut found));
        problems.extend(found.into_iter().map(|problem| problem.within(&format!("pool {name}"))));
        let pool = Arc::new(pool);
        pools.insert(name.to_owned(), Arc::clone(&pool));
        Action::Pool(pool)
    }

    fn server(&self, pool: &spec::Pool, told: &spec::Server) -> Server {
        let port = told.port.or(self.service.server_port);
        let live =
            self.known(pool, told, port).unwrap_or_else(|| Arc::new(Live::new(told.state, self.workers)));
        live.set_state(told.state, crate::server::now());
        Server {
            name: told.name.clone(),
            address: told.address,
            port,
            weight: told.weight,
            backup: told.backup,
            most: told.max_connections,
            cookie: self.cookie_value(pool, told),
            seed: hash(format!("{}/{port:?}", told.address).as_bytes()),
            live,
        }
    }

    /// What was known of the same server, if its connections would be made in the same way.
    fn known(&self, pool: &spec::Pool, told: &spec::Server, port: Option<u16>) -> Option<Arc<Live>> {
        let before = self.before_service()?;
        if before.source != self.service.source
            || before.timeouts.server_idle != self.service.timeouts.server_idle
        {
            return None;
        }
        let pools = before.pools();
        let same = pools.into_iter().find(|other| {
            other.name == pool.name
                && other.proxy_protocol == pool.proxy_protocol
                && other.tls_told == pool.tls
        })?;
        let server = same.servers.iter().find(|server| {
            server.name == told.name && server.address == told.address && server.port == port
        })?;
        Some(Arc::clone(&server.live))
    }

    /// The value of the cookie that names a server: nobody can tell the server from it without the key.
    fn cookie_value(&self, pool: &spec::Pool, server: &spec::Server) -> String {
        let secret = self.spec.cookie_key.as_deref().unwrap_or("l7-proxy");
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, format!("{}\0{}", pool.name, server.name).as_bytes());
        tag.as_ref().iter().take(10).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn redirect_of(redirect: &spec::Redirect, place: &str, problems: &mut Vec<Problem>) -> Action {
    if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
        problems.push(Problem::new(
            place,
            format!("{} is no status of a redirect: use 301, 302, 303, 307 or 308", redirect.status),
        ));
    }
    if redirect.scheme.is_none()
        && redirect.host.is_none()
        && redirect.port.is_none()
        && redirect.path.is_none()
    {
        problems.push(Problem::new(place, "leads nowhere else: give scheme, host, port or path"));
    }
    let visible = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !redirect.host.iter().chain(&redirect.path).all(visible) {
        problems.push(Problem::new(place, "host and path must be visible ASCII"));
    }
    Action::Redirect(Location::from(redirect))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str) -> String {
        let problems = check(&Spec::from_json(json).unwrap(), None).err().unwrap_or_default();
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let told = problems(
            r#"{ "services": [
                { "name": "a", "listen": ["127.0.0.1:80"], "mode": "http", "pool": "x", "error_pages": { "503": "/nowhere" } },
                { "name": "a", "listen": ["127.0.0.1:80"], "mode": "http", "routes": [{ "paths": ["/"] }],
                  "headers": { "set_request": [{ "name": "Host", "value": "x" }, { "name": "A B", "value": "" }] } }],
              "pools": [{ "name": "p", "protocol": "http2", "servers": [] }] }"#,
        );
        for part in [
            "pool p: protocol \"http2\"",
            "service a: pool: there is no pool \"x\"",
            "service a: error_pages.503: cannot read /nowhere",
            "service a: name: must be given and be unique",
            "service a: listen: 127.0.0.1:80 is listened to by service a already",
            "service a: routes[0]: needs exactly one of",
            "\"Host\" says how messages are framed",
            "\"A B\" is no name",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
    }

    #[test]
    fn servers_that_stay_keep_what_is_known_of_them() {
        let text = |weight: u16, port: u16| {
            format!(
                r#"{{ "services": [{{ "name": "a", "listen": ["127.0.0.1:80"], "mode": "http", "pool": "p" }}],
                  "pools": [{{ "name": "p", "servers": [{{ "name": "s", "address": "127.0.0.1", "port": {port}, "weight": {weight} }}] }}] }}"#
            )
        };
        let ready = |weight, port, before: Option<&Ready>| {
            check(&Spec::from_json(&text(weight, port)).unwrap(), before).unwrap()
        };
        let live = |ready: &Ready| Arc::clone(&ready.services[0].pools()[0].servers[0].live);
        let first = ready(1, 8_000, None);
        let second = ready(2, 8_000, Some(&first));
        let third = ready(2, 8_001, Some(&second));
        assert!(Arc::ptr_eq(&live(&first), &live(&second)));
        assert!(!Arc::ptr_eq(&live(&second), &live(&third)), "another port is another server");
    }

    #[test]
    fn the_value_of_a_cookie_is_stable_and_says_nothing() {
        let spec = Spec::from_json(
            r#"{ "services": [{ "name": "a", "listen": ["127.0.0.1:80"], "mode": "http", "pool": "p" }], "cookie_key": "k",
                 "pools": [{ "name": "p", "servers": [{ "name": "web1", "address": "10.1.2.3" }] }] }"#,
        )
        .unwrap();
        let value = |spec: &Spec| check(spec, None).unwrap().services[0].pools()[0].servers[0].cookie.clone();
        let with_key = value(&spec);
        assert_eq!(with_key, value(&spec));
        assert!(!with_key.contains("web1") && with_key.len() == 20);
        assert_ne!(with_key, value(&Spec { cookie_key: Some("other".into()), ..spec }));
    }
}
