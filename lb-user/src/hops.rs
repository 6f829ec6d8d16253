//! Keeps the ways to all servers known: which interface, which MAC, which source address.
//!
//! The kernel is asked anew whenever it says that something changed, when the servers change, and every so
//! often in case a notice was missed. What is found is sent on only when it differs.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
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
        self, Netlink,
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
    /// By interface and address.
    neighbours: HashMap<(u32, IpAddr), Remembered>,
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
        let mut hops = HashMap::new();
        for &server in servers {
            if let Entry::Vacant(unknown) = hops.entry(server) {
                unknown.insert(self.way(server, &links).await);
            }
        }
        let own_addresses = own_addresses(&self.netlink).await?;
        Ok(Surroundings { hops, interfaces, own_addresses })
    }

    async fn way(&mut self, server: IpAddr, links: &BTreeMap<u32, Link>) -> Hop {
        let hop = match self.netlink.resolve(server).await {
            Ok(hop) => hop,
            Err(NextHopProblem::Unknown(error)) => {
                // As above: a question without an answer is no answer.
                return self.last.hops.get(&server).cloned().unwrap_or_else(|| Err(error.to_string()));
            }
            Err(problem) => return Err(problem.to_string()),
        };
        let link = links.get(&hop.ifindex).ok_or("the way to it leads over an interface that is gone")?;
        if !self.attached.contains(&hop.ifindex) {
            let name = &link.name;
            return Err(format!(
                "the way to it leads over {name}, where lb-user is not attached; add --iface {name}"
            ));
        }
        let source_mac = link.mac.ok_or_else(|| format!("{} has no Ethernet address any more", link.name))?;
        let next_hop = self.neighbour(&hop).await?;
        Ok(Way {
            ifindex: hop.ifindex,
            source_mac: Mac::new(source_mac),
            next_hop,
            routed: hop.address != server,
            mtu: link.mtu,
            source: hop.source,
        })
    }

    /// The MAC of a next hop, if it is known; has the kernel ask for it otherwise.
    async fn neighbour(&mut self, hop: &NextHop) -> Result<Option<Mac>, String> {
        let known = self.neighbours.entry((hop.ifindex, hop.address)).or_default();
        match hop.neighbour {
            Neighbour::Known(mac) => {
                *known = Remembered { mac: Some(Mac::new(mac)), ..Remembered::default() }
            }
            Neighbour::Failed => known.silent = true,
            Neighbour::Unknown => {}
        }
        let is_known = matches!(hop.neighbour, Neighbour::Known(_));
        if !is_known && known.nudged.is_none_or(|last| last.elapsed() >= NUDGE_EVERY) {
            known.nudged = Some(Instant::now());
            if let Err(error) = self.netlink.nudge(hop.ifindex, hop.address).await {
                debug!("{error}");
            }
        }
        match known {
            Remembered { mac: None, silent: true, .. } => {
                let protocol = if hop.address.is_ipv4() { "ARP" } else { "neighbour discovery" };
                Err(format!("{} does not answer {protocol}, so its MAC address is not known", hop.address))
            }
            Remembered { mac, .. } => Ok(*mac),
        }
    }
}
