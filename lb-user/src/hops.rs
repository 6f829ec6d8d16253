//! Keeps the ways to all servers known: which interface, which MAC, which source address.
//!
//! The kernel is asked anew whenever it says that something changed, when the servers change, and every so
//! often in case a notice was missed. What is found is sent on only when it differs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use lb_common::abi::Mac;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    netlink::{
        self, Netlink, ask_all,
        links::Link,
        routes::{Neighbour, NextHop, NextHopProblem},
        watch::Watch,
    },
    plan::{Hop, desired::Way},
};

/// Without any notice, look again after this long.
const AT_LEAST_EVERY: Duration = Duration::from_secs(10);

/// Pause between two looks, so that a storm of notices does not take the processor.
const PAUSE: Duration = Duration::from_millis(100);

/// First pause while a MAC is missing; the kernel learns most within a millisecond. Doubled each time, up to
/// [`PAUSE`], after which a notice is waited for.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// A next hop that does not answer is asked for this often.
const NUDGE_EVERY: Duration = Duration::from_secs(1);

/// What packets need to know about the network around this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Way to each server's address.
    pub hops: HashMap<IpAddr, Hop>,
    /// MACs of the interfaces the program is attached to.
    pub interfaces: BTreeMap<u32, Mac>,
    /// Addresses that this host has for itself, not those that were put up for VIPs.
    pub own_addresses: HashSet<IpAddr>,
}

/// Has the scout look after the ways to `servers` until nobody listens any more. Nothing is told that it has found already.
pub async fn run(
    mut scout: Scout,
    mut notices: Watch,
    mut servers: watch::Receiver<Arc<[IpAddr]>>,
    news: mpsc::Sender<Surroundings>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let addresses = Arc::clone(&servers.borrow_and_update());
        match scout.look(&addresses).await {
            Ok(now) if now != scout.last => {
                if news.send(now.clone()).await.is_err() {
                    return;
                }
                scout.last = now;
                pause = FIRST_PAUSE;
            }
            Ok(_) => {}
            // What could not be asked has not changed for that.
            Err(error) => warn!("{error}; going on with what is known"),
        }
        let hops = scout.last.hops.values();
        let missing = hops.flatten().any(|way| way.next_hop.is_none());
        if missing && pause < PAUSE {
            sleep(pause).await;
            pause *= 2;
            continue;
        }
        // Ten times as much rest as work, whatever the kernel has to say.
        sleep(PAUSE.max(began.elapsed() * 10)).await;
        pause = FIRST_PAUSE;
        let changed = async {
            tokio::select! {
                _ = notices.changed() => true,
                changed = servers.changed() => changed.is_ok(),
                () = news.closed() => false,
            }
        };
        if timeout(AT_LEAST_EVERY, changed).await == Ok(false) {
            return;
        }
    }
}

/// Addresses that this host has for itself.
///
/// # Errors
/// When the kernel does not list them.
pub async fn own_addresses(netlink: &Netlink) -> Result<HashSet<IpAddr>, netlink::Error> {
    let present = netlink.addresses().await?;
    Ok(present.iter().filter(|on| !on.ours).map(|on| on.address).collect())
}

/// Asks the kernel, and remembers what it has forgotten.
pub struct Scout {
    netlink: Netlink,
    attached: Vec<u32>,
    neighbours: HashMap<Neighbouring, Remembered>,
    last: Surroundings,
}

/// What is remembered of a next hop.
#[derive(Default)]
struct Remembered {
    /// The kernel drops a neighbour that nobody talked to for a while, and the XDP program's talking does not
    /// count; its MAC is most likely still right, and what is certain is that without one nothing arrives.
    mac: Option<Mac>,
    /// It did not answer when the kernel last asked; asking again makes the kernel forget that.
    silent: bool,
    /// When the kernel was last told to ask.
    nudged: Option<Instant>,
}

impl Scout {
    /// One that looks for ways over the interfaces `attached`.
    #[must_use]
    pub fn new(netlink: Netlink, attached: Vec<u32>) -> Self {
        Self { netlink, attached, neighbours: HashMap::new(), last: Surroundings::default() }
    }

    /// Looks until the way to every server is known, or known to be none; not for longer than `limit`.
    ///
    /// # Errors
    /// When the kernel does not list its interfaces or addresses.
    pub async fn settle(
        &mut self,
        servers: &[IpAddr],
        limit: Duration,
    ) -> Result<Surroundings, netlink::Error> {
        let began = Instant::now();
        loop {
            self.last = self.look(servers).await?;
            let missing = self.last.hops.values().flatten().any(|way| way.next_hop.is_none());
            if !missing || began.elapsed() >= limit {
                return Ok(self.last.clone());
            }
            sleep(FIRST_PAUSE).await;
        }
    }

    /// # Errors
    /// When the kernel does not list its interfaces or addresses.
    async fn look(&mut self, servers: &[IpAddr]) -> Result<Surroundings, netlink::Error> {
        let links: BTreeMap<_, _> =
            self.netlink.links().await?.into_iter().map(|link| (link.index, link)).collect();
        let attached =
            self.attached.iter().filter_map(|index| Some((*index, Mac::new(links.get(index)?.mac?))));
        let interfaces = attached.collect();
        let servers: BTreeSet<_> = servers.iter().copied().collect();
        let routes = ask_all(servers, async |server| (server, self.netlink.route(server).await)).await;
        let macs = self.macs(next_hops(&routes, &self.attached)).await;
        let way = |(server, route)| (server, self.way(server, route, &links, &macs));
        let hops = routes.into_iter().map(way).collect();
        let own_addresses = own_addresses(&self.netlink).await?;
        Ok(Surroundings { hops, interfaces, own_addresses })
    }

