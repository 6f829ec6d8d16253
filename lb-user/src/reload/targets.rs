//! What follows from a configuration for those who look for its servers and check them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    health::{Place, Target, TargetId},
    model::{Address, Config, Found, HealthCheck, Member, Server, Vip},
};

/// The addresses of all servers.
#[must_use]
pub fn servers(config: &Config) -> Arc<[IpAddr]> {
    config.pools.iter().flat_map(|pool| &pool.servers).filter_map(Server::address).collect()
}

/// What is to be probed: every server of every VIP.
#[must_use]
pub fn targets(config: &Config) -> Vec<Target> {
    let target = |(vip, member): (&Vip, Member<'_>)| Target {
        place: place(vip, &member),
        check: member.lead.check.clone(),
        id: TargetId::new(&vip.name, member.name),
    };
    config.pairs().map(target).collect()
}

/// Where a server is probed: the check's own address, else the server's.
fn place(vip: &Vip, member: &Member<'_>) -> Place {
    let check = member.lead.check;
    match &member.server.address {
        Address::Named(_, Found::NotYet) => Place::Sought,
        Address::Named(_, Found::Nowhere(why)) => Place::Nowhere(why.clone()),
        Address::Fixed(server) | Address::Named(_, Found::At(server)) => {
            let address = check.address.unwrap_or(*server);
            let probe = SocketAddr::new(address, probe_port(vip, check, member.server.port));
            Place::At { server: *server, probe }
        }
    }
}

/// The port to probe: the check's own, else the one served, `of_server` or the VIP's, else the first of those served.
pub(crate) fn probe_port(vip: &Vip, check: &HealthCheck, of_server: Option<u16>) -> u16 {
    check.port.or(of_server).or(vip.server_port).unwrap_or_else(|| vip.ports.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn probed_at(place: &Place) -> SocketAddr {
        let Place::At { probe, .. } = place else { panic!("{place:?}") };
        *probe
    }

    #[test]
    fn every_server_of_every_vip_is_probed_where_it_serves() {
        let text = r#"
            [pool.p]
            servers = [{ name = "s", address = "10.0.0.1" }]
            [vip_defaults]
            address = "192.0.2.1"
            mode = "snat"
            pool = "p"
            [vip.plain]
            port = 80
            [vip.translated]
            port = 81
            server_port = 8080
            [vip.many]
            port = "443,1000-1010"
            [vip.elsewhere]
            port = 82
            health = { port = 9 }
        "#;
        let config = config::check("test.toml", text).unwrap().config;
        let probed: Vec<_> = targets(&config)
            .into_iter()
            .map(|target| (target.id.vip, probed_at(&target.place).port()))
            .collect();
        let expected = [("plain", 80), ("translated", 8080), ("many", 443), ("elsewhere", 9)];
        assert_eq!(probed, expected.map(|(vip, port)| (vip.to_owned(), port)));
    }
}
