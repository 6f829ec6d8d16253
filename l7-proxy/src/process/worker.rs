//! A thread that serves: accepts connections and keeps them until they end.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    net::TcpStream,
    runtime,
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle as Task,
    time::MissedTickBehavior,
};
use tracing::warn;

use super::Current;
use crate::{
    front::{Crowd, Door, Entry, Sieve, welcome},
    log::Log,
    server::{Ends, shortage},
    spec::ConnectionFilter,
    state::Refusal,
};

/// Of the time that those take who are there already, each so much lets one more connection in before it is their turn
/// again: thousands may come together, and thousands may be there.
const ONE_FOR: Duration = Duration::from_micros(500);

/// Connections that may wait in the queue of a socket: what `lb-user` tells listen(2), and some. Those who come while it is
/// emptied make it no longer.
const MOST_WAITING: usize = 4_200;

/// How long those may take to end who are ended with the worker: less than `lb-user` waits for it (one second).
const LAST: Duration = Duration::from_millis(500);

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Accept connections for a service.
    Listen(SocketAddr, TcpListener, Arc<Entry>),
    /// Accept connections for another service there.
    Move(SocketAddr, Arc<Entry>),
    /// Accept no more of them there; what waits to be accepted still is.
    Unlisten(SocketAddr),
    /// End when all connections have, or `abandon` is told.
    End(oneshot::Receiver<()>),
}

/// A worker, as seen by others.
#[derive(Debug)]
pub(super) struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
    connections: Arc<AtomicUsize>,
    /// Its clients.
    pub(super) crowd: Arc<Crowd>,
}

impl Worker {
    /// Starts a thread.
    pub(super) fn start(
        index: usize,
        log: Arc<Log>,
        current: Arc<Current>,
        handshakes: u32,
        most_connections: Arc<AtomicUsize>,
    ) -> io::Result<Self> {
        let lines = Arc::clone(&log);
        let mut runtime = runtime::Builder::new_current_thread();
        // Whoever is ready has had its turn by then.
        runtime.enable_all().on_thread_park(move || lines.flush(index));
        let runtime = runtime.build()?;
        let (orders, told) = mpsc::unbounded_channel();
        let connections: Arc<AtomicUsize> = Arc::default();
        let handshakes = Arc::new(Semaphore::new(handshakes as usize));
        let crowd: Arc<Crowd> = Arc::default();
        let inside = Inside {
            index,
            crowd: Arc::clone(&crowd),
            log,
            current,
            connections: Arc::clone(&connections),
            handshakes,
            most_connections,
        };
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || runtime.block_on(inside.run(told)))?;
        Ok(Self { orders, thread: Some(thread), connections, crowd })
    }

    /// Tells it something. A worker that has ended hears nothing.
    pub(super) fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Connections of clients at the moment.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Waits for its end.
    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A worker on its own thread.
struct Inside {
    index: usize,
    crowd: Arc<Crowd>,
    log: Arc<Log>,
    current: Arc<Current>,
    connections: Arc<AtomicUsize>,
    handshakes: Arc<Semaphore>,
    most_connections: Arc<AtomicUsize>,
}

/// A listening socket and the task that accepts from it.
struct Listening {
    listener: Arc<tokio::net::TcpListener>,
    door: Door,
    task: Task<()>,
}

