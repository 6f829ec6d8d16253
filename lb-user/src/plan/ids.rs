//! Stable numbers for VIPs and servers across configurations.
//!
//! The kernel knows a VIP by a number below [`MAX_VIPS`] and a server by an index below [`MAX_SERVERS`] with
//! a generation. What keeps its name keeps its number; a number that falls free is given out again as late
//! as possible. A server index not before a sweep has found no flow that names it, for a flow tag says no more than
//! the index; and then with the next generation.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::IpAddr,
};

use lb_common::abi::{MAX_SERVERS, MAX_VIPS, ServerRef};
use serde::{Deserialize, Serialize, Serializer};

use super::Census;
use crate::{
    health::{Pair, TargetId},
    model::{Config, Member, Vip},
};

/// The numbers given out so far.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Written<String, TargetId>")]
pub struct Ids {
    vips: HashMap<String, u16>,
    vip_numbers: Numbers,
    /// Each with its address; `None` while its name leads nowhere.
    servers: HashMap<TargetId, (ServerRef, Option<IpAddr>)>,
    server_numbers: Numbers,
    /// Indices of servers that are gone, with the step that took them out of the maps.
    gone: BTreeMap<u16, u32>,
    generations: HashMap<u16, u16>,
}

/// Numbers from 1 on, each new one before any is used again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Numbers {
    used: u16,
    freed: VecDeque<u16>,
}

impl Numbers {
    fn take(&mut self, limit: usize) -> Option<u16> {
        if usize::from(self.used) + 1 < limit {
            self.used += 1;
            return Some(self.used);
        }
        self.freed.pop_front()
    }
}

/// The numbers as they are written down for the next start, with names of VIPs and of servers.
#[derive(Serialize, Deserialize)]
struct Written<V: Ord, S> {
    vips: BTreeMap<V, u16>,
    vip_numbers: Numbers,
    servers: Vec<(S, u32, Option<IpAddr>)>,
    server_numbers: Numbers,
    gone: Vec<u16>,
    generations: BTreeMap<u16, u16>,
}

impl Serialize for Ids {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut servers: Vec<_> =
            self.servers.iter().map(|(id, (server, address))| (id, server.0, *address)).collect();
        // By their numbers: thousands of names take milliseconds to sort.
        servers.sort_unstable_by_key(|(_, server, _)| *server);
        let written = Written {
            vips: self.vips.iter().map(|(name, number)| (name.as_str(), *number)).collect(),
            vip_numbers: self.vip_numbers.clone(),
            servers,
            server_numbers: self.server_numbers.clone(),
            gone: self.gone.keys().copied().collect(),
            generations: self.generations.iter().map(|(index, generation)| (*index, *generation)).collect(),
        };
        written.serialize(serializer)
    }
}

impl From<Written<String, TargetId>> for Ids {
    fn from(written: Written<String, TargetId>) -> Self {
        let servers = written.servers.into_iter();
        Self {
            vips: written.vips.into_iter().collect(),
            vip_numbers: written.vip_numbers,
            servers: servers.map(|(id, server, address)| (id, (ServerRef(server), address))).collect(),
            server_numbers: written.server_numbers,
            // No sweep that began before this start is to be believed.
            gone: written.gone.into_iter().map(|index| (index, 1)).collect(),
            generations: written.generations.into_iter().collect(),
        }
    }
}

/// A configuration has more VIPs or servers than the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// What there are too many of.
    pub what: &'static str,
    /// How many fit.
    pub limit: usize,
}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the kernel's tables hold {} {} at most", self.limit, self.what)
    }
}

impl std::error::Error for Exhausted {}

