//! Names for the numbers by which the kernel program knows VIPs, servers and interfaces.

use std::{collections::HashMap, net::IpAddr};

use crate::{
    datapath::Datapath,
    health::TargetId,
    model::{Lead, OF, is_called},
    picture::About,
    reconcile::Reconciler,
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
    /// The name by which its VIP knows it.
    pub name: String,
    /// Its VIP.
    pub vip: String,
    /// Name of its pool.
    pub pool: String,
    /// Whether that is the VIP's own.
    pub own: bool,
    /// Its address, if it has one.
    pub address: Option<IpAddr>,
    /// Its health.
    pub health: Health,
    /// Why that is what it is.
    pub reason: String,
}

impl ServerName {
    /// The name that it has in its pool.
    #[must_use]
    pub fn plain(&self) -> &str {
        let further = || self.name.strip_prefix(&*self.pool)?.strip_prefix(OF);
        if self.own { &self.name } else { further().unwrap_or(&self.name) }
    }
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
                let id = TargetId::new(&vip.name, &*member.name);
                let Some(reference) = state.ids.server(&id) else { continue };
                let event = state.health.get(&id);
                let name = ServerName {
                    name: id.server.clone(),
                    vip: vip.name.clone(),
                    pool: member.lead.pool.name.clone(),
                    own: member.lead.own,
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

    /// All servers that an operator means by a name, with their indices: as the VIP knows them or by their pool; where no VIP
    /// is said, also by the name that they have in any pool.
    pub fn servers_called<'a>(
        &'a self,
        name: &'a str,
        vip: Option<&'a str>,
    ) -> impl Iterator<Item = (u16, &'a ServerName)> {
        let meant = move |server: &ServerName| {
            let of_vip = vip.is_none_or(|vip| vip == server.vip);
            of_vip && is_called(&server.name, &server.pool, server.plain(), name, vip.is_none())
        };
        self.servers.iter().filter(move |(_, server)| meant(server)).map(|(index, server)| (*index, server))
    }

    /// Names that were never given out.
    #[cfg(test)]
    pub(crate) fn made_up(vips: &[(u16, &str)], servers: &[(u16, &str)]) -> Self {
        let server = |name: &str| ServerName {
            name: name.into(),
            vip: vips[0].1.into(),
            pool: name.split_once(':').map_or("own", |(pool, _)| pool).into(),
            own: !name.contains(':'),
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
            vip: vip.1.into(),
            pool: "pool".into(),
            own: true,
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
