//! Connections of proxied VIPs: which the proxy is to be asked for, and how they are told.

use l7_spec::{ClientConnection, ConnectionFilter, Network};

use super::{Connection, Filter, Listed, State};
use crate::{
    plan::select::{further_key, vip_in},
    trace::{Insight, ServerName},
};

/// The same filter in the proxy's words. A server of any VIP is one of each.
pub(super) fn which(insight: &Insight, filter: &Filter) -> ConnectionFilter {
    let in_proxy = |server: &ServerName| {
        let pool = if server.own { server.vip.clone() } else { further_key(&server.vip, &server.pool) };
        (pool, server.plain().to_owned())
    };
    let servers = filter.server.as_ref().map(|name| {
        let called = insight.names.servers_called(name, filter.vip.as_deref());
        called.map(|(_, server)| in_proxy(server)).collect()
    });
    ConnectionFilter {
        service: filter.vip.clone(),
        servers,
        client: filter.client.and_then(|(address, length)| Network::new(address, length)),
    }
}

/// What the kernel's tables have and what the proxy has, together.
pub(super) fn with(listed: Listed, of_proxy: (Vec<ClientConnection>, u64), limit: usize) -> Listed {
    let (clients, matching) = of_proxy;
    let mut connections = listed.connections;
    connections.extend(clients.into_iter().map(told));
    connections.sort_by_key(|connection| connection.idle);
    connections.truncate(limit);
    Listed { connections, matching: listed.matching + matching }
}

fn told(client: ClientConnection) -> Connection {
    let server = client.server.map(|(pool, server)| {
        let further = pool.strip_prefix(vip_in(&pool)).and_then(|rest| rest.strip_prefix('/'));
        further.map_or_else(|| server.clone(), |pool| format!("{pool}:{server}"))
    });
    Connection {
        vip: client.service,
        server: server.unwrap_or_else(|| "-".into()),
        protocol: "tcp".into(),
        client: client.client,
        vip_address: client.local,
        source: None,
        server_address: None,
        state: State::Open,
        idle: client.quiet_ms / 1_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Names;

    #[test]
    fn servers_are_asked_for_by_pool_and_told_by_the_names_of_their_vip() {
        let names = Names::made_up(&[(0, "web")], &[(1, "s1"), (2, "api:s1"), (3, "s2")]);
        let insight = Insight { names, ..Insight::default() };
        let filter = |vip: Option<&str>, server: &str| Filter {
            vip: vip.map(str::to_owned),
            server: Some(server.into()),
            client: Some(([10, 0, 0, 0].into(), 8)),
        };
        let pair = |pool: &str| (pool.to_owned(), "s1".to_owned());
        let asked = which(&insight, &filter(Some("web"), "api:s1"));
        assert_eq!((asked.service.as_deref(), asked.servers), (Some("web"), Some(vec![pair("web/api")])));
        assert_eq!(asked.client, Some("10.0.0.0/8".parse().unwrap()));
        assert_eq!(which(&insight, &filter(Some("web"), "s1")).servers, Some(vec![pair("web")]));
        assert_eq!(which(&insight, &filter(Some("web"), "own:s1")).servers, Some(vec![pair("web")]));
        assert_eq!(which(&insight, &filter(Some("other"), "s1")).servers, Some(vec![]));
        let mut anywhere = which(&insight, &filter(None, "s1")).servers.unwrap();
        anywhere.sort_unstable();
        assert_eq!(anywhere, [pair("web"), pair("web/api")], "as with lbctl server: of every pool");
        let client = |server, quiet_ms| ClientConnection {
            service: "web".into(),
            client: "10.0.0.9:5000".parse().unwrap(),
            local: "10.0.0.100:80".parse().unwrap(),
            server,
            quiet_ms,
        };
        let clients =
            vec![client(None, 9_000), client(Some(pair("web/api")), 0), client(Some(pair("web")), 5_000)];
        let listed = with(Listed::default(), (clients, 7), 2);
        let servers: Vec<_> = listed.connections.iter().map(|one| one.server.as_str()).collect();
        assert_eq!((servers, listed.matching), (vec!["api:s1", "s1"], 7));
    }
}