impl Ids {
    /// Gives a number to everything in `config`, and takes back those of what is no longer there. A server that has
    /// another address is another server. `step` is the one that will carry this out.
    ///
    /// # Errors
    /// When the configuration does not fit; some numbers may then be missing.
    pub fn assign(&mut self, config: &Config, step: u32) -> Result<(), Exhausted> {
        let vips: HashSet<_> = config.vips.iter().map(|vip| vip.name.as_str()).collect();
        self.vips.retain(|name, number| {
            let keep = vips.contains(name.as_str());
            if !keep {
                self.vip_numbers.freed.push_back(*number);
            }
            keep
        });
        let mut targets: Vec<_> = targets(config).collect();
        let wanted: HashMap<_, _> = targets.iter().map(|(id, address)| (id, address)).collect();
        self.servers.retain(|id, (server, address)| {
            let keep = wanted.get(id).is_some_and(|wanted| **wanted == *address);
            if !keep {
                self.gone.insert(server.index(), step);
            }
            keep
        });
        for vip in &config.vips {
            if !self.vips.contains_key(&vip.name) {
                let number = self.vip_numbers.take(MAX_VIPS);
                let number = number.ok_or(Exhausted { what: "VIPs", limit: MAX_VIPS - 1 })?;
                self.vips.insert(vip.name.clone(), number);
            }
        }
        targets.retain(|(id, _)| !self.servers.contains_key(id));
        for (id, address) in targets {
            let index = self.server_numbers.take(MAX_SERVERS);
            let index =
                index.ok_or(Exhausted { what: "servers, counted once per VIP,", limit: MAX_SERVERS - 1 })?;
            let generation = self.generations.entry(index).or_default();
            *generation = (*generation + 1) % ServerRef::GENERATIONS;
            self.servers.insert(id, (ServerRef::new(index, *generation), address));
        }
        Ok(())
    }

    /// Whether everything in `config` has its number, and nothing else has one.
    #[must_use]
    pub fn fit(&self, config: &Config) -> bool {
        let mut servers = 0;
        let has_number = |(vip, member): (&Vip, Member<'_>)| {
            servers += 1;
            let id: &dyn Pair = &(&*vip.name, &*member.name);
            self.servers.get(id).is_some_and(|(_, known)| *known == member.server.address())
        };
        config.pairs().all(has_number)
            && servers == self.servers.len()
            && config.vips.len() == self.vips.len()
            && config.vips.iter().all(|vip| self.vips.contains_key(&vip.name))
    }

    /// Indices of servers that are gone and not yet to be given to others.
    pub fn gone(&self) -> impl Iterator<Item = u16> + '_ {
        self.gone.keys().copied()
    }

    /// Frees the indices of servers that were gone when a sweep began that found none of their flows.
    pub fn on_census(&mut self, census: &Census) {
        let free = |index: &u16, since: &u32| *since <= census.step && !census.lingering.contains(index);
        let freed: Vec<_> =
            self.gone.iter().filter(|(index, since)| free(index, since)).map(|(index, _)| *index).collect();
        for index in freed {
            self.gone.remove(&index);
            self.server_numbers.freed.push_back(index);
        }
    }

    /// Every server of every VIP, with its reference.
    pub fn servers(&self) -> impl Iterator<Item = (&TargetId, ServerRef)> {
        self.servers.iter().map(|(id, (server, _))| (id, *server))
    }

    /// The number of a VIP.
    #[must_use]
    pub fn vip(&self, name: &str) -> Option<u16> {
        self.vips.get(name).copied()
    }

    /// The numbers of all VIPs.
    pub fn vips(&self) -> impl Iterator<Item = u16> + '_ {
        self.vips.values().copied()
    }

    /// The address that a server in a VIP had last, if it had one.
    #[must_use]
    pub fn address(&self, id: &dyn Pair) -> Option<IpAddr> {
        self.servers.get(id)?.1
    }

    /// The number of a server in a VIP.
    #[must_use]
    pub fn server(&self, id: &dyn Pair) -> Option<ServerRef> {
        self.servers.get(id).map(|(server, _)| *server)
    }
}

