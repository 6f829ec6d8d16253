//! What is served: a specification that was checked, with its files read and everything prepared that a request
//! would otherwise have to work out.

mod check;
mod edits;
mod pages;
mod routes;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

pub use check::check;
pub use edits::{CookieLine, Edits};
pub use pages::{Page, Pages, reason};
pub use routes::{Action, Asked, Location, Matching};

use crate::{
    server::Pool,
    spec::{self, Drain, Limits, Log, Mode, Network, ProcessLimits, Source, Timeouts},
    state::State,
    tls::Endpoint,
    wire::HeadLimits,
};

/// Everything a process serves.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Services, by the order of the specification.
    pub services: Vec<Arc<Service>>,
    /// Threads that serve.
    pub workers: usize,
    /// The log.
    pub log: Log,
    /// What the whole process may use.
    pub limits: ProcessLimits,
    /// Where metrics and health are told.
    pub admin: Option<SocketAddr>,
    /// How the process ends.
    pub drain: Drain,
}

/// A service.
#[derive(Debug)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// Addresses and ports.
    pub listen: BTreeSet<SocketAddr>,
    /// What clients speak.
    pub mode: Mode,
    /// PROXY protocol that clients speak first.
    pub proxy_protocol: Option<spec::ProxyProtocolIn>,
    /// TLS towards clients.
    pub tls: Option<Arc<Endpoint>>,
    /// Whether clients may speak HTTP/2 without TLS.
    pub h2c: bool,
    /// Requests that go elsewhere.
    pub routes: Vec<Matching>,
    /// Connections that go elsewhere, by the name in the TLS greeting of the client.
    pub sni_routes: Vec<(Vec<String>, Arc<Pool>)>,
    /// What becomes of all others.
    pub action: Action,
    /// Where requests go while their pool has no server.
    pub fallback: Option<Arc<Pool>>,
    /// Port on servers that have none.
    pub server_port: Option<u16>,
    /// Where connections to servers come from.
    pub source: Source,
    /// Header lines that are changed.
    pub edits: Edits,
    /// The cookie by which clients find their server again.
    pub cookie: Option<CookieLine>,
    /// Persistence without a cookie.
    pub persistence: Option<spec::Persistence>,
    /// Networks of proxies before us.
    pub trusted: Vec<Network>,
    /// Answers of our own.
    pub pages: Pages,
    /// Times after which it gives up.
    pub timeouts: Timeouts,
    /// What it may be asked for.
    pub limits: Limits,
    /// How much of a head is taken.
    pub head: HeadLimits,
    /// What is known of it while the process runs.
    pub state: Arc<State>,
    /// What it was made of, to see whether another specification changes it.
    pub spec: spec::Service,
}

impl Service {
    /// Whether what a client says about its own clients counts.
    #[must_use]
    pub fn trusts(&self, client: std::net::IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(client))
    }

    /// The pool of a connection of mode `tcp`, whose client asked for this name; none where no server could be
    /// used.
    #[must_use]
    pub fn tcp_pool(&self, name: Option<&str>) -> Option<&Arc<Pool>> {
        let is_one_of = |patterns: &[String], name: &str| {
            patterns.iter().any(|pattern| routes::host_matches(pattern, name.as_bytes()))
        };
        let route = name.and_then(|name| self.sni_routes.iter().find(|(names, _)| is_one_of(names, name)));
        let pool = match (route, &self.action) {
            (Some((_, pool)), _) | (None, Action::Pool(pool)) => pool,
            _ => return None,
        };
        if pool.has_server() || pool.has_draining() {
            return Some(pool);
        }
        self.fallback.as_ref().filter(|fallback| fallback.has_server())
    }

    /// All pools it leads to, each once.
    #[must_use]
    pub fn pools(&self) -> Vec<&Arc<Pool>> {
        let actions = self.routes.iter().map(|route| &route.action).chain([&self.action]);
        let pools = actions.filter_map(|action| match action {
            Action::Pool(pool) => Some(pool),
            _ => None,
        });
        let by_name = self.sni_routes.iter().map(|(_, pool)| pool);
        let mut all: Vec<&Arc<Pool>> = pools.chain(by_name).chain(&self.fallback).collect();
        all.sort_by_key(|pool| &pool.name);
        all.dedup_by_key(|pool| &pool.name);
        all
    }
}
