//! `lbctl probe`: how each server is reached from here: route, next hop's MAC, TCP, TLS (R29).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

use super::{
    client::{self, At, Failure},
    file,
    output::{Format, print, render, wants_colour},
    place::Place,
    status_of,
    table::{Align::Left, Cell, Paint, Table},
};
use crate::{
    health::{Outcome, probe::Network},
    model::{Check, Trust},
    netlink::{
        Netlink,
        routes::{Neighbour, NextHop},
    },
    snapshot::Snapshot,
};

/// How many servers are looked at at once.
const AT_ONCE: usize = 32;

/// How often the next hop's MAC is asked for, and how long after each other.
const ASK_NEIGHBOUR: (u32, Duration) = (20, Duration::from_millis(100));

/// Ports that usually speak TLS.
const USUALLY_TLS: [u16; 2] = [443, 8443];

/// What the command line says.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Only servers of these VIPs.
    #[arg(value_name = "VIP")]
    vips: Vec<String>,

    /// From where.
    #[command(flatten)]
    place: Place,

    /// Shake hands over TLS with all that take TCP connections, not only where the check does or the port is 443 or 8443.
    #[arg(long)]
    tls: bool,

    /// How long each attempt may take.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = file::seconds)]
    timeout: u64,

    /// In what form.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// A server to be looked at; once, however many VIPs it serves at this port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    server: String,
    /// `Err` with its name where that leads nowhere.
    address: Result<IpAddr, String>,
    /// Where it takes connections; none for UDP.
    port: Option<u16>,
    /// Whether TLS is tried, and whether it has to work.
    tls: Option<bool>,
    vips: Vec<String>,
}

/// How it is reached. Field names and meanings are part of the interface.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    server: String,
    address: Option<IpAddr>,
    port: Option<u16>,
    /// VIPs that it serves there.
    vips: Vec<String>,
    route: Step,
    neighbour: Step,
    tcp: Step,
    tls: Step,
}

/// One step on the way to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Whether it works; none where it was not tried.
    ok: Option<bool>,
    /// In words.
    detail: String,
}

impl Step {
    fn good(detail: impl Into<String>) -> Self {
        Self { ok: Some(true), detail: detail.into() }
    }

    fn bad(detail: impl Into<String>) -> Self {
        Self { ok: Some(false), detail: detail.into() }
    }

    fn untried() -> Self {
        Self { ok: None, detail: "-".into() }
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success(found) => Self::good(found),
            Outcome::Failure(why) | Outcome::Inconclusive(why) => Self::bad(why),
        }
    }

    fn cell(&self) -> Cell {
        let paint = match self.ok {
            Some(true) => Paint::Good,
            Some(false) => Paint::Bad,
            None => Paint::Plain,
        };
        Cell::new(&self.detail, paint)
    }
}

impl Row {
    fn is_well(&self) -> bool {
        [&self.route, &self.neighbour, &self.tcp, &self.tls].iter().all(|step| step.ok != Some(false))
    }
}

/// Looks at every server and shows what came of it.
///
/// # Errors
/// When one is not reached, lb-user cannot be reached, or there is no such place.
pub fn run(at: &At, options: &Options) -> Result<(), Failure> {
    let subjects = subjects(&status_of(at)?, &options.vips, options.tls)?;
    options.place.enter()?;
    let network = Network::default().with_source(options.place.source);
    let limit = Duration::from_secs(options.timeout);
    let rows = client::runtime()?.block_on(all(subjects, network, limit))?;
    print(&render(options.output, &rows, |_| table(&rows, wants_colour()))?)?;
    match rows.iter().filter(|row| !row.is_well()).count() {
        0 => Ok(()),
        1 => Err(Failure::Unwell(format!("1 of {} servers is not reached as it should be", rows.len()))),
        bad => {
            Err(Failure::Unwell(format!("{bad} of {} servers are not reached as they should be", rows.len())))
        }
    }
}

