//! QUIC-LB: what a VIP must be for it, and the IDs of its servers.

use super::{
    pools::{PoolFacts, servers_of},
    vips::Inherited,
};
use crate::{
    config::{
        raw::RawServer,
        report::{Place, Report},
        words::quote,
    },
    model::Protocol,
};

/// Reports what does not fit to the `quic` of a VIP.
pub(super) fn check(
    report: &Report<'_>,
    vip: &Inherited<'_>,
    pool: Option<&PoolFacts<'_>>,
    error: &impl Fn(Place, String),
) {
    let Some(quic) = vip.key(|keys| &keys.quic).get() else { return };
    if !vip.protocol.is_broken() && vip.protocol() != Protocol::Udp {
        let protocol = vip.protocol();
        error(
            quic.key,
            format!(
                "quic needs protocol \"udp\", but the protocol is \"{protocol}\"; add protocol = \"udp\" or \
                 remove quic"
            ),
        );
        return;
    }
    let (Some(pool), Some(largest)) =
        (pool, quic.value.values().map(|encoding| encoding.max_server_id()).min())
    else {
        return;
    };
    let servers = servers_of(pool.raw);
    let named = |server: &RawServer, place: Place| {
        let server = server.name.value().map_or("a server".into(), |name| format!("server {}", quote(name)));
        format!("{server} of pool {} (line {})", quote(&pool.raw.name.value), report.line(place))
    };

    let mut without = servers.iter().filter(|server| server.quic_id.is_absent());
    if let Some(first) = without.next() {
        let first = match first.name.get() {
            Some(name) => named(first, name.at),
            None => named(first, pool.raw.name.at),
        };
        let more = match without.count() {
            0 => "has none".into(),
            more => format!("and {more} more have none"),
        };
        error(quic.key, format!("quic needs a quic_id for each server, but {first} {more}; add quic_id = 1"));
    }
    let too_large = |server: &&RawServer| server.quic_id.value().is_some_and(|&id| id > largest);
    if let Some((server, id)) =
        servers.iter().find(too_large).and_then(|server| Some((server, server.quic_id.get()?)))
    {
        let server = named(server, id.at);
        error(
            quic.key,
            format!(
                "quic_id {:#x} of {server} does not fit into server_id_length; at most {largest:#x} does",
                id.value
            ),
        );
    }
}
