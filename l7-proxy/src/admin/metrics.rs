//! The state as OpenMetrics text (openmetrics.io, version 1.0). Counters go on over changes of the
//! specification.

use std::{collections::BTreeMap, fmt::Write};

use super::status::phase_name;
use crate::{
    log::Log,
    model::Ready,
    process::Phase,
    server::now,
    spec::ServerState,
    state::{Counters, Histogram},
};

/// One family of metrics under construction.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    fn new(out: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        // Writing to memory does not fail.
        let _ = write!(out, "# TYPE {name} {kind}\n# HELP {name} {help}\n");
        Self { out, name }
    }

    fn value(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.out, "{}{suffix}", self.name);
        for (number, (name, value)) in labels.iter().enumerate() {
            let begin = if number == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{begin}{name}=\"");
            for letter in value.chars() {
                match letter {
                    '"' | '\\' => {
                        self.out.push('\\');
                        self.out.push(letter);
                    }
                    '\n' => self.out.push_str("\\n"),
                    _ => self.out.push(letter),
                }
            }
            self.out.push('"');
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// What each counter of a service is, in the order in which they are told.
const COUNTERS: [(&str, &str, &str); 11] = [
    ("connections", "l7_connections", "Connections of clients."),
    ("requests", "l7_requests", "Requests that were answered or failed."),
    ("answers", "l7_answers", "Answers by the class of their status."),
    ("own_answers", "l7_own_answers", "Answers that no server gave."),
    ("tunnels", "l7_tunnels", "Upgraded connections, and connections of mode tcp."),
    ("retries", "l7_retries", "Servers that were tried again or instead."),
    ("received_bytes", "l7_received_bytes", "Bytes from clients: bodies and tunnels."),
    ("sent_bytes", "l7_sent_bytes", "Bytes to clients."),
    (
        "put_behind",
        "l7_put_behind",
        "Times that a connection was put behind others, for it opens windows by next to nothing.",
    ),
    ("refused", "l7_refused", "What a limit has refused."),
    ("broken", "l7_broken", "Answers and connections that broke off, by who broke them."),
];

/// The whole text.
#[must_use]
pub fn metrics(ready: &Ready, phase: Phase, log: &Log) -> String {
    let mut out = String::new();
    let mut family = Family::new(&mut out, "l7_phase", "stateset", "What the process is at.");
    for one in [Phase::Serving, Phase::Grace, Phase::Draining] {
        family.value("", &[("l7_phase", phase_name(one))], u8::from(one == phase));
    }
    Family::new(&mut out, "l7_log_dropped", "counter", "Lines of the log that were dropped.").value(
        "_total",
        &[],
        log.dropped(),
    );
    services(&mut out, ready);
    servers(&mut out, ready);
    out.push_str("# EOF\n");
    out
}

