//! What the operator asked for, in types that cannot be wrong.
//!
//! Everything here was checked by [`crate::config`]: names resolve, ranges are in order, every setting
//! fits the mode it stands in. The rest of the daemon decides from these types and never looks at the
//! configuration text again. Order is the order of the file.

mod flows;
mod health;
mod lead;
mod pool;
mod ports;
mod proxied;
mod vip;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

pub use flows::FlowTables;
pub use health::{Check, HealthCheck, HttpCheck, Password, RedisCheck, StatusRanges, Step, Trust};
pub use lead::{Lead, Member, OF, is_called};
pub use pool::{Address, AddressFamily, Found, Name, OnDown, Pool, Server};
pub use ports::{PortRange, Ports};
pub use proxied::{Further, ProxiedPool, ProxiedVip, Proxy};
pub use vip::{Algorithm, Empty, GUE_PORT, Mode, Persistence, Protocol, Tls, Vip};

/// A whole configuration: what `lb-user` shall do until the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Put the VIP addresses on an interface at start and take them off at exit.
    pub manage_addresses: bool,
    /// Source ports for SNAT; `None` lets the daemon choose a range outside the host's ephemeral ports.
    pub snat_ports: Option<PortRange>,
    /// What is remembered of flows.
    pub flows: FlowTables,
    /// How often the names of servers are looked up.
    pub resolve_interval: Duration,
    /// Where a line for each request and connection of proxied VIPs goes; never a file.
    pub access_log: l7_spec::Log,
    /// The process that serves proxied VIPs.
    pub proxy: Proxy,
    /// Virtual services, in file order. Names are unique; no two share an address, port and protocol.
    pub vips: Vec<Vip>,
    /// Pools, in file order. Names are unique.
    pub pools: Vec<Pool>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            manage_addresses: true,
            snat_ports: None,
            flows: FlowTables::default(),
            resolve_interval: Duration::from_secs(10),
            access_log: l7_spec::Log::default(),
            proxy: Proxy::default(),
            vips: Vec::new(),
            pools: Vec::new(),
        }
    }
}

impl Config {
    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The names of servers.
    #[must_use]
    pub fn names(&self) -> BTreeSet<Name> {
        let servers = self.pools.iter().flat_map(|pool| &pool.servers);
        let name = |server: &Server| match &server.address {
            Address::Fixed(_) => None,
            Address::Named(name, _) => Some(name.clone()),
        };
        servers.filter_map(name).collect()
    }

    /// The same configuration with what was found of the names of servers.
    #[must_use]
    pub fn with_addresses(self: &Arc<Self>, findings: &HashMap<Name, Found>) -> Arc<Self> {
        if self.names().is_empty() {
            return Arc::clone(self);
        }
        let mut config = Self::clone(self);
        for server in config.pools.iter_mut().flat_map(|pool| &mut pool.servers) {
            if let Address::Named(name, found) = &mut server.address {
                *found = findings.get(name).cloned().unwrap_or(Found::NotYet);
            }
        }
        Arc::new(config)
    }

    /// The own pool of a VIP, if it has one: of layer 4 modes the only one.
    #[must_use]
    pub fn pool_of(&self, vip: &Vip) -> Option<&Pool> {
        vip.pool.as_deref().and_then(|name| self.pool(name))
    }

    /// The servers of a VIP's own pool, in file order.
    #[must_use]
    pub fn servers_of(&self, vip: &Vip) -> &[Server] {
        self.pool_of(vip).map_or(&[], |pool| &pool.servers)
    }

    /// The pools that a VIP leads to: its own first, each once.
    pub fn leads_of<'a>(&'a self, vip: &'a Vip) -> impl Iterator<Item = Lead<'a>> + 'a {
        leads(vip, |name| self.pool(name))
    }

    /// Every VIP with the pools that it leads to, in file order. For walks over all of them: no pool is searched for.
    pub fn services(&self) -> impl Iterator<Item = (&Vip, Vec<Lead<'_>>)> {
        let pools: HashMap<_, _> = self.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect();
        self.vips.iter().map(move |vip| (vip, leads(vip, |name| pools.get(name).copied()).collect()))
    }

    /// Every server of every VIP, in file order.
    pub fn pairs(&self) -> impl Iterator<Item = (&Vip, Member<'_>)> {
        self.services().flat_map(|(vip, leads)| {
            leads.into_iter().flat_map(Lead::members).map(move |member| (vip, member))
        })
    }

    /// The servers of all pools that a VIP leads to, pool by pool and in file order.
    pub fn members_of<'a>(&'a self, vip: &'a Vip) -> impl Iterator<Item = Member<'a>> + 'a {
        self.leads_of(vip).flat_map(|lead| lead.members())
    }
}

/// The pools that a VIP leads to, as `find` finds them by name: its own first, each once.
fn leads<'a>(vip: &'a Vip, find: impl Fn(&str) -> Option<&'a Pool>) -> impl Iterator<Item = Lead<'a>> {
    let own = vip.pool.as_deref().and_then(&find).map(|pool| Lead { pool, check: &vip.health, own: true });
    let further = vip.proxied.further.iter().filter_map(move |further| {
        let pool = find(&further.pool)?;
        Some(Lead { pool, check: &further.health, own: false })
    });
    own.into_iter().chain(further)
}
