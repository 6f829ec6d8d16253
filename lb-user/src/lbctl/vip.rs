//! `lbctl vip`: VIPs, one by one.

use std::net::IpAddr;

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
        Cell, Paint, Table,
    },
    terms::Terms,
    understood, units,
};
use crate::{
    admin::{VipChange, VipRequest},
    reload::edit::Edit,
    snapshot::{PoolHealth, VipStatus},
};

/// What about VIPs.
#[derive(Clone, Debug, Subcommand)]
pub enum Word {
    /// List VIPs.
    List {
        /// How.
        #[command(flatten)]
        output: Output,
    },
    /// Show a VIP with its servers.
    Show {
        /// Its name.
        name: String,
        /// How.
        #[command(flatten)]
        output: Output,
    },
    /// Write another VIP into the configuration file, and use it.
    Add {
        /// Its name.
        name: String,
        /// What it is like.
        #[command(flatten)]
        keys: Keys,
        /// How.
        #[command(flatten)]
        change: Change,
    },
    /// Write a copy of a VIP into the configuration file, and use it: all keys of the one, but for those that are given.
    Clone {
        /// The name of the one that is copied.
        from: String,
        /// The copy's name.
        #[arg(long)]
        name: String,
        /// What is different.
        #[command(flatten)]
        keys: Keys,
        /// How.
        #[command(flatten)]
        change: Change,
    },
    /// Take a VIP out of the configuration file, and out of use. Its connections end.
    Remove {
        /// Its name.
        name: String,
        /// How.
        #[command(flatten)]
        change: Change,
    },
    /// Have a VIP take new connections again.
    Enable {
        /// Its name; `*` for all.
        name: String,
        /// On which terms.
        #[command(flatten)]
        terms: Terms,
    },
    /// Have a VIP refuse new connections, as a port on which nobody listens; those that are open go on.
    ///
    /// Kept over reloads and restarts, not over boots. Health checks go on, and its address stays.
    Disable {
        /// Its name; `*` for all.
        name: String,
        /// On which terms.
        #[command(flatten)]
        terms: Terms,
    },
}

/// Keys of a VIP in the configuration.
#[derive(Clone, Debug, Args)]
pub struct Keys {
    /// The address that clients go to.
    #[arg(long)]
    address: Option<IpAddr>,
    /// The port, or ports, e.g. 80,443,8000-8010.
    #[arg(long)]
    port: Option<String>,
    /// tcp or udp.
    #[arg(long)]
    protocol: Option<String>,
    /// How traffic reaches the servers: snat, nat, dr, ipip, gue, http or tcp.
    #[arg(long)]
    mode: Option<String>,
    /// The pool that serves.
    #[arg(long)]
    pool: Option<String>,
    /// Any other key, e.g. algorithm=least-conn; see `lbctl explain vip`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = file::pair)]
    more: Vec<(String, Value)>,
}

impl Keys {
    fn map(&self) -> Map<String, Value> {
        let text = |text: &Option<String>| text.as_deref().map(Value::from);
        // A single port is a number in the file.
        let port = self.port.as_deref();
        let port = port.map(|port| port.parse().map_or_else(|_| port.into(), |number: u16| number.into()));
        let named = [
            ("address", self.address.map(|address| address.to_string().into())),
            ("port", port),
            ("protocol", text(&self.protocol)),
            ("mode", text(&self.mode)),
            ("pool", text(&self.pool)),
        ];
        file::keys(named, &self.more)
    }
}

/// A VIP in a list. Field names and meanings are part of the interface.
#[derive(Clone, Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    address: String,
    ports: &'a str,
    protocol: &'a str,
    mode: &'a str,
    persistence: &'a str,
    algorithm: &'a str,
    pool: Option<&'a str>,
    /// Pools that it leads to beside its own.
    further_pools: Vec<&'a str>,
    /// All of them, for people.
    #[serde(skip)]
    pools: String,
    /// What the health checks do, and on which port.
    check: &'a str,
    check_port: Option<u16>,
    /// Whether the operator has it take new connections.
    enabled: bool,
    /// Whether clients are served at all.
    served: bool,
    health: PoolHealth,
    servers: usize,
    /// Those that take new connections.
    servers_active: usize,
    /// Connections since the start, and those that are open.
    connections: u64,
    active: u64,
}

impl<'a> Row<'a> {
    fn of(vip: &'a VipStatus) -> Self {
        Self {
            name: &vip.name,
            address: vip.address.to_string(),
            ports: &vip.ports,
            protocol: &vip.protocol,
            mode: &vip.mode,
            persistence: &vip.persistence,
            algorithm: &vip.algorithm,
            pool: vip.pool.as_deref(),
            further_pools: vip.further_pools.iter().map(|pool| pool.name.as_str()).collect(),
            pools: status::pools(vip),
            check: &vip.check,
            check_port: vip.check_port,
            enabled: vip.enabled,
            served: vip.served,
            health: vip.health,
            servers: vip.servers.len(),
            servers_active: vip.servers.iter().filter(|server| server.active).count(),
            connections: vip.traffic.connections,
            active: vip.traffic.active,
        }
    }
}

