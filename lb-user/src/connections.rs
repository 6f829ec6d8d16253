//! The connections of VIPs: who has which, and how to end some.
//!
//! What is known depends on the mode. `snat` and `nat` have a record of each flow. Those of `http` and `tcp` l7-proxy
//! knows ([`proxied`]). Of `dr`, `ipip` and `gue` only a hash is
//! kept and the server that it leads to: how many there are, and no more.

mod proxied;

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{
    abi::{Flow, Mode, protocol},
    conntrack::{self, TICK_NS},
    family::{Family, V4, V6},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    datapath::flows::{FlowTables, Halted, Record, tick},
    l7,
    poke::Poker,
    trace::{Insight, Names},
};

/// How many are listed unless more are asked for.
pub const USUAL_LIMIT: usize = 100;

/// The most that are listed at once.
pub const LARGEST_LIMIT: usize = 100_000;

/// Which connections are meant; those for which everything holds that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this VIP.
    pub vip: Option<String>,
    /// With this server.
    pub server: Option<String>,
    /// From clients of this network: address and prefix length.
    pub client: Option<(IpAddr, u8)>,
}

/// Connections that are open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    /// Those that are listed; those that said something last come first.
    pub connections: Vec<Connection>,
    /// How many there are.
    pub matching: u64,
}

/// A connection, or what UDP has of the kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// Name of the VIP.
    pub vip: String,
    /// The name by which the VIP knows the server; `-` where it has none yet. Of `http`: that of the latest request.
    pub server: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where the client is.
    pub client: SocketAddr,
    /// Where it has gone to.
    pub vip_address: SocketAddr,
    /// Whom the server takes for its client; none where a proxy has connections of its own to servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    /// Where the server is; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_address: Option<SocketAddr>,
    /// How far it is.
    pub state: State,
    /// Seconds since its last packet; of `http` since the latest request began, of `tcp` since the connection did.
    pub idle: u64,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not every side has spoken yet.
    Opening,
    /// Both have.
    Open,
    /// One has ended its side.
    Closing,
}

impl State {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
        }
    }
}

/// What came of ending connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// How many were ended.
    pub ended: u64,
}

/// Lists connections, `limit` at most.
///
/// # Errors
/// When what the filter names is not there, or of a mode whose connections are not known.
pub fn list(tables: &FlowTables, insight: &Insight, filter: &Filter, limit: usize) -> Result<Listed, String> {
    let now = tick();
    let mut found = Vec::new();
    let matching = visit(tables, &filter.resolve(insight)?, &mut |record| {
        // The most recent are enough; a few more are held than are shown, so that it is seldom sorted.
        found.push((age(&record.flow, now), record.flow));
        if found.len() >= (limit * 2).max(64) {
            found.sort_by_key(|(age, _)| *age);
            found.truncate(limit);
        }
    })?;
    found.sort_by_key(|(age, _)| *age);
    found.truncate(limit);
    let connections = found.iter().map(|(_, flow)| describe(flow, &insight.names, now)).collect();
    Ok(Listed { connections, matching })
}

/// Ends connections: each is forgotten, and both its ends are made to speak, so that they learn it at once from whoever
/// answers now.
///
/// # Errors
/// As [`list`].
pub fn end(tables: &FlowTables, insight: &Insight, filter: &Filter) -> Result<Ended, String> {
    let mut all = Vec::new();
    visit(tables, &filter.resolve(insight)?, &mut |record| all.push(record))?;
    let mut poker = Poker::default();
    let mut ended = 0;
    for record in all.iter().filter(|record| tables.forget(record)) {
        ended += 1;
        if protocol_of(&record.flow) == u16::from(protocol::TCP) {
            poker.poke(&record.flow);
        }
    }
    Ok(Ended { ended })
}

/// Hands over what a filter lets through; gives how many.
fn visit(tables: &FlowTables, filter: &Resolved, each: &mut dyn FnMut(Record)) -> Result<u64, String> {
    let mut count = 0;
    let outcome = tables.for_each_record(&mut |record| {
        if filter.lets_through(&record.flow) {
            count += 1;
            each(record);
        }
    });
    outcome.map(|()| count).map_err(|error| error.to_string())
}

/// A filter in the kernel's numbers.
struct Resolved {
    vip: Option<u16>,
    servers: Option<HashSet<u16>>,
    client: Option<(IpAddr, u8)>,
}

impl Filter {
    fn resolve(&self, insight: &Insight) -> Result<Resolved, String> {
        let names = &insight.names;
        let vip = self.vip.as_ref().map(|name| {
            let number = names.vip_number(name).ok_or_else(|| format!("there is no VIP {name:?}"))?;
            match insight.mode_of(number) {
                Some(mode @ (Mode::Dr | Mode::Ipip | Mode::Gue)) => Err(format!(
                    "VIP {name:?} is of mode {}: of its connections a hash is kept, not their ends. lbctl vip show \
                     counts them; lbctl server halt ends those of a server",
                    format!("{mode:?}").to_lowercase()
                )),
                _ => Ok(number),
            }
        });
        let servers = self.server.as_ref().map(|name| {
            let called = names.servers_called(name, self.vip.as_deref());
            let numbers: HashSet<_> = called.map(|(index, _)| index).collect();
            if numbers.is_empty() { Err(format!("there is no server {name:?}")) } else { Ok(numbers) }
        });
        Ok(Resolved { vip: vip.transpose()?, servers: servers.transpose()?, client: self.client })
    }
}

