//! Ways back for the answers of servers that see the client's own address (`source = "client"`): rules of this host's
//! routing, made at a start and taken away at the end, as VIP addresses are.
//!
//! What a reload has no use for stays while connections need it, and while a proxy may still make such: without the rule their
//! servers' answers would go on to the clients, who know nothing of them.

use std::{
    collections::{BTreeSet, HashSet},
    convert::Infallible,
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use l7_spec::Source;
use tokio::{sync::Mutex, time::sleep};
use tracing::{debug, info, warn};

use crate::{
    l7, listeners,
    model::{Config, PortRange},
    netlink::{self, Netlink, rules::WayBack},
};

/// How often it is looked whether all are there, and at first, whether what is left of former ones can go.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Most connections are over by then.
const AT_FIRST: Duration = Duration::from_secs(60);

/// How often it is looked after that whether what is left can go: a table of all connections is read for it.
const LOOK_LATER: Duration = Duration::from_secs(30);

/// The ways back of this host.
#[derive(Debug, Default)]
pub struct WaysBack {
    /// What the configuration needs.
    wanted: BTreeSet<WayBack>,
    /// What only open connections may need.
    left: BTreeSet<WayBack>,
    /// What was there before this process.
    found: BTreeSet<WayBack>,
    /// Since when nobody but open connections may need those, as far as has been seen.
    since: Option<Instant>,
    /// When it was last looked which of them are in use.
    looked: Option<Instant>,
}

/// What a configuration needs.
#[must_use]
pub fn wanted(config: &Config) -> BTreeSet<WayBack> {
    let services = config
        .services()
        .filter(|(vip, _)| !vip.mode.is_layer4() && vip.proxied.source == Some(Source::Client));
    let mut wanted = BTreeSet::new();
    for (vip, leads) in services {
        for server in leads.iter().flat_map(|lead| &lead.pool.servers) {
            let Some(address) = server.address() else { continue };
            let one = server.port.or(vip.server_port).map(|port| PortRange { first: port, last: port });
            let ports = one.as_ref().map_or_else(|| vip.ports.ranges(), std::slice::from_ref);
            wanted.extend(ports.iter().map(|&ports| WayBack { server: address, ports }));
        }
    }
    wanted
}

impl WaysBack {
    /// Makes what `config` needs. What an earlier lb-user has left beside it stays while it is in use.
    ///
    /// # Errors
    /// When the kernel refuses; comes with what there is by then.
    pub async fn put_up(netlink: &Netlink, config: &Config) -> Result<Self, (Self, netlink::Error)> {
        let mut ways = Self::default();
        let outcome = async {
            ways.found = netlink.ways_back().await?.into_iter().collect();
            ways.left.clone_from(&ways.found);
            ways.follow(netlink, config).await
        };
        match outcome.await {
            Ok(()) => Ok(ways),
            Err(error) => Err((ways, error)),
        }
    }

    /// Goes over to another configuration.
    ///
    /// # Errors
    /// When the kernel refuses; the rest is done all the same.
    pub async fn follow(&mut self, netlink: &Netlink, config: &Config) -> Result<(), netlink::Error> {
        let wanted = wanted(config);
        if wanted == self.wanted {
            return Ok(());
        }
        let there: BTreeSet<_> = self.wanted.union(&self.left).copied().collect();
        self.left = there.difference(&wanted).copied().collect();
        (self.wanted, self.since) = (wanted, None);
        let mut outcome = Ok(());
        for ipv6 in [false, true] {
            if self.wanted.iter().any(|way| way.server.is_ipv6() == ipv6) {
                outcome = outcome.and(netlink.take_in(ipv6, true).await);
            }
        }
        for way in self.wanted.difference(&there) {
            outcome = outcome.and(netlink.add_way_back(*way).await);
        }
        outcome
    }

    /// Takes them all away; what the kernel refuses is logged.
    pub async fn take_down(self, netlink: &Netlink) {
        let all = self.wanted.union(&self.left).copied().collect();
        remove(netlink, &all, &BTreeSet::new()).await;
    }

    /// Takes away what this process has made: what was there before, a proxy may need that goes on.
    pub async fn undo(self, netlink: &Netlink) {
        let made = self.wanted.difference(&self.found).copied().collect();
        remove(netlink, &made, &self.found).await;
    }

    /// Puts back what somebody took away, and takes away what no connection needs any more. Proxies may connect to the servers
    /// in `by_proxies`, where that is known.
    async fn tend(
        &mut self,
        netlink: &Netlink,
        now: Instant,
        by_proxies: Option<&BTreeSet<SocketAddr>>,
    ) -> Result<(), netlink::Error> {
        if self.wanted.is_empty() && self.left.is_empty() {
            return Ok(());
        }
        let there: BTreeSet<_> = netlink.ways_back().await?.into_iter().collect();
        // What is refused for one keeps no other from being put back.
        let mut outcome = Ok(());
        for ipv6 in [false, true] {
            if self.wanted.union(&self.left).any(|way| way.server.is_ipv6() == ipv6) {
                outcome = outcome.and(netlink.take_in(ipv6, true).await);
            }
        }
        for way in self.wanted.union(&self.left).filter(|way| !there.contains(way)) {
            let added = netlink.add_way_back(*way).await;
            if added.is_ok() {
                warn!("the routing rule for answers of {} had been removed; put back", way.server);
            }
            outcome = outcome.and(added);
        }
        if !self.left.is_empty()
            && let Some(by_proxies) = self.time_to_look(now, by_proxies)
        {
            self.drop_idle(netlink, by_proxies).await?;
        }
        outcome
    }

    /// What proxies need, if it is to be looked now which of those that are left are in use.
    fn time_to_look<'a>(
        &mut self,
        now: Instant,
        by_proxies: Option<&'a BTreeSet<SocketAddr>>,
    ) -> Option<&'a BTreeSet<SocketAddr>> {
        let Some(by_proxies) = by_proxies else {
            // One that has not heard of another configuration makes connections by the one before, or by any before that.
            self.since = None;
            return None;
        };
        let Some(since) = self.since else {
            (self.since, self.looked) = (Some(now), None);
            return None;
        };
        let at_first = now.duration_since(since) < AT_FIRST;
        let due = at_first || self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_LATER);
        if !due {
            return None;
        }
        self.looked = Some(now);
        Some(by_proxies)
    }

    /// Takes away what is left and no connection needs any more.
    async fn drop_idle(
        &mut self,
        netlink: &Netlink,
        by_proxies: &BTreeSet<SocketAddr>,
    ) -> Result<(), netlink::Error> {
        let own: HashSet<_> = netlink.addresses().await?.into_iter().map(|on| on.address).collect();
        // Tens of thousands of lines on a busy host.
        let used = tokio::task::spawn_blocking(move || in_use(&own)).await;
        let used = match used.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
            Ok(used) => used,
            Err(error) => {
                debug!("cannot see which connections there are: {error}");
                return Ok(());
            }
        };
        let is_needed = |way: &WayBack| leads_to_any(way, &used) || leads_to_any(way, by_proxies);
        let (needed, idle): (BTreeSet<_>, BTreeSet<_>) = self.left.iter().copied().partition(is_needed);
        remove(netlink, &idle, &self.wanted.union(&needed).copied().collect()).await;
        self.left = needed;
        Ok(())
    }
}

