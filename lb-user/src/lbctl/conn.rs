//! `lbctl conn`: who is connected to what, and ending that.

use clap::{Args, Subcommand};

use super::{
    client::{self, At, Failure},
    output::{Output, print, render},
    status_of,
    table::{
        Align::{Left, Right},
        Cell, Table,
    },
    terms::Terms,
    understood, units,
};
use crate::{
    admin::query,
    connections::{Connection, Ended, LARGEST_LIMIT, Listed, USUAL_LIMIT},
    snapshot::Snapshot,
};

/// What about connections.
#[derive(Clone, Debug, Subcommand)]
pub enum Word {
    /// List connections that are open, the latest to speak first.
    ///
    /// Of modes snat, nat, http and tcp. Of dr, ipip and gue the balancer sees one direction and keeps a hash of each connection: it
    /// can count them, and no more.
    List {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The most that are listed.
        #[arg(long, value_name = "NUMBER", default_value_t = USUAL_LIMIT as u64,
              value_parser = clap::value_parser!(u64).range(1..=LARGEST_LIMIT as u64))]
        limit: u64,
        /// How.
        #[command(flatten)]
        output: Output,
    },
    /// End connections: both ends are reset at once, also idle ones.
    ///
    /// Of modes snat, nat, http and tcp; those of http and tcp are closed by the proxy. A client that comes again is balanced like any other; to keep it away from a server, drain
    /// that first. Datagrams of UDP begin anew.
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["vip", "server", "client", "all"]))]
    Kill {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// All of them.
        #[arg(long, conflicts_with_all = ["vip", "server", "client"])]
        all: bool,
        /// On which terms.
        #[command(flatten)]
        terms: Terms,
    },
}

/// Which connections: those for which everything holds that is given.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// Of this VIP.
    #[arg(long, value_name = "NAME")]
    vip: Option<String>,
    /// With this server, in any VIP; or VIP/SERVER.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// From this client: an address, or a network such as 10.0.0.0/8.
    #[arg(long, value_name = "NET")]
    client: Option<String>,
}

