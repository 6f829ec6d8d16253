//! The process that serves proxied VIPs: what holds of it, and what it may not stand in the way of.

use std::{collections::HashMap, time::Duration};

use l7_spec::Span;

use super::vips::{Inherited, PROXIED};
use crate::{
    config::{
        raw::{RawConfig, RawPool, RawProxy},
        reader::Field,
        report::{Place, Report},
        words::quote,
    },
    model::Proxy,
};

pub(super) fn build(raw: &RawProxy) -> Proxy {
    let drain = raw.drain.value();
    Proxy {
        workers: raw.workers.value().copied(),
        limits: raw.limits.value().cloned().unwrap_or_default(),
        admin: raw.admin.value().copied(),
        cookie_key: raw.cookie_key.value().cloned(),
        grace: drain.and_then(|drain| drain.grace.value()).copied().map(span).unwrap_or_default(),
        drain: drain.and_then(|drain| drain.timeout.value()).copied().map(span),
    }
}

/// The same time for l7-proxy. What was read is no longer than a year.
pub(super) fn span(time: Duration) -> Span {
    Span::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn check(report: &Report<'_>, raw: &RawConfig, vips: &[Inherited<'_>]) {
    check_admin(report, raw, vips);
    let mut users: HashMap<&str, Vec<&Inherited<'_>>> = HashMap::new();
    for vip in vips {
        for pool in vip.pools() {
            users.entry(pool).or_default().push(vip);
        }
    }
    for pool in &raw.pools {
        let users = users.get(pool.name.value.as_str()).map_or(&[][..], Vec::as_slice);
        check_pool(report, pool, users);
    }
}

/// Two cannot listen on one port, and which of them a client would reach is not for chance to decide.
fn check_admin(report: &Report<'_>, raw: &RawConfig, vips: &[Inherited<'_>]) {
    let Some(admin) = raw.proxy.admin.get() else { return };
    let covers = |vip: &&Inherited<'_>| {
        let here = vip.address.value().is_some_and(|address| {
            let any = admin.value.ip().is_unspecified() && admin.value.is_ipv4() == address.is_ipv4();
            any || *address == admin.value.ip()
        });
        let ports = vip.port.value().is_some_and(|ports| {
            ports.ranges().iter().any(|range| (range.first..=range.last).contains(&admin.value.port()))
        });
        here && ports && vip.protocol() == crate::model::Protocol::Tcp
    };
    if let Some(vip) = vips.iter().find(covers) {
        let problem = format!(
            "admin: {} is where VIP {} is (line {}); take another port",
            admin.value,
            quote(vip.name()),
            report.line(vip.raw.name.at)
        );
        report.error(admin.at, problem);
    }
}

/// Keys of a pool that say nothing to the kernel program, where nobody but it would read them.
fn check_pool(report: &Report<'_>, pool: &RawPool, users: &[&Inherited<'_>]) {
    let unknown = users.iter().any(|vip| vip.mode.value().is_none());
    let proxied = users.iter().any(|vip| vip.mode.value().is_some_and(|mode| PROXIED.contains(mode)));
    let Some(vip) = users.first().filter(|_| !unknown && !proxied) else { return };
    let Some(mode) = vip.mode.value() else { return };
    for (key, place) in proxied_keys(pool) {
        let problem = format!(
            "pool {}: {key} needs a VIP of mode \"http\" or \"tcp\", but that of VIP {} (line {}) is \"{mode}\"",
            quote(&pool.name.value),
            quote(vip.name()),
            report.line(vip.raw.name.at)
        );
        report.error(place, problem);
    }
}

fn proxied_keys(pool: &RawPool) -> Vec<(&'static str, Place)> {
    fn at<T>(name: &'static str, field: &Field<T>) -> Option<(&'static str, Place)> {
        field.get().map(|field| (name, field.key))
    }
    let keys = [
        at("mode", &pool.mode),
        at("algorithm", &pool.algorithm),
        at("protocol", &pool.protocol),
        at("tls", &pool.tls),
        at("proxy_protocol", &pool.proxy_protocol),
        at("retries", &pool.retries),
        at("queue", &pool.queue),
        at("slow_start", &pool.slow_start),
        at("outliers", &pool.outliers),
    ];
    let servers = pool.servers.value().into_iter().flatten();
    let of_servers = servers.filter_map(|server| at("max_connections of a server", &server.max_connections));
    keys.into_iter().flatten().chain(of_servers).collect()
}
