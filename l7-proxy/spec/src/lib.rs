//! What the proxy is told: plain data, read from JSON, that says nothing about whether it can be served.
//!
//! Every key has a default that means what users of other proxies expect; only names, addresses and what a
//! service leads to must be given. Unknown keys are refused, since a misspelt limit is no limit. Durations are
//! texts as in the balancer's own file (`"250ms"`, `"30s"`, `"1h"`), networks are `"10.0.0.0/8"`.
//!
//! A [`Spec`] is then checked as a whole, with its files, before anything is served.

mod channel;
mod control;
mod headers;
mod limits;
mod log;
mod persistence;
mod pool;
mod problem;
mod proxy_protocol;
mod routes;
mod service;
mod status;
mod supply;
mod tls;
mod values;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use channel::{Channel, MOST_FILES};
pub use control::{
    Ask, CONTROL_VERSION, ClientConnection, ConnectionFilter, Memory, Reply, ServerChange, StickyTable,
};
pub use headers::{Forwarding, HeaderLine, Headers, Rewrite};
pub use limits::{Http2Limits, Limits, ProcessLimits, Timeouts};
pub use log::{Log, LogFormat, LogTarget};
pub use persistence::{CookiePersistence, Persistence, SameSite};
pub use pool::{Outliers, Pool, Queue, Retries, Server, ServerProtocol, ServerState};
pub use problem::Problem;
pub use proxy_protocol::{ProxyProtocolIn, ProxyProtocolVersion};
pub use routes::{Answer, HeaderMatch, Redirect, Route, Scheme, SniRoute};
pub use service::{Algorithm, HashBy, Mode, Service, Source};
pub use status::{CertificateStatus, PoolStatus, ServerStatus, ServiceStatus, Status};
pub use supply::{SocketsGiven, SocketsWanted};
pub use tls::{
    ClientCertificates, ForwardedClientCertificate, ServerTls, ServerVerification, Tls, TlsVersion,
};
pub use values::first_bits;
pub use values::{Network, Span};

/// Everything one proxy process is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// What is listened for; names are unique.
    pub services: Vec<Service>,
    /// Groups of servers that services lead to; names are unique.
    pub pools: Vec<Pool>,
    /// Where a line for each request and connection goes.
    pub log: Log,
    /// What the whole process may use.
    pub limits: ProcessLimits,
    /// Threads that serve, each with listeners and server connections of its own; as many as the process may
    /// use processors unless given.
    pub workers: Option<usize>,
    /// Where metrics, health and a picture of the state are told over HTTP (`/metrics`, `/health`, `/status`);
    /// nowhere unless given.
    pub admin: Option<std::net::SocketAddr>,
    /// Makes the cookie values by which servers are found again. Balancers that stand in for each other must
    /// share it; without it the values follow from names alone, which is stable but can be guessed.
    pub cookie_key: Option<String>,
    /// How long open connections may last after the process was told to end.
    pub drain: Drain,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// `/health` says 503 for this long while everything is still served, so that the tier above goes away
    /// first.
    pub grace: Span,
    /// Then nothing new is accepted, and what is open may last this long.
    pub timeout: Span,
}

impl Default for Drain {
    fn default() -> Self {
        Self { grace: Span::ZERO, timeout: Span::from_secs(30) }
    }
}

impl Spec {
    /// The files it names, each once.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let of_service = |service: &Service| {
            let tls = service.tls.iter();
            let of_tls = tls.flat_map(|tls| {
                let clients = tls.client_certificates.iter().map(|clients| clients.authorities.clone());
                tls.certificates.iter().cloned().chain(clients).collect::<Vec<_>>()
            });
            of_tls.chain(service.error_pages.values().cloned()).collect::<Vec<_>>()
        };
        let of_pool = |pool: &Pool| {
            let of_tls = pool.tls.iter().flat_map(|tls| {
                let authorities = match &tls.verify {
                    ServerVerification::Authorities(file) => Some(file.clone()),
                    ServerVerification::System | ServerVerification::None => None,
                };
                tls.certificate.clone().into_iter().chain(authorities)
            });
            of_tls.collect::<Vec<_>>()
        };
        let mut files: Vec<_> = self.services.iter().flat_map(of_service).collect();
        files.extend(self.pools.iter().flat_map(of_pool));
        files.sort_unstable();
        files.dedup();
        files
    }

    /// Reads a specification from JSON.
    ///
    /// # Errors
    /// One line with the place in the text and what is wrong there.
    pub fn from_json(text: &str) -> Result<Self, Problem> {
        serde_json::from_str(text).map_err(|error| Problem::new("", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_useful_specification() {
        let spec = Spec::from_json(
            r#"{ "services": [{ "name": "web", "listen": ["127.0.0.1:80"], "mode": "http", "pool": "web" }],
                 "pools": [{ "name": "web", "servers": [{ "name": "a", "address": "127.0.0.2" }] }] }"#,
        )
        .unwrap();
        let service = &spec.services[0];
        assert_eq!(service.algorithm, Algorithm::RoundRobin);
        assert!(service.headers.forwarding.x_forwarded_for && service.headers.forwarding.x_forwarded_proto);
        assert!(!service.headers.forwarding.forwarded && !service.headers.forwarding.via);
        assert!(service.timeouts.client_idle > Span::from_secs(5), "R32");
        assert!(service.timeouts.tunnel >= Span::from_secs(3600), "R18");
        assert_eq!(spec.pools[0].servers[0].weight, 100);
        assert_eq!(spec.pools[0].servers[0].state, ServerState::Up);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let spec = Spec::from_json(
            r#"{ "services": [{ "name": "web", "listen": ["[::1]:443"], "mode": "http",
                   "redirect": { "scheme": "https", "status": 301 },
                   "tls": { "certificates": ["a.pem"], "alpn": ["h2"] },
                   "persistence": { "type": "cookie", "name": "ID", "same_site": "lax" },
                   "trusted_proxies": ["10.0.0.0/8"], "timeouts": { "tunnel": "2h" } }] }"#,
        )
        .unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(Spec::from_json(&text).unwrap(), spec);
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_place() {
        let error = Spec::from_json("{ \"pools\": [],\n \"servces\": [] }").unwrap_err().to_string();
        assert!(error.contains("servces") && error.contains("line 2"), "{error}");
    }
}