impl Which {
    /// As the query of a request.
    fn pairs(&self) -> Result<Vec<(&str, &str)>, Failure> {
        let (vip, server) = match self.server.as_deref().map(|server| server.split_once('/')) {
            Some(Some((vip, server))) => (Some(vip).filter(|vip| *vip != "*"), Some(server)),
            _ => (None, self.server.as_deref()),
        };
        if let (Some(one), Some(other)) = (&self.vip, vip)
            && one != other
        {
            return Err(Failure::Usage(format!("--vip says {one}, but --server says {other}")));
        }
        let vip = self.vip.as_deref().or(vip);
        let named = [("vip", vip), ("server", server), ("client", self.client.as_deref())];
        Ok(named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
    }
}

/// Does what is asked for.
///
/// # Errors
/// When there is no such VIP or server, or lb-user cannot be reached.
pub fn run(at: &At, word: &Word) -> Result<(), Failure> {
    match word {
        Word::List { which, limit, output } => output.show(|format| {
            let limit = limit.to_string();
            let mut pairs = which.pairs()?;
            pairs.push(("limit", &limit));
            let path = format!("/v1/connections?{}", query::encode(&pairs));
            let listed: Listed = understood(&client::get(at, &path)?)?;
            let untold = if which.vip.is_none() { untold(&status_of(at)?) } else { String::new() };
            render(format, &listed, |_| table(&listed) + &untold)
        }),
        Word::Kill { which, all, terms } => {
            let mut pairs = which.pairs()?;
            pairs.extend(all.then_some(("all", "true")));
            let path = format!("/v1/connections/end?{}", query::encode(&pairs));
            let Ended { ended } = understood(&terms.post(at, &path, String::new())?)?;
            let connections = if ended == 1 { "connection" } else { "connections" };
            let done = if terms.dry_run { "would be ended (--dry-run)" } else { "ended" };
            print(&format!("{ended} {connections} {done}\n"))
        }
    }
}

fn table(listed: &Listed) -> String {
    let Listed { connections, matching } = listed;
    if connections.is_empty() {
        return "no connections\n".into();
    }
    let heads = [("VIP", Left), ("SERVER", Left), ("PROTO", Left), ("CLIENT", Left), ("TO", Left)];
    let more = [("SOURCE", Left), ("SERVER ADDRESS", Left), ("STATE", Left), ("IDLE", Right)];
    let mut table = Table::new(0, &[&heads[..], &more].concat());
    for connection in connections {
        let Connection { vip, server, protocol, client, vip_address, source, server_address, state, idle } =
            connection;
        let mut cells: Vec<Cell> = [vip, server, protocol].map(Cell::from).into();
        let ends = [Some(client), Some(vip_address), source.as_ref(), server_address.as_ref()];
        cells.extend(ends.map(|end| Cell::from(end.map_or_else(|| "-".to_owned(), ToString::to_string))));
        cells.extend([state.name().to_owned(), units::span(*idle)].map(Cell::from));
        table.push(cells);
    }
    let mut text: String = (0..=connections.len()).map(|line| table.line(line, false)).collect();
    if *matching > connections.len() as u64 {
        text += &format!("and {} more (--limit)\n", matching - connections.len() as u64);
    }
    text
}

/// What there is beside those that can be listed.
fn untold(snapshot: &Snapshot) -> String {
    let direct = |mode: &str| ["dr", "ipip", "gue"].contains(&mode);
    let vips = snapshot.vips.iter().filter(|vip| direct(&vip.mode) && vip.traffic.active > 0);
    let line = |vip: &crate::snapshot::VipStatus| {
        format!(
            "VIP {} (mode {}) has {} more, whose ends are not known\n",
            vip.name, vip.mode, vip.traffic.active
        )
    };
    vips.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{connections::State, lbctl::status::tests::snapshot};

    fn which(vip: Option<&str>, server: Option<&str>) -> Which {
        Which {
            vip: vip.map(str::to_owned),
            server: server.map(str::to_owned),
            client: Some("10.0.0.0/8".into()),
        }
    }

    #[test]
    fn a_server_may_be_named_with_its_vip() {
        let client = ("client", "10.0.0.0/8");
        for (vip, server, expected) in [
            (None, Some("s1"), vec![("server", "s1"), client]),
            (None, Some("web/s1"), vec![("vip", "web"), ("server", "s1"), client]),
            (Some("web"), Some("web/s1"), vec![("vip", "web"), ("server", "s1"), client]),
            (None, Some("*/s1"), vec![("server", "s1"), client]),
            (Some("web"), None, vec![("vip", "web"), client]),
        ] {
            assert_eq!(which(vip, server).pairs().unwrap(), expected);
        }
        assert!(which(Some("web"), Some("mail/s1")).pairs().is_err());
    }

    #[test]
    fn each_is_a_line_and_what_is_left_out_is_said() {
        let connection = Connection {
            vip: "web".into(),
            server: "s1".into(),
            protocol: "tcp".into(),
            client: "192.0.2.1:50000".parse().unwrap(),
            vip_address: "10.0.0.100:80".parse().unwrap(),
            source: "10.0.0.1:2000".parse().ok(),
            server_address: "10.0.0.11:80".parse().ok(),
            state: State::Open,
            idle: 75,
        };
        let text = table(&Listed { connections: vec![connection], matching: 3 });
        let expected = "\
VIP  SERVER  PROTO  CLIENT           TO             SOURCE         SERVER ADDRESS  STATE    IDLE
web  s1      tcp    192.0.2.1:50000  10.0.0.100:80  10.0.0.1:2000  10.0.0.11:80    open   1m 15s
and 2 more (--limit)
";
        assert_eq!(text, expected);
        assert_eq!(table(&Listed::default()), "no connections\n");
        let mut snapshot = snapshot();
        assert_eq!(untold(&snapshot), "");
        snapshot.vips[0].mode = "dr".into();
        assert!(untold(&snapshot).starts_with("VIP aodh (mode dr) has 4000 more"), "{}", untold(&snapshot));
    }
}