fn services(out: &mut String, ready: &Ready) {
    let mut family =
        Family::new(out, "l7_open_connections", "gauge", "Connections of clients at the moment.");
    for service in &ready.services {
        family.value("", &[("service", &service.name)], service.state.clients.connections());
    }
    let sums: Vec<BTreeMap<_, u64>> = ready
        .services
        .iter()
        .map(|service| {
            let mut sums = BTreeMap::new();
            for (name, label, count) in service.state.all_counters().iter().flat_map(|one| one.all()) {
                *sums.entry((name, label)).or_default() += count;
            }
            sums
        })
        .collect();
    for (key, name, help) in COUNTERS {
        let mut family = Family::new(out, name, "counter", help);
        for (service, sums) in ready.services.iter().zip(&sums) {
            for ((_, label), count) in sums.iter().filter(|((name, _), _)| *name == key) {
                let labels: Vec<(&str, &str)> =
                    [("service", service.name.as_str())].into_iter().chain(*label).collect();
                family.value("_total", &labels, count);
            }
        }
    }
    type Which = fn(&Counters) -> &Histogram;
    let histograms: [(&'static str, &str, Which); 2] = [
        ("l7_request_seconds", "From a request's head to the end of the answer.", |counters| &counters.whole),
        ("l7_first_seconds", "From a request's head to the head of the server's answer.", |counters| {
            &counters.first
        }),
    ];
    for (name, help, which) in histograms {
        let mut family = Family::new(out, name, "histogram", help);
        for service in &ready.services {
            histogram(&mut family, &service.name, service.state.all_counters().iter().map(which));
        }
    }
    let mut family =
        Family::new(out, "l7_certificate_expiry_seconds", "gauge", "When a certificate expires, since 1970.");
    for service in &ready.services {
        if let Some(tls) = &service.tls {
            for certificate in tls.certificates().all() {
                let file = certificate.file.display().to_string();
                family.value("", &[("service", &service.name), ("file", &file)], certificate.expires);
            }
        }
    }
}

fn histogram<'a>(family: &mut Family<'_>, service: &str, parts: impl Iterator<Item = &'a Histogram>) {
    let mut buckets: Vec<(Option<u64>, u64)> = Vec::new();
    let mut sum = 0;
    for part in parts {
        sum += part.sum();
        for (at, (end, count)) in part.buckets().enumerate() {
            match buckets.get_mut(at) {
                Some(bucket) => bucket.1 += count,
                None => buckets.push((end, count)),
            }
        }
    }
    let mut count = 0;
    for (end, in_it) in buckets {
        count += in_it;
        let end = end.map_or_else(|| "+Inf".to_owned(), |end| format!("{:?}", end as f64 / 1e6));
        family.value("_bucket", &[("service", service), ("le", &end)], count);
    }
    family.value("_count", &[("service", service)], count);
    family.value("_sum", &[("service", service)], sum as f64 / 1e6);
}

fn servers(out: &mut String, ready: &Ready) {
    /// A service's, a pool's and a server's name, and what is known of the server.
    type Row<'a> = ([(&'static str, &'a str); 3], &'a crate::server::Live);
    let pools: Vec<_> = ready
        .services
        .iter()
        .flat_map(|service| service.pools().into_iter().map(move |pool| (service, pool)))
        .collect();
    let rows: Vec<Row<'_>> = pools
        .iter()
        .flat_map(|(service, pool)| {
            pool.servers.iter().map(|server| {
                let labels = [
                    ("service", service.name.as_str()),
                    ("pool", pool.title.as_str()),
                    ("server", server.name.as_str()),
                ];
                (labels, &*server.live)
            })
        })
        .collect();
    let mut family = Family::new(
        out,
        "l7_waiting",
        "gauge",
        "Requests and connections that wait for a place at a server.",
    );
    for (service, pool) in &pools {
        let labels = [("service", service.name.as_str()), ("pool", pool.title.as_str())];
        family.value("", &labels, pool.waiting());
    }
    let mut gauge = |name, help, value: &dyn Fn(&crate::server::Live) -> u64| {
        let mut family = Family::new(out, name, "gauge", help);
        rows.iter().for_each(|(labels, live)| family.value("", labels, value(live)));
    };
    gauge("l7_server_up", "Whether the server takes anything new.", &|live| {
        u64::from(live.state() == ServerState::Up)
    });
    gauge("l7_server_paused", "Whether it gets nothing for a while, for having failed.", &|live| {
        u64::from(live.is_paused(now()))
    });
    gauge("l7_server_active", "Requests or connections under way.", &|live| u64::from(live.active()));
    gauge("l7_server_idle", "Connections that wait for a next request.", &|live| live.idle() as u64);
    let mut family = Family::new(out, "l7_server_requests", "counter", "Requests or connections it got.");
    rows.iter().for_each(|(labels, live)| family.value("_total", labels, live.total()));
    let classes = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
    let mut family =
        Family::new(out, "l7_server_answers", "counter", "Its answers by the class of their status.");
    for (labels, live) in &rows {
        for (class, count) in classes.iter().zip(live.answers()) {
            let labels: Vec<_> = labels.iter().copied().chain([("status", *class)]).collect();
            family.value("_total", &labels, count);
        }
    }
    let mut family = Family::new(
        out,
        "l7_server_failures",
        "counter",
        "Connections that could not be made, broken answers.",
    );
    for (labels, live) in &rows {
        for (kind, count) in ["connect", "answer"].iter().zip(live.failures()) {
            let labels: Vec<_> = labels.iter().copied().chain([("kind", *kind)]).collect();
            family.value("_total", &labels, count);
        }
    }
}
