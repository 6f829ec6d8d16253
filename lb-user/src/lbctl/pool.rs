//! `lbctl pool`: pools, and how the VIPs that use them find their servers.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    client::{At, Failure},
    file::{self, Change},
    output::{Format, Output, print, render, wants_colour},
    status, status_of,
    table::{
        Align::{Left, Right},
        Cell, Table,
    },
};
use crate::{
    reload::edit::Edit,
    snapshot::{PoolHealth, PoolServer, PoolStatus, ServerStatus, Snapshot, VipStatus},
};

/// A server that is to be in a pool.
#[derive(Clone, Debug, Args)]
pub struct NewServer {
    /// Its name.
    server: String,
    /// Its address, or a name to look up.
    address: String,
    /// Its share of new connections; 100 if nothing is said.
    #[arg(long)]
    weight: Option<u16>,
    /// It is to serve only while no other server does.
    #[arg(long)]
    backup: bool,
    /// Any other key, e.g. quic_id=17; see `lbctl explain pool.servers`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = file::pair)]
    more: Vec<(String, Value)>,
}

/// What about pools.
#[derive(Clone, Debug, Subcommand)]
pub enum Word {
    /// List pools.
    List {
        /// How.
        #[command(flatten)]
        output: Output,
    },
    /// Show a pool: its servers, as each VIP finds them.
    Show {
        /// Its name.
        name: String,
        /// How.
        #[command(flatten)]
        output: Output,
    },
    /// Write another server of a pool into the configuration file, and use it.
    AddServer {
        /// The pool's name.
        pool: String,
        /// Which.
        #[command(flatten)]
        server: NewServer,
        /// How.
        #[command(flatten)]
        change: Change,
    },
    /// Take a server of a pool out of the configuration file, and out of use. Its connections end.
    RemoveServer {
        /// The pool's name.
        pool: String,
        /// The server's.
        server: String,
        /// How.
        #[command(flatten)]
        change: Change,
    },
}

impl NewServer {
    fn keys(&self) -> Map<String, Value> {
        let named = [
            ("name", Some(self.server.as_str().into())),
            ("address", Some(self.address.as_str().into())),
            ("weight", self.weight.map(Value::from)),
            ("backup", self.backup.then(|| true.into())),
        ];
        file::keys(named, &self.more)
    }
}

/// A pool in a list. Field names and meanings are part of the interface.
#[derive(Clone, Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    servers: usize,
    min_healthy: usize,
    vips: &'a [String],
    /// As the VIP finds it that finds it worst; none where no VIP uses it.
    health: Option<PoolHealth>,
}

/// A pool with everything that is known of its servers.
#[derive(Clone, Debug, Serialize)]
struct Detail<'a> {
    name: &'a str,
    min_healthy: usize,
    vips: &'a [String],
    servers: Vec<ServerDetail<'a>>,
}

/// A server as it is configured, and as the VIPs find it.
#[derive(Clone, Debug, Serialize)]
struct ServerDetail<'a> {
    #[serde(flatten)]
    configured: &'a PoolServer,
    vips: Vec<InVip<'a>>,
}

/// A server as a VIP finds it.
#[derive(Clone, Debug, Serialize)]
struct InVip<'a> {
    vip: &'a str,
    #[serde(flatten)]
    server: &'a ServerStatus,
}

/// Does what is asked for.
///
/// # Errors
/// When there is no such pool, or lb-user cannot be reached.
pub fn run(at: &At, word: &Word) -> Result<(), Failure> {
    match word {
        Word::List { output } => output.show(|format| {
            let snapshot = status_of(at)?;
            let rows: Vec<_> = snapshot.pools.iter().map(|pool| row(&snapshot, pool)).collect();
            render(format, &rows, |_| list(&rows, wants_colour()))
        }),
        Word::Show { name, output } => output.show(|format| show(&status_of(at)?, name, format)),
        Word::AddServer { pool, server, change } => {
            let edit = Edit::AddServer { pool: pool.clone(), keys: server.keys() };
            print(&file::edit(at, &edit, change)?)
        }
        Word::RemoveServer { pool, server, change } => {
            let edit = Edit::RemoveServer { pool: pool.clone(), name: server.clone() };
            print(&file::edit(at, &edit, change)?)
        }
    }
}

fn row<'a>(snapshot: &Snapshot, pool: &'a PoolStatus) -> Row<'a> {
    let worst =
        snapshot.vips.iter().filter_map(|vip| health_in(vip, &pool.name)).max_by_key(|health| match health {
            PoolHealth::Healthy => 0,
            PoolHealth::Unknown => 1,
            PoolHealth::Degraded => 2,
            PoolHealth::Down => 3,
        });
    let PoolStatus { name, vips, min_healthy, servers } = pool;
    Row { name, servers: servers.len(), min_healthy: *min_healthy, vips, health: worst }
}

/// How a VIP finds a pool; none where it does not lead there. Of its own it says no more than of all together.
fn health_in(vip: &VipStatus, pool: &str) -> Option<PoolHealth> {
    let further = vip.further_pools.iter().find(|further| further.name == pool).map(|further| further.health);
    further.or((vip.pool.as_deref() == Some(pool)).then_some(vip.health))
}