/// The servers of the VIPs of these names, or of all.
fn subjects(snapshot: &Snapshot, names: &[String], tls: bool) -> Result<Vec<Subject>, Failure> {
    if let Some(name) = names.iter().find(|name| snapshot.vips.iter().all(|vip| vip.name != **name)) {
        return Err(Failure::Answer(format!("there is no VIP {name:?}; lbctl vip list lists them")));
    }
    let mut all: BTreeMap<_, Subject> = BTreeMap::new();
    for vip in snapshot.vips.iter().filter(|vip| names.is_empty() || names.contains(&vip.name)) {
        for server in &vip.servers {
            let port = server.port.or(vip.check_port).filter(|_| vip.protocol == "tcp");
            let address = server.address.ok_or_else(|| server.host.clone().unwrap_or_default());
            let needs_tls =
                port.is_some() && port == vip.check_port && ["https", "tls"].contains(&vip.check.as_str());
            let tries_tls = port.is_some_and(|port| tls || USUALLY_TLS.contains(&port));
            let subject = all.entry((address.clone(), port, server.name.clone())).or_insert_with(|| {
                Subject { server: server.name.clone(), address, port, tls: None, vips: Vec::new() }
            });
            subject.vips.push(vip.name.clone());
            if needs_tls || tries_tls {
                subject.tls = Some(needs_tls || subject.tls == Some(true));
            }
        }
    }
    Ok(all.into_values().collect())
}

