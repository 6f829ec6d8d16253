//! Where the requests and connections of a proxied VIP go beside its own pool: routes, and the pool to fall back to.

use std::collections::HashMap;

use l7_spec::{Answer, Mode as Spoken, Redirect, Route, ServerProtocol, SniRoute};

use super::{
    health, options,
    pools::{Index, PoolFacts},
    vips::{Inherited, unknown_pool},
};
use crate::{
    config::{
        raw::RawConfig,
        reader::Located,
        report::{Place, Report},
        values::{REDIRECTS, no_redirect, unfit_host},
        words::quote,
    },
    model::{Further, Mode},
};

/// A pool that is named somewhere in a VIP.
pub(super) struct Named<'r> {
    pub(super) pool: &'r str,
    pub(super) at: Place,
}

/// Reports what is wrong with the routes of a VIP, and with the pools that it leads to.
pub(super) fn check(
    report: &Report<'_>,
    raw: &RawConfig,
    index: &Index<'_>,
    vip: &Inherited<'_>,
    error: &impl Fn(Place, String),
) {
    let routes = vip.key(|keys| &keys.routes);
    if let Some(routes) = routes.value() {
        check_routes(report, vip.name(), routes, error);
    }
    let sni_routes = vip.key(|keys| &keys.sni_routes);
    if let Some(routes) = sni_routes.get() {
        check_sni_routes(report, &routes.value, error);
        if vip.mode.value() == Some(&Mode::Tcp) && speaks(vip, index) == Some(Mode::Http) {
            let problem = "sni_routes pass connections on as they are, but with mode = \"http\" of the VIP's pool they are balanced \
                           per request; remove one of them";
            error(routes.key, problem.into());
        }
        if vip.key(|keys| &keys.tls).get().is_some() {
            error(
                routes.key,
                "sni_routes pass TLS on as it is, but tls ends it here; remove one of them".into(),
            );
        }
    }
    if let Some(fallback) = vip.key(|keys| &keys.fallback_pool).get() {
        if vip.pool.value() == Some(&fallback.value) {
            error(fallback.at, "fallback_pool is the VIP's own pool; name another".into());
        } else if vip.pools().len() == 1 && !vip.has_broken_pool() {
            error(
                fallback.key,
                "fallback_pool stands in for other pools, and there are none; remove it".into(),
            );
        }
    }
    for named in vip.named_pools() {
        match index.pool(named.pool) {
            Some(pool) => check_pool(vip, pool, &named, speaks(vip, index), error),
            None if report.is_incomplete() => {}
            None => error(named.at, unknown_pool(raw, named.pool)),
        }
    }
    if let (Some(own), Some(pool)) = (vip.pool.get(), vip.pool.value().and_then(|name| index.pool(name))) {
        check_pool(vip, pool, &Named { pool: &own.value, at: own.at }, speaks(vip, index), error);
    }
}

/// What clients of a VIP speak as far as the proxy looks into it: behind mode `tcp` may be a pool of mode `http`.
pub(super) fn speaks(vip: &Inherited<'_>, index: &Index<'_>) -> Option<Mode> {
    let mode = *vip.mode.value()?;
    let own = vip.pool.value().and_then(|name| index.pool(name));
    let is_http = own.and_then(|pool| pool.raw.mode.value()) == Some(&Spoken::Http);
    Some(if mode == Mode::Tcp && is_http { Mode::Http } else { mode })
}

fn check_pool(
    vip: &Inherited<'_>,
    pool: &PoolFacts<'_>,
    named: &Named<'_>,
    speaks: Option<Mode>,
    error: &impl Fn(Place, String),
) {
    let (Some(&mode), Some(speaks)) = (vip.mode.value(), speaks) else { return };
    let name = quote(named.pool);
    match (speaks, pool.raw.mode.value()) {
        (Mode::Http, Some(Spoken::Tcp)) => error(
            named.at,
            format!(
                "pool {name} has mode \"tcp\", which cannot serve requests; make the VIP's mode \"tcp\", or remove mode \
                 from the pool"
            ),
        ),
        (Mode::Http, None) if mode == Mode::Tcp => error(
            named.at,
            format!(
                "pool {name} needs mode = \"http\" like the VIP's own pool: clients are balanced per request"
            ),
        ),
        (Mode::Tcp, Some(Spoken::Http)) => error(
            named.at,
            format!(
                "pool {name} has mode \"http\", but connections are passed on as they are; remove mode from the pool"
            ),
        ),
        (Mode::Tcp, _) if pool.raw.protocol.value() == Some(&ServerProtocol::Http2) => error(
            named.at,
            format!("pool {name} speaks HTTP/2, which needs mode \"http\" of the VIP or of the pool"),
        ),
        _ => {}
    }
}

