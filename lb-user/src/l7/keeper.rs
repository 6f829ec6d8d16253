//! The thread that has a proxy serve what is wanted, whatever becomes of the proxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use l7_spec::{Ask, Memory, Persistence, Reply, ServerChange, Source, Span, Spec};
use tokio::sync::watch;
use tracing::{error, info};

use super::{
    Found, Handle, Objection, Options, Report, Wish, files::Files, found, lines, objections, proxy::Proxy,
    sockets::Sockets,
};
use crate::plan::{proxied::server_changes, select::vip_in};

/// How often it looks whether the proxy is still there.
const TICK: Duration = Duration::from_millis(100);

/// How often the proxy is asked how everything is, and files are looked at.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How often the proxy is asked what it remembers of clients.
const RECALL_EVERY: Duration = Duration::from_secs(10);

/// A proxy that serves nothing is kept this long: it may be asked whether a configuration is right.
const IDLE: Duration = Duration::from_secs(10);

/// Has a proxy serve what is wanted.
#[derive(Debug)]
pub struct Keeper {
    pub(super) options: Options,
    pub(super) report: watch::Sender<Arc<Report>>,
    pub(super) wanted: Spec,
    /// Threads that are to serve, where that is wanted.
    pub(super) workers: Option<usize>,
    pub(super) proxy: Option<Proxy>,
    /// What it serves; `None` where that is not known.
    pub(super) served: Option<Spec>,
    /// Servers that it may connect to from addresses of clients by that.
    pub(super) seen_clients: Option<Arc<BTreeSet<SocketAddr>>>,
    /// Whether another is to take its place, if there is a better one.
    pub(super) renewed: bool,
    /// What was wanted when it was told so: more than it serves, where it objects to a VIP.
    pub(super) asked: Option<Spec>,
    /// Whether that is all that is wanted, so that nothing has to be looked at.
    pub(super) settled: bool,
    /// Whether there may be something new to report.
    pub(super) news: bool,
    /// Whether the end is near, which every proxy is to tell.
    pub(super) announced: bool,
    /// Whether it knows what the one before it knew.
    pub(super) remembers: bool,
    /// What it objects to, by VIP.
    pub(super) objected: BTreeMap<String, String>,
    /// Addresses whose sockets it has.
    pub(super) handed: BTreeSet<SocketAddr>,
    /// Former ones that let their last clients finish.
    pub(super) leaving: Vec<Proxy>,
    pub(super) sockets: Sockets,
    pub(super) files: Files,
    /// What the last proxy remembered and counted.
    pub(super) memory: Memory,
    pub(super) problem: Option<String>,
    /// Why nothing tells of health.
    pub(super) admin_problem: Option<String>,
    pub(super) problems: BTreeMap<String, String>,
    /// Proxies in a row that ended soon.
    pub(super) failures: u32,
    pub(super) began: Instant,
    pub(super) not_before: Option<Instant>,
    pub(super) looked: Instant,
    pub(super) recalled: Instant,
    pub(super) busy: Instant,
}

