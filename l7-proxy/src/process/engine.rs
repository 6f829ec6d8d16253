//! What is served, and how it changes: object by object, all or nothing.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::oneshot;

use super::{
    Current, Listeners, Phase,
    files::Files,
    worker::{Order, Worker},
};
use crate::{
    admin::Admin,
    front::{Closing, Entry, Sieve},
    log::{Log, Writer},
    model::{Ready, Service, check},
    server::{Server, now, transparent},
    spec::{ClientConnection, ConnectionFilter, Problem, ServerState, Source, Spec},
};

/// Sockets that were opened, by their address, and copies of them.
type Opened = Vec<(SocketAddr, Vec<TcpListener>, Vec<Arc<TcpListener>>)>;

/// Workers, and what they serve.
#[derive(Debug)]
pub struct Engine {
    workers: Vec<Worker>,
    current: Arc<Current>,
    log: Arc<Log>,
    writer: Writer,
    _files: Files,
    /// Connections of clients at once on each worker.
    most_connections: Arc<AtomicUsize>,
    state: Mutex<State>,
}

/// What changes with a specification.
#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Arc<Entry>>,
    /// Which service each address is listened to for.
    listening: BTreeMap<SocketAddr, String>,
    /// Copies of the sockets there, for a process that comes after this one.
    copies: BTreeMap<SocketAddr, Vec<Arc<TcpListener>>>,
    admin: Option<Admin>,
    /// The address that was asked for: a port of 0 has become another.
    admin_told: Option<SocketAddr>,
}