async fn all(subjects: Vec<Subject>, network: Network, limit: Duration) -> Result<Vec<Row>, Failure> {
    let netlink = Netlink::open().map_err(|error| Failure::Answer(error.to_string()))?;
    let (network, netlink) = (Arc::new(network), Arc::new(netlink));
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (place, subject) in subjects.into_iter().enumerate() {
        let (network, netlink, room) = (Arc::clone(&network), Arc::clone(&netlink), Arc::clone(&room));
        tasks.spawn(async move {
            let _turn = room.acquire_owned().await;
            (place, look_at(subject, &network, &netlink, limit).await)
        });
    }
    let mut rows = Vec::new();
    while let Some(done) = tasks.join_next().await {
        rows.extend(done);
    }
    rows.sort_unstable_by_key(|(place, _)| *place);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

async fn look_at(subject: Subject, network: &Network, netlink: &Netlink, limit: Duration) -> Row {
    let Subject { server, address, port, tls, vips } = subject;
    let untried = Step::untried;
    let mut row = Row {
        server,
        address: address.clone().ok(),
        port,
        vips,
        route: untried(),
        neighbour: untried(),
        tcp: untried(),
        tls: untried(),
    };
    let address = match address {
        Ok(address) => address,
        Err(host) => {
            row.route = Step::bad(format!("the name {host} leads nowhere"));
            return row;
        }
    };
    (row.route, row.neighbour) = way(netlink, address).await;
    let Some(port) = port else { return row };
    let target = SocketAddr::new(address, port);
    row.tcp = Step::of(network.once(target, &Check::Tcp, limit).await);
    if let (Some(needed), Some(true)) = (tls, row.tcp.ok) {
        let check = Check::Tls { host: None, trust: Trust::Anyone };
        row.tls = Step::of(network.once(target, &check, limit).await);
        if !needed && row.tls.ok == Some(false) {
            row.tls.ok = None;
        }
    }
    row
}

/// The route to an address, and who takes the packets.
async fn way(netlink: &Netlink, address: IpAddr) -> (Step, Step) {
    let mut hop = match netlink.resolve(address).await {
        Ok(hop) => hop,
        Err(problem) => return (Step::bad(problem.to_string()), Step::untried()),
    };
    for _ in 0..ASK_NEIGHBOUR.0 {
        if hop.neighbour != Neighbour::Unknown {
            break;
        }
        // What cannot be asked for is not known, which is told.
        let _ = netlink.nudge(hop.ifindex, hop.address).await;
        sleep(ASK_NEIGHBOUR.1).await;
        hop = netlink.resolve(address).await.unwrap_or(hop);
    }
    let link = netlink.link_by_index(hop.ifindex).await.ok().flatten();
    let link = link.map_or_else(|| format!("interface {}", hop.ifindex), |link| link.name);
    (Step::good(route(&hop, address, &link)), neighbour(&hop))
}

fn route(hop: &NextHop, address: IpAddr, link: &str) -> String {
    let router = if hop.address == address { String::new() } else { format!(" via {}", hop.address) };
    let source = hop.source.map(|source| format!(" from {source}")).unwrap_or_default();
    format!("{link}{router}{source}")
}

fn neighbour(hop: &NextHop) -> Step {
    match hop.neighbour {
        Neighbour::Known(mac) => Step::good(mac.map(|byte| format!("{byte:02x}")).join(":")),
        Neighbour::Failed => Step::bad(format!("{} does not answer", hop.address)),
        Neighbour::Unknown => Step::bad(format!("{} has not answered yet", hop.address)),
    }
}

fn table(rows: &[Row], colour: bool) -> String {
    if rows.is_empty() {
        return "No servers are configured.\n".into();
    }
    let heads = [("SERVER", Left), ("ADDRESS", Left), ("ROUTE", Left), ("NEIGHBOUR", Left), ("TCP", Left)];
    let mut table = Table::new(0, &[&heads[..], &[("TLS", Left), ("VIPS", Left)]].concat());
    for row in rows {
        let address = match (row.address, row.port) {
            (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
            (Some(address), None) => address.to_string(),
            (None, _) => "-".into(),
        };
        let mut cells: Vec<Cell> = vec![(&row.server).into(), address.into()];
        cells.extend([&row.route, &row.neighbour, &row.tcp, &row.tls].map(Step::cell));
        cells.push(row.vips.join(", ").into());
        table.push(cells);
    }
    (0..=rows.len()).map(|line| table.line(line, colour)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lbctl::status::tests::snapshot;

    #[test]
    fn a_server_is_looked_at_once_for_each_port() {
        let mut snapshot = snapshot();
        let mut other = snapshot.vips[0].clone();
        other.name = "other".into();
        other.check = "https".into();
        snapshot.vips.push(other);
        let all = subjects(&snapshot, &[], false).unwrap();
        let c0 = all.iter().find(|subject| subject.server == "c0").unwrap();
        assert_eq!(
            (c0.vips.join(" "), c0.port, c0.tls),
            ("aodh empty-pool other".into(), Some(8042), Some(true))
        );
        let one = subjects(&snapshot, &["aodh".to_owned()], false).unwrap();
        assert_eq!((one.len(), one[0].tls, one[0].vips.len()), (4, None, 1));
        assert_eq!(subjects(&snapshot, &["aodh".to_owned()], true).unwrap()[0].tls, Some(false));
        assert!(subjects(&snapshot, &["none".to_owned()], false).is_err());
        snapshot.vips[0].protocol = "udp".into();
        assert!(
            subjects(&snapshot, &["aodh".to_owned()], true).unwrap().iter().all(|one| one.port.is_none())
        );
    }

    #[test]
    fn ways_in_words() {
        let address = IpAddr::from([10, 0, 0, 9]);
        let hop = NextHop {
            ifindex: 2,
            address,
            source: Some(IpAddr::from([10, 0, 0, 1])),
            neighbour: Neighbour::Known([2, 0, 0, 0, 0, 255]),
        };
        assert_eq!(route(&hop, address, "eth0"), "eth0 from 10.0.0.1");
        let routed = NextHop { address: IpAddr::from([10, 0, 0, 254]), neighbour: Neighbour::Failed, ..hop };
        assert_eq!(route(&routed, address, "eth0"), "eth0 via 10.0.0.254 from 10.0.0.1");
        assert_eq!(neighbour(&hop), Step::good("02:00:00:00:00:ff"));
        assert_eq!(neighbour(&routed), Step::bad("10.0.0.254 does not answer"));
    }

    #[tokio::test]
    async fn tls_that_need_not_be_there_is_no_failure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            loop {
                // Whoever connects is turned away after the handshake.
                drop(listener.accept().await.unwrap());
            }
        };
        let look = async {
            let netlink = Netlink::open().unwrap();
            let mut rows = Vec::new();
            for tls in [None, Some(false), Some(true)] {
                let subject = Subject {
                    server: "s".into(),
                    address: Ok(IpAddr::from([127, 0, 0, 1])),
                    port: Some(port),
                    tls,
                    vips: vec!["v".into()],
                };
                rows.push(look_at(subject, &Network::default(), &netlink, Duration::from_secs(5)).await);
            }
            rows
        };
        let rows = tokio::select! {
            rows = look => rows,
            () = serve => unreachable!("it serves for ever"),
        };
        assert!(rows.iter().all(|row| row.tcp.ok == Some(true)), "{rows:?}");
        assert_eq!([&rows[0].tls.ok, &rows[1].tls.ok, &rows[2].tls.ok], [&None, &None, &Some(false)]);
        assert!(rows[0].route.detail.contains("is an address of this host"), "{rows:?}");
        let nameless = Subject {
            server: "s".into(),
            address: Err("web.example".into()),
            port: None,
            tls: None,
            vips: vec![],
        };
        let netlink = Netlink::open().unwrap();
        let row = look_at(nameless, &Network::default(), &netlink, Duration::from_secs(1)).await;
        assert!(!row.is_well() && table(&[row], false).contains("the name web.example leads nowhere"));
    }
}
