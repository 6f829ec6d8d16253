//! The one read-only picture of the running balancer that everyone else reads.
//!
//! [`crate::reconcile`] publishes a new [`Snapshot`] when asked, and now and then; `lbctl status -o json`
//! prints it as it is, so field names and meanings are part of the interface. Times are seconds since
//! 1970-01-01 UTC.

use std::{fmt, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::Admin;

/// State of the balancer at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Version of lb-user.
    pub version: String,
    /// What is in use, configuration and operators' words: for `If-Match`, in quotes.
    #[serde(default)]
    pub etag: String,
    /// When the snapshot was taken.
    pub time: u64,
    /// When lb-user started.
    pub started: u64,
    /// The configuration file; `None` when it started without one.
    pub config_file: Option<String>,
    /// How the last reload went; none if there was none.
    #[serde(default)]
    pub last_reload: Option<LastReload>,
    /// Interfaces the program is attached to, in the order of the command line.
    pub interfaces: Vec<Interface>,
    /// Virtual services in file order.
    pub vips: Vec<VipStatus>,
    /// Packets passed or dropped, by reason, and events; every one is listed, also those at 0.
    pub reasons: Vec<ReasonCount>,
    /// Translations (snat and nat flows) alive at the last sweep.
    pub flows: u64,
    /// How many flows the tables can hold, per address family.
    pub flow_capacity: u64,
    /// Places taken in both families' tables: also by flows that are over and kept for stragglers.
    #[serde(default)]
    pub flows_taken: u64,
    /// Flow tags of flows that are alive (`dr`, `ipip`, `gue`), and of clients that persist, at the last sweep.
    #[serde(default)]
    pub tags: u64,
    /// How many flow tags there is room for.
    #[serde(default)]
    pub tag_capacity: u64,
    /// Places taken by flow tags, also of flows that are over.
    #[serde(default)]
    pub tags_taken: u64,
    /// How often the flows have been counted since the start. [`Traffic::active`] is as of the last time.
    #[serde(default)]
    pub sweeps: u64,
    /// Pools in file order.
    #[serde(default)]
    pub pools: Vec<PoolStatus>,
}

/// How a reload went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastReload {
    /// When.
    pub time: u64,
    /// Why nothing was changed; none if the file is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// It has to be confirmed by then, or what was in use before comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_until: Option<u64>,
}

/// An interface that runs the XDP program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Kernel's interface index.
    pub index: u32,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Kernel id of the attached program.
    pub program_id: u32,
    /// Why the mode is not `native`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What was counted. `in` is client to server, `out` is server to client (0 for `dr`: replies bypass
/// the balancer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// New flows since start.
    pub connections: u64,
    /// Flows alive at the last sweep. Of `dr`, `ipip` and `gue` only those that the flow tags know.
    pub active: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, Ethernet header included.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients, Ethernet header included.
    pub bytes_out: u64,
}

impl<'a> std::iter::Sum<&'a Self> for Traffic {
    fn sum<I: Iterator<Item = &'a Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            connections: sum.connections + one.connections,
            active: sum.active + one.active,
            packets_in: sum.packets_in + one.packets_in,
            bytes_in: sum.bytes_in + one.bytes_in,
            packets_out: sum.packets_out + one.packets_out,
            bytes_out: sum.bytes_out + one.bytes_out,
        })
    }
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VipStatus {
    /// Name.
    pub name: String,
    /// Address.
    pub address: IpAddr,
    /// Ports as written, e.g. `80,443`.
    pub ports: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `snat`, `nat`, `dr`, `ipip`, `gue`, `http` or `tcp`.
    pub mode: String,
    /// Persistence: `none`, `source-ip`, `last-successful` or `cookie`.
    pub persistence: String,
    /// How the server of a new flow is chosen: `maglev`, `round-robin`, `least-conn`, `source` or `first`.
    #[serde(default)]
    pub algorithm: String,
    /// What its health checks do: `tcp`, `http`, `https`, `tls`, `redis`, `mysql`, `script`, `udp`, `icmp` or `none`.
    #[serde(default)]
    pub check: String,
    /// The port that is checked; `None` for checks without one, or where there is no pool.
    #[serde(default)]
    pub check_port: Option<u16>,
    /// `false` while the operator has it refuse new flows.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Pool, if any.
    pub pool: Option<String>,
    /// `false` where the mode needs l7-proxy, which does not serve yet.
    pub served: bool,
    /// Why it is not served, or what else an operator must know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Of the pool as this VIP sees it: `healthy`, `degraded`, `down`; `unknown` before the first checks. Of several pools:
    /// `down` only where all are.
    pub health: PoolHealth,
    /// The pools that it leads to beside its own, by routes or as a fallback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_pools: Vec<FurtherPool>,
    /// Counters.
    pub traffic: Traffic,
    /// Servers in file order; those of further pools behind its own.
    pub servers: Vec<ServerStatus>,
}