fn list(rows: &[Row<'_>], colour: bool) -> String {
    if rows.is_empty() {
        return "No pools are configured.\n".to_owned();
    }
    let heads = [("POOL", Left), ("SERVERS", Right), ("NEEDED", Right), ("HEALTH", Left), ("VIPS", Left)];
    let mut table = Table::new(0, &heads);
    for row in rows {
        table.push(vec![
            row.name.into(),
            row.servers.to_string().into(),
            row.min_healthy.to_string().into(),
            row.health.map_or_else(|| "not used".into(), status::health_cell),
            row.vips.join(", ").into(),
        ]);
    }
    (0..=rows.len()).map(|line| table.line(line, colour)).collect()
}

fn show(snapshot: &Snapshot, name: &str, format: Format) -> Result<String, Failure> {
    let none = || Failure::Answer(format!("there is no pool {name:?}; lbctl pool list lists them"));
    let pool = snapshot.pools.iter().find(|pool| pool.name == name).ok_or_else(none)?;
    let servers = pool.servers.iter().map(|configured| {
        let vips = snapshot.vips.iter().filter_map(|vip| find(vip, name, &configured.name));
        ServerDetail { configured, vips: vips.collect() }
    });
    let detail = Detail {
        name: &pool.name,
        min_healthy: pool.min_healthy,
        vips: &pool.vips,
        servers: servers.collect(),
    };
    render(format, &detail, |_| table(&detail, wants_colour()))
}

fn find<'a>(vip: &'a VipStatus, pool: &str, server: &str) -> Option<InVip<'a>> {
    let is_it = |other: &&ServerStatus| match &other.pool {
        Some(further) => {
            further == pool && other.name.strip_prefix(pool).is_some_and(|rest| &rest[1..] == server)
        }
        None => vip.pool.as_deref() == Some(pool) && other.name == server,
    };
    let server = vip.servers.iter().find(is_it)?;
    Some(InVip { vip: &vip.name, server })
}

fn table(pool: &Detail<'_>, colour: bool) -> String {
    let heads = [("SERVER", Left), ("ADDRESS", Left), ("WEIGHT", Right), ("VIP", Left), ("HEALTH", Left)];
    let mut table = Table::new(0, &[&heads[..], &[("ACTIVE", Right), ("REASON", Left)]].concat());
    let mut lines = 1;
    for ServerDetail { configured, vips } in &pool.servers {
        let address = configured.address.map(|address| address.to_string());
        let address = address.or_else(|| configured.host.clone()).unwrap_or_default();
        let head =
            |weight: u16| [configured.name.clone(), address.clone(), weight.to_string()].map(Cell::from);
        for InVip { vip, server } in vips {
            let mut cells: Vec<Cell> = head(server.weight).into();
            cells.extend([Cell::from(*vip), status::server_health_cell(server)]);
            cells.extend([server.traffic.active.to_string().into(), status::remarks(server)]);
            table.push(cells);
        }
        if vips.is_empty() {
            let mut cells: Vec<Cell> = head(configured.weight).into();
            cells.extend(["-", "-", "-", "no VIP uses the pool"].map(Cell::from));
            table.push(cells);
        }
        lines += vips.len().max(1);
    }
    if lines == 1 {
        return format!("Pool {} has no servers.\n", pool.name);
    }
    (0..lines).map(|line| table.line(line, colour)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lbctl::status::tests::snapshot;

    fn with_pool() -> Snapshot {
        let mut snapshot = snapshot();
        let server = |name: &str| PoolServer {
            name: name.into(),
            address: None,
            host: Some("c.example".into()),
            weight: 100,
            backup: false,
        };
        let pool = |name: &str, vips: &[&str]| PoolStatus {
            name: name.into(),
            vips: vips.iter().map(|vip| (*vip).to_owned()).collect(),
            min_healthy: 1,
            servers: vec![server("c1"), server("c9")],
        };
        snapshot.pools = vec![pool("controllers", &["aodh"]), pool("unused", &[])];
        snapshot
    }

    #[test]
    fn a_list_says_who_uses_them_and_how_well_they_are() {
        let snapshot = with_pool();
        let rows: Vec<_> = snapshot.pools.iter().map(|pool| row(&snapshot, pool)).collect();
        let text = list(&rows, false);
        assert!(text.lines().nth(1).unwrap().starts_with("controllers        2       1  "), "{text}");
        assert!(text.lines().nth(2).unwrap().contains("not used"), "{text}");
        assert_eq!(serde_json::to_value(&rows[1]).unwrap()["health"], serde_json::Value::Null);
    }

    #[test]
    fn one_is_shown_as_its_vips_find_it() {
        let snapshot = with_pool();
        let text = show(&snapshot, "controllers", Format::Table).unwrap();
        assert!(
            text.lines().any(|line| line.starts_with("c1") && line.contains("connection refused")),
            "{text}"
        );
        let text = show(&snapshot, "unused", Format::Wide).unwrap();
        assert!(text.contains("no VIP uses the pool"), "{text}");
        let json = show(&snapshot, "controllers", Format::Json).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["servers"][0]["vips"][0]["vip"], &json["servers"][0]["vips"][0]["health"]),
            (&"aodh".into(), &"down".into())
        );
        assert!(show(&snapshot, "none", Format::Table).is_err());
    }
}
