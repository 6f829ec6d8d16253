//! Tables that only VIPs of proxied modes have, and `[proxy]`, the process that serves them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use l7_spec::{ProcessLimits, Redirect, Scheme};

use crate::config::{
    reader::{Field, Located, Table},
    values::{
        boolean, cookie_key, file, http_path, idle_time, one_of, plain, port, redirect_host, redirect_status,
        socket_address, worker_count,
    },
};

/// `[proxy]`.
#[derive(Default)]
pub(in crate::config) struct RawProxy {
    pub(in crate::config) workers: Field<usize>,
    pub(in crate::config) limits: Field<ProcessLimits>,
    pub(in crate::config) admin: Field<SocketAddr>,
    pub(in crate::config) cookie_key: Field<String>,
    pub(in crate::config) drain: Field<RawDrain>,
}

/// `drain = { … }` of `[proxy]`.
#[derive(Default)]
pub(in crate::config) struct RawDrain {
    pub(in crate::config) grace: Field<Duration>,
    pub(in crate::config) timeout: Field<Duration>,
}

/// `tls = { … }`.
pub(in crate::config) struct RawTls {
    pub(in crate::config) certificates: Vec<Located<PathBuf>>,
    pub(in crate::config) strict: Field<bool>,
    pub(in crate::config) minimum_version: Field<l7_spec::TlsVersion>,
    pub(in crate::config) alpn: Field<Vec<String>>,
    pub(in crate::config) client_certificates: Field<l7_spec::ClientCertificates>,
    pub(in crate::config) refuse_domain_fronting: Field<bool>,
    pub(in crate::config) handshake_timeout: Field<Duration>,
}

/// `timeouts = { … }`.
#[derive(Default)]
pub(in crate::config) struct RawTimeouts {
    pub(in crate::config) client_idle: Field<Duration>,
    pub(in crate::config) request_header: Field<Duration>,
    pub(in crate::config) request_body: Field<Duration>,
    pub(in crate::config) client_write: Field<Duration>,
    pub(in crate::config) connect: Field<Duration>,
    pub(in crate::config) response: Field<Duration>,
    pub(in crate::config) response_body: Field<Duration>,
    pub(in crate::config) server_idle: Field<Duration>,
    pub(in crate::config) tunnel: Field<Duration>,
    pub(in crate::config) queue: Field<Duration>,
    pub(in crate::config) lifetime: Field<Duration>,
}

const SCHEMES: [(&str, Scheme); 2] = [("https", Scheme::Https), ("http", Scheme::Http)];

impl RawProxy {
    pub(super) fn read(proxy: &mut Table<'_, '_>) -> Self {
        Self {
            workers: proxy.get("workers", worker_count),
            limits: proxy.get("limits", plain),
            admin: proxy.get("admin", socket_address),
            cookie_key: proxy.get("cookie_key", cookie_key),
            drain: proxy.table("drain", r#"{ grace = "20s" }"#, |drain| RawDrain {
                grace: drain.get("grace", idle_time),
                timeout: drain.get("timeout", idle_time),
            }),
        }
    }
}

impl RawTimeouts {
    pub(super) fn read(timeouts: &mut Table<'_, '_>) -> Self {
        Self {
            client_idle: timeouts.get("client_idle", idle_time),
            request_header: timeouts.get("request_header", idle_time),
            request_body: timeouts.get("request_body", idle_time),
            client_write: timeouts.get("client_write", idle_time),
            connect: timeouts.get("connect", idle_time),
            response: timeouts.get("response", idle_time),
            response_body: timeouts.get("response_body", idle_time),
            server_idle: timeouts.get("server_idle", idle_time),
            tunnel: timeouts.get("tunnel", idle_time),
            queue: timeouts.get("queue", idle_time),
            lifetime: timeouts.get("lifetime", idle_time),
        }
    }
}

pub(super) fn read_tls(table: &mut Table<'_, '_>) -> Field<RawTls> {
    let certificates = read_certificates(table);
    let (strict, minimum_version) = (table.get("strict", boolean), table.get("minimum_version", plain));
    let (alpn, client_certificates) = (table.get("alpn", plain), table.get("client_certificates", plain));
    let refuse_domain_fronting = table.get("refuse_domain_fronting", boolean);
    let handshake_timeout = table.get("handshake_timeout", idle_time);
    certificates.map(|certificates| RawTls {
        certificates,
        strict,
        minimum_version,
        alpn,
        client_certificates,
        refuse_domain_fronting,
        handshake_timeout,
    })
}

fn read_certificates(table: &mut Table<'_, '_>) -> Field<Vec<Located<PathBuf>>> {
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

/// A redirect; one of its keys has to say where to.
pub(super) fn read_redirect(table: &mut Table<'_, '_>) -> Field<Redirect> {
    let scheme = table.get("scheme", |value| one_of(value, "scheme", &SCHEMES));
    let (host, port) = (table.get("host", redirect_host), table.get("port", port));
    let (path, status) = (table.get("path", http_path), table.get("status", redirect_status));
    let broken =
        [scheme.is_broken(), host.is_broken(), port.is_broken(), path.is_broken(), status.is_broken()];
    if broken.contains(&true) || !table.misspelt().is_empty() {
        return Field::Broken;
    }
    let leads = [scheme.is_absent(), host.is_absent(), port.is_absent(), path.is_absent()];
    if !leads.contains(&false) {
        let problem =
            format!("{} leads nowhere else; add scheme = \"https\", a host, a port or a path", table.label());
        table.report().error(table.at(), problem);
        return Field::Broken;
    }
    let usual = Redirect::to_scheme(Scheme::Https);
    let value = Redirect {
        scheme: scheme.into_value(),
        host: host.into_value(),
        port: port.into_value(),
        path: path.into_value(),
        status: status.into_value().unwrap_or(usual.status),
    };
    Field::Set(Located { value, key: table.at(), at: table.at() })
}
