//! A group of servers as one service leads to it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    Choice, ConnectError, Connection, Leave, Live, Slot, Wish, connect,
    connection::{To, source_address},
    links::Link,
    now,
    queue::Queue,
    shortage,
};
use crate::spec::{
    Algorithm, HashBy, Outliers, ProxyProtocolVersion, Retries, ServerProtocol, ServerState, ServerTls,
    Source,
};
use crate::tls::ToServers;

/// A server of a pool.
#[derive(Debug)]
pub struct Server {
    /// Name, unique within the pool.
    pub name: String,
    /// Address.
    pub address: IpAddr,
    /// Port; the one the client connected to where there is none.
    pub port: Option<u16>,
    /// Share; 0 takes nothing new.
    pub weight: u16,
    /// Used only while no other can be.
    pub backup: bool,
    /// Requests at once.
    pub most: Option<u32>,
    /// The value of the cookie that names it.
    pub cookie: String,
    /// What the `hash` algorithms know it by: the same on every balancer.
    pub seed: u64,
    /// What the specification says of whether it may be used.
    pub told: ServerState,
    /// What is known of it while the process runs.
    pub live: Arc<Live>,
}

impl Server {
    /// Where to connect for a client that connected to `port`.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, self.port.unwrap_or(port))
    }
}

/// A group of servers.
#[derive(Debug)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// What the log and metrics call it.
    pub title: String,
    /// Servers in the order of the specification.
    pub servers: Arc<[Server]>,
    /// How one is chosen.
    pub algorithm: Algorithm,
    /// What requests have in common that go to one server.
    pub hash_by: HashBy,
    /// For `round-robin`: whose turn it is, as often as the weights say.
    pub(super) turns: Vec<u16>,
    pub(super) turn: AtomicUsize,
    /// What is tried again.
    pub retries: Retries,
    /// Requests that may wait, and those that do.
    most_waiting: usize,
    queue: Arc<Queue>,
    /// How long a server takes until it gets its whole share.
    pub slow_start: Option<Duration>,
    /// When one that fails is paused.
    pub outliers: Option<Outliers>,
    /// PROXY protocol towards the servers.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// TLS towards the servers.
    pub tls: Option<ToServers>,
    /// Whether the servers are spoken to in HTTP/2.
    pub http2: bool,
    /// What it was made of.
    pub tls_told: Option<ServerTls>,
}

impl Pool {
    /// A pool as `spec` says, with `servers` made from its own.
    #[must_use]
    pub fn new(
        spec: &crate::spec::Pool,
        servers: Vec<Server>,
        algorithm: Algorithm,
        hash_by: HashBy,
    ) -> Self {
        let weights: Vec<u16> = servers.iter().map(|server| server.weight).collect();
        Self {
            name: spec.name.clone(),
            title: spec.title.as_ref().unwrap_or(&spec.name).clone(),
            turns: turns(&weights),
            servers: servers.into(),
            algorithm,
            hash_by,
            turn: AtomicUsize::new(0),
            retries: spec.retries,
            most_waiting: spec.queue.length as usize,
            queue: Arc::default(),
            slow_start: spec.slow_start.map(crate::spec::Span::get),
            outliers: spec.outliers,
            proxy_protocol: spec.proxy_protocol,
            tls: None,
            http2: spec.protocol == ServerProtocol::Http2,
            tls_told: spec.tls.clone(),
        }
    }

