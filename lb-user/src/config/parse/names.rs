//! Servers that are known by name: of which family their addresses must be.

use super::{pools::servers_of, vips::Inherited};
use crate::{
    config::{raw::RawConfig, report::Report, values::Whereabouts, words::quote},
    model::{Address, AddressFamily, Pool},
};

/// Gives each name the family of the VIPs that use its pool. Tunnels and proxies take either.
pub(super) fn with_families(
    report: &Report<'_>,
    raw: &RawConfig,
    vips: &[Inherited<'_>],
    mut pools: Vec<Pool>,
) -> Vec<Pool> {
    for (pool, raw) in pools.iter_mut().zip(&raw.pools) {
        let is_host = |host: &Whereabouts| host.address().is_none();
        if !servers_of(raw).iter().any(|server| server.address.value().is_some_and(is_host)) {
            continue;
        }
        let mut needs = vips.iter().filter_map(|vip| {
            let binds = vip.mode.value().is_some_and(|mode| mode.is_layer4() && !mode.is_tunnel());
            let address = vip.address.get().filter(|_| binds && vip.pool.value() == Some(&pool.name))?;
            Some((vip, address, AddressFamily::of(address.value)))
        });
        let Some((first, at, family)) = needs.next() else { continue };
        for (vip, address, _) in needs.filter(|(.., other)| *other != family) {
            let problem = format!(
                "its address {} and that of VIP {} ({}, line {}) are of different families, but a name in pool {} \
                 stands for one address; make a pool for each",
                address.value,
                quote(first.name()),
                at.value,
                report.line(at.at),
                quote(&pool.name)
            );
            report.vip_error(address.at, vip.name(), problem);
        }
        for server in &mut pool.servers {
            if let Address::Named(name, _) = &mut server.address {
                name.family = Some(family);
            }
        }
    }
    pools
}
