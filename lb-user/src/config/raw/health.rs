//! `[health]`, and the `health` of pools and VIPs.

use std::time::Duration;

use crate::{
    config::{
        reader::{Field, Table},
        report::Place,
        values::{count, health_time, http_path, one_of, port, statuses},
    },
    model::StatusRanges,
};

/// `[health]`, or the `health` of a pool or VIP.
#[derive(Clone, Default)]
pub(in crate::config) struct RawHealth {
    pub(in crate::config) check: Field<CheckKind>,
    pub(in crate::config) interval: Field<Duration>,
    pub(in crate::config) timeout: Field<Duration>,
    pub(in crate::config) rise: Field<u32>,
    pub(in crate::config) fall: Field<u32>,
    pub(in crate::config) port: Field<u16>,
    pub(in crate::config) path: Field<String>,
    pub(in crate::config) expect: Field<StatusRanges>,
}

/// The kinds of checks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum CheckKind {
    Tcp,
    Http,
    None,
}

const CHECKS: [(&str, CheckKind); 3] =
    [("tcp", CheckKind::Tcp), ("http", CheckKind::Http), ("none", CheckKind::None)];

impl CheckKind {
    pub(in crate::config) fn name(self) -> &'static str {
        CHECKS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl RawHealth {
    pub(super) fn read(parent: &mut Table<'_, '_>) -> Self {
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
    pub(in crate::config) fn http_keys(&self) -> impl Iterator<Item = (&'static str, Place)> {
        let path = self.path.get().map(|path| ("path", path.key));
        let expect = self.expect.get().map(|expect| ("expect", expect.key));
        path.into_iter().chain(expect)
    }
}