/// Does what is asked for.
///
/// # Errors
/// When there is no such VIP, or lb-user cannot be reached.
pub fn run(at: &At, word: &Word) -> Result<(), Failure> {
    match word {
        Word::List { output } => output.show(|format| {
            let snapshot = status_of(at)?;
            let rows: Vec<_> = snapshot.vips.iter().map(Row::of).collect();
            render(format, &rows, |wide| list(&rows, wide, wants_colour()))
        }),
        Word::Show { name, output } => output.show(|format| show(at, name, format)),
        Word::Add { name, keys, change } => {
            print(&file::edit(at, &Edit::AddVip { name: name.clone(), keys: keys.map() }, change)?)
        }
        Word::Clone { from, name, keys, change } => {
            let edit = Edit::CloneVip { from: from.clone(), name: name.clone(), keys: keys.map() };
            print(&file::edit(at, &edit, change)?)
        }
        Word::Remove { name, change } => {
            print(&file::edit(at, &Edit::RemoveVip { name: name.clone() }, change)?)
        }
        Word::Enable { name, terms } => steer(at, name, true, terms),
        Word::Disable { name, terms } => steer(at, name, false, terms),
    }
}

fn show(at: &At, name: &str, format: Format) -> Result<String, Failure> {
    let snapshot = status_of(at)?;
    let vip = snapshot.vips.into_iter().find(|vip| vip.name == name);
    let none = || Failure::Answer(format!("there is no VIP {name:?}; lbctl vip list lists them"));
    let vip = vip.ok_or_else(none)?;
    render(format, &vip, |_| status::services(std::slice::from_ref(&vip), true, wants_colour()))
}

fn steer(at: &At, name: &str, enabled: bool, terms: &Terms) -> Result<(), Failure> {
    let request = VipRequest { vip: name.into(), enabled };
    let body = serde_json::to_string(&request).map_err(|error| Failure::Answer(error.to_string()))?;
    let changes: Vec<VipChange> = understood(&terms.post(at, "/v1/vip", body)?)?;
    let line = |change: &VipChange| {
        let what = if change.enabled { "enabled" } else { "disabled" };
        let (line, effects) = (format!("{}: {what}\n", change.vip), &change.effects);
        if terms.dry_run { format!("{line}  {}\n", effects.join("\n  ")) } else { line }
    };
    print(&changes.iter().map(line).collect::<String>())
}

fn list(rows: &[Row<'_>], wide: bool, colour: bool) -> String {
    if rows.is_empty() {
        return "No VIPs are configured.\n".to_owned();
    }
    let mut heads = vec![("VIP", Left), ("ADDRESS", Left), ("PORTS", Left), ("PROTO", Left), ("MODE", Left)];
    heads.extend([("POOL", Left), ("SERVERS", Right), ("HEALTH", Left), ("ACTIVE", Right)]);
    if wide {
        heads.extend([("CONNS", Right), ("ALGORITHM", Left), ("PERSISTENCE", Left), ("CHECK", Left)]);
    }
    heads.push(("NOTE", Left));
    let mut table = Table::new(0, &heads);
    let mut text = String::new();
    for row in rows {
        let mut cells: Vec<Cell> =
            [row.name, &row.address, row.ports, row.protocol, row.mode].map(Cell::from).into();
        cells.extend([(&row.pools).into(), format!("{}/{}", row.servers_active, row.servers).into()]);
        cells.extend([status::health_cell(row.health), units::count(row.active).into()]);
        if wide {
            let port = row.check_port.map(|port| format!(" {port}")).unwrap_or_default();
            cells.extend([units::count(row.connections), row.algorithm.to_owned()].map(Cell::from));
            cells.extend([row.persistence.to_owned(), format!("{}{port}", row.check)].map(Cell::from));
        }
        cells.push(match (row.enabled, row.served) {
            (false, _) => Cell::new("disabled", Paint::Warn),
            (_, false) => Cell::new("not served yet", Paint::Warn),
            _ => "".into(),
        });
        table.push(cells);
    }
    for line in 0..=rows.len() {
        text += &table.line(line, colour);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lbctl::status::tests::snapshot;

    #[test]
    fn a_list_has_a_line_for_each_and_the_wide_one_says_how_they_balance() {
        let snapshot = snapshot();
        let mut rows: Vec<_> = snapshot.vips.iter().map(Row::of).collect();
        rows[0].enabled = false;
        let narrow = list(&rows, false, false);
        assert_eq!(narrow.lines().count(), 1 + rows.len());
        let line = narrow.lines().nth(1).unwrap();
        assert!(line.starts_with("aodh") && line.ends_with("disabled"), "{line}");
        assert!(!narrow.contains("maglev"));
        assert!(list(&rows, true, false).contains("maglev     none         tcp 8042"));
        assert_eq!(list(&[], false, false), "No VIPs are configured.\n");
    }

    /// R15: what the table of services has.
    #[test]
    fn programs_find_everything_by_name() {
        let snapshot = snapshot();
        let row = serde_json::to_value(Row::of(&snapshot.vips[0])).unwrap();
        for (key, expected) in [
            ("name", "\"aodh\""),
            ("address", "\"192.168.1.250\""),
            ("ports", "\"8042\""),
            ("mode", "\"snat\""),
            ("persistence", "\"none\""),
            ("algorithm", "\"maglev\""),
            ("pool", "\"controllers\""),
            ("check", "\"tcp\""),
            ("check_port", "8042"),
            ("enabled", "true"),
        ] {
            assert_eq!(row[key].to_string(), expected, "{key}");
        }
        assert!(row["health"].is_string() && row["connections"].is_u64());
    }
}
