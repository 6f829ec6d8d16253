//! One service of a specification.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    model::{Action, CookieLine, Edits, Location, Matching, Page, Pages, Ready, Service, routes::plain_host},
    server::Pool,
    spec::{self, Mode, Persistence, Problem, Spec},
    state::State,
    tls::Endpoint,
    wire::HeadLimits,
};

/// A service within its specification.
pub(super) struct Context<'a> {
    pub(super) spec: &'a Spec,
    pub(super) service: &'a spec::Service,
    pub(super) before: Option<&'a Ready>,
    pub(super) workers: usize,
}

impl Context<'_> {
    pub(super) fn service(&self, problems: &mut Vec<Problem>) -> Service {
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
                Action::Pool(pool) => Some((route.names.iter().map(|name| plain_host(name)).collect(), pool)),
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
        let asks_certificates = told.tls.as_ref().is_some_and(|tls| tls.client_certificates.is_some());
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
            edits: Edits::new(&told.headers, asks_certificates, problems),
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
    pub(super) fn before_service(&self) -> Option<&Arc<Service>> {
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
                if matches!(answer.status, 204 | 304)
                    && answer.body.as_ref().is_some_and(|body| !body.is_empty())
                {
                    let problem = format!("an answer with status {} has no body", answer.status);
                    problems.push(Problem::new(place, problem));
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
