//! `lbctl verify`: opens every VIP as a client would, and says which answer (R77).

mod ask;

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    client::{self, At, Failure},
    file,
    output::{Format, print, render, wants_colour},
    place::Place,
    status_of,
    table::{
        Align::{Left, Right},
        Cell, Paint, Table,
    },
};
use crate::{
    config,
    health::{Outcome, probe::Network},
    model::{Check, Config, Vip},
    netlink::Netlink,
    reload::read_file,
    snapshot::{Snapshot, VipStatus},
};

/// How many VIPs are opened at once.
const AT_ONCE: usize = 32;

/// What the command line says.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Only these VIPs.
    #[arg(value_name = "VIP")]
    vips: Vec<String>,

    /// From where.
    #[command(flatten)]
    place: Place,

    /// How long each may take.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = file::seconds)]
    timeout: u64,

    /// In what form.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// What is to be done to see whether a port of a VIP answers.
#[derive(Clone, Debug, PartialEq)]
struct Attempt {
    vip: String,
    address: SocketAddr,
    /// `tcp` or `udp`.
    protocol: String,
    /// What is asked; or why nothing is.
    ask: Result<Check, String>,
    /// Why a connection that opens is not enough.
    not_enough: Option<String>,
}

/// What came of it. Field names and meanings are part of the interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    vip: String,
    address: SocketAddr,
    protocol: String,
    /// What was done: `connect`, `http GET /health`, …
    attempt: String,
    result: Answer,
    /// In words.
    detail: String,
    /// How long it took.
    milliseconds: u64,
}

/// Whether a VIP answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It does.
    Ok,
    /// It does not.
    Failed,
    /// It need not: it is disabled, or not served.
    Skipped,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

/// Opens every VIP and shows what came of it.
///
/// # Errors
/// When one does not answer, lb-user cannot be reached, or there is no such place.
pub fn run(at: &At, options: &Options) -> Result<(), Failure> {
    let snapshot = status_of(at)?;
    let config = config_of(&snapshot);
    let attempts = plan(&snapshot, config.as_ref(), &options.vips)?;
    options.place.enter()?;
    let folder = snapshot.config_file.as_deref().map(PathBuf::from);
    let folder = folder.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let network = Network::new(folder).with_source(options.place.source);
    let rows = client::runtime()?.block_on(all(attempts, network, Duration::from_secs(options.timeout)));
    print(&render(options.output, &rows, |_| table(&rows, wants_colour()))?)?;
    let failed: HashSet<_> =
        rows.iter().filter(|row| row.result == Answer::Failed).map(|row| &row.vip).collect();
    let asked: HashSet<_> =
        rows.iter().filter(|row| row.result != Answer::Skipped).map(|row| &row.vip).collect();
    match failed.len() {
        0 => Ok(()),
        failed => Err(Failure::Unwell(format!("{failed} of {} VIPs do not answer", asked.len()))),
    }
}

/// The configuration file, which knows what checks say. As good as none if it cannot be read.
fn config_of(snapshot: &Snapshot) -> Option<Config> {
    let file = snapshot.config_file.as_deref()?;
    let text = read_file(Path::new(file)).ok()?;
    Some(config::check(file, &text).ok()?.config)
}

/// What is to be tried for the VIPs of these names, or for all.
fn plan(snapshot: &Snapshot, config: Option<&Config>, names: &[String]) -> Result<Vec<Attempt>, Failure> {
    if let Some(name) = names.iter().find(|name| snapshot.vips.iter().all(|vip| vip.name != **name)) {
        return Err(Failure::Answer(format!("there is no VIP {name:?}; lbctl vip list lists them")));
    }
    let wanted = |vip: &&VipStatus| names.is_empty() || names.contains(&vip.name);
    let attempts = snapshot.vips.iter().filter(wanted).flat_map(|vip| {
        let configured = config.and_then(|config| config.vips.iter().find(|other| is_same(vip, other)));
        ports(vip).into_iter().map(move |port| {
            let ask = match vip {
                VipStatus { served: false, .. } => Err("it is not served yet".into()),
                VipStatus { enabled: false, .. } => Err("it is disabled".into()),
                _ => Ok(ask::ask(vip, configured, port)),
            };
            Attempt {
                vip: vip.name.clone(),
                address: SocketAddr::new(vip.address, port),
                protocol: vip.protocol.clone(),
                not_enough: ask.as_ref().ok().and_then(|check| ask::nobody_behind(vip, check)),
                ask,
            }
        })
    });
    Ok(attempts.collect())
}