    /// Requests and connections that wait for a place.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.length()
    }

    /// Takes over from what the same pool was `before`: who waits there keeps its place.
    pub fn follow(&mut self, before: &Self) {
        self.queue = Arc::clone(&before.queue);
    }

    /// Whether a server is there that takes only those who persist on it.
    #[must_use]
    pub fn has_draining(&self) -> bool {
        self.servers.iter().any(|server| server.live.state() == ServerState::Drain)
    }

    /// A connection to a server that waits on `worker`; none where connections say whose they are.
    #[must_use]
    pub fn take_idle(&self, index: usize, way: &Way<'_>, careful: bool) -> Option<Connection> {
        if self.proxy_protocol.is_some() {
            return None;
        }
        let server = &self.servers[index];
        let at = server.at(way.ends.local.port());
        let source = source_address(way.source, way.ends).filter(|source| source.is_ipv4() == at.is_ipv4());
        server.live.take_idle(way.worker, careful, |connection| {
            connection.server == at && connection.source == source
        })
    }

    /// Keeps a connection to a server for a next request.
    pub fn put_idle(&self, index: usize, worker: usize, connection: Connection) {
        if self.proxy_protocol.is_none() {
            self.servers[index].live.put_idle(worker, connection);
        }
    }

    /// Makes a connection to a server.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn connect(&self, index: usize, way: &Way<'_>) -> Result<Connection, ConnectError> {
        let connected = self.try_to_connect(index, way).await;
        match &connected {
            Err(ConnectError::Here(error)) if shortage::is_told_by(error) && shortage::relieve() => {
                // Those of HTTP/2 are closed by tasks of their own.
                tokio::task::yield_now().await;
                self.try_to_connect(index, way).await
            }
            _ => connected,
        }
    }

    async fn try_to_connect(&self, index: usize, way: &Way<'_>) -> Result<Connection, ConnectError> {
        let at = self.servers[index].at(way.ends.local.port());
        // Rare and large, TLS above all: what every request carries with it stays small.
        let http2 = way.http2;
        let to = To { server: at, proxy_protocol: self.proxy_protocol, tls: self.tls.as_ref(), http2 };
        match tokio::time::timeout(way.timeout, Box::pin(connect(&to, way.source, way.ends))).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectError::Timeout),
        }
    }

    /// Leave for one request over a connection of HTTP/2 to a server, which is made if there is none.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn link(&self, index: usize, way: &Way<'_>) -> Result<Leave, ConnectError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let server = &self.servers[index];
        let at = server.at(way.ends.local.port());
        let source = source_address(way.source, way.ends).filter(|source| source.is_ipv4() == at.is_ipv4());
        // A connection that says whose it is carries nobody else's requests.
        let shared = self.proxy_protocol.is_none();
        if shared
            && let Some(found) =
                server.live.take_link(way.worker, |link| link.server == at && link.source == source)
        {
            return Ok(found);
        }
        let connection = self.connect(index, way).await?;
        if self.tls.is_some() && connection.stream.alpn() != Some(b"h2") {
            return Err(ConnectError::Refused(io::Error::other("it does not speak HTTP/2")));
        }
        let begun = Link::begin(connection, NUMBER.fetch_add(1, Relaxed));
        let mut link = match tokio::time::timeout(way.timeout, Box::pin(begun)).await {
            Ok(link) => link?,
            Err(_) => return Err(ConnectError::Timeout),
        };
        let leave =
            link.request().ok_or_else(|| ConnectError::Refused(io::Error::other("it takes no request")))?;
        if shared {
            server.live.put_link(way.worker, link);
        }
        Ok(leave)
    }

    /// A place at a server, if it has one left.
    pub(super) fn take(&self, index: usize) -> Option<Slot> {
        Slot::take(&self.servers[index], &self.queue, index)
    }

    /// A place at a server, waited for until this time where all are taken.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn place(
        &self,
        wish: &Wish<'_>,
        until: impl FnOnce() -> Instant,
    ) -> Result<(usize, Slot), NoPlace> {
        let take = || match self.choose(wish, now()) {
            Choice::Server(index, slot) => Ok(Some((index, slot))),
            Choice::None => Err(NoPlace::NoServer),
            Choice::Full => Ok(None),
        };
        if let Some(place) = take()? {
            return Ok(place);
        }
        let turn = self.queue.join(&self.servers, self.line(wish, now()), self.most_waiting);
        let mut turn = turn.ok_or(NoPlace::Queue)?;
        let until = until();
        loop {
            // One may have become free before we were in the queue; or it is one that nobody tells of: a server that came back.
            if let Some(place) = take()? {
                return Ok(place);
            }
            let at = Instant::now();
            if at >= until {
                return Err(NoPlace::Queue);
            }
            // The server that it waits for may have gone, or be paused no more.
            turn.stand(self.line(wish, now()));
            let called = tokio::time::timeout_at(until.min(at + LOOKED_AGAIN).into(), turn.called());
            if let Ok(Some(place)) = called.await {
                return Ok(place);
            }
        }
    }
}

/// How often who waits looks whether there is a place without being told.
const LOOKED_AGAIN: Duration = Duration::from_millis(100);

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The pool has no server that can be used.
    NoServer,
    /// All are taken for too long, or too many wait.
    Queue,
}

/// How connections to servers are made for a client.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Where they come from.
    pub source: Source,
    /// The client's connection.
    pub ends: &'a Ends,
    /// How long it may take.
    pub timeout: Duration,
    /// Which worker makes them.
    pub worker: usize,
    /// Whether they are to speak HTTP/2.
    pub http2: bool,
}

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's address, as the PROXY protocol says where it is spoken.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
}

