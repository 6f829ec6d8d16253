//! Pools and the servers in them.

use std::net::IpAddr;

use super::{HealthCheck, ProxiedPool};

/// A named group of servers that VIPs share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// Servers in file order; names are unique within the pool.
    pub servers: Vec<Server>,
    /// The check a VIP of this pool uses unless it has its own.
    pub health: HealthCheck,
    /// What becomes of the flows of a server that goes down. `None` leaves translated flows alone; others end with
    /// their next packet.
    pub on_down: Option<OnDown>,
    /// With fewer servers that take new flows, not counting backups, the pool is as good as down; at least 1.
    pub min_healthy: usize,
    /// What VIPs of proxied modes make use of.
    pub proxied: ProxiedPool,
}

/// What becomes of the flows of a server that goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    /// They go on, in every mode: a check may be wrong.
    Keep,
    /// They end at once, also idle ones: both ends of a connection learn by a reset.
    Reset,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At this address.
    Fixed(IpAddr),
    /// Where its name leads to, which may change while the daemon runs.
    Named(Name, Found),
}

/// A DNS name, and what is sought of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// As written in the configuration.
    pub host: String,
    /// Which addresses are of use; `None` for either.
    pub family: Option<AddressFamily>,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl AddressFamily {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What was found of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nobody has answered yet.
    NotYet,
    /// This address.
    At(IpAddr),
    /// None, for this reason.
    Nowhere(String),
}

impl Server {
    /// Its address, if it has one now.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.address {
            Address::Fixed(address) | Address::Named(_, Found::At(address)) => Some(address),
            Address::Named(_, Found::NotYet | Found::Nowhere(_)) => None,
        }
    }

    /// Its name in the DNS, if that is how it is known.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.address {
            Address::Fixed(_) => None,
            Address::Named(name, _) => Some(&name.host),
        }
    }
}

/// A machine behind VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name, unique within its pool.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// Share of new flows relative to the pool's other servers, 0..=65535, default 100; 0 takes none.
    pub weight: u16,
    /// The port it serves on, where it is not that of the VIP; only in VIPs of proxied modes.
    pub port: Option<u16>,
    /// Used only while no other server of the pool is up.
    pub backup: bool,
    /// Requests (mode `tcp`: connections) at once in VIPs of proxied modes; further ones wait.
    pub max_connections: Option<u32>,
    /// The number by which QUIC connection IDs name it (QUIC-LB's server ID), unique within its pool.
    pub quic_id: Option<u64>,
}