/// Every pair of VIP and server, in file order, with the server's address.
fn targets(config: &Config) -> impl Iterator<Item = (TargetId, Option<IpAddr>)> + '_ {
    config.pairs().map(|(vip, member)| (TargetId::new(&vip.name, member.name), member.server.address()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Address, plan::desired::tests::config};

    fn id(vip: &str, server: &str) -> TargetId {
        TargetId { vip: vip.into(), server: server.into() }
    }

    #[test]
    fn what_stays_keeps_its_number_and_what_comes_back_gets_another() {
        let mut ids = Ids::default();
        ids.assign(&config(&[("a", &["s1", "s2"]), ("b", &["s1"])]), 1).unwrap();
        let (vip, kept, gone) = (ids.vip("a"), ids.server(&id("a", "s1")), ids.server(&id("a", "s2")));
        assert_ne!(ids.server(&id("b", "s1")), kept, "the same machine in another VIP is another server");

        ids.assign(&config(&[("a", &["s1"])]), 1).unwrap();
        assert_eq!((ids.vip("b"), ids.server(&id("a", "s2"))), (None, None));

        ids.assign(&config(&[("new", &["s1"]), ("a", &["s1", "s2"])]), 1).unwrap();
        assert_eq!((ids.vip("a"), ids.server(&id("a", "s1"))), (vip, kept));
        assert_ne!(ids.server(&id("a", "s2")), gone);
    }

    #[test]
    fn an_index_used_again_has_another_generation() {
        let mut ids =
            Ids { server_numbers: Numbers { used: u16::MAX - 1, ..Numbers::default() }, ..Ids::default() };
        let one = config(&[("a", &["s1"])]);
        ids.assign(&one, 1).unwrap();
        let first = ids.server(&id("a", "s1")).unwrap();
        ids.assign(&Config::default(), 2).unwrap();
        assert!(ids.clone().assign(&one, 3).is_err(), "flows may still name it");
        ids.on_census(&Census { step: 1, ..Census::default() });
        assert!(ids.clone().assign(&one, 3).is_err(), "a sweep that began before it was gone says nothing");
        ids.on_census(&Census { step: 2, lingering: vec![first.index()], ..Census::default() });
        assert!(ids.clone().assign(&one, 3).is_err(), "flows do still name it");
        ids.on_census(&Census { step: 2, ..Census::default() });
        ids.assign(&one, 3).unwrap();
        let second = ids.server(&id("a", "s1")).unwrap();
        assert_eq!(first.index(), second.index());
        assert_ne!(first.generation(), second.generation());
    }

    #[test]
    fn a_server_with_another_address_is_another_server() {
        let mut ids = Ids::default();
        let mut config = config(&[("a", &["s1"])]);
        ids.assign(&config, 1).unwrap();
        let before = ids.server(&id("a", "s1"));
        config.pools[0].servers[0].address = Address::Fixed([10, 9, 9, 9].into());
        ids.assign(&config, 2).unwrap();
        assert_ne!(ids.server(&id("a", "s1")), before);
        assert_eq!(ids.gone().collect::<Vec<_>>(), [before.unwrap().index()]);
    }

    #[test]
    fn what_is_written_down_goes_on_where_it_was() {
        let mut ids = Ids::default();
        ids.assign(&config(&[("a", &["s1", "s2"]), ("b", &["s1"])]), 7).unwrap();
        ids.assign(&config(&[("a", &["s1"])]), 8).unwrap();
        let text = serde_json::to_string(&ids).unwrap();
        let mut read: Ids = serde_json::from_str(&text).unwrap();
        assert_eq!(read.server(&id("a", "s1")), ids.server(&id("a", "s1")));
        assert_eq!(read.gone().collect::<Vec<_>>(), ids.gone().collect::<Vec<_>>());
        let next = config(&[("a", &["s1", "s3"]), ("c", &["s1"])]);
        read.assign(&next, 1).unwrap();
        ids.assign(&next, 9).unwrap();
        assert_eq!(read.server(&id("a", "s3")), ids.server(&id("a", "s3")));
        assert_eq!(read.vip("c"), ids.vip("c"));
        read.on_census(&Census { step: 1, ..Census::default() });
        assert_eq!(read.gone().count(), 0);
    }

    #[test]
    fn number_zero_is_never_given_out() {
        let mut ids = Ids::default();
        ids.assign(&config(&[("a", &["s1"])]), 1).unwrap();
        assert_eq!(ids.vip("a"), Some(1));
        assert!(!ids.server(&id("a", "s1")).unwrap().is_none());
    }
}