impl Inside {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let (current, index) = (Arc::clone(&self.current), self.index);
        shortage::relieve_by(move || make_room(&current, index));
        let mut listening: HashMap<SocketAddr, Vec<Listening>> = HashMap::new();
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Listen(address, listener, entry)) => {
                        match tokio::net::TcpListener::from_std(listener) {
                            Ok(listener) => {
                                let listener = self.listen(Arc::new(listener), entry);
                                listening.entry(address).or_default().push(listener);
                            }
                            Err(error) => warn!("{address}: this worker cannot listen: {error}"),
                        }
                    }
                    Some(Order::Move(address, entry)) => {
                        for old in listening.get_mut(&address).into_iter().flatten() {
                            old.task.abort();
                            *old = self.listen(Arc::clone(&old.listener), Arc::clone(&entry));
                        }
                    }
                    Some(Order::Unlisten(address)) => {
                        listening.remove(&address).iter().flatten().for_each(|old| self.unlisten(old));
                    }
                    Some(Order::End(abandon)) => return self.end(abandon).await,
                    None => return,
                },
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn listen(&self, listener: Arc<tokio::net::TcpListener>, entry: Arc<Entry>) -> Listening {
        let door = Door {
            entry,
            worker: self.index,
            crowd: Arc::clone(&self.crowd),
            log: Arc::clone(&self.log),
            handshakes: Arc::clone(&self.handshakes),
            most_connections: Arc::clone(&self.most_connections),
        };
        let accepting = accept(Arc::clone(&listener), door.clone(), Arc::clone(&self.connections));
        Listening { listener, door, task: tokio::spawn(accepting) }
    }

    /// Ends listening. What the kernel has accepted already would be reset with the socket: it is served. The kernel is asked
    /// itself: the runtime may not know yet that somebody waits, and lets nobody do too much at a time.
    fn unlisten(&self, old: &Listening) {
        old.task.abort();
        let socket = SockRef::from(&*old.listener);
        for _ in 0..MOST_WAITING {
            let (client, address) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if of_one_connection(&error) => continue,
                Err(error) if shortage::is_told_by(&error) && shortage::relieve() => continue,
                Err(_) => return,
            };
            let stream = client.set_nonblocking(true).and_then(|()| TcpStream::from_std(client.into()));
            if let (Ok(stream), Some(address)) = (stream, address.as_socket()) {
                serve(&old.door, stream, address, &self.connections);
            }
        }
    }

    /// Ends connections to servers that have waited for too long: before the servers do (R14).
    fn sweep(&self) {
        for service in &self.current.ready().services {
            let most = u64::try_from(service.timeouts.server_idle.get().as_millis()).unwrap_or(u64::MAX);
            for pool in service.pools() {
                pool.servers.iter().for_each(|server| server.live.sweep_idle(self.index, most));
            }
        }
    }

    /// Whoever is still there when it is abandoned is ended as by an operator, so that the log tells of it.
    async fn end(&self, mut abandon: oneshot::Receiver<()>) {
        tokio::select! {
            () = self.gone() => return,
            _ = &mut abandon => {}
        }
        self.crowd.end(&Sieve::from(&ConnectionFilter::default()));
        let _ = tokio::time::timeout(LAST, self.gone()).await;
    }

    /// Waits until all connections have ended, and all that came over them.
    async fn gone(&self) {
        while self.connections.load(Relaxed) > 0 || self.crowd.streams() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Ends connections to servers that wait for a next request: those of this worker, and where it has none, all.
fn make_room(current: &Current, worker: usize) -> bool {
    let ready = current.ready();
    let servers = || {
        let pools = ready.services.iter().flat_map(|service| service.pools());
        pools.flat_map(|pool| pool.servers.iter())
    };
    let own: usize = servers().map(|server| server.live.make_room(Some(worker))).sum();
    own > 0 || servers().map(|server| server.live.make_room(None)).sum::<usize>() > 0
}

/// Serves a connection in a task of its own, unless there are as many as there may be.
fn serve(door: &Door, socket: TcpStream, client: SocketAddr, connections: &Arc<AtomicUsize>) {
    let Ok(local) = socket.local_addr() else { return };
    if connections.load(Relaxed) >= door.most_connections.load(Relaxed) {
        return door.entry.service().state.counters(door.worker).refused(Refusal::Process);
    }
    let counted = Counted::new(connections);
    let door = door.clone();
    tokio::spawn(Box::pin(async move {
        welcome(door, socket, Ends { client, local }).await;
        drop(counted);
    }));
}

/// Accepts connections.
async fn accept(listener: Arc<tokio::net::TcpListener>, door: Door, connections: Arc<AtomicUsize>) {
    let mut more = 1;
    loop {
        match listener.accept().await {
            Ok((socket, client)) => {
                serve(&door, socket, client, &connections);
                more -= 1;
                if more == 0 {
                    let left = Instant::now();
                    tokio::task::yield_now().await;
                    more = newcomers(left.elapsed());
                }
            }
            Err(error) if of_one_connection(&error) => {}
            // Those of HTTP/2 are closed by tasks of their own.
            Err(error) if shortage::is_told_by(&error) && shortage::relieve() => {
                tokio::task::yield_now().await
            }
            Err(error) => {
                // No files or memory left: connections that end bring some back.
                warn!("service {}: cannot accept: {error}", door.entry.service().name);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// How many may come after those who are there already took so long.
fn newcomers(took: Duration) -> u128 {
    (took.as_micros() / ONE_FOR.as_micros()).clamp(1, 16)
}

/// Whether it is over with the one connection that was to be accepted.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Counts a connection until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_the_others_take_the_more_come_in() {
        let of = |micros| newcomers(Duration::from_micros(micros));
        assert_eq!([0, 499, 500, 999].map(of), [1; 4], "one at least, or nobody would");
        assert_eq!([1_000, 5_000, 7_500].map(of), [2, 10, 15]);
        assert_eq!(of(10_000_000), 16, "who is there has a turn too");
    }
}