/// The pools that a VIP leads to beside its own, each with the check that holds in it.
pub(super) fn further(
    report: &Report<'_>,
    raw: &RawConfig,
    index: &Index<'_>,
    vip: &Inherited<'_>,
    error: &impl Fn(Place, String),
) -> Vec<Further> {
    let own = vip.pool.value();
    let pools = vip.pools().into_iter().filter(|name| own.is_none_or(|own| own != name));
    let further = |name: &str| {
        let pool = index.pool(name)?;
        let around = health::inherit(&pool.raw.health, &raw.health);
        let own = health::inherit(&vip.raw.own.health, vip.default_health());
        let holds = health::inherit(&own, &around);
        health::check_whole(&holds, error);
        if let Some((file, role)) = health::file(&holds) {
            report.mention(file.at, role, &file.value, vip.name());
        }
        let health = health::resolve(&holds);
        options::check_probed_port(vip, &health, error);
        Some(Further { pool: name.to_owned(), health })
    };
    pools.filter_map(further).collect()
}

fn check_routes(report: &Report<'_>, vip: &str, routes: &[Located<Route>], error: &impl Fn(Place, String)) {
    for (position, located) in routes.iter().enumerate() {
        let (at, route) = (located.at, &located.value);
        check_target(route, at, error);
        check_conditions(route, at, error);
        let same = |other: &&Located<Route>| conditions(&other.value) == conditions(route);
        let before = &routes[..position];
        if let Some(other) = before.iter().find(same) {
            let line = report.line(other.at);
            error(
                at,
                format!(
                    "routes: the one in line {line} has the same conditions, so this one is never asked; remove one"
                ),
            );
        } else if let Some(other) =
            before.iter().find(|other| conditions(&other.value) == conditions(&Route::default()))
        {
            let line = report.line(other.at);
            error(
                at,
                format!(
                    "routes: the one in line {line} is for every request, so this one is never asked; put that one last"
                ),
            );
        } else if let Some(other) = before.iter().find(|other| hides(&other.value, route)) {
            let line = report.line(other.at);
            let problem = format!(
                "routes: the one in line {line} is for all these requests too, so this one is never asked; put that one behind it"
            );
            report.vip_warning(at, vip, problem);
        }
    }
}

