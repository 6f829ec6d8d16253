//! Pools and the servers in them.

use std::net::IpAddr;

use super::HealthCheck;

/// A named group of servers that VIPs share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// Servers in file order; names are unique within the pool.
    pub servers: Vec<Server>,
    /// The check a VIP of this pool uses unless it has its own.
    pub health: HealthCheck,
}

/// A machine behind VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name, unique within its pool.
    pub name: String,
    /// Address.
    pub address: IpAddr,
    /// Share of new flows relative to the pool's other servers, 0..=65535, default 100; 0 takes none.
    pub weight: u16,
    /// Used only while no other server of the pool is up.
    pub backup: bool,
    /// The number by which QUIC connection IDs name it (QUIC-LB's server ID), unique within its pool.
    pub quic_id: Option<u64>,
}