impl Keeper {
    /// Starts the thread, with the proxy that was found.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(options: Options, found: Option<Found>) -> io::Result<(Handle, JoinHandle<()>)> {
        let (wishes, told) = mpsc::channel();
        let (report, reported) = watch::channel(Arc::default());
        let mut keeper = Self::new(options, report);
        if let Some(Found { mut proxy, sockets, .. }) = found {
            info!("l7-proxy (pid {}) goes on serving", proxy.pid);
            keeper.handed = sockets.iter().map(|(address, _)| *address).collect();
            keeper.sockets.adopt(sockets);
            supply_found(&mut proxy);
            keeper.proxy = Some(proxy);
            keeper.remembers = true;
            // What it remembers of clients is to be known here as soon as there is somebody to ask for.
            if let Some(long_ago) = keeper.recalled.checked_sub(RECALL_EVERY) {
                keeper.recalled = long_ago;
            }
        }
        // Clients of former ones are still there, or a former lb-user was killed while it put one in another's place.
        for socket in found::left_sockets(&keeper.options.socket) {
            match found::at(&socket) {
                Ok(Some(Found { mut proxy, .. })) => {
                    supply_found(&mut proxy);
                    keeper.part_with(proxy, &socket);
                }
                _ => drop(fs::remove_file(socket)),
            }
        }
        let thread = thread::Builder::new().name("l7".into()).spawn(move || keeper.run(&told))?;
        Ok((Handle { wishes, report: reported }, thread))
    }

    fn new(options: Options, report: watch::Sender<Arc<Report>>) -> Self {
        let now = Instant::now();
        Self {
            files: Files::of(&options.folder),
            options,
            report,
            wanted: Spec::default(),
            workers: None,
            proxy: None,
            served: None,
            seen_clients: None,
            renewed: true,
            asked: None,
            settled: false,
            news: true,
            announced: false,
            remembers: false,
            objected: BTreeMap::new(),
            handed: BTreeSet::new(),
            leaving: Vec::new(),
            sockets: Sockets::default(),
            memory: Memory::default(),
            problem: None,
            admin_problem: None,
            problems: BTreeMap::new(),
            failures: 0,
            began: now,
            not_before: None,
            looked: now,
            recalled: now,
            busy: now,
        }
    }

    fn run(mut self, told: &mpsc::Receiver<Wish>) {
        let mut told_what = false;
        loop {
            let idle = self.proxy.is_none() && self.leaving.is_empty() && self.wanted.services.is_empty();
            let wish = if idle {
                told.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            } else {
                told.recv_timeout(TICK)
            };
            // What a start has found is left alone until it is known what is wanted.
            told_what |= matches!(wish, Ok(Wish::Serve(_)));
            self.news |= wish.is_ok();
            match wish {
                Ok(Wish::End(ending, answer)) => return self.end(ending, answer),
                Ok(wish) => self.grant(wish),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            self.look();
            if told_what {
                self.make_it_so();
            }
            if std::mem::take(&mut self.news) {
                self.tell();
            }
        }
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Serve(spec) => self.want(*spec),
            Wish::Check(spec, answer) => {
                // Who asked may have given up.
                let _ = answer.send(self.check(&spec));
            }
            Wish::Renew => {
                self.failures = 0;
                self.not_before = None;
                self.renewed = true;
            }
            Wish::Metrics(answer) => {
                let metrics = self.ask(&Ask::Metrics);
                let text = if let Some(Reply::Metrics(text)) = metrics { text } else { String::new() };
                let _ = answer.send(text);
            }
            Wish::Clients(ask, answer) => {
                let mut replies: Vec<_> = self.ask(&ask).into_iter().collect();
                // Those that are leaving have clients too. One that does not answer is about to be gone.
                replies.extend(self.leaving.iter_mut().filter_map(|proxy| proxy.ask(&ask).ok()));
                let _ = answer.send(replies);
            }
            Wish::Announce(answer) => {
                let grace = self.wanted.drain.grace;
                if grace > Span::ZERO {
                    self.announced = true;
                    let _ = self.ask(&Ask::Announce);
                }
                let _ = answer.send(if self.proxy.is_some() { grace } else { Span::ZERO });
            }
            Wish::End(..) => {}
        }
    }

    /// Takes in what is wanted from now on. How many threads serve is settled when a proxy is started.
    fn want(&mut self, mut spec: Spec) {
        self.workers = spec.workers.take();
        (self.wanted, self.settled) = (spec, false);
        self.renewed |= self.proxy.as_ref().is_some_and(|proxy| self.has_other_workers(proxy));
    }

    /// What would be wrong with `spec`.
    fn check(&mut self, spec: &Spec) -> Result<(), Vec<Objection>> {
        if spec.services.is_empty() {
            return Ok(());
        }
        if self.proxy.is_none() {
            self.workers = spec.workers;
            self.begin().map_err(|problem| vec![Objection::of_all(problem)])?;
        }
        let spec = &Spec { workers: None, ..spec.clone() };
        self.busy = Instant::now();
        let mut files = spec.files();
        files.extend(self.wanted.files());
        files.sort_unstable();
        files.dedup();
        self.give_files(&files);
        if self.proxy.is_none() {
            // The one that was found was of no use.
            self.begin().map_err(|problem| vec![Objection::of_all(problem)])?;
            self.give_files(&files);
        }
        match self.ask(&Ask::Check(Box::new(spec.clone()))) {
            Some(Reply::Done) => Ok(()),
            Some(Reply::Wrong(problems)) => Err(objections(&problems)),
            _ => Err(vec![Objection::of_all("l7-proxy, which would have to serve it, does not answer")]),
        }
    }

    fn make_it_so(&mut self) {
        if self.wanted.services.is_empty() && self.busy.elapsed() > IDLE {
            return self.dismiss();
        }
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        if std::mem::take(&mut self.renewed)
            && let Some(proxy) = &self.proxy
            && self.is_outdated(proxy)
        {
            self.replace();
        }
        if self.proxy.is_none()
            && !self.wanted.services.is_empty()
            && let Err(problem) = self.begin()
        {
            self.complain(problem);
            return self.lose();
        }
        if self.proxy.is_some() {
            self.serve();
            self.ask_now_and_then();
        }
    }

    /// What can be served of what is wanted: sockets are opened.
    fn openable(&mut self) -> Spec {
        let mut spec = self.wanted.clone();
        let count = self.proxy.as_ref().map_or(1, |proxy| proxy.workers);
        let mut problems = BTreeMap::new();
        for service in spec.services.iter_mut().filter(|service| !service.closed) {
            for address in &service.listen {
                if let Err(error) = self.sockets.open(*address, count) {
                    problems.insert(service.name.clone(), format!("cannot listen on {address}: {error}"));
                    service.closed = true;
                    break;
                }
            }
        }
        if let Some(address) = spec.admin
            && let Err(error) = self.sockets.open(address, 1)
        {
            spec.admin = None;
            let problem = format!("cannot tell of health on {address}: {error}");
            if self.admin_problem.as_ref() != Some(&problem) {
                error!("{problem}; trying again");
            }
            self.admin_problem = Some(problem);
        } else {
            self.admin_problem = None;
        }
        for (vip, problem) in problems.iter().filter(|(vip, what)| self.problems.get(*vip) != Some(what)) {
            error!("VIP {vip}: {problem}; trying again");
        }
        self.problems = problems;
        spec
    }

    /// Has the proxy serve what is wanted, if it does not.
    pub(super) fn serve(&mut self) {
        if self.settled && self.asked.is_some() {
            return;
        }
        self.news = true;
        let spec = self.openable();
        // What could not be opened is tried again.
        self.settled = self.problems.is_empty() && self.admin_problem.is_none();
        if self.asked.as_ref() == Some(&spec) {
            // What was opened for a VIP that could not be opened in full would let clients in to nobody.
            self.sockets.keep(&self.handed);
            return;
        }
        self.busy = Instant::now();
        let changes = self.asked.as_ref().and_then(|asked| server_changes(asked, &spec));
        let answered = match changes {
            Some(changes) => self.change_servers(changes),
            None => self.serve_anew(&spec),
        };
        if answered.is_none() {
            return;
        }
        self.asked = Some(spec);
        if !self.remembers {
            self.remembers = self.ask(&Ask::Remember(self.memory.clone())).is_some();
        }
    }

    /// Has servers used otherwise. `None` where the proxy does not answer.
    fn change_servers(&mut self, changes: Vec<ServerChange>) -> Option<()> {
        // VIPs that are left out have no servers there.
        self.ask(&Ask::Servers(changes.clone()))?;
        let states: BTreeMap<_, _> =
            changes.iter().map(|change| ((&change.pool, &change.server), change.state)).collect();
        for pool in self.served.iter_mut().flat_map(|served| &mut served.pools) {
            for server in &mut pool.servers {
                server.state = states.get(&(&pool.name, &server.name)).copied().unwrap_or(server.state);
            }
        }
        Some(())
    }

    /// Has the proxy serve `spec`, or as much of it as it can. VIPs that it objects to stay as they are, or are left out if
    /// they were not served. `None` where the proxy does not answer.
    fn serve_anew(&mut self, spec: &Spec) -> Option<()> {
        self.give_files(&spec.files());
        let (reply, mut problem) = (self.try_to_serve(spec)?, None);
        let Err(objections) = reply else {
            self.objected.clear();
            self.problem = None;
            self.now_serves(Some(spec.clone()));
            return Some(());
        };
        let by_vip: BTreeMap<_, _> = objections
            .iter()
            .filter_map(|objection| Some((objection.vip.clone()?, objection.problem.clone())))
            .collect();
        let rest = without(spec, self.served.as_ref(), &by_vip);
        let outcome = self.try_to_serve(&rest)?;
        if by_vip.is_empty() || outcome.is_err() {
            problem = Some(lines(&outcome.as_ref().err().cloned().unwrap_or(objections)));
        }
        for (vip, what) in by_vip.iter().filter(|(vip, what)| self.objected.get(*vip) != Some(*what)) {
            error!("VIP {vip} is not served as it should be: {what}");
        }
        self.objected = by_vip;
        if let Some(problem) = problem {
            self.complain(problem);
            // Sockets that it has not taken would let clients in to nobody.
            self.sockets.keep(&self.handed);
            return Some(());
        }
        self.problem = None;
        self.now_serves(Some(rest));
        Some(())
    }

    /// Has the proxy serve exactly this; gives what it has against it. `None` where it does not answer.
    fn try_to_serve(&mut self, spec: &Spec) -> Option<Result<(), Vec<Objection>>> {
        let open = spec.services.iter().filter(|service| !service.closed);
        let wanted: BTreeSet<_> =
            open.flat_map(|service| service.listen.iter().copied()).chain(spec.admin).collect();
        let new: BTreeSet<_> = wanted.difference(&self.handed).copied().collect();
        let sockets: Vec<_> = self.sockets.of(&new).collect();
        let proxy = self.proxy.as_mut()?;
        if spec.services.iter().any(|service| service.source == Source::Client) {
            proxy.supply.want();
        }
        let given = proxy.give_sockets(&sockets).and_then(|()| proxy.keep_supplied(Instant::now()));
        if let Err(error) = given {
            self.give_up(&error);
            return None;
        }
        match self.ask(&Ask::Serve(Box::new(spec.clone())))? {
            Reply::Wrong(problems) => Some(Err(objections(&problems))),
            _ => {
                self.sockets.keep(&wanted);
                self.handed = wanted;
                Some(Ok(()))
            }
        }
    }

    /// Hands over what the proxy does not have yet, or not as it is now.
    fn give_files(&mut self, wanted: &[PathBuf]) {
        for (path, contents) in self.files.news(wanted) {
            let Some(proxy) = &mut self.proxy else { return };
            if let Err(error) = proxy.give_file(&path, &contents) {
                return self.give_up(&error);
            }
            // What was wrong with one may be right now.
            if !self.objected.is_empty() || self.problem.is_some() {
                self.asked = None;
            }
        }
    }

    fn ask_now_and_then(&mut self) {
        if self.looked.elapsed() >= ASK_EVERY {
            self.looked = Instant::now();
            self.give_files(&self.wanted.files());
            // Of one that does not know what was before it, it would be too little.
            if self.remembers
                && let Some(Reply::Status(status)) = self.ask(&Ask::Status)
            {
                let is_draining = status.is_draining();
                self.news |= self.memory.counted.as_ref() != Some(&status);
                self.memory.counted = Some(status);
                if is_draining {
                    return self.follow();
                }
            }
        }
        let persists = |service: &l7_spec::Service| {
            matches!(service.persistence, Some(Persistence::SourceIp { .. } | Persistence::LastSuccessful))
        };
        if self.recalled.elapsed() >= RECALL_EVERY && self.wanted.services.iter().any(persists) {
            self.recalled = Instant::now();
            if let Some(Reply::Memory(memory)) = self.ask(&Ask::Memory) {
                self.memory.sticky = memory.sticky;
            }
        }
    }

    /// Asks the proxy; one that does not answer is of no use any more.
    pub(super) fn ask(&mut self, ask: &Ask) -> Option<Reply> {
        match self.proxy.as_mut()?.ask(ask) {
            Ok(reply) => Some(reply),
            Err(error) => {
                self.give_up(&error);
                None
            }
        }
    }

    pub(super) fn give_up(&mut self, error: &io::Error) {
        error!("l7-proxy does not answer ({error}); another one is started");
        self.lose();
    }

    fn complain(&mut self, problem: String) {
        self.news = true;
        if self.problem.as_ref() != Some(&problem) {
            problem.lines().for_each(|line| error!("l7-proxy: {line}"));
        }
        self.problem = Some(problem);
    }

    /// From now on the proxy serves this.
    pub(super) fn now_serves(&mut self, spec: Option<Spec>) {
        self.seen_clients = spec.as_ref().map(|spec| Arc::new(servers_that_see_clients(spec)));
        self.served = spec;
    }

    /// Servers that any proxy may connect to from addresses of clients, where that is known.
    fn seen_clients(&self) -> Option<Arc<BTreeSet<SocketAddr>>> {
        let nobody_serves = self.proxy.is_none() && self.wanted.services.is_empty();
        if nobody_serves { Some(Arc::default()) } else { self.seen_clients.clone() }
            .filter(|_| self.leaving.is_empty())
    }

    fn tell(&self) {
        let report = Report {
            pid: self.proxy.as_ref().map(|proxy| proxy.pid),
            problem: self.problem.clone(),
            problems: self
                .objected
                .iter()
                .chain(&self.problems)
                .map(|(vip, why)| (vip.clone(), why.clone()))
                .collect(),
            sockets: self.sockets.numbers(),
            seen_clients: self.seen_clients(),
            status: self.memory.counted.clone().unwrap_or_default(),
        };
        self.report.send_if_modified(|before| {
            let changed = **before != report;
            if changed {
                *before = Arc::new(report);
            }
            changed
        });
    }
}

