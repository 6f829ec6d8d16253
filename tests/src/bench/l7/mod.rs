//! l7-proxy against HAProxy: `cargo xtask bench l7`.
//!
//! | module | what it gives |
//! |---|---|
//! | [`case`] | what is measured, and what it may cost |
//! | [`contender`] | who is measured, with which configuration |
//! | [`server`] | what is behind it, and where its log goes |
//! | [`load`], [`idle`] | clients: `h2load`, WebSockets, connections that wait |
//! | [`abuse`] | who would keep a proxy from its other clients |
//! | [`cost`] | what a process has spent and holds |
//! | [`instructions`] | instructions for each request, counted by callgrind: the gate |
//! | [`report`] | table and JSON |
//!
//! The contenders have one worker each and a processor to share; clients, servers and the receiver of their log have another.
//! What counts is the processor's time that the contender's process took, so what the others take is of no concern,
//! and measurements of one round follow each other at once, so that what else the machine does troubles both. All is in a
//! namespace of its own, over its loopback device.

pub mod abuse;
pub mod case;
pub mod contender;
pub mod cost;
pub mod idle;
pub mod instructions;
pub mod load;
pub mod report;
pub mod server;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    abuse::{Abuse, Attack},
    case::{Case, Way},
    contender::{Contender, Proxy},
    cost::Spent,
    load::Load,
    server::{Server, Sink},
};
use crate::{daemon::binary, folder::Folder, netns::Netns, process, wait};

/// Share of the rate at which nothing more goes through, for latency.
const SHARE: f64 = 0.6;

/// The same while others abuse the proxy: they need some of it too.
const SHARE_OF_ABUSED: f64 = 0.3;

/// For how long requests are measured while others abuse the proxy, in seconds.
const ABUSED: f64 = 3.0;

/// For how long all abuse it before its memory has been looked at often enough.
const ALL_ABUSE: Duration = Duration::from_secs(12);

/// Connections that are held for their memory.
const IDLE: usize = 10_000;

/// What one contender was found to need in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Of what.
    pub case: Case,
    /// In which round, from 0.
    pub round: usize,
    /// Whether it is l7-proxy, and not the other one.
    pub own: bool,
    /// In the case's unit.
    pub value: f64,
}

/// What all rounds found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Everything.
    pub samples: Vec<Sample>,
    /// Share of the requests that each contender wrote a line about: l7-proxy and the other one.
    pub logged: [f64; 2],
    /// Requests in a second that went through the other one: latency was measured at a share of them.
    pub through: Option<f64>,
    /// With whom l7-proxy was compared.
    pub rival: String,
}

/// Where everything happens: a namespace with servers in it, a receiver of log lines, and a certificate.
pub struct Scene {
    ns: Netns,
    folder: Folder,
    server: Server,
    sink: Sink,
    /// Processor of the contenders.
    front: usize,
}

impl Scene {
    /// Makes it. The calling thread, and what it starts, stays on the machine's last processor from now on.
    ///
    /// # Errors
    /// When `lbctl` makes no certificate.
    pub fn new() -> Result<Self> {
        let processors = thread::available_parallelism()?.get();
        super::measure::stay_on(processors - 1)?;
        // Ten thousand connections, for us and for whom we start.
        let files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
        let ns = Netns::new("l7");
        let folder = Folder::new();
        certificate(&folder)?;
        let server = Server::start(&ns, server::PORT);
        let sink = Sink::start(&ns, server::LOG_PORT);
        Ok(Self { ns, folder, server, sink, front: 0 })
    }
}

