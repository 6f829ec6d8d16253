//! Raw configuration → model: inheritance, names that must resolve, and the rules that span several keys.
//!
//! Nothing here stops at a mistake. What cannot be built for one is left out of the model, which is thrown
//! away then.

mod across;
mod health;
mod names;
mod odd;
mod options;
mod pools;
mod proxy;
mod quic;
mod routes;
mod vips;

use super::{
    outside::Places,
    raw::{RawConfig, RawNamedVip},
    report::Report,
};
use crate::model::{Config, FlowTables};

/// Builds the model and reports every rule that is broken.
pub(super) fn build(report: &Report<'_>, raw: &RawConfig) -> Config {
    health::check_special_keys(&raw.health, &raw.health, |place, problem| report.error(place, problem));
    health::check_times(report, &raw.health, &raw.health, |place, problem| report.error(place, problem));
    let pools = pools::build(report, raw);
    let index = pools::Index::new(&raw.pools);
    let vips: Vec<_> = raw.vips.iter().map(|vip| vips::Inherited::new(vip, &raw.vip_defaults)).collect();
    let built: Vec<_> = vips.iter().filter_map(|vip| vips::build(report, raw, &index, vip)).collect();
    across::check(report, raw, &index, &vips);
    proxy::check(report, raw, &vips);
    Config {
        manage_addresses: raw.manage_addresses.value().copied().unwrap_or(true),
        snat_ports: raw.snat_ports.value().copied(),
        flows: flows(raw),
        resolve_interval: raw.resolve_interval.value().copied().unwrap_or(Config::default().resolve_interval),
        pools: names::with_families(report, raw, &vips, pools),
        vips: built,
        access_log: raw.access_log.value().cloned().unwrap_or_default(),
        proxy: proxy::build(&raw.proxy),
    }
}

fn flows(raw: &RawConfig) -> FlowTables {
    let default = FlowTables::default();
    FlowTables {
        translated: raw.flows.translated.value().copied().unwrap_or(default.translated),
        tags: raw.flows.tags.value().copied().unwrap_or(default.tags),
        syn_limit: raw.flows.syn_limit.value().copied().unwrap_or(default.syn_limit),
        learn: raw.flows.learn.value().copied().unwrap_or(default.learn),
    }
}

/// Where VIPs and servers stand.
pub(super) fn places(report: &Report<'_>, raw: &RawConfig, file: &str) -> Places {
    let vip = |vip: &RawNamedVip| report.spot(across::own_place(&vip.own, vip.name.at));
    let servers = raw.pools.iter().map(|pool| {
        let places =
            pools::servers_of(pool).iter().map(|server| server.address.get().map(|address| address.at));
        // Who has none makes the configuration one that cannot be used.
        places.map(|place| report.spot(place.unwrap_or_default())).collect()
    });
    Places { file: file.into(), vips: raw.vips.iter().map(vip).collect(), servers: servers.collect() }
}
