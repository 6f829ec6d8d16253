//! Names for the numbers by which the kernel program knows VIPs, servers and interfaces.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    datapath::Datapath, health::TargetId, model::Lead, picture::About, reconcile::Reconciler,
    snapshot::Health,
};

/// The names at one moment.
#[derive(Clone, Debug, Default)]
pub struct Names {
    vips: HashMap<u16, String>,
    servers: HashMap<u16, ServerName>,
    interfaces: HashMap<u32, String>,
}

/// A server, as one VIP knows it.
#[derive(Clone, Debug)]
pub struct ServerName {
    /// Its name.
    pub name: String,
    /// Its address, if it has one.
    pub address: Option<IpAddr>,
    /// Its health.
    pub health: Health,
    /// Why that is what it is.
    pub reason: String,
}

impl Names {
    /// The names that the loop knows now.
    #[must_use]
    pub fn of<D: Datapath>(state: &Reconciler<D>, about: &About) -> Self {
        let mut names = Self::default();
        for (vip, leads) in state.config.services() {
            if let Some(number) = state.ids.vip(&vip.name) {
                names.vips.insert(number, vip.name.clone());
            }
            for member in leads.into_iter().flat_map(Lead::members) {
                let id = TargetId::new(&vip.name, member.name);
                let Some(reference) = state.ids.server(&id) else { continue };
                let event = state.health.get(&id);
                let name = ServerName {
                    name: id.server.clone(),
                    address: member.server.address(),
                    health: event.map_or(Health::Unknown, |event| event.state),
                    reason: event.map_or_else(|| "not checked yet".into(), |event| event.reason.clone()),
                };
                names.servers.insert(reference.index(), name);
            }
        }
        names.interfaces =
            about.interfaces.iter().map(|interface| (interface.index, interface.name.clone())).collect();
        names
    }

    /// The VIP with a number; what is not known has its number for a name.
    #[must_use]
    pub fn vip(&self, number: u16) -> String {
        self.vips.get(&number).cloned().unwrap_or_else(|| format!("#{number}"))
    }

    /// The number of a VIP.
    #[must_use]
    pub fn vip_number(&self, name: &str) -> Option<u16> {
        self.vips.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }

    /// The names of all VIPs, in order.
    #[must_use]
    pub fn all_vips(&self) -> Vec<&str> {
        let mut all: Vec<_> = self.vips.values().map(String::as_str).collect();
        all.sort_unstable();
        all
    }

    /// The server with an index.
    #[must_use]
    pub fn server(&self, index: u16) -> Option<&ServerName> {
        self.servers.get(&index)
    }

    /// The name of the server with an index; what is not known has its number for a name.
    #[must_use]
    pub fn server_name(&self, index: u16) -> String {
        self.servers.get(&index).map_or_else(|| format!("#{index}"), |server| server.name.clone())
    }

    /// The indices of all servers of a name, one for each VIP.
    #[must_use]
    pub fn servers_named(&self, name: &str) -> HashSet<u16> {
        let named = self.servers.iter().filter(|(_, server)| server.name == name);
        named.map(|(index, _)| *index).collect()
    }

    /// Names that were never given out.
    #[cfg(test)]
    pub(crate) fn made_up(vips: &[(u16, &str)], servers: &[(u16, &str)]) -> Self {
        let server = |name: &str| ServerName {
            name: name.into(),
            address: None,
            health: Health::Up,
            reason: String::new(),
        };
        Self {
            vips: vips.iter().map(|(number, name)| (*number, (*name).to_owned())).collect(),
            servers: servers.iter().map(|(index, name)| (*index, server(name))).collect(),
            interfaces: HashMap::new(),
        }
    }

    /// The name of an interface; what is not known has its number for a name.
    #[must_use]
    pub fn interface(&self, index: u32) -> String {
        self.interfaces.get(&index).cloned().unwrap_or_else(|| format!("#{index}"))
    }

    /// Whether everything that a record names is known.
    #[must_use]
    pub fn know(&self, vip: u16, server: u16) -> bool {
        (vip == 0 || self.vips.contains_key(&vip)) && (server == 0 || self.servers.contains_key(&server))
    }

    /// Names for a test.
    #[cfg(test)]
    pub(super) fn for_test(vip: (u16, &str), server: (u16, &str), interfaces: &[(u32, &str)]) -> Self {
        let named = ServerName {
            name: server.1.into(),
            address: Some(IpAddr::from([10, 1, 0, 2])),
            health: Health::Up,
            reason: "connected".into(),
        };
        Self {
            vips: [(vip.0, vip.1.into())].into(),
            servers: [(server.0, named)].into(),
            interfaces: interfaces.iter().map(|&(index, name)| (index, name.into())).collect(),
        }
    }
}
