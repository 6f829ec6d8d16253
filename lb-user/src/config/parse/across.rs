//! Rules across VIPs: addresses and ports that clash, pools nobody uses, and how much the tables can hold.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use lb_common::abi::{MAX_SERVERS, MAX_VIP_PORTS, MAX_VIPS};

use super::{
    pools::{Index, servers_of},
    vips::Inherited,
};
use crate::{
    config::{
        raw::{RawConfig, RawVip},
        report::{Place, Report},
        words::quote,
    },
    model::{PortRange, Protocol},
};

/// VIPs; the program numbers them from 1.
const MAX_NUMBERED: usize = MAX_VIPS - 1;

/// (VIP, server) pairs; the program numbers them from 1.
const MAX_PAIRS: usize = MAX_SERVERS - 1;

/// (address, port, protocol) entries; each VIP may take one more, for its address.
const MAX_PORTS: usize = MAX_VIP_PORTS - MAX_VIPS;

/// Checks everything that concerns more than one VIP.
pub(super) fn check(report: &Report<'_>, raw: &RawConfig, index: &Index<'_>, vips: &[Inherited<'_>]) {
    check_server_addresses(report, index, vips);
    check_overlaps(report, vips);
    check_limits(report, index, vips);
    warn_of_unused_pools(report, raw, index, vips);
}

/// A VIP whose address is a server's would take the traffic that is meant for the server.
fn check_server_addresses(report: &Report<'_>, index: &Index<'_>, vips: &[Inherited<'_>]) {
    for vip in vips {
        let Some(address) = vip.address.get() else { continue };
        let Some((pool, server)) = index.server(address.value) else { continue };
        let Some(place) = server.address.get() else { continue };
        let server = server.name.value().map_or("a server".into(), |name| format!("server {name:?}"));
        let problem = format!(
            "its address {} is that of {server} of pool {:?} (line {}); a VIP needs an address of its own",
            address.value,
            pool.name.value,
            report.line(place.at)
        );
        report.vip_error(address.at, vip.name(), problem);
    }
}

/// Two VIPs cannot have the same address, port and protocol: the table that the program looks VIPs up in has
/// one entry for each. This fills such a table, the first VIP of the file first.
fn check_overlaps(report: &Report<'_>, vips: &[Inherited<'_>]) {
    let mut owners: HashMap<(IpAddr, Protocol, u16), usize> = HashMap::new();
    for (index, vip) in vips.iter().enumerate() {
        // An unreadable protocol may be either.
        let (Some(&address), Some(ports), false) =
            (vip.address.value(), vip.port.value(), vip.protocol.is_broken())
        else {
            continue;
        };
        let mut clashes: BTreeMap<usize, PortRange> = BTreeMap::new();
        for port in ports.keys() {
            let owner = *owners.entry((address, vip.protocol(), port)).or_insert(index);
            if owner != index {
                let shared = clashes.entry(owner).or_insert(PortRange { first: port, last: port });
                if shared.last.checked_add(1) == Some(port) {
                    shared.last = port;
                }
            }
        }
        for (owner, shared) in clashes {
            report_overlap(report, &vips[owner], vip, (address, vip.protocol(), shared));
        }
        // More cannot be used and is reported as too much; this bounds the table and the time.
        if owners.len() > MAX_PORTS {
            return;
        }
    }
}

fn report_overlap(
    report: &Report<'_>,
    first: &Inherited<'_>,
    second: &Inherited<'_>,
    (address, protocol, ports): (IpAddr, Protocol, PortRange),
) {
    let (what, verb) = match ports {
        PortRange { last: 0, .. } => (format!("all {protocol} ports"), "belong"),
        PortRange { first, last } if first == last => (format!("{protocol} port {ports}"), "belongs"),
        _ => (format!("{protocol} ports {ports}"), "belong"),
    };
    let problem = format!(
        "{what} of {address} {verb} to VIP {:?} already (line {}); take another port or address",
        first.name(),
        report.line(place_of(first))
    );
    report.vip_error(place_of(second), second.name(), problem);
}

/// Where a VIP says itself what it listens on.
pub(super) fn own_place(own: &RawVip, name: Place) -> Place {
    let port = own.port.get().map(|port| port.at);
    port.or(own.address.get().map(|address| address.at)).unwrap_or(name)
}

fn place_of(vip: &Inherited<'_>) -> Place {
    own_place(&vip.raw.own, vip.raw.name.at)
}

/// What the kernel's tables can hold. Each limit is reported once, at the VIP that breaks it.
fn check_limits(report: &Report<'_>, index: &Index<'_>, vips: &[Inherited<'_>]) {
    if let Some(vip) = vips.get(MAX_NUMBERED) {
        let problem = format!("there are {} VIPs; at most {MAX_NUMBERED} are possible", vips.len());
        report.vip_error(vip.raw.name.at, vip.name(), problem);
    }
    let ports = |vip: &Inherited<'_>| vip.port.value().map_or(0, |ports| ports.keys().count());
    check_sum(report, vips, MAX_PORTS, ports, "ports", place_of);
    let servers = |vip: &Inherited<'_>| {
        let pools = vip.pools().into_iter().filter_map(|name| index.pool(name));
        pools.map(|pool| servers_of(pool.raw).len()).sum()
    };
    check_sum(report, vips, MAX_PAIRS, servers, "servers, counted once per VIP,", |vip| vip.raw.name.at);
}

fn check_sum<'r>(
    report: &Report<'_>,
    vips: &[Inherited<'r>],
    most: usize,
    count: impl Fn(&Inherited<'r>) -> usize,
    what: &str,
    place: impl Fn(&Inherited<'r>) -> Place,
) {
    let mut sum = 0;
    let too_many = vips.iter().find(|vip| {
        sum += count(vip);
        sum > most
    });
    if let Some(vip) = too_many {
        let problem =
            format!("with this VIP the {what} of all VIPs add up to {sum}; at most {most} are possible");
        report.vip_error(place(vip), vip.name(), problem);
    }
}

fn warn_of_unused_pools(report: &Report<'_>, raw: &RawConfig, index: &Index<'_>, vips: &[Inherited<'_>]) {
    // A pool that is named in a way nobody knows may be any of them.
    let unknown = |vip: &Inherited<'_>| {
        vip.has_broken_pool() || vip.pools().into_iter().any(|name| index.pool(name).is_none())
    };
    if report.is_incomplete() || vips.iter().any(unknown) {
        return;
    }
    let used: HashSet<&str> = vips.iter().flat_map(Inherited::pools).collect();
    for pool in raw.pools.iter().filter(|pool| !used.contains(pool.name.value.as_str())) {
        report.warning(pool.name.at, format!("pool {} is used by no VIP", quote(&pool.name.value)));
    }
}
