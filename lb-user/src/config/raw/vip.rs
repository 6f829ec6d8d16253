//! The keys of a VIP and of `[vip_defaults]`.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use lb_common::quic::lb::Encoding;

use super::{
    RawHealth,
    proxied::{RawTimeouts, RawTls, read_redirect, read_tls},
    quic, read_persistence,
};
use crate::{
    config::{
        reader::{Field, Located, Table},
        values::{
            boolean, error_status, file, max_new_flows, mss, network, one_of, plain, pool_name, port, ports,
            vip_address,
        },
    },
    model::{Algorithm, Empty, Mode, Persistence, Ports, Protocol},
};

/// The keys of a VIP, or of `[vip_defaults]`.
#[derive(Default)]
pub(in crate::config) struct RawVip {
    pub(in crate::config) address: Field<IpAddr>,
    pub(in crate::config) port: Field<Ports>,
    pub(in crate::config) protocol: Field<Protocol>,
    pub(in crate::config) mode: Field<Mode>,
    pub(in crate::config) pool: Field<String>,
    pub(in crate::config) server_port: Field<u16>,
    pub(in crate::config) algorithm: Field<Algorithm>,
    pub(in crate::config) persistence: Field<Persistence>,
    pub(in crate::config) empty: Field<Empty>,
    pub(in crate::config) max_new_flows: Field<u32>,
    pub(in crate::config) mss: Field<u16>,
    pub(in crate::config) flow_state: Field<bool>,
    pub(in crate::config) gue_port: Field<u16>,
    pub(in crate::config) health: RawHealth,
    pub(in crate::config) tls: Field<RawTls>,
    pub(in crate::config) headers: Field<l7_spec::Headers>,
    pub(in crate::config) limits: Field<l7_spec::Limits>,
    pub(in crate::config) hash_by: Field<l7_spec::HashBy>,
    pub(in crate::config) h2c: Field<bool>,
    pub(in crate::config) proxy_protocol: Field<l7_spec::ProxyProtocolIn>,
    pub(in crate::config) source: Field<l7_spec::Source>,
    pub(in crate::config) trusted_proxies: Field<Vec<(IpAddr, u8)>>,
    pub(in crate::config) timeouts: Field<RawTimeouts>,
    pub(in crate::config) redirect: Field<l7_spec::Redirect>,
    pub(in crate::config) routes: Field<Vec<Located<l7_spec::Route>>>,
    pub(in crate::config) sni_routes: Field<Vec<Located<l7_spec::SniRoute>>>,
    pub(in crate::config) fallback_pool: Field<String>,
    pub(in crate::config) error_pages: Field<Vec<(u16, Located<PathBuf>)>>,
    pub(in crate::config) quic: Field<BTreeMap<u8, Encoding>>,
}

const MODES: [(&str, Mode); 7] = [
    ("snat", Mode::Snat),
    ("nat", Mode::Nat),
    ("dr", Mode::Dr),
    ("ipip", Mode::Ipip),
    ("gue", Mode::Gue),
    ("http", Mode::Http),
    ("tcp", Mode::Tcp),
];

const PROTOCOLS: [(&str, Protocol); 2] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];

pub(super) const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("maglev", Algorithm::Maglev),
    ("round-robin", Algorithm::RoundRobin),
    ("least-conn", Algorithm::LeastConnections),
    ("power-of-two", Algorithm::PowerOfTwo),
    ("source", Algorithm::Source),
    ("first", Algorithm::First),
];

const EMPTIES: [(&str, Empty); 3] = [("drop", Empty::Drop), ("reject", Empty::Reject), ("pass", Empty::Pass)];

const OF_HEALTH: &str = "it belongs into health = { … }";

const OF_QUIC: &str = "it belongs into quic = { … }";

/// What is often sought at a VIP.
const NOT_OF_VIPS: [(&str, &str); 14] = [
    ("servers", "servers belong to a pool: [pool.NAME]"),
    ("on_down", "it belongs to the pool"),
    ("min_healthy", "it belongs to the pool"),
    ("drain_wait", "it belongs to the pool"),
    ("certificates", "it belongs into tls = { … }"),
    ("server_id_length", OF_QUIC),
    ("nonce_length", OF_QUIC),
    ("quic_id", "it belongs to a server of the pool"),
    ("check", OF_HEALTH),
    ("interval", OF_HEALTH),
    ("rise", OF_HEALTH),
    ("fall", OF_HEALTH),
    ("path", OF_HEALTH),
    ("expect", OF_HEALTH),
];

impl RawVip {
    pub(super) fn read(vip: &mut Table<'_, '_>) -> Self {
        vip.belong_elsewhere(&NOT_OF_VIPS);
        let mut raw = Self {
            address: vip.get("address", vip_address),
            port: vip.get("port", ports),
            protocol: vip.get("protocol", |value| one_of(value, "protocol", &PROTOCOLS)),
            mode: vip.get("mode", |value| one_of(value, "mode", &MODES)),
            pool: vip.get("pool", pool_name),
            server_port: vip.get("server_port", port),
            algorithm: vip.get("algorithm", |value| one_of(value, "algorithm", &ALGORITHMS)),
            persistence: vip.table("persistence", r#"{ type = "source-ip" }"#, read_persistence).flatten(),
            empty: vip.get("empty", |value| one_of(value, "answer", &EMPTIES)),
            max_new_flows: vip.get("max_new_flows", max_new_flows),
            mss: vip.get("mss", mss),
            flow_state: vip.get("flow_state", boolean),
            gue_port: vip.get("gue_port", port),
            health: RawHealth::read(vip),
            tls: vip.table("tls", r#"{ certificates = ["certs/server.pem"] }"#, read_tls).flatten(),
            headers: vip.get("headers", plain),
            limits: vip.get("limits", plain),
            hash_by: vip.get("hash_by", plain),
            h2c: vip.get("h2c", boolean),
            proxy_protocol: vip.get("proxy_protocol", plain),
            source: vip.get("source", plain),
            trusted_proxies: vip
                .list("trusted_proxies", r#"["10.0.0.0/24"]"#, network)
                .map(|all| all.into_iter().map(|one| one.value).collect()),
            timeouts: vip.table("timeouts", r#"{ client_idle = "900s" }"#, RawTimeouts::read),
            redirect: vip.table("redirect", r#"{ scheme = "https" }"#, read_redirect).flatten(),
            routes: vip.list("routes", r#"[{ paths = ["/api"], pool = "api" }]"#, plain),
            sni_routes: vip.list("sni_routes", r#"[{ names = ["a.example"], pool = "a" }]"#, plain),
            fallback_pool: vip.get("fallback_pool", pool_name),
            error_pages: vip.table("error_pages", r#"{ 503 = "errors/503.http" }"#, |pages| {
                pages.entries(error_status, file)
            }),
            quic: quic::read(vip),
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
