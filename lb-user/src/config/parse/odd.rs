//! What is odd about one VIP: it can be meant, and mostly is not.

use std::time::Duration;

use super::{
    pools::{PoolFacts, servers_of},
    vips::Inherited,
};
use crate::{
    config::{reader::Field, report::Report, values::show},
    model::{Check, HealthCheck, Mode, PortRange, Protocol},
};

/// Reports it.
pub(super) fn of_vip(
    report: &Report<'_>,
    vip: &Inherited<'_>,
    pool: Option<&PoolFacts<'_>>,
    health: &HealthCheck,
) {
    udp_judged_by_tcp(report, vip, health);
    slow_checks(report, vip, pool, health);
    short_keep_alive(report, vip);
    plain_text_where_tls_is_usual(report, vip, pool);
}

/// A UDP service that is probed over TCP: that needs somebody who listens.
fn udp_judged_by_tcp(report: &Report<'_>, vip: &Inherited<'_>, health: &HealthCheck) {
    let (Some(protocol), Some(ports)) = (vip.protocol.get(), vip.port.value()) else { return };
    // In other modes UDP is a mistake that was reported.
    let layer4 = vip.mode.value().is_some_and(|mode| mode.is_layer4());
    let over_tcp = !matches!(health.check, Check::Udp { .. } | Check::Icmp | Check::None);
    if !layer4 || protocol.value != Protocol::Udp || health.port.is_some() || !over_tcp {
        return;
    }
    let port = vip.key(|keys| &keys.server_port).value().copied().unwrap_or(ports.first());
    report.vip_warning(
        protocol.at,
        vip.name(),
        format!(
            "health is judged by a TCP connection to port {port} of the servers although the service is UDP; if \
             nothing listens there, set check = \"udp\" or a port in health"
        ),
    );
}

/// A server that drains must be found down while it still serves, or new flows reach one that has stopped (E2).
fn slow_checks(report: &Report<'_>, vip: &Inherited<'_>, pool: Option<&PoolFacts<'_>>, health: &HealthCheck) {
    let Some(drain) = pool.and_then(|pool| pool.raw.drain_wait.get()) else { return };
    let needed = health.time_to_fall();
    if health.check == Check::None {
        report.vip_warning(drain.at, vip.name(), "nobody sees servers drain: the health check is \"none\"");
    } else if needed >= drain.value {
        report.vip_warning(
            drain.at,
            vip.name(),
            format!(
                "servers stop {} after they begin to drain, but are found down only after up to {} ({} failures); \
                 make interval or fall smaller, or set fast_interval",
                show(drain.value),
                show(needed),
                health.fall
            ),
        );
    }
}

/// Routers of platforms keep idle connections for some seconds: of a side that closes first, requests get lost (R32).
const KEEP_ALIVE: Duration = Duration::from_secs(5);

fn short_keep_alive(report: &Report<'_>, vip: &Inherited<'_>) {
    let own = vip.key(|keys| &keys.timeouts).value().map(|own| &own.client_idle);
    let Some(idle) = own.and_then(Field::get).filter(|_| vip.mode.value() == Some(&Mode::Http)) else {
        return;
    };
    if idle.value <= KEEP_ALIVE {
        report.vip_warning(
            idle.at,
            vip.name(),
            format!(
                "idle connections of clients are closed after {}; clients that keep them for 5s, as many do, lose \
                 requests; make client_idle longer than {}",
                show(idle.value),
                show(KEEP_ALIVE)
            ),
        );
    }
}

/// Where servers mostly speak TLS.
const HTTPS: PortRange = PortRange { first: 443, last: 443 };

/// TLS ends at the VIP, and nothing says where servers are: so they are asked without TLS on the VIP's own port.
fn plain_text_where_tls_is_usual(report: &Report<'_>, vip: &Inherited<'_>, pool: Option<&PoolFacts<'_>>) {
    let (Some(tls), Some(ports), Some(pool)) =
        (vip.key(|keys| &keys.tls).get(), vip.port.value(), pool.map(|pool| pool.raw))
    else {
        return;
    };
    let own_port = servers_of(pool).iter().any(|server| server.port.is_absent());
    let is_usual = ports.ranges().iter().any(|range| range.overlaps(HTTPS));
    let same_port = is_usual && vip.key(|keys| &keys.server_port).is_absent() && own_port;
    if same_port && pool.tls.is_absent() {
        report.vip_warning(
            tls.at,
            vip.name(),
            format!(
                "TLS ends here, so servers of pool {:?} are spoken to in plain text, and on port 443 as nothing else is \
                 said; add server_port, such as 80, or tls to the pool if they speak TLS",
                pool.name.value
            ),
        );
    }
}
