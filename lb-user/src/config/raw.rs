//! What the user wrote: every key, typed, with its place, and nothing made up for those left out.
//!
//! The functions here list the keys of each table; rules that look at one table alone stand beside them.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    reader::{Field, Located, Table},
    values::{
        boolean, cookie_name, count, error_status, file, health_time, http_path, idle_time, name, network,
        one_of, pool_name, port, ports, server_address, snat_ports, statuses, vip_address, weight,
    },
};
use crate::model::{Mode, Persistence, PortRange, Ports, Protocol, Scheme, StatusRanges};

/// The whole file.
pub(super) struct RawConfig {
    pub(super) manage_addresses: Field<bool>,
    pub(super) snat_ports: Field<PortRange>,
    pub(super) health: RawHealth,
    pub(super) vip_defaults: RawVip,
    pub(super) pools: Vec<RawPool>,
    pub(super) vips: Vec<RawNamedVip>,
}

/// `[pool.NAME]`.
pub(super) struct RawPool {
    pub(super) name: Located<String>,
    pub(super) servers: Field<Vec<RawServer>>,
    pub(super) health: RawHealth,
}

/// One of a pool's servers.
pub(super) struct RawServer {
    pub(super) name: Field<String>,
    pub(super) address: Field<IpAddr>,
    pub(super) weight: Field<u16>,
    pub(super) backup: Field<bool>,
}

/// `[vip.NAME]`.
pub(super) struct RawNamedVip {
    pub(super) name: Located<String>,
    pub(super) own: RawVip,
}

/// The keys of a VIP, or of `[vip_defaults]`.
#[derive(Default)]
pub(super) struct RawVip {
    pub(super) address: Field<IpAddr>,
    pub(super) port: Field<Ports>,
    pub(super) protocol: Field<Protocol>,
    pub(super) mode: Field<Mode>,
    pub(super) pool: Field<String>,
    pub(super) server_port: Field<u16>,
    pub(super) persistence: Field<Persistence>,
    pub(super) health: RawHealth,
    pub(super) tls: Field<Vec<PathBuf>>,
    pub(super) trusted_proxies: Field<Vec<(IpAddr, u8)>>,
    pub(super) timeouts: Field<RawTimeouts>,
    pub(super) redirect: Field<Scheme>,
    pub(super) error_pages: Field<Vec<(u16, Located<PathBuf>)>>,
}

/// `timeouts = { … }`.
pub(super) struct RawTimeouts {
    pub(super) client_idle: Field<Duration>,
    pub(super) server_idle: Field<Duration>,
    pub(super) tunnel: Field<Duration>,
}

/// `[health]`, or the `health` of a pool or VIP.
#[derive(Clone, Default)]
pub(super) struct RawHealth {
    pub(super) check: Field<CheckKind>,
    pub(super) interval: Field<Duration>,
    pub(super) timeout: Field<Duration>,
    pub(super) rise: Field<u32>,
    pub(super) fall: Field<u32>,
    pub(super) port: Field<u16>,
    pub(super) path: Field<String>,
    pub(super) expect: Field<StatusRanges>,
}

/// The kinds of checks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckKind {
    Tcp,
    Http,
    None,
}

const CHECKS: [(&str, CheckKind); 3] =
    [("tcp", CheckKind::Tcp), ("http", CheckKind::Http), ("none", CheckKind::None)];

const MODES: [(&str, Mode); 5] =
    [("snat", Mode::Snat), ("nat", Mode::Nat), ("dr", Mode::Dr), ("http", Mode::Http), ("tcp", Mode::Tcp)];

const PROTOCOLS: [(&str, Protocol); 2] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];

const SCHEMES: [(&str, Scheme); 2] = [("https", Scheme::Https), ("http", Scheme::Http)];

/// Kinds of persistence; that of a cookie also has a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PersistenceKind {
    None,
    Cookie,
    SourceIp,
    LastSuccessful,
}

const PERSISTENCES: [(&str, PersistenceKind); 4] = [
    ("none", PersistenceKind::None),
    ("source-ip", PersistenceKind::SourceIp),
    ("last-successful", PersistenceKind::LastSuccessful),
    ("cookie", PersistenceKind::Cookie),
];