    fn way(
        &self,
        server: IpAddr,
        route: Route,
        links: &BTreeMap<u32, Link>,
        macs: &HashMap<Neighbouring, Result<Option<Mac>, String>>,
    ) -> Hop {
        let hop = match route {
            Ok(hop) => hop,
            Err(NextHopProblem::Unknown(error)) => {
                // A question without an answer is no answer.
                return self.last.hops.get(&server).cloned().unwrap_or_else(|| Err(error.to_string()));
            }
            Err(problem) => return Err(problem.to_string()),
        };
        let link = links.get(&hop.ifindex).ok_or("the way to it leads over an interface that is gone")?;
        let Some(next_hop) = macs.get(&(hop.ifindex, hop.address)) else {
            let name = &link.name;
            return Err(format!(
                "the way to it leads over {name}, where lb-user is not attached; add --iface {name}"
            ));
        };
        let source_mac = link.mac.ok_or_else(|| format!("{} has no Ethernet address any more", link.name))?;
        Ok(Way {
            ifindex: hop.ifindex,
            source_mac: Mac::new(source_mac),
            next_hop: next_hop.clone()?,
            routed: hop.address != server,
            mtu: link.mtu,
            source: hop.source,
        })
    }

    /// The MACs of next hops, as far as they are known; has the kernel ask for the others.
    async fn macs(
        &mut self,
        hops: BTreeSet<Neighbouring>,
    ) -> HashMap<Neighbouring, Result<Option<Mac>, String>> {
        let ask = async |hop: Neighbouring| (hop, self.netlink.neighbour(hop.0, hop.1).await);
        let (mut macs, mut wanting) = (HashMap::new(), Vec::new());
        for (hop, answer) in ask_all(hops, ask).await {
            // As above.
            let neighbour = answer.unwrap_or_else(|error| {
                debug!("{error}");
                Neighbour::Unknown
            });
            let known = self.neighbours.entry(hop).or_default();
            macs.insert(hop, known.take_in(hop.1, neighbour));
            if !matches!(neighbour, Neighbour::Known(_)) && known.is_to_be_nudged() {
                wanting.push(hop);
            }
        }
        let nudge = async |hop: Neighbouring| {
            if let Err(error) = self.netlink.nudge(hop.0, hop.1).await {
                debug!("{error}");
            }
        };
        ask_all(wanting, nudge).await;
        macs
    }
}

/// The interface and address of a next hop.
type Neighbouring = (u32, IpAddr);

/// What the kernel says of the way to a server.
type Route = Result<NextHop, NextHopProblem>;

/// Who has to be known to send packets on these routes: each once, however many servers are behind it, so that what is
/// found of a router holds for all of them at the same time.
fn next_hops(routes: &[(IpAddr, Route)], attached: &[u32]) -> BTreeSet<Neighbouring> {
    let hops = routes.iter().filter_map(|(_, route)| route.as_ref().ok());
    hops.filter(|hop| attached.contains(&hop.ifindex)).map(|hop| (hop.ifindex, hop.address)).collect()
}

impl Remembered {
    /// Takes in what the kernel says of `address`; gives its MAC, if it is known by now.
    fn take_in(&mut self, address: IpAddr, neighbour: Neighbour) -> Result<Option<Mac>, String> {
        match neighbour {
            Neighbour::Known(mac) => *self = Self { mac: Some(Mac::new(mac)), ..Self::default() },
            Neighbour::Failed => self.silent = true,
            Neighbour::Unknown => {}
        }
        if self.mac.is_none() && self.silent {
            let protocol = if address.is_ipv4() { "ARP" } else { "neighbour discovery" };
            return Err(format!("{address} does not answer {protocol}, so its MAC address is not known"));
        }
        Ok(self.mac)
    }

    /// Whether the kernel is to be told to ask; notes that it is.
    fn is_to_be_nudged(&mut self) -> bool {
        let due = self.nudged.is_none_or(|last| last.elapsed() >= NUDGE_EVERY);
        if due {
            self.nudged = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_asked_for_once_however_many_servers_are_behind_it() {
        let router = IpAddr::from([192, 0, 2, 1]);
        let server = |number: u16| IpAddr::from([10, 0, number.to_be_bytes()[0], number.to_be_bytes()[1]]);
        let over =
            |ifindex, address| NextHop { ifindex, address, source: None, neighbour: Neighbour::Unknown };
        let mut routes: Vec<_> = (0..5_000).map(|n| (server(n), Ok(over(2, router)))).collect();
        routes.push((server(5_000), Ok(over(2, server(5_000)))));
        routes.push((server(5_001), Ok(over(3, router))));
        routes.push((server(5_002), Err(NextHopProblem::NoRoute(server(5_002)))));
        assert_eq!(next_hops(&routes, &[2]), [(2, router), (2, server(5_000))].into());
    }

    #[test]
    fn a_mac_is_remembered_until_there_is_another_and_silence_is_told_of_who_was_never_heard() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let mut router = Remembered::default();
        let mut told = |neighbour| router.take_in(address, neighbour);
        assert_eq!(told(Neighbour::Unknown), Ok(None));
        assert!(told(Neighbour::Failed).unwrap_err().contains("does not answer ARP"));
        assert!(told(Neighbour::Unknown).is_err(), "the kernel forgets that when it is told to ask again");
        for mac in [[2; 6], [4; 6]] {
            assert_eq!(told(Neighbour::Known(mac)), Ok(Some(Mac::new(mac))));
            assert_eq!(told(Neighbour::Failed), Ok(Some(Mac::new(mac))));
        }
    }
}