impl Engine {
    /// Checks `spec` and serves it.
    ///
    /// # Errors
    /// What is wrong with it, or with this host: addresses that cannot be listened to among it.
    pub fn start(spec: &Spec, listeners: Listeners) -> Result<Self, Vec<Problem>> {
        let ready = check(spec, None)?;
        let of_host = |error: io::Error| vec![Problem::new("", format!("cannot start: {error}"))];
        let log = Arc::new(Log::new(ready.workers));
        let writer = Writer::start(Arc::clone(&log)).map_err(of_host)?;
        let empty = Ready { services: Vec::new(), ..ready.clone() };
        let current = Arc::new(Current::new(empty));
        let most_connections = Arc::<AtomicUsize>::default();
        let handshakes = ready.limits.handshakes.unwrap_or(1_024).max(1);
        let workers = (0..ready.workers)
            .map(|index| {
                Worker::start(
                    index,
                    Arc::clone(&log),
                    Arc::clone(&current),
                    handshakes,
                    Arc::clone(&most_connections),
                )
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(of_host)?;
        let files = Files::start(Arc::clone(&current)).map_err(of_host)?;
        let engine =
            Self { workers, current, log, writer, _files: files, most_connections, state: Mutex::default() };
        engine.swap(ready, listeners)?;
        Ok(engine)
    }

    /// Checks `spec` and serves it from now on, in place of what is served. Connections of services that stay
    /// do not notice; those of services that go end when they have done what they are at.
    ///
    /// # Errors
    /// What is wrong; then nothing has changed.
    pub fn apply(&self, spec: &Spec, listeners: Listeners) -> Result<(), Vec<Problem>> {
        let before = self.current.ready();
        if spec.workers.is_some_and(|workers| workers != self.workers.len()) {
            return Err(vec![Problem::new("workers", "can only be changed by a restart")]);
        }
        let ready = check(spec, Some(&before))?;
        self.swap(ready, listeners)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves `ready` in place of what is served: whatever can fail comes first.
    fn swap(&self, ready: Ready, mut listeners: Listeners) -> Result<(), Vec<Problem>> {
        possible(&ready)?;
        let mut state = self.state();
        let wanted: BTreeMap<SocketAddr, String> = ready
            .services
            .iter()
            .filter(|service| !service.spec.closed)
            .flat_map(|service| service.listen.iter().map(|address| (*address, service.name.clone())))
            .collect();
        let new = wanted.iter().filter(|(address, _)| !state.listening.contains_key(address));
        let admin = self.open_admin(ready.admin.filter(|_| ready.admin != state.admin_told), &mut listeners);
        let mut opened = self.open(new, listeners);
        let (opened, admin) = match (&mut opened, admin) {
            (Ok(opened), Ok(admin)) => (std::mem::take(opened), admin),
            (opened, admin) => {
                let of_listeners = opened.as_mut().err().map(std::mem::take).unwrap_or_default();
                return Err(of_listeners.into_iter().chain(admin.err()).collect());
            }
        };
        if ready.admin != state.admin_told {
            state.admin = admin;
            state.admin_told = ready.admin;
        }
        for service in &ready.services {
            match state.entries.get(&service.name) {
                Some(entry) => entry.set_service(Arc::clone(service)),
                None => {
                    let entry = Arc::new(Entry::new(Arc::clone(service)));
                    state.entries.insert(service.name.clone(), entry);
                }
            }
        }
        let now = now();
        retire(&self.current.ready(), &ready, now);
        for server in
            ready.services.iter().flat_map(|service| service.pools()).flat_map(|pool| pool.servers.iter())
        {
            server.live.set_state(server.told, now);
            server.live.set_most(server.most);
        }
        self.listen(&mut state, &wanted, opened);
        state.entries.retain(|name, entry| {
            let stays = ready.services.iter().any(|service| service.name == *name);
            if !stays {
                entry.close(Closing::Soon);
            }
            stays
        });
        let most = ready.limits.connections.map_or_else(|| most_by_files(&ready), |most| most as usize);
        self.most_connections.store(most.div_ceil(self.workers.len()), Relaxed);
        self.log.set(&ready.log);
        self.writer.reopen();
        self.current.set_ready(ready);
        Ok(())
    }

    /// Opens what is to be listened to and is not yet.
    fn open<'a>(
        &self,
        new: impl Iterator<Item = (&'a SocketAddr, &'a String)>,
        mut listeners: Listeners,
    ) -> Result<Opened, Vec<Problem>> {
        let (mut opened, mut problems) = (Opened::new(), Vec::new());
        for (&address, name) in new {
            match listeners.take(address, self.workers.len()).and_then(with_copies) {
                Ok((sockets, copies)) => opened.push((address, sockets, copies)),
                Err(error) => problems.push(Problem::new(
                    format!("service {name}"),
                    format!("cannot listen to {address}: {error}"),
                )),
            }
        }
        if problems.is_empty() { Ok(opened) } else { Err(problems) }
    }

    fn open_admin(
        &self,
        address: Option<SocketAddr>,
        listeners: &mut Listeners,
    ) -> Result<Option<Admin>, Problem> {
        let Some(address) = address else { return Ok(None) };
        let listener = listeners.given(address).map_or_else(|| TcpListener::bind(address), Ok);
        match listener.and_then(|listener| Admin::start(listener, self.current(), self.log())) {
            Ok(admin) => Ok(Some(admin)),
            Err(error) => Err(Problem::new("admin", format!("cannot listen to {address}: {error}"))),
        }
    }

    /// Has workers listen to what is wanted, and to nothing else.
    fn listen(&self, state: &mut State, wanted: &BTreeMap<SocketAddr, String>, opened: Opened) {
        let State { entries, listening, copies, .. } = state;
        copies.retain(|address, _| wanted.contains_key(address));
        listening.retain(|address, _| {
            let stays = wanted.contains_key(address);
            if !stays {
                self.workers.iter().for_each(|worker| worker.tell(Order::Unlisten(*address)));
            }
            stays
        });
        // An address that another service has now: its sockets stay, who accepts from them changes.
        for (address, before) in listening.iter_mut() {
            let name = &wanted[address];
            if let Some(entry) = entries.get(name).filter(|_| before != name) {
                self.workers.iter().for_each(|worker| worker.tell(Order::Move(*address, Arc::clone(entry))));
                before.clone_from(name);
            }
        }
        for (address, sockets, of_them) in opened {
            copies.insert(address, of_them);
            let name = &wanted[&address];
            let Some(entry) = entries.get(name) else { continue };
            for (socket, worker) in sockets.into_iter().zip(self.workers.iter().cycle()) {
                worker.tell(Order::Listen(address, socket, Arc::clone(entry)));
            }
            listening.insert(address, name.clone());
        }
    }

    /// Says whether a server may be used, in all services that lead to its pool: what a change of its health
    /// means, without looking at anything else. The next specification says so again.
    ///
    /// # Errors
    /// Where there is no such server.
    pub fn set_server_state(&self, pool: &str, server: &str, state: ServerState) -> Result<(), Problem> {
        let ready = self.current.ready();
        let mut found = false;
        for of_service in ready.services.iter().flat_map(|service| service.pools()) {
            if of_service.name == pool {
                for one in of_service.servers.iter().filter(|one| one.name == server) {
                    one.live.set_state(state, now());
                    found = true;
                }
            }
        }
        let none =
            || Problem::new(format!("pool {pool}"), format!("has no server \"{server}\" that is used"));
        found.then_some(()).ok_or_else(none)
    }

    /// All listening sockets, for a process that is to serve in place of this one.
    #[must_use]
    pub fn sockets(&self) -> Vec<(SocketAddr, Arc<TcpListener>)> {
        let state = self.state();
        let shared = |(address, sockets): (&SocketAddr, &Vec<_>)| {
            sockets.iter().map(|socket| (*address, Arc::clone(socket))).collect::<Vec<_>>()
        };
        let admin = state.admin.iter().map(|admin| (admin.address, Arc::clone(&admin.copy)));
        state.copies.iter().flat_map(shared).chain(admin).collect()
    }

    /// How many threads serve.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What is served.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current)
    }

    /// The log of requests.
    #[must_use]
    pub fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log)
    }

    /// Where it tells about itself.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.state().admin.as_ref().map(|admin| admin.address)
    }

    /// Connections of clients at the moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.workers.iter().map(Worker::connections).sum()
    }

    /// Connections of clients that a filter lets through, `limit` at most, and how many there are. Whose latest request
    /// began last come first.
    #[must_use]
    pub fn clients(&self, filter: &ConnectionFilter, limit: usize) -> (Vec<ClientConnection>, u64) {
        let sieve = Sieve::from(filter);
        let mut all: Vec<_> = self.workers.iter().flat_map(|worker| worker.crowd.those(&sieve)).collect();
        let matching = all.len() as u64;
        all.sort_by_key(|one| one.quiet_ms);
        all.truncate(limit);
        (all, matching)
    }

    /// Ends those; gives how many.
    #[must_use]
    pub fn end_clients(&self, filter: &ConnectionFilter) -> u64 {
        let sieve = Sieve::from(filter);
        self.workers.iter().map(|worker| worker.crowd.end(&sieve)).sum()
    }

    /// Says from now on that it is about to end; everything is still served.
    pub fn announce(&self) {
        self.current.set_phase(Phase::Grace);
    }

    /// Accepts nothing new from now on, and has connections end (see [`Closing`]).
    pub fn close(&self, how: Closing) {
        self.current.set_phase(Phase::Draining);
        let mut state = self.state();
        state.copies.clear();
        if how == Closing::Gently {
            // Whoever serves in this place tells of it too.
            state.admin = None;
        }
        for address in std::mem::take(&mut state.listening).into_keys() {
            self.workers.iter().for_each(|worker| worker.tell(Order::Unlisten(address)));
        }
        state.entries.values().for_each(|entry| entry.close(how));
    }

    /// Ends what was [closed](Self::close): connections that are still there break off. How many those were.
    pub fn end(mut self) -> usize {
        let mut abandons = Vec::new();
        for worker in &self.workers {
            let (abandon, told) = oneshot::channel();
            worker.tell(Order::End(told));
            abandons.push(abandon);
        }
        let left = self.connections();
        drop(abandons);
        self.workers.iter_mut().for_each(Worker::join);
        self.writer.end();
        left
    }
}

