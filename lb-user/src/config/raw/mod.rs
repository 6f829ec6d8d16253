//! What the user wrote: every key, typed, with its place, and nothing made up for those left out.
//!
//! The functions here list the keys of each table; rules that look at one table alone stand beside them.

mod health;
mod persistence;
mod proxied;
mod quic;
mod script;
mod vip;

use std::time::Duration;

use super::{
    reader::{Field, Located, Table},
    values::{
        Whereabouts, access_log, boolean, idle_time, learn_time, name, one_of, plain, port, quic_id,
        resolve_time, server_address, server_count, snat_ports, syn_limit, tags, translated, weight,
    },
};
use crate::model::{Algorithm, OnDown, PortRange};

pub(super) use health::{CheckKind, RawHealth, check_is};
use persistence::read_persistence;
pub(super) use proxied::{RawProxy, RawTimeouts, RawTls};
use vip::ALGORITHMS;
pub(super) use vip::RawVip;

/// The whole file.
pub(super) struct RawConfig {
    pub(super) manage_addresses: Field<bool>,
    pub(super) snat_ports: Field<PortRange>,
    pub(super) resolve_interval: Field<Duration>,
    pub(super) access_log: Field<l7_spec::Log>,
    pub(super) proxy: RawProxy,
    pub(super) flows: RawFlows,
    pub(super) health: RawHealth,
    pub(super) vip_defaults: RawVip,
    pub(super) pools: Vec<RawPool>,
    pub(super) vips: Vec<RawNamedVip>,
}

/// `[flows]`.
#[derive(Default)]
pub(super) struct RawFlows {
    pub(super) translated: Field<u32>,
    pub(super) tags: Field<u32>,
    pub(super) syn_limit: Field<u32>,
    pub(super) learn: Field<Duration>,
}

/// `[pool.NAME]`.
pub(super) struct RawPool {
    pub(super) name: Located<String>,
    pub(super) servers: Field<Vec<RawServer>>,
    pub(super) health: RawHealth,
    pub(super) on_down: Field<OnDown>,
    pub(super) min_healthy: Field<usize>,
    /// For how long its servers go on serving after they have said that they will not.
    pub(super) drain_wait: Field<Duration>,
    pub(super) mode: Field<l7_spec::Mode>,
    pub(super) algorithm: Field<Algorithm>,
    pub(super) protocol: Field<l7_spec::ServerProtocol>,
    pub(super) tls: Field<l7_spec::ServerTls>,
    pub(super) proxy_protocol: Field<l7_spec::ProxyProtocolVersion>,
    pub(super) retries: Field<l7_spec::Retries>,
    pub(super) queue: Field<l7_spec::Queue>,
    pub(super) slow_start: Field<l7_spec::Span>,
    pub(super) outliers: Field<l7_spec::Outliers>,
}

/// What becomes of the flows of a server that goes down.
const ON_DOWNS: [(&str, OnDown); 2] = [("keep", OnDown::Keep), ("reset", OnDown::Reset)];

/// What servers may speak.
const SPOKEN: [(&str, l7_spec::Mode); 2] = [("http", l7_spec::Mode::Http), ("tcp", l7_spec::Mode::Tcp)];

/// One of a pool's servers.
pub(super) struct RawServer {
    pub(super) name: Field<String>,
    pub(super) address: Field<Whereabouts>,
    pub(super) weight: Field<u16>,
    pub(super) port: Field<u16>,
    pub(super) backup: Field<bool>,
    pub(super) max_connections: Field<u32>,
    pub(super) quic_id: Field<u64>,
}

/// `[vip.NAME]`.
pub(super) struct RawNamedVip {
    pub(super) name: Located<String>,
    pub(super) own: RawVip,
}

/// Keys of the top level that are no tables: the ones that are easily written behind a table.
pub(super) const TOP_LEVEL_KEYS: [&str; 3] = ["manage_addresses", "snat_ports", "resolve_interval"];

/// What is often sought at a server.
const NOT_OF_SERVERS: [(&str, &str); 3] = [
    ("server_port", "it belongs to the VIP; the port of a single server is port"),
    ("health", "health belongs to the pool or to the VIP"),
    ("quic", "quic belongs to the VIP; a server has a quic_id"),
];

impl RawConfig {
    pub(super) fn read(root: &mut Table<'_, '_>) -> Self {
        let config = Self {
            manage_addresses: root.get("manage_addresses", boolean),
            snat_ports: root.get("snat_ports", snat_ports),
            resolve_interval: root.get("resolve_interval", resolve_time),
            access_log: root.get("access_log", access_log),
            proxy: root.table("proxy", "[proxy]", RawProxy::read).into_value().unwrap_or_default(),
            flows: root.table("flows", "[flows]", RawFlows::read).into_value().unwrap_or_default(),
            health: RawHealth::read(root),
            vip_defaults: section(root, "vip_defaults", "[vip_defaults]", RawVip::read),
            pools: section(root, "pool", "[pool.web]", |pools| pools.named("a pool", RawPool::read)),
            vips: section(root, "vip", "[vip.web]", |vips| {
                vips.named("a VIP", |name, vip| RawNamedVip { name, own: RawVip::read(vip) })
            }),
        };
        if root.misspelt().iter().any(|key| ["vip_defaults", "pool", "vip"].contains(key)) {
            root.report().set_incomplete();
        }
        config
    }
}

/// A table of the top level. Where it is something else, all of its content is out of sight.
fn section<T: Default>(
    root: &mut Table<'_, '_>,
    key: &'static str,
    example: &str,
    read: impl FnOnce(&mut Table<'_, '_>) -> T,
) -> T {
    let field = root.table(key, example, read);
    if field.is_broken() {
        root.report().set_incomplete();
    }
    field.into_value().unwrap_or_default()
}

impl RawFlows {
    fn read(flows: &mut Table<'_, '_>) -> Self {
        Self {
            translated: flows.get("translated", translated),
            tags: flows.get("tags", tags),
            syn_limit: flows.get("syn_limit", syn_limit),
            learn: flows.get("learn", learn_time),
        }
    }
}

impl RawPool {
    fn read(name: Located<String>, pool: &mut Table<'_, '_>) -> Self {
        let example = r#"{ name = "web1", address = "10.0.0.11" }"#;
        Self {
            name,
            servers: pool.tables("servers", "server", example, RawServer::read),
            health: RawHealth::read(pool),
            on_down: pool.get("on_down", |value| one_of(value, "fate of flows", &ON_DOWNS)),
            min_healthy: pool.get("min_healthy", server_count),
            drain_wait: pool.get("drain_wait", idle_time),
            mode: pool.get("mode", |value| one_of(value, "mode", &SPOKEN)),
            algorithm: pool.get("algorithm", |value| one_of(value, "algorithm", &ALGORITHMS)),
            protocol: pool.get("protocol", plain),
            tls: pool.get("tls", plain),
            proxy_protocol: pool.get("proxy_protocol", plain),
            retries: pool.get("retries", plain),
            queue: pool.get("queue", plain),
            slow_start: pool.get("slow_start", plain),
            outliers: pool.get("outliers", plain),
        }
    }
}

impl RawServer {
    fn read(server: &mut Table<'_, '_>) -> Self {
        server.belong_elsewhere(&NOT_OF_SERVERS);
        Self {
            name: server.need("name", r#"name = "web1""#, name),
            address: server.need("address", r#"address = "10.0.0.11""#, server_address),
            weight: server.get("weight", weight),
            port: server.get("port", port),
            backup: server.get("backup", boolean),
            max_connections: server.get("max_connections", plain),
            quic_id: server.get("quic_id", quic_id),
        }
    }
}