/// Whether answers of one of these servers take this way.
fn leads_to_any(way: &WayBack, servers: &BTreeSet<SocketAddr>) -> bool {
    let at = |port| SocketAddr::new(way.server, port);
    servers.range(at(way.ports.first)..=at(way.ports.last)).next().is_some()
}

/// Takes ways away, and empties the table of a family that has none left.
async fn remove(netlink: &Netlink, all: &BTreeSet<WayBack>, staying: &BTreeSet<WayBack>) {
    for way in all {
        if let Err(error) = netlink.remove_way_back(*way).await {
            warn!("{error}");
        }
    }
    for ipv6 in [false, true] {
        let of_family = |ways: &BTreeSet<WayBack>| ways.iter().any(|way| way.server.is_ipv6() == ipv6);
        if of_family(all)
            && !of_family(staying)
            && let Err(error) = netlink.take_in(ipv6, false).await
        {
            warn!("{error}");
        }
    }
}

/// Takes away what an earlier lb-user has left; says how many there were.
///
/// # Errors
/// When the kernel does not list them.
pub async fn clean_up(netlink: &Netlink) -> Result<usize, netlink::Error> {
    let left: BTreeSet<_> = netlink.ways_back().await?.into_iter().collect();
    remove(netlink, &left, &BTreeSet::new()).await;
    Ok(left.len())
}