impl CheckKind {
    pub(super) fn name(self) -> &'static str {
        CHECKS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl RawConfig {
    pub(super) fn read(root: &mut Table<'_, '_>) -> Self {
        let config = Self {
            manage_addresses: root.get("manage_addresses", boolean),
            snat_ports: root.get("snat_ports", snat_ports),
            health: RawHealth::read(root),
            vip_defaults: section(root, "vip_defaults", "[vip_defaults]", RawVip::read),
            pools: section(root, "pool", "[pool.web]", |pools| pools.named("a pool", RawPool::read)),
            vips: section(root, "vip", "[vip.web]", |vips| {
                vips.named("a VIP", |name, vip| RawNamedVip { name, own: RawVip::read(vip) })
            }),
        };
        if !root.misspelt().is_empty() {
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

impl RawPool {
    fn read(name: Located<String>, pool: &mut Table<'_, '_>) -> Self {
        let example = r#"{ name = "web1", address = "10.0.0.11" }"#;
        Self {
            name,
            servers: pool.tables("servers", "server", example, RawServer::read),
            health: RawHealth::read(pool),
        }
    }
}

impl RawServer {
    fn read(server: &mut Table<'_, '_>) -> Self {
        Self {
            name: server.need("name", r#"name = "web1""#, name),
            address: server.need("address", r#"address = "10.0.0.11""#, server_address),
            weight: server.get("weight", weight),
            backup: server.get("backup", boolean),
        }
    }
}

impl RawVip {
    fn read(vip: &mut Table<'_, '_>) -> Self {
        let mut raw = Self {
            address: vip.get("address", vip_address),
            port: vip.get("port", ports),
            protocol: vip.get("protocol", |value| one_of(value, "protocol", &PROTOCOLS)),
            mode: vip.get("mode", |value| one_of(value, "mode", &MODES)),
            pool: vip.get("pool", pool_name),
            server_port: vip.get("server_port", port),
            persistence: vip.table("persistence", r#"{ type = "source-ip" }"#, read_persistence).flatten(),
            health: RawHealth::read(vip),
            tls: vip.table("tls", r#"{ certificates = ["certs/server.pem"] }"#, read_certificates).flatten(),
            trusted_proxies: vip.list("trusted_proxies", r#"["10.0.0.0/24"]"#, network),
            timeouts: vip.table("timeouts", r#"{ client_idle = "900s" }"#, RawTimeouts::read),
            redirect: vip.table("redirect", r#"{ scheme = "https" }"#, read_redirect).flatten(),
            error_pages: vip.table("error_pages", r#"{ 503 = "errors/503.http" }"#, |pages| {
                pages.entries(error_status, file)
            }),
        };
        for key in vip.misspelt() {
            match key {
                "address" => raw.address.break_if_absent(),
                "port" => raw.port.break_if_absent(),
                "mode" => raw.mode.break_if_absent(),
                "pool" => raw.pool.break_if_absent(),
                "redirect" => raw.redirect.break_if_absent(),
                _ => {}
            }
        }
        raw
    }
}

impl RawTimeouts {
    fn read(timeouts: &mut Table<'_, '_>) -> Self {
        Self {
            client_idle: timeouts.get("client_idle", idle_time),
            server_idle: timeouts.get("server_idle", idle_time),
            tunnel: timeouts.get("tunnel", idle_time),
        }
    }
}

impl RawHealth {
    fn read(parent: &mut Table<'_, '_>) -> Self {
        parent
            .table("health", r#"{ check = "tcp", interval = "2s" }"#, Self::read_keys)
            .into_value()
            .unwrap_or_default()
    }

    fn read_keys(table: &mut Table<'_, '_>) -> Self {
        let health = Self {
            check: table.get("check", |value| one_of(value, "health check", &CHECKS)),
            interval: table.get("interval", health_time),
            timeout: table.get("timeout", health_time),
            rise: table.get("rise", count),
            fall: table.get("fall", count),
            port: table.get("port", port),
            path: table.get("path", http_path),
            expect: table.get("expect", statuses),
        };
        if let Some(check) = health.check.value().filter(|check| **check != CheckKind::Http) {
            for (key, at) in health.http_keys() {
                let (label, check) = (table.label(), check.name());
                table.report().error(
                    at,
                    format!("{key} in {label} belongs to check = \"http\", but check is {check:?}; remove one of the two"),
                );
            }
        }
        health
    }

    /// The keys that only a check over HTTP has, where they were written.
    pub(super) fn http_keys(&self) -> impl Iterator<Item = (&'static str, super::report::Place)> {
        let path = self.path.get().map(|path| ("path", path.key));
        let expect = self.expect.get().map(|expect| ("expect", expect.key));
        path.into_iter().chain(expect)
    }
}

fn read_persistence(table: &mut Table<'_, '_>) -> Field<Persistence> {
    let kind = table
        .need("type", r#"type = "source-ip""#, |value| one_of(value, "kind of persistence", &PERSISTENCES));
    let name = table.get("name", cookie_name);
    let Some(kind) = kind.get() else { return Field::Broken };
    let value = match (kind.value, &name) {
        (PersistenceKind::Cookie, Field::Set(name)) => Persistence::Cookie { name: name.value.clone() },
        (PersistenceKind::Cookie, Field::Broken) => return Field::Broken,
        (PersistenceKind::Cookie, Field::Absent) => {
            let label = table.label();
            table.report().error(
                table.at(),
                format!("{label} needs the \"name\" of the cookie; add name = \"SERVERID\""),
            );
            return Field::Broken;
        }
        (_, Field::Set(name)) => {
            let label = table.label();
            table
                .report()
                .error(name.key, format!("name in {label} belongs to type = \"cookie\"; remove it"));
            return Field::Broken;
        }
        (PersistenceKind::None, _) => Persistence::None,
        (PersistenceKind::SourceIp, _) => Persistence::SourceIp,
        (PersistenceKind::LastSuccessful, _) => Persistence::LastSuccessful,
    };
    Field::Set(Located { value, key: kind.key, at: kind.at })
}

fn read_certificates(table: &mut Table<'_, '_>) -> Field<Vec<PathBuf>> {
    let certificates = table.list("certificates", r#"["certs/server.pem"]"#, file);
    let empty = match &certificates {
        Field::Absent => Some(table.at()),
        Field::Set(list) if list.value.is_empty() => Some(list.at),
        Field::Set(_) | Field::Broken => None,
    };
    match empty {
        Some(at) => {
            let label = table.label();
            table
                .report()
                .error(at, format!("{label} needs a certificate; add certificates = [\"certs/server.pem\"]"));
            Field::Broken
        }
        None => certificates,
    }
}

fn read_redirect(table: &mut Table<'_, '_>) -> Field<Scheme> {
    table.need("scheme", r#"scheme = "https""#, |value| one_of(value, "scheme", &SCHEMES))
}