/// One certificate and its key in one file, as both contenders read it.
fn certificate(folder: &Folder) -> Result<()> {
    let mut command = std::process::Command::new(binary("lbctl"));
    command.args(["cert", "selfsign", "--days", "2", "--fqdn", contender::NAME, "--out"]);
    command.arg(folder.file(contender::CERTIFICATE));
    let made = process::output("lbctl cert selfsign", &mut command, Duration::from_secs(20));
    ensure!(made.status.success(), "lbctl cert selfsign: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// Measures these cases, so many rounds, against HAProxy or the l7-proxy in another file.
///
/// # Errors
/// When a contender does not start or requests fail.
///
/// # Panics
/// When the harness cannot do its work.
pub fn run(
    cases: &[Case],
    rounds: usize,
    other: Option<PathBuf>,
    mut progress: impl FnMut(&str),
) -> Result<Findings> {
    let scene = Scene::new()?;
    let contenders = [Contender::own(), other.map_or(Contender::Haproxy, Contender::L7)];
    let mut proxies = Vec::new();
    for (number, contender) in (0..).zip(&contenders) {
        proxies.push(scene.start(contender, number)?);
    }
    let mut findings =
        Findings { samples: Vec::new(), logged: [0.0; 2], through: None, rival: contenders[1].name() };
    // The rate of latency is set by what goes through the other one, so that both have the same to do.
    if cases.iter().any(|case| matches!(case.way(), Way::Latency | Way::Abused)) {
        progress("looking how much goes through");
        let load = Load::of(Case::H1Small).context("requests")?;
        findings.through = Some(scene.drive(&proxies[1], &load)?.per_second);
    }
    let mut asked = [0.0; 2];
    let mut lines = [0.0; 2];
    for round in 0..rounds {
        for case in cases {
            // Who comes first has the colder caches.
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for who in order {
                progress(&format!("round {} of {rounds}: {case}, {}", round + 1, contenders[who].name()));
                let before = scene.sink.lines();
                let (value, requests) = match case.way() {
                    Way::Held => (scene.held(&contenders[who])?, 0),
                    Way::AbuseHeld => (scene.held_by_abuse(&contenders[who])?, 0),
                    Way::Abused => (scene.abused(*case, &proxies[who], findings.through)?, 0),
                    _ => scene.measure(*case, &proxies[who], findings.through)?,
                };
                asked[who] += requests as f64;
                lines[who] += if requests > 0 { (scene.sink.settled() - before) as f64 } else { 0.0 };
                findings.samples.push(Sample { case: *case, round, own: who == 0, value });
            }
        }
    }
    findings.logged = [0, 1].map(|who| if asked[who] > 0.0 { lines[who] / asked[who] } else { 1.0 });
    Ok(findings)
}

impl Scene {
    /// Starts a contender on its processor, the `number`th at a time, and waits until it serves.
    fn start(&self, contender: &Contender, number: u16) -> Result<Proxy> {
        let proxy = self.ns.run(|| {
            super::measure::stay_on(self.front)?;
            contender.start(&self.ns, &self.folder, number)
        })?;
        self.ns.run(|| {
            wait::until(Duration::from_secs(60), &format!("{} to serve", contender.name()), || {
                std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.ports.plain))
                    .map(drop)
                    .map_err(|error| format!("{error}; {}", proxy.running.log()))
            });
        });
        Ok(proxy)
    }

    /// The value of a case, and how many requests there were.
    fn measure(&self, case: Case, proxy: &Proxy, through: Option<f64>) -> Result<(f64, usize)> {
        match case.way() {
            Way::Sockets => {
                let spent = Spent::until_now(proxy.running.id())?;
                let messages = self.ns.run(|| load::web_sockets(proxy.ports.plain))?;
                Ok((Spent::until_now(proxy.running.id())?.micros_since(spent) / messages as f64, 0))
            }
            way => {
                let mut load = Load::of(case).context("a case of requests")?;
                if way == Way::Latency {
                    load = load.at(through.context("a rate")? * SHARE);
                }
                let warm = load.clone().fewer(10);
                self.drive(proxy, &warm)?;
                let spent = Spent::until_now(proxy.running.id())?;
                let done = self.drive(proxy, &load)?;
                let value = match way {
                    Way::Latency => done.p99,
                    _ => Spent::until_now(proxy.running.id())?.micros_since(spent) / load.requests as f64,
                };
                Ok((value, load.requests + warm.requests))
            }
        }
    }

    fn drive(&self, proxy: &Proxy, load: &Load) -> Result<load::Done> {
        load.drive(&self.ns, &self.folder, &proxy.ports)
    }

    /// How many times longer one request in a hundred takes at least while others abuse the proxy.
    fn abused(&self, case: Case, proxy: &Proxy, through: Option<f64>) -> Result<f64> {
        let Case::Abused(abuse) = case else { bail!("{case} is no abuse") };
        let rate = through.context("a rate")? * SHARE_OF_ABUSED;
        let mut load = Load::of(case).context("a case of requests")?.at(rate);
        load.requests = (rate * ABUSED) as usize;
        self.drive(proxy, &load.clone().fewer(10))?;
        let without = self.drive(proxy, &load)?.p99;
        let attack = Attack::start(&self.ns, abuse, proxy.ports.plain);
        let with = self.drive(proxy, &load)?.p99;
        // Bodies for a server that reads nothing stand still soon.
        ensure!(attack.deeds() > 0, "{case}: nobody abused anything");
        drop(attack);
        self.server.leave_stalled();
        // Who still has to do with it would be slower without than with the next.
        cost::rest(proxy.running.id())?;
        self.server.leave_stalled();
        Ok(with / without)
    }

    /// MiB of memory that a contender takes at most while all abuse it.
    fn held_by_abuse(&self, contender: &Contender) -> Result<f64> {
        let proxy = self.start(contender, contender::EXTRA)?;
        self.drive(&proxy, &Load::of(Case::H1Small).context("requests")?.fewer(10))?;
        let before = cost::resident(proxy.running.id())?;
        let attacks = Abuse::ALL.map(|abuse| Attack::start(&self.ns, abuse, proxy.ports.plain));
        let end = Instant::now() + ALL_ABUSE;
        let mut most = before;
        while Instant::now() < end {
            most = most.max(cost::resident(proxy.running.id())?);
            thread::sleep(Duration::from_millis(20));
        }
        drop(attacks);
        // What it has begun by then is left with it.
        drop(proxy);
        self.server.leave_stalled();
        Ok((most - before) as f64 / f64::from(1 << 20))
    }

    /// Bytes of memory that each of many TLS connections takes which have nothing to do.
    fn held(&self, contender: &Contender) -> Result<f64> {
        let proxy = self.start(contender, contender::EXTRA)?;
        // What the first connections bring about is had once.
        self.drive(&proxy, &Load::of(Case::TlsNew).context("connections")?.fewer(10))?;
        let before = cost::resident(proxy.running.id())?;
        let (process, certificate) = (proxy.running.id(), self.folder.file(contender::CERTIFICATE));
        let after =
            idle::hold(&self.ns, &certificate, proxy.ports.tls, process, IDLE, || cost::resident(process))?;
        Ok(after.saturating_sub(before) as f64 / IDLE as f64)
    }
}

/// What cases there are, by name.
#[must_use]
pub fn by_name() -> BTreeMap<&'static str, Case> {
    Case::ALL.into_iter().map(|case| (case.name(), case)).collect()
}
