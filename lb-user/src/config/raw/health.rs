//! `[health]`, and the `health` of pools and VIPs.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::script;
use crate::{
    config::{
        reader::{Field, Table},
        report::Place,
        values::{
            body_text, boolean, bytes, count, expected_bytes, file, header_name, header_value, health_time,
            host, http_path, method, one_of, password, port, probe_address, statuses, user,
        },
        words::choices,
    },
    model::{StatusRanges, Step},
};

/// `[health]`, or the `health` of a pool or VIP.
#[derive(Clone, Default)]
pub(in crate::config) struct RawHealth {
    pub(in crate::config) check: Field<CheckKind>,
    pub(in crate::config) interval: Field<Duration>,
    pub(in crate::config) fast_interval: Field<Duration>,
    pub(in crate::config) down_interval: Field<Duration>,
    pub(in crate::config) timeout: Field<Duration>,
    pub(in crate::config) rise: Field<u32>,
    pub(in crate::config) fall: Field<u32>,
    pub(in crate::config) port: Field<u16>,
    pub(in crate::config) address: Field<IpAddr>,
    pub(in crate::config) path: Field<String>,
    pub(in crate::config) expect: Field<StatusRanges>,
    pub(in crate::config) method: Field<String>,
    pub(in crate::config) host: Field<String>,
    pub(in crate::config) headers: Field<Vec<(String, String)>>,
    pub(in crate::config) body: Field<String>,
    pub(in crate::config) verify: Field<bool>,
    pub(in crate::config) ca: Field<PathBuf>,
    pub(in crate::config) password: Field<String>,
    pub(in crate::config) password_file: Field<PathBuf>,
    /// Of Redis: whether only a master will do.
    pub(in crate::config) role: Field<bool>,
    pub(in crate::config) user: Field<String>,
    pub(in crate::config) script: Field<Vec<Step>>,
    pub(in crate::config) send: Field<Vec<u8>>,
    pub(in crate::config) reply: Field<Vec<u8>>,
}

/// The kinds of checks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum CheckKind {
    Tcp,
    Tls,
    Http,
    Https,
    Redis,
    Mysql,
    Script,
    Udp,
    Icmp,
    None,
}

const CHECKS: [(&str, CheckKind); 10] = [
    ("tcp", CheckKind::Tcp),
    ("http", CheckKind::Http),
    ("https", CheckKind::Https),
    ("tls", CheckKind::Tls),
    ("redis", CheckKind::Redis),
    ("mysql", CheckKind::Mysql),
    ("script", CheckKind::Script),
    ("udp", CheckKind::Udp),
    ("icmp", CheckKind::Icmp),
    ("none", CheckKind::None),
];

const ROLES: [(&str, bool); 2] = [("master", true), ("any", false)];

const HTTP: &[CheckKind] = &[CheckKind::Http, CheckKind::Https];
const TLS: &[CheckKind] = &[CheckKind::Https, CheckKind::Tls];
const NAMED: &[CheckKind] = &[CheckKind::Http, CheckKind::Https, CheckKind::Tls];

/// A key that only some checks have: its name, where it was written, and which those are.
pub(in crate::config) type SpecialKey = (&'static str, Place, &'static [CheckKind]);