/// The servers that connections from addresses of clients may lead to.
fn servers_that_see_clients(spec: &Spec) -> BTreeSet<SocketAddr> {
    let services = spec.services.iter().filter(|service| service.source == Source::Client);
    let services: BTreeMap<_, _> = services.map(|service| (service.name.as_str(), service)).collect();
    let mut all = BTreeSet::new();
    for pool in &spec.pools {
        let Some(service) = services.get(vip_in(&pool.name)) else { continue };
        for server in &pool.servers {
            let at = |port| SocketAddr::new(server.address, port);
            match server.port.or(service.server_port) {
                Some(port) => all.extend([at(port)]),
                None => all.extend(service.listen.iter().map(|listen| at(listen.port()))),
            }
        }
    }
    all
}

/// Whoever made sockets for a proxy that was found is gone, and its clients may need more before anything else is wanted of it.
fn supply_found(proxy: &mut Proxy) {
    if proxy.understands {
        proxy.supply.want();
        // One that does not answer is noticed by the next question.
        let _ = proxy.keep_supplied(Instant::now());
    }
}

/// `spec` with the services in `objected` as they are served now, or without them.
fn without(spec: &Spec, served: Option<&Spec>, objected: &BTreeMap<String, String>) -> Spec {
    let mut rest = spec.clone();
    rest.services.retain(|service| !objected.contains_key(&service.name));
    rest.pools.retain(|pool| !objected.contains_key(vip_in(&pool.name)));
    let Some(served) = served else { return rest };
    let services = served.services.iter().filter(|service| objected.contains_key(&service.name));
    rest.services.extend(services.cloned());
    for pool in served.pools.iter().filter(|pool| objected.contains_key(vip_in(&pool.name))) {
        let mut pool = pool.clone();
        // How servers are is news whatever else is wrong.
        let now = spec.pools.iter().filter(|now| now.name == pool.name).flat_map(|now| &now.servers);
        for server in now {
            for before in pool.servers.iter_mut().filter(|before| before.name == server.name) {
                before.state = server.state;
            }
        }
        rest.pools.push(pool);
    }
    rest
}

#[cfg(test)]
mod tests;
