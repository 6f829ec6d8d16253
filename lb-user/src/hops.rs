//! Keeps the ways to all servers known: which interface, which MAC, which source address.
//!
//! The kernel is asked anew whenever it says that something changed, when the servers change, and every so
//! often in case a notice was missed. What is found is sent on only when it differs.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
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
    netlink::{Netlink, routes::Neighbour, watch::Watch},
    plan::{Hop, desired::Way},
};

/// Without any notice, look again after this long.
const AT_LEAST_EVERY: Duration = Duration::from_secs(10);

/// Pause between two looks, so that a storm of notices does not take the processor.
const PAUSE: Duration = Duration::from_millis(100);

/// First pause while a MAC is missing; the kernel learns most within a millisecond. Doubled each time, up to
/// [`PAUSE`], after which a notice is waited for.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// What packets need to know about the network around this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Way to each server's address.
    pub hops: HashMap<IpAddr, Hop>,
    /// MACs of this host's interfaces.
    pub interfaces: BTreeMap<u32, Mac>,
}

/// Looks after the ways to `servers` until nobody listens any more.
pub async fn run(
    netlink: Netlink,
    mut notices: Watch,
    mut servers: watch::Receiver<Arc<[IpAddr]>>,
    news: mpsc::Sender<Surroundings>,
) {
    let mut scout = Scout { netlink, known: HashMap::new() };
    let mut last = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let addresses = Arc::clone(&servers.borrow_and_update());
        let now = scout.look(&addresses).await;
        let missing = now.hops.values().any(|hop| hop.as_ref().is_ok_and(|way| way.next_hop.is_none()));
        if last.as_ref() != Some(&now) {
            if news.send(now.clone()).await.is_err() {
                return;
            }
            last = Some(now);
            pause = FIRST_PAUSE;
        }
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

/// Asks the kernel, and remembers MACs it has forgotten.
struct Scout {
    netlink: Netlink,
    /// (interface, next hop) → MAC. The kernel drops a neighbour that nobody talked to for a while, and the
    /// XDP program's talking does not count; its MAC is most likely still right, and what is certain is
    /// that without one nothing arrives.
    known: HashMap<(u32, IpAddr), Mac>,
}

impl Scout {
    async fn look(&mut self, servers: &[IpAddr]) -> Surroundings {
        let interfaces: BTreeMap<_, _> = match self.netlink.links().await {
            Ok(links) => links.iter().filter_map(|link| Some((link.index, Mac::new(link.mac?)))).collect(),
            Err(error) => {
                warn!("{error}");
                BTreeMap::new()
            }
        };
        let mut hops = HashMap::new();
        for &server in servers {
            if let Entry::Vacant(place) = hops.entry(server) {
                place.insert(self.way(server, &interfaces).await);
            }
        }
        Surroundings { hops, interfaces }
    }

    async fn way(&mut self, server: IpAddr, interfaces: &BTreeMap<u32, Mac>) -> Hop {
        let hop = self.netlink.resolve(server).await.map_err(|problem| problem.to_string())?;
        let source_mac = *interfaces
            .get(&hop.ifindex)
            .ok_or_else(|| format!("the way to {server} leads over an interface without Ethernet address"))?;
        let neighbour = (hop.ifindex, hop.address);
        if let Neighbour::Known(mac) = hop.neighbour {
            self.known.insert(neighbour, Mac::new(mac));
        } else if let Err(error) = self.netlink.nudge(hop.ifindex, hop.address).await {
            debug!("{error}");
        }
        Ok(Way {
            ifindex: hop.ifindex,
            source_mac,
            next_hop: self.known.get(&neighbour).copied(),
            routed: hop.address != server,
            source: hop.source,
        })
    }
}