/// Ends connections that wait for requests to servers that are not among those from now on, or are reached in another way.
/// A WebSocket may know the former ones for hours yet.
fn retire(before: &Ready, after: &Ready, now: u64) {
    let next: HashMap<_, _> = servers(after).collect();
    for (name, server) in servers(before) {
        match next.get(&name) {
            Some(next) if Arc::ptr_eq(&next.live, &server.live) => {}
            next => {
                server.live.retire();
                // By the same name there may be another machine, whose end is not this one's.
                let next = next.filter(|next| next.address == server.address);
                next.inspect(|next| next.live.follows(&server.live, now));
            }
        }
    }
}

/// All servers, each by the names of its service, its pool and its own.
fn servers(ready: &Ready) -> impl Iterator<Item = ((&str, &(String, String)), &Server)> {
    let pools = ready
        .services
        .iter()
        .flat_map(|service| service.pools().into_iter().map(move |pool| (service, pool)));
    pools.flat_map(|(service, pool)| {
        pool.servers.iter().map(|server| ((&*service.name, server.live.name()), server))
    })
}

/// The first service whose servers are to see the address of each client.
fn with_clients_addresses(ready: &Ready) -> Option<&Arc<Service>> {
    ready.services.iter().find(|service| service.source == Source::Client)
}

/// Whether this process may do what services want: which is seen by trying, and not from a file.
fn possible(ready: &Ready) -> Result<(), Vec<Problem>> {
    let Some(service) = with_clients_addresses(ready) else { return Ok(()) };
    transparent::possible()
        .map_err(|problem| vec![Problem::new(format!("service {}", service.name), problem)])
}

/// Sockets with a copy of each.
fn with_copies(sockets: Vec<TcpListener>) -> io::Result<(Vec<TcpListener>, Vec<Arc<TcpListener>>)> {
    let copies = sockets.iter().map(|socket| socket.try_clone().map(Arc::new)).collect::<io::Result<_>>()?;
    Ok((sockets, copies))
}

/// Connections of clients that the limit of open files leaves: each may need one to a server, and some files
/// are needed for everything else.
fn most_by_files(ready: &Ready) -> usize {
    const OTHERS: usize = 128;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    let others = OTHERS + with_clients_addresses(ready).map_or(0, |_| transparent::most_kept());
    files.map_or(usize::MAX, |files| (files.saturating_sub(others) / 2).max(16))
}