/// A pool that a VIP leads to beside its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FurtherPool {
    /// Its name.
    pub name: String,
    /// How this VIP finds it.
    pub health: PoolHealth,
}

/// A pool as it is configured. How its servers are, each VIP says for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStatus {
    /// Name.
    pub name: String,
    /// Names of the VIPs that it serves, in file order.
    pub vips: Vec<String>,
    /// With fewer servers that take new flows the pool is as good as down.
    pub min_healthy: usize,
    /// Servers in file order.
    pub servers: Vec<PoolServer>,
}

/// A server as its pool has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolServer {
    /// Name.
    pub name: String,
    /// Address; `None` while its name leads nowhere.
    pub address: Option<IpAddr>,
    /// The name by which the configuration knows it, if not by its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Weight in the configuration.
    pub weight: u16,
    /// Whether it is a backup server.
    pub backup: bool,
}

/// Health of all servers of a VIP together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolHealth {
    /// Every server is up.
    Healthy,
    /// Some servers are up.
    Degraded,
    /// No server is up, or fewer than the pool needs.
    Down,
    /// No check has finished yet, or the VIP has no servers.
    Unknown,
}

impl fmt::Display for PoolHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Unknown => "unknown",
        })
    }
}

/// Health of one server as one VIP sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Takes new flows.
    Up,
    /// Takes none.
    Down,
    /// Not checked yet; takes none.
    Unknown,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        })
    }
}

/// A server behind a VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerStatus {
    /// The name by which the VIP knows it: `SERVER`, or `POOL:SERVER` where the pool is not the VIP's own.
    pub name: String,
    /// The pool, where it is not the VIP's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Address; `None` while its name leads nowhere.
    pub address: Option<IpAddr>,
    /// The name by which the configuration knows it, if not by its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port traffic goes to; `None` where the client's port is kept and the VIP has several.
    pub port: Option<u16>,
    /// Weight, 0..=65535.
    pub weight: u16,
    /// The weight in the configuration, while the operator has given it another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_of_file: Option<u16>,
    /// Whether it is a backup server.
    pub backup: bool,
    /// Whether new flows may reach it now: up, weighted, and not a backup that is not needed.
    pub active: bool,
    /// What the operator wants of it for the time being.
    #[serde(default)]
    pub state: Admin,
    /// Health.
    pub health: Health,
    /// Why the health is what it is: the last probe's result in words.
    pub reason: String,
    /// Since when the health is what it is.
    pub since: u64,
    /// Whether l7-proxy sends it nothing for a while, for it failed requests in a row (`outliers` of its pool).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Why packets cannot be sent to it although it may be up, e.g. no route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_problem: Option<String>,
    /// Counters.
    pub traffic: Traffic,
}

/// Packets with one fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReasonCount {
    /// `pass`, `drop` or `event`: what happened beside a packet's own fate.
    pub verdict: String,
    /// Name of the reason, the same in code, counters and here.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

fn yes() -> bool {
    true
}
