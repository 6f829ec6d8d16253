//! Stable numbers for VIPs and servers across configurations.
//!
//! The kernel knows a VIP by a number below [`MAX_VIPS`] and a server by an index below [`MAX_SERVERS`] with
//! a generation. What keeps its name keeps its number; a number that falls free is given out again as late
//! as possible, and a server index then with the next generation, so that a flow which still names the old
//! owner is recognised.

use std::collections::{HashMap, HashSet, VecDeque};

use lb_common::abi::{MAX_SERVERS, MAX_VIPS, ServerRef};

use crate::{health::TargetId, model::Config};

/// The numbers given out so far.
#[derive(Debug, Default)]
pub struct Ids {
    vips: HashMap<String, u16>,
    vip_numbers: Numbers,
    servers: HashMap<TargetId, ServerRef>,
    server_numbers: Numbers,
    generations: HashMap<u16, u16>,
}

/// Numbers from 1 on, each new one before any is used again.
#[derive(Debug, Default)]
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
    /// Gives a number to everything in `config`, and takes back those of what is no longer there.
    ///
    /// # Errors
    /// When the configuration does not fit; some numbers may then be missing.
    pub fn assign(&mut self, config: &Config) -> Result<(), Exhausted> {
        let vips: HashSet<_> = config.vips.iter().map(|vip| vip.name.as_str()).collect();
        self.vips.retain(|name, number| {
            let keep = vips.contains(name.as_str());
            if !keep {
                self.vip_numbers.freed.push_back(*number);
            }
            keep
        });
        let targets: HashSet<_> = targets(config).collect();
        self.servers.retain(|id, server| {
            let keep = targets.contains(id);
            if !keep {
                self.server_numbers.freed.push_back(server.index());
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
        for id in self::targets(config) {
            if !self.servers.contains_key(&id) {
                let index = self.server_numbers.take(MAX_SERVERS);
                let index = index
                    .ok_or(Exhausted { what: "servers, counted once per VIP,", limit: MAX_SERVERS - 1 })?;
                let generation = self.generations.entry(index).or_default();
                *generation = (*generation + 1) % ServerRef::GENERATIONS;
                self.servers.insert(id, ServerRef::new(index, *generation));
            }
        }
        Ok(())
    }

    /// The number of a VIP.
    #[must_use]
    pub fn vip(&self, name: &str) -> Option<u16> {
        self.vips.get(name).copied()
    }

    /// The number of a server in a VIP.
    #[must_use]
    pub fn server(&self, id: &TargetId) -> Option<ServerRef> {
        self.servers.get(id).copied()
    }
}

/// Every pair of VIP and server, in file order.
fn targets(config: &Config) -> impl Iterator<Item = TargetId> + '_ {
    config.vips.iter().flat_map(|vip| {
        let servers = config.servers_of(vip).iter();
        servers.map(|server| TargetId { vip: vip.name.clone(), server: server.name.clone() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::desired::tests::config;

    fn id(vip: &str, server: &str) -> TargetId {
        TargetId { vip: vip.into(), server: server.into() }
    }

    #[test]
    fn what_stays_keeps_its_number_and_what_comes_back_gets_another() {
        let mut ids = Ids::default();
        ids.assign(&config(&[("a", &["s1", "s2"]), ("b", &["s1"])])).unwrap();
        let (vip, kept, gone) = (ids.vip("a"), ids.server(&id("a", "s1")), ids.server(&id("a", "s2")));
        assert_ne!(ids.server(&id("b", "s1")), kept, "the same machine in another VIP is another server");

        ids.assign(&config(&[("a", &["s1"])])).unwrap();
        assert_eq!((ids.vip("b"), ids.server(&id("a", "s2"))), (None, None));

        ids.assign(&config(&[("new", &["s1"]), ("a", &["s2", "s1"])])).unwrap();
        assert_eq!((ids.vip("a"), ids.server(&id("a", "s1"))), (vip, kept));
        assert_ne!(ids.server(&id("a", "s2")), gone);
    }

    #[test]
    fn an_index_used_again_has_another_generation() {
        let mut ids =
            Ids { server_numbers: Numbers { used: u16::MAX - 1, ..Numbers::default() }, ..Ids::default() };
        let one = config(&[("a", &["s1"])]);
        ids.assign(&one).unwrap();
        let first = ids.server(&id("a", "s1")).unwrap();
        ids.assign(&Config::default()).unwrap();
        ids.assign(&one).unwrap();
        let second = ids.server(&id("a", "s1")).unwrap();
        assert_eq!(first.index(), second.index());
        assert_ne!(first.generation(), second.generation());
    }

    #[test]
    fn number_zero_is_never_given_out() {
        let mut ids = Ids::default();
        ids.assign(&config(&[("a", &["s1"])])).unwrap();
        assert_eq!(ids.vip("a"), Some(1));
        assert!(!ids.server(&id("a", "s1")).unwrap().is_none());
    }
}