impl Resolved {
    fn lets_through(&self, flow: &Halted) -> bool {
        let (vip, server) = numbers(flow);
        let client = || match flow {
            Halted::V4(flow) => address4(flow.client),
            Halted::V6(flow) => address6(flow.client),
        };
        self.vip.is_none_or(|wanted| wanted == vip)
            && self.servers.as_ref().is_none_or(|wanted| wanted.contains(&server))
            && self.client.is_none_or(|network| contains(network, client()))
    }
}

/// Whether an address lies in a network.
fn contains((network, length): (IpAddr, u8), address: IpAddr) -> bool {
    let same = |network: u128, address: u128, bits: u8| {
        let behind = u32::from(bits - length.min(bits));
        network.checked_shr(behind) == address.checked_shr(behind)
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            same(network.to_bits().into(), address.to_bits().into(), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => same(network.to_bits(), address.to_bits(), 128),
        _ => false,
    }
}

fn numbers(flow: &Halted) -> (u16, u16) {
    match flow {
        Halted::V4(flow) => (flow.vip_id, flow.server_ref.index()),
        Halted::V6(flow) => (flow.vip_id, flow.server_ref.index()),
    }
}

fn protocol_of(flow: &Halted) -> u16 {
    match flow {
        Halted::V4(flow) => flow.protocol,
        Halted::V6(flow) => flow.protocol,
    }
}

/// Ticks since its last packet. One that came while we looked is not 2^32 ticks ago.
fn age(flow: &Halted, now: u32) -> u32 {
    let seen = match flow {
        Halted::V4(flow) => flow.seen,
        Halted::V6(flow) => flow.seen,
    };
    u32::try_from(now.wrapping_sub(seen) as i32).unwrap_or(0)
}

fn describe(flow: &Halted, names: &Names, now: u32) -> Connection {
    let age = age(flow, now);
    match flow {
        Halted::V4(flow) => of::<V4>(flow, names, age, address4),
        Halted::V6(flow) => of::<V6>(flow, names, age, address6),
    }
}

fn of<F: Family>(
    flow: &Flow<F::Addr>,
    names: &Names,
    age: u32,
    address: fn(F::Addr) -> IpAddr,
) -> Connection {
    let (client_fin, server_fin) = (conntrack::CLIENT_FIN, conntrack::SERVER_FIN);
    Connection {
        vip: names.vip(flow.vip_id),
        server: names.server_name(flow.server_ref.index()),
        protocol: if flow.protocol == u16::from(protocol::UDP) { "udp" } else { "tcp" }.into(),
        client: SocketAddr::new(address(flow.client), flow.client_port),
        vip_address: SocketAddr::new(address(flow.vip), flow.vip_port),
        source: Some(SocketAddr::new(address(flow.source), flow.source_port)),
        server_address: Some(SocketAddr::new(address(flow.server), flow.server_port)),
        state: if flow.state & (client_fin | server_fin) != 0 {
            State::Closing
        } else if flow.state & conntrack::REPLIED != 0 {
            State::Open
        } else {
            State::Opening
        },
        idle: (u128::from(age) * u128::from(TICK_NS) / 1_000_000_000) as u64,
    }
}

fn address4(address: u32) -> IpAddr {
    IpAddr::from(address.to_ne_bytes())
}

fn address6(address: [u32; 4]) -> IpAddr {
    let mut bytes = [0; 16];
    for (place, word) in bytes.chunks_exact_mut(4).zip(address) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::from(bytes)
}

/// Looks into the tables, on a thread of its own, for it may take a while, and asks l7-proxy; ends connections.
#[derive(Clone, Debug)]
pub struct Connections {
    tables: Arc<FlowTables>,
    proxy: l7::Handle,
}

impl Connections {
    /// Those in these tables, and those of this proxy.
    #[must_use]
    pub fn of(tables: Arc<FlowTables>, proxy: l7::Handle) -> Self {
        Self { tables, proxy }
    }

    /// See [`list`]; and those of proxied VIPs.
    ///
    /// # Errors
    /// As [`list`].
    pub async fn list(&self, insight: Arc<Insight>, filter: Filter, limit: usize) -> Result<Listed, String> {
        let which = proxied::which(&insight, &filter);
        let tables = Arc::clone(&self.tables);
        let work = move || list(&tables, &insight, &filter, limit);
        let done = tokio::task::spawn_blocking(work).await;
        let listed = done.unwrap_or_else(|error| Err(error.to_string()))?;
        Ok(proxied::with(listed, self.proxy.clients(which, limit).await, limit))
    }

    /// See [`end`]; and those of proxied VIPs.
    ///
    /// # Errors
    /// As [`list`].
    pub async fn end(&self, insight: Arc<Insight>, filter: Filter) -> Result<Ended, String> {
        let which = proxied::which(&insight, &filter);
        let tables = Arc::clone(&self.tables);
        let work = move || end(&tables, &insight, &filter);
        let done = tokio::task::spawn_blocking(work).await;
        let Ended { ended } = done.unwrap_or_else(|error| Err(error.to_string()))?;
        Ok(Ended { ended: ended + self.proxy.end_clients(which).await })
    }
}

#[cfg(test)]
mod tests;