/// Looks after them for as long as it is polled: other programs may remove rules that they do not know (systemd-networkd does).
pub async fn keep_up(ways: &Mutex<WaysBack>, netlink: &Netlink, proxy: &l7::Handle) -> Infallible {
    let mut complained = false;
    loop {
        sleep(LOOK_EVERY).await;
        let mut ways = ways.lock().await;
        let report = proxy.report();
        match ways.tend(netlink, Instant::now(), report.seen_clients.as_deref()).await {
            Ok(()) => complained = false,
            Err(error) if complained => debug!("{error}"),
            Err(error) => {
                warn!("{error}");
                complained = true;
            }
        }
    }
}

/// Where connections lead to whose own address is none of this host's (`own`).
fn in_use(own: &HashSet<IpAddr>) -> io::Result<BTreeSet<SocketAddr>> {
    let mut used = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let file = match std::fs::File::open(format!("/proc/net/{table}")) {
            // A host without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => BufReader::new(file?),
        };
        for line in file.lines() {
            used.extend(
                listeners::connection(&line?)
                    .filter(|(local, _)| !own.contains(&local.ip()))
                    .map(|(_, remote)| SocketAddr::new(remote.ip(), remote.port())),
            );
        }
    }
    Ok(used)
}

/// What an operator should know of ways back before they are in use: they are seen by nobody but the servers' answers.
pub fn report(config: &Config) {
    let count = wanted(config).len();
    if count > 0 {
        info!(
            "source = \"client\": {count} routing rules take the servers' answers in; their routes to clients must lead \
             through this host"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_looked_at_often_only_at_first() {
        let mut ways = WaysBack::default();
        let start = Instant::now();
        let none = BTreeSet::new();
        let mut at = |seconds| ways.time_to_look(start + Duration::from_secs(seconds), Some(&none)).is_some();
        assert_eq!(
            [0, 2, 4, 59, 60, 62, 88, 89, 118, 119].map(&mut at),
            [false, true, true, true, false, false, false, true, false, true]
        );
        ways.since = None;
        let mut at = |seconds| ways.time_to_look(start + Duration::from_secs(seconds), Some(&none)).is_some();
        assert_eq!([120, 122, 124].map(&mut at), [false, true, true], "another configuration");
    }

    #[test]
    fn nothing_is_taken_away_while_a_proxy_may_go_by_another_configuration() {
        let (mut ways, start, none) = (WaysBack::default(), Instant::now(), BTreeSet::new());
        let mut at = |seconds, known: bool| {
            ways.time_to_look(start + Duration::from_secs(seconds), known.then_some(&none)).is_some()
        };
        assert_eq!(
            [(0, true), (2, true), (4, false), (600, false)].map(|(s, known)| at(s, known)),
            [false, true, false, false]
        );
        assert_eq!([(602, true), (604, true)].map(|(s, known)| at(s, known)), [false, true]);
        let way =
            |first, last| WayBack { server: IpAddr::from([10, 0, 0, 1]), ports: PortRange { first, last } };
        let servers = ["10.0.0.1:80", "10.0.0.2:443", "[2001:db8::1]:81"];
        let servers: BTreeSet<SocketAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        let leads = |first, last| leads_to_any(&way(first, last), &servers);
        assert!(leads(80, 80) && leads(1, 65_535) && leads(79, 81) && !leads(81, 65_535) && !leads(443, 443));
    }

    #[test]
    fn a_way_for_each_port_of_each_server_of_vips_that_are_transparent() {
        let text = r#"
            [pool.web]
            servers = [{ name = "a", address = "10.0.0.1" }, { name = "b", address = "10.0.0.2", port = 8080 }]
            [pool.api]
            servers = [{ name = "c", address = "2001:db8::1" }]
            [vip.plain]
            address = "10.0.0.8"
            port = 81
            mode = "http"
            pool = "web"
            [vip.seen]
            address = "10.0.0.9"
            port = "80,443"
            mode = "http"
            pool = "web"
            source = "client"
            routes = [{ paths = ["/api"], pool = "api" }]
        "#;
        let config = crate::config::check("test.toml", text).unwrap().config;
        let shown: Vec<_> =
            wanted(&config).into_iter().map(|way| format!("{} {}", way.server, way.ports)).collect();
        let expected = ["10.0.0.1 80", "10.0.0.1 443", "10.0.0.2 8080", "2001:db8::1 80", "2001:db8::1 443"];
        assert_eq!(shown, expected);
    }
}