impl CheckKind {
    pub(in crate::config) fn name(self) -> &'static str {
        CHECKS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// `check = "http" or "https"`.
pub(in crate::config) fn check_is(kinds: &[CheckKind]) -> String {
    format!("check = {}", choices(kinds.iter().map(|kind| kind.name())))
}

impl RawHealth {
    pub(super) fn read(parent: &mut Table<'_, '_>) -> Self {
        parent
            .table("health", r#"{ check = "tcp", interval = "2s" }"#, Self::read_keys)
            .into_value()
            .unwrap_or_default()
    }

    fn read_keys(table: &mut Table<'_, '_>) -> Self {
        table.belong_elsewhere(&NOT_OF_HEALTH);
        let health = Self {
            check: table.get("check", |value| one_of(value, "health check", &CHECKS)),
            interval: table.get("interval", health_time),
            fast_interval: table.get("fast_interval", health_time),
            down_interval: table.get("down_interval", health_time),
            timeout: table.get("timeout", health_time),
            rise: table.get("rise", count),
            fall: table.get("fall", count),
            port: table.get("port", port),
            address: table.get("address", probe_address),
            path: table.get("path", http_path),
            expect: table.get("expect", statuses),
            method: table.get("method", method),
            host: table.get("host", host),
            headers: table.table("headers", r#"{ X-Probe = "yes" }"#, |headers| {
                let all = headers.entries(header_name, header_value);
                all.into_iter().map(|(name, value)| (name, value.value)).collect()
            }),
            body: table.get("body", body_text),
            verify: table.get("verify", boolean),
            ca: table.get("ca", file),
            password: table.get("password", password),
            password_file: table.get("password_file", file),
            role: table.get("role", |value| one_of(value, "role", &ROLES)),
            user: table.get("user", user),
            script: script::read(table),
            send: table.get("send", bytes),
            reply: table.get("reply", expected_bytes),
        };
        health.compare_keys(table);
        health
    }

    /// Reports keys of one table that exclude each other.
    fn compare_keys(&self, table: &Table<'_, '_>) {
        let label = table.label();
        let error = |place, text: String| table.report().error(place, text);
        if let Some(&check) = self.check.value() {
            for (key, at, kinds) in self.special_keys().filter(|(.., kinds)| !kinds.contains(&check)) {
                let (needs, check) = (check_is(kinds), check.name());
                error(
                    at,
                    format!(
                        "{key} in {label} belongs to {needs}, but check is {check:?}; remove one of the two"
                    ),
                );
            }
            if let (CheckKind::Icmp, Some(port)) = (check, self.port.get()) {
                error(port.key, format!("port in {label}: an ICMP echo request has no port; remove port"));
            }
        }
        if let (Some(_), Some(file)) = (self.password.get(), self.password_file.get()) {
            error(file.key, format!("{label} has password and password_file; remove one of the two"));
        }
        if let (Some(ca), Some(false)) = (self.ca.get(), self.verify.value()) {
            error(
                ca.key,
                format!("ca in {label} is for verifying, but verify is false; remove one of the two"),
            );
        }
    }

    /// The keys that only some checks have, where they were written.
    pub(in crate::config) fn special_keys(&self) -> impl Iterator<Item = SpecialKey> {
        fn one<T>(key: &'static str, field: &Field<T>, kinds: &'static [CheckKind]) -> Option<SpecialKey> {
            field.get().map(|located| (key, located.key, kinds))
        }
        let redis = &[CheckKind::Redis];
        [
            one("path", &self.path, HTTP),
            one("expect", &self.expect, HTTP),
            one("method", &self.method, HTTP),
            one("host", &self.host, NAMED),
            one("headers", &self.headers, HTTP),
            one("body", &self.body, HTTP),
            one("verify", &self.verify, TLS),
            one("ca", &self.ca, TLS),
            one("password", &self.password, redis),
            one("password_file", &self.password_file, redis),
            one("role", &self.role, redis),
            one("user", &self.user, &[CheckKind::Mysql]),
            one("script", &self.script, &[CheckKind::Script]),
            one("send", &self.send, &[CheckKind::Udp]),
            one("reply", &self.reply, &[CheckKind::Udp]),
        ]
        .into_iter()
        .flatten()
    }
}

/// What is often sought in a health check.
const NOT_OF_HEALTH: [(&str, &str); 5] = [
    ("on_down", "it belongs to the pool: on_down = \"keep\""),
    ("min_healthy", "it belongs to the pool"),
    ("drain_wait", "it belongs to the pool"),
    ("sni", "the name to ask for is host"),
    ("status", "the statuses that mean healthy are expect"),
];
