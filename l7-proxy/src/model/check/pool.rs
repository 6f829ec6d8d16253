//! A pool and its servers, as one service leads to them.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::hmac;

use super::service::Context;
use crate::{
    model::Action,
    server::{Live, Pool, Server, hash},
    spec::{self, Mode, Problem, ServerProtocol},
    tls::ToServers,
};

impl Context<'_> {
    pub(super) fn pool(
        &self,
        name: &str,
        place: &str,
        pools: &mut BTreeMap<String, Arc<Pool>>,
        problems: &mut Vec<Problem>,
    ) -> Action {
        if let Some(pool) = pools.get(name) {
            return Action::Pool(Arc::clone(pool));
        }
        let Some(told) = self.spec.pools.iter().find(|pool| pool.name == name) else {
            problems.push(Problem::new(place, format!("there is no pool \"{name}\"")));
            return Action::Status(503);
        };
        if self.service.mode == Mode::Http && told.mode == Some(Mode::Tcp) {
            problems.push(Problem::new(
                place,
                format!("pool \"{name}\" has mode tcp, which cannot serve mode http"),
            ));
        }
        if self.service.mode == Mode::Tcp
            && told.mode != Some(Mode::Http)
            && told.protocol == ServerProtocol::Http2
        {
            problems
                .push(Problem::new(place, format!("pool \"{name}\" speaks HTTP/2, which needs mode http")));
        }
        let servers = told.servers.iter().map(|server| self.server(told, server)).collect();
        let algorithm = told.algorithm.unwrap_or(self.service.algorithm);
        let mut pool = Pool::new(told, servers, algorithm, self.service.hash_by.clone());
        if let Some(former) = self.former(told) {
            pool.follow(&former);
        }
        let mut found = Vec::new();
        pool.tls = told.tls.as_ref().and_then(|tls| ToServers::new(tls, &mut found));
        problems.extend(found.into_iter().map(|problem| problem.within(&format!("pool {name}"))));
        let pool = Arc::new(pool);
        pools.insert(name.to_owned(), Arc::clone(&pool));
        Action::Pool(pool)
    }

    fn server(&self, pool: &spec::Pool, told: &spec::Server) -> Server {
        let port = told.port.or(self.service.server_port);
        let new = || {
            let live = Live::new(&pool.name, &told.name, told.state, self.workers);
            live.set_most(told.max_connections);
            Arc::new(live)
        };
        let live = self.known(pool, told, port).unwrap_or_else(new);
        Server {
            name: told.name.clone(),
            address: told.address,
            port,
            weight: told.weight,
            backup: told.backup,
            most: told.max_connections,
            cookie: self.cookie_value(pool, told),
            seed: hash(format!("{}/{port:?}", told.address).as_bytes()),
            told: told.state,
            live,
        }
    }

    /// What was known of the same server, if its connections would be made in the same way.
    fn known(&self, pool: &spec::Pool, told: &spec::Server, port: Option<u16>) -> Option<Arc<Live>> {
        let same = self.former(pool)?;
        let server = same.servers.iter().find(|server| {
            server.name == told.name && server.address == told.address && server.port == port
        })?;
        Some(Arc::clone(&server.live))
    }

    /// The pool as it was, if connections to its servers would be made in the same way.
    fn former(&self, pool: &spec::Pool) -> Option<Arc<Pool>> {
        let before = self.before_service()?;
        if before.source != self.service.source
            || before.timeouts.server_idle != self.service.timeouts.server_idle
        {
            return None;
        }
        let same = |other: &&Arc<Pool>| {
            other.name == pool.name
                && other.proxy_protocol == pool.proxy_protocol
                && other.tls_told == pool.tls
        };
        before.pools().into_iter().find(same).map(Arc::clone)
    }

    /// The value of the cookie that names a server: nobody can tell the server from it without the key.
    fn cookie_value(&self, pool: &spec::Pool, server: &spec::Server) -> String {
        let secret = self.spec.cookie_key.as_deref().unwrap_or("l7-proxy");
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, format!("{}\0{}", pool.name, server.name).as_bytes());
        tag.as_ref().iter().take(10).map(|byte| format!("{byte:02x}")).collect()
    }
}