/// Whether everything that `later` is for matches `before` as well.
fn hides(before: &Route, later: &Route) -> bool {
    let all = |given: &[String], narrower: &[String], covers: fn(&str, &str) -> bool| {
        let covered = |one: &String| given.iter().any(|wide| covers(wide, one));
        given.is_empty() || (!narrower.is_empty() && narrower.iter().all(covered))
    };
    let host = |wide: &str, narrow: &str| {
        let (wide, narrow) = (wide.to_ascii_lowercase(), narrow.to_ascii_lowercase());
        wide == narrow || wide.strip_prefix('*').is_some_and(|suffix| narrow.ends_with(suffix))
    };
    let path = |wide: &str, narrow: &str| {
        narrow
            .strip_prefix(wide.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let every_path = before.paths.iter().any(|path| path == "/");
    all(&before.hosts, &later.hosts, host)
        && (every_path || all(&before.paths, &later.paths, path))
        && all(&before.methods, &later.methods, |wide, narrow| wide == narrow)
        && before.headers.iter().all(|header| later.headers.contains(header))
}

/// A route without where it leads.
fn conditions(route: &Route) -> Route {
    Route { pool: None, redirect: None, answer: None, ..route.clone() }
}

fn check_target(route: &Route, at: Place, error: &impl Fn(Place, String)) {
    let targets = [
        ("pool", route.pool.is_some()),
        ("redirect", route.redirect.is_some()),
        ("answer", route.answer.is_some()),
    ];
    let given: Vec<_> = targets.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    match given[..] {
        [] => error(at, "routes: a route needs a pool, a redirect or an answer; add pool = \"NAME\"".into()),
        [_] => {}
        _ => error(
            at,
            format!("routes: a route leads to one place, but this one has {}; keep one", given.join(" and ")),
        ),
    }
    let problem =
        route.redirect.as_ref().and_then(unfit_redirect).or(route.answer.as_ref().and_then(unfit_answer));
    if let Some(problem) = problem {
        error(at, format!("routes: {problem}"));
    }
}

/// What keys of a redirect cannot be, where no reader of their own has seen them.
fn unfit_redirect(redirect: &Redirect) -> Option<String> {
    let Redirect { scheme, host, port, path, status } = redirect;
    if !REDIRECTS.contains(status) {
        return Some(no_redirect(*status));
    }
    if scheme.is_none() && host.is_none() && port.is_none() && path.is_none() {
        return Some(
            "the redirect leads nowhere else; add scheme = \"https\", a host, a port or a path".into(),
        );
    }
    let unfit_path = |path: &String| {
        let fits = path.starts_with('/') && path.bytes().all(|sign| sign.is_ascii_graphic() && sign != b'#');
        (!fits).then(|| format!("{} is no path such as \"/new\" to redirect to", quote(path)))
    };
    host.as_deref().and_then(unfit_host).or(path.as_ref().and_then(unfit_path))
}

fn unfit_answer(answer: &Answer) -> Option<String> {
    let Answer { status, body, content_type } = answer;
    if !(200..600).contains(status) {
        return Some(format!("{status} is no status of an answer; write one from 200 to 599"));
    }
    if matches!(status, 204 | 304) && body.as_ref().is_some_and(|body| !body.is_empty()) {
        return Some(format!(
            "an answer with status {status} has no body; leave body out, or write another status"
        ));
    }
    let fits = content_type.bytes().all(|sign| sign == b' ' || sign.is_ascii_graphic());
    (!fits).then(|| format!("{} is no content type such as \"text/html\"", quote(content_type)))
}

fn check_conditions(route: &Route, at: Place, error: &impl Fn(Place, String)) {
    let wrong = |problem: String| error(at, format!("routes: {problem}"));
    route.hosts.iter().filter_map(|host| unfit_pattern(host)).for_each(wrong);
    for path in &route.paths {
        if !path.starts_with('/')
            || !path.bytes().all(|sign| sign.is_ascii_graphic())
            || path.contains(['?', '#'])
        {
            wrong(format!("{} is no beginning of a path such as \"/api\"", quote(path)));
        } else if path.contains('*') {
            wrong(format!("{} has a \"*\"; write the beginning alone, all below it is meant", quote(path)));
        }
    }
    for method in &route.methods {
        let is_upper =
            !method.is_empty() && method.bytes().all(|sign| sign.is_ascii_uppercase() || sign == b'-');
        if !is_upper {
            wrong(format!("{} is no method such as \"GET\"", quote(method)));
        }
    }
    for header in &route.headers {
        let is_token = !header.name.is_empty()
            && header
                .name
                .bytes()
                .all(|sign| sign.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&sign));
        if !is_token {
            wrong(format!("{} is no name of a header line such as \"X-Version\"", quote(&header.name)));
        }
    }
}

/// Why a text is no host, nor all hosts below one.
fn unfit_pattern(pattern: &str) -> Option<String> {
    let host = pattern.strip_prefix("*.").unwrap_or(pattern);
    if host.contains('*') {
        return Some(format!(
            "{} has a \"*\" where none is understood; write \"*.example\" for all names below example",
            quote(pattern)
        ));
    }
    unfit_host(host)
}

fn check_sni_routes(report: &Report<'_>, routes: &[Located<SniRoute>], error: &impl Fn(Place, String)) {
    let mut seen: HashMap<String, Place> = HashMap::new();
    for Located { value: route, at, .. } in routes {
        let wrong = |problem: String| error(*at, format!("sni_routes: {problem}"));
        if route.names.is_empty() {
            wrong("a route without names is for nobody; add names = [\"a.example\"]".into());
        }
        for name in &route.names {
            if let Some(problem) = unfit_pattern(name) {
                wrong(problem);
            } else if let Some(other) = seen.insert(name.to_ascii_lowercase(), *at) {
                wrong(format!(
                    "{} has a route already (line {}); remove one",
                    quote(name),
                    report.line(other)
                ));
            }
        }
    }
}