/// Whether what the file says of a VIP is what is in use.
fn is_same(vip: &VipStatus, other: &Vip) -> bool {
    (&vip.name, vip.address, &vip.ports) == (&other.name, other.address, &other.ports.to_string())
}

/// One port of each range; of all ports the one that is checked.
fn ports(vip: &VipStatus) -> Vec<u16> {
    let first = |range: &str| range.split('-').next()?.trim().parse().ok();
    let ports: Vec<u16> = vip.ports.split(',').filter_map(first).collect();
    if ports.is_empty() { vip.check_port.into_iter().collect() } else { ports }
}

/// Carries out all attempts, many at once; what came of them, in their order.
async fn all(attempts: Vec<Attempt>, network: Network, limit: Duration) -> Vec<Row> {
    let own = own_addresses().await;
    let (network, room) = (Arc::new(network), Arc::new(Semaphore::new(AT_ONCE)));
    let mut tasks = JoinSet::new();
    for (place, attempt) in attempts.into_iter().enumerate() {
        let (network, room) = (Arc::clone(&network), Arc::clone(&room));
        let is_own = own.contains(&attempt.address.ip());
        tasks.spawn(async move {
            let _turn = room.acquire_owned().await;
            (place, attempt.carry_out(&network, limit, is_own).await)
        });
    }
    let mut rows = Vec::new();
    while let Some(done) = tasks.join_next().await {
        rows.extend(done);
    }
    rows.sort_unstable_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The addresses of this host, as seen from here; none if they cannot be listed.
async fn own_addresses() -> HashSet<IpAddr> {
    let Ok(netlink) = Netlink::open() else { return HashSet::new() };
    let addresses = netlink.addresses().await.unwrap_or_default();
    addresses.into_iter().map(|own| own.address).collect()
}

impl Attempt {
    /// Does it. What this host sends to its own address never leaves it: that the VIP does not answer then says nothing.
    async fn carry_out(self, network: &Network, limit: Duration, is_own: bool) -> Row {
        let Self { vip, address, protocol, ask, not_enough } = self;
        let row = |attempt, result, detail, milliseconds| Row {
            vip,
            address,
            protocol,
            attempt,
            result,
            detail,
            milliseconds,
        };
        let check = match ask {
            Ok(check) => check,
            Err(why) => return row("-".into(), Answer::Skipped, why, 0),
        };
        let words = words(&check);
        if is_own {
            let why = "this host has the address itself, so its packets do not pass the balancer; look from \
                       elsewhere, e.g. with --netns";
            return row(words, Answer::Failed, why.into(), 0);
        }
        let begin = Instant::now();
        let (result, detail) = match network.once(address, &check, limit).await {
            Outcome::Success(found) => not_enough.map_or((Answer::Ok, found), |why| (Answer::Failed, why)),
            Outcome::Failure(why) | Outcome::Inconclusive(why) => (Answer::Failed, why),
        };
        row(words, result, detail, begin.elapsed().as_millis().try_into().unwrap_or(u64::MAX))
    }
}

/// What a check does.
fn words(check: &Check) -> String {
    match check {
        Check::Tcp => "connect".into(),
        Check::Http(http) => format!("{} {} {}", check.name(), http.method, http.path),
        Check::Udp { .. } => "datagram".into(),
        other => other.name().into(),
    }
}

fn table(rows: &[Row], colour: bool) -> String {
    if rows.is_empty() {
        return "No VIPs are configured.\n".into();
    }
    let heads = [("VIP", Left), ("ADDRESS", Left), ("PROTO", Left), ("ATTEMPT", Left), ("RESULT", Left)];
    let mut table = Table::new(0, &[&heads[..], &[("MS", Right), ("DETAIL", Left)]].concat());
    for row in rows {
        let paint = match row.result {
            Answer::Ok => Paint::Good,
            Answer::Failed => Paint::Bad,
            Answer::Skipped => Paint::Warn,
        };
        let mut cells: Vec<Cell> = vec![(&row.vip).into(), row.address.to_string().into()];
        cells.extend([&row.protocol, &row.attempt].map(Cell::from));
        cells.push(Cell::new(row.result.to_string(), paint));
        cells.extend([row.milliseconds.to_string().into(), (&row.detail).into()]);
        table.push(cells);
    }
    (0..=rows.len()).map(|line| table.line(line, colour)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lbctl::status::tests::snapshot;

    const CONFIG: &str = r#"
        [pool.controllers]
        servers = [{ name = "c0", address = "192.168.1.150" }]
        [vip.aodh]
        address = "192.168.1.250"
        port = "8042,9000-9010"
        mode = "snat"
        pool = "controllers"
        health = { check = "http", path = "/healthcheck" }
    "#;

    fn seen() -> Snapshot {
        let mut snapshot = snapshot();
        snapshot.vips[0].ports = "8042,9000-9010".into();
        snapshot.vips[2].enabled = false;
        snapshot
    }

    #[test]
    fn a_port_of_each_range_is_tried_as_the_check_does() {
        let config = config::check("lb.toml", CONFIG).unwrap().config;
        let plan = |config, names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            plan(&seen(), config, &names)
        };
        let told = |attempts: Vec<Attempt>| -> Vec<_> {
            attempts
                .iter()
                .map(|one| (one.address.port(), one.ask.clone().map(|check| words(&check))))
                .collect()
        };
        let connect = Ok("connect".to_owned());
        let first = (8042, Ok("http GET /healthcheck".to_owned()));
        assert_eq!(told(plan(Some(&config), &["aodh"]).unwrap()), [first, (9000, connect.clone())]);
        assert_eq!(told(plan(None, &["aodh"]).unwrap()), [(8042, connect.clone()), (9000, connect.clone())]);
        let skipped = |why: &str| (8042, Err(why.to_owned()));
        let rest = [skipped("it is not served yet"), skipped("it is disabled")];
        assert_eq!(told(plan(None, &["horizon", "empty-pool"]).unwrap()), rest);
        let mut other = config.clone();
        other.vips[0].address = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(
            told(plan(Some(&other), &["aodh"]).unwrap())[0],
            (8042, connect),
            "the file is about another"
        );
        assert!(plan(None, &["none"]).is_err());
        assert_eq!(plan(None, &[]).unwrap().len(), 4);
    }

    #[test]
    fn all_ports_and_udp() {
        let mut vip = snapshot().vips[0].clone();
        vip.ports = "all".into();
        vip.check_port = Some(7);
        vip.protocol = "udp".into();
        assert_eq!(ports(&vip), [7]);
        assert_eq!(ask::ask(&vip, None, 7), Check::Udp { send: Vec::new(), reply: None });
    }

    #[tokio::test]
    async fn what_answers_is_told_from_what_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let attempt = |address, ask| Attempt {
            vip: "v".into(),
            address,
            protocol: "tcp".into(),
            ask,
            not_enough: None,
        };
        let (network, limit) = (Network::default(), Duration::from_secs(5));
        let row = attempt(open, Ok(Check::Tcp)).carry_out(&network, limit, false).await;
        assert_eq!((row.result, row.detail.as_str()), (Answer::Ok, "connected"));
        let nobody = Attempt { not_enough: Some("nobody".into()), ..attempt(open, Ok(Check::Tcp)) };
        let row = nobody.carry_out(&network, limit, false).await;
        assert_eq!((row.result, row.detail.as_str()), (Answer::Failed, "nobody"));
        let row = attempt(closed, Ok(Check::Tcp)).carry_out(&network, limit, false).await;
        assert_eq!((row.result, row.detail.as_str()), (Answer::Failed, "connection refused"));
        let row = attempt(open, Ok(Check::Tcp)).carry_out(&network, limit, true).await;
        assert!(row.result == Answer::Failed && row.detail.contains("--netns"));
        let row = attempt(open, Err("no".into())).carry_out(&network, limit, false).await;
        assert_eq!(row.result, Answer::Skipped);
        let from = Network::default().with_source(Some(IpAddr::from([127, 0, 0, 77])));
        let (outcome, accepted) = tokio::join!(from.once(open, &Check::Tcp, limit), async {
            // The first two are those of above.
            let _ = listener.accept().await.unwrap();
            let _ = listener.accept().await.unwrap();
            listener.accept().await.unwrap().1
        });
        assert!(matches!(outcome, Outcome::Success(_)));
        assert_eq!(accepted.ip(), IpAddr::from([127, 0, 0, 77]));
        let rows = vec![row];
        assert!(table(&rows, false).contains("skipped"));
        assert_eq!(serde_json::to_value(&rows[0]).unwrap()["result"], "skipped");
    }
}