/// Turns there are at most in one round.
const MOST_TURNS: usize = 4_096;

/// Whose turn it is, in an order in which each server's turns are spread evenly (earliest deadline first).
pub(super) fn turns(weights: &[u16]) -> Vec<u16> {
    let divisor = weights.iter().fold(0, |a, &b| greatest_common_divisor(a, u32::from(b))).max(1);
    let mut shares: Vec<u32> = weights.iter().map(|&weight| u32::from(weight) / divisor).collect();
    let sum: u64 = shares.iter().map(|&share| u64::from(share)).sum();
    if sum > MOST_TURNS as u64 {
        for share in shares.iter_mut().filter(|share| **share > 0) {
            *share = u32::try_from(u64::from(*share) * MOST_TURNS as u64 / sum).unwrap_or(1).max(1);
        }
    }
    let mut due: Vec<(u64, u16)> = Vec::new();
    for (server, &share) in (0_u16..).zip(&shares) {
        // The middle of each of its shares of the round.
        due.extend(
            (0..share)
                .map(|turn| ((u64::from(turn) * 2 + 1) * u64::from(u32::MAX) / u64::from(share), server)),
        );
    }
    due.sort_unstable();
    due.into_iter().map(|(_, server)| server).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::server::hash;

    /// A pool of servers with these weights; their cookies are `c0`, `c1` and so on.
    pub(in crate::server) fn pool(algorithm: Algorithm, weights: &[u16]) -> Pool {
        let server = |(index, &weight): (usize, &u16)| Server {
            name: format!("s{index}"),
            address: IpAddr::from([127, 0, 0, 1]),
            port: None,
            weight,
            backup: false,
            most: None,
            cookie: format!("c{index}"),
            seed: hash(format!("s{index}").as_bytes()),
            told: ServerState::Up,
            live: Arc::new(Live::new("p", &format!("s{index}"), ServerState::Up, 1)),
        };
        let servers = weights.iter().enumerate().map(server).collect();
        let spec = crate::spec::Pool { name: "p".into(), ..crate::spec::Pool::default() };
        Pool::new(&spec, servers, algorithm, HashBy::Client)
    }

    impl Pool {
        /// Changes servers that nobody knows yet.
        pub(in crate::server) fn change(&mut self, change: impl FnOnce(&mut [Server])) {
            change(Arc::get_mut(&mut self.servers).unwrap());
            self.servers.iter().for_each(|server| server.live.set_most(server.most));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::spec::Span;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn turns_are_as_many_as_the_weights_say_and_spread() {
        assert_eq!(turns(&[100, 100, 100]), [0, 1, 2]);
        assert_eq!(turns(&[100, 50]), [0, 1, 0]);
        assert_eq!(turns(&[0, 5]), [1]);
        assert!(turns(&[]).is_empty() && turns(&[0]).is_empty());
        let many = turns(&[65_535, 1, 65_534]);
        assert!(many.len() <= MOST_TURNS + 3 && many.contains(&1));
    }

    #[tokio::test]
    async fn who_waits_for_what_is_better_than_nothing_is_served_before_who_comes() {
        let outliers = Outliers { failures: 1, pause: Span::from_secs(60), statuses: false };
        let in_a_minute = || Instant::now() + Duration::from_secs(60);
        for case in ["paused", "a backup", "tried", "one of many"] {
            let count = if case == "one of many" { 70 } else { 2 };
            let mut pool = testing::pool(Algorithm::RoundRobin, &vec![100; count]);
            let one = count - 1;
            let mut wish = Wish::default();
            match case {
                "paused" => assert!(pool.servers[one].live.failed(&outliers, now())),
                "a backup" => pool.change(|servers| servers[one].backup = true),
                "tried" => wish.tried = 0b10,
                _ => {}
            }
            pool.change(|servers| servers[one].most = Some(1));
            (0..one).for_each(|other| pool.servers[other].live.set_state(ServerState::Down, now()));
            let (_, first) = pool.place(&wish, in_a_minute).await.unwrap();
            let mut waiting = pin!(pool.place(&wish, in_a_minute));
            assert!(poll(waiting.as_mut()).is_pending(), "{case}");
            drop(first);
            let newcomer = pool.choose(&Wish::default(), now());
            assert!(matches!(newcomer, Choice::Full), "{case}: {newcomer:?}");
            assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok((at, _))) if at == one), "{case}");
        }
    }
}
