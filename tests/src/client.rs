//! Clients: requests, transfers and datagrams, each with its own deadline and all of them with a common one.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    netns::Netns,
    pattern::{Hash, Pattern},
};

/// A single request that takes longer has failed.
pub const REQUEST: Duration = Duration::from_secs(3);
/// Requests of one series that are not done after this time count as failed.
const SERIES: Duration = Duration::from_secs(60);
/// Requests under way at the same time in a series.
const WORKERS: usize = 4;

/// What became of a series of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were to be answered.
    pub sent: usize,
    /// Answers by name of the server that gave them.
    pub by_server: BTreeMap<String, usize>,
    /// Why the others failed.
    pub failures: Vec<String>,
}

impl Tally {
    /// Number of answers.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.by_server.values().sum()
    }

    /// Insists that every request was answered, `what` being the service in the message; gives itself back.
    ///
    /// # Panics
    /// When one failed.
    #[track_caller]
    pub fn all_answered(self, what: impl fmt::Display) -> Self {
        assert_eq!(self.answered(), self.sent, "{what}: not all requests were answered: {self}");
        self
    }

    /// Insists that no request was answered.
    ///
    /// # Panics
    /// When one was.
    #[track_caller]
    pub fn none_answered(self, what: impl fmt::Display) -> Self {
        assert_eq!(self.answered(), 0, "{what}: requests were answered: {self}");
        self
    }

    /// Names of the servers that answered.
    #[must_use]
    pub fn servers(&self) -> Vec<&str> {
        self.by_server.keys().map(String::as_str).collect()
    }

    fn add(&mut self, outcome: Result<String, String>) {
        match outcome {
            Ok(server) => *self.by_server.entry(server).or_default() += 1,
            Err(why) => self.failures.push(why),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} answered", self.answered(), self.sent)?;
        for (server, count) in &self.by_server {
            write!(f, ", {count} by {server}")?;
        }
        let mut reasons = BTreeMap::<_, usize>::new();
        for failure in &self.failures {
            *reasons.entry(failure).or_default() += 1;
        }
        for (reason, count) in reasons {
            write!(f, "; {count} times {reason}")?;
        }
        Ok(())
    }
}

/// Sends `count` HTTP requests from a namespace, each over a connection of its own.
#[must_use]
pub fn requests(ns: &Netns, target: SocketAddr, count: usize) -> Tally {
    series(ns, count, || request(target, REQUEST))
}

/// Sends `count` datagrams from a namespace, each from a socket of its own. All sockets stay open to the end,
/// so that no two datagrams come from the same port.
#[must_use]
pub fn datagrams(ns: &Netns, target: SocketAddr, count: usize) -> Tally {
    let sockets = Mutex::new(Vec::new());
    series(ns, count, || {
        let (socket, server) = datagram(target)?;
        sockets.lock().expect("sockets").push(socket);
        Ok(server)
    })
}

fn series(ns: &Netns, count: usize, one: impl Fn() -> Result<String, String> + Sync) -> Tally {
    let tally = Mutex::new(Tally { sent: count, ..Tally::default() });
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let work = || {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            let outcome = if start.elapsed() < SERIES {
                one()
            } else {
                Err("not sent, the series ran out of time".into())
            };
            tally.lock().expect("tally").add(outcome);
        }
    };
    ns.run(|| {
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(work);
            }
        });
    });
    tally.into_inner().expect("tally")
}

/// One HTTP request from the calling thread's namespace; gives the answering server's name.
///
/// # Errors
/// Why there was no answer: at which step, and what the socket said.
pub fn request(target: SocketAddr, limit: Duration) -> Result<String, String> {
    request_from(target, None, limit)
}

/// [`request`] from one of the namespace's addresses.
///
/// # Errors
/// As [`request`].
pub fn request_from(target: SocketAddr, source: Option<IpAddr>, limit: Duration) -> Result<String, String> {
    ask(connect(target, source, limit)?, target)
}

/// [`request`] from one of the namespace's addresses and a port.
///
/// # Errors
/// As [`request`].
pub fn request_between(source: SocketAddr, target: SocketAddr, limit: Duration) -> Result<String, String> {
    ask(connect_between(Some(source), target, limit)?, target)
}

fn ask(mut stream: TcpStream, target: SocketAddr) -> Result<String, String> {
    let head = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(at("send"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(at("receive"))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, name)) if head.starts_with("HTTP/1.1 200 ") && !name.is_empty() => Ok(name.to_owned()),
        _ => Err(format!("receive: not an answer of ours: {answer:?}")),
    }
}

/// Connects from the calling thread's namespace, from `source` if given; reads and writes on the stream
/// have the same limit.
///
/// # Errors
/// What the socket said.
pub fn connect(target: SocketAddr, source: Option<IpAddr>, limit: Duration) -> Result<TcpStream, String> {
    connect_between(source.map(|source| SocketAddr::new(source, 0)), target, limit)
}

fn connect_between(
    source: Option<SocketAddr>,
    target: SocketAddr,
    limit: Duration,
) -> Result<TcpStream, String> {
    let open = || {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        if let Some(source) = source {
            socket.bind(&source.into())?;
        }
        socket.connect_timeout(&target.into(), limit)?;
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        Ok(TcpStream::from(socket))
    };
    open().map_err(at("connect"))
}

/// One datagram from the calling thread's namespace; gives the socket and the answering server's name.
fn datagram(target: SocketAddr) -> Result<(UdpSocket, String), String> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(at("bind"))?;
    socket.connect(target).map_err(at("connect"))?;
    socket.set_read_timeout(Some(REQUEST)).map_err(at("set up"))?;
    let mine = socket.local_addr().map_err(at("set up"))?.to_string();
    socket.send(mine.as_bytes()).map_err(at("send"))?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).map_err(at("receive"))?;
    let answer = String::from_utf8_lossy(&buffer[..length]);
    match answer.split_once(' ') {
        Some((server, echoed)) if echoed == mine => Ok((socket, server.to_owned())),
        _ => Err(format!("receive: {answer:?} is not the answer to {mine}")),
    }
}

/// What both ends of a transfer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Hash of what the client sent.
    pub sent: u64,
    /// Hash of what the server says it got.
    pub arrived: u64,
    /// Hash of what the server was to send back.
    pub promised: u64,
    /// Hash of what the client got.
    pub received: u64,
}

impl Transfer {
    /// Insists that both directions arrived as they were sent.
    ///
    /// # Panics
    /// When they did not.
    #[track_caller]
    pub fn intact(self, what: impl fmt::Display) {
        assert_eq!(self.sent, self.arrived, "{what}: what the client sent is not what the server got");
        assert_eq!(self.promised, self.received, "{what}: what the server sent is not what the client got");
    }
}

/// Sends `length` bytes and gets as many back, over one connection from a namespace.
///
/// # Errors
/// Where it stopped, and what the socket said.
pub fn transfer(ns: &Netns, target: SocketAddr, length: usize, seed: u64) -> Result<Transfer, String> {
    ns.run(|| {
        let stream = connect(target, None, Duration::from_secs(10))?;
        writeln!(&stream, "TRANSFER {length} {seed}").map_err(at("send"))?;
        let mut sent = Hash::default();
        Pattern::chunks(seed, length, |bytes| {
            sent.update(bytes);
            (&stream).write_all(bytes)
        })
        .map_err(at("send"))?;
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        reader.read_line(&mut line).map_err(at("receive the hash"))?;
        let arrived = line.trim().parse().map_err(|_| format!("receive: {line:?} is not a hash"))?;
        let received = hash_of(reader, length).map_err(at("receive"))?;
        let promised = Pattern::hash(seed + 1, length).value();
        Ok(Transfer { sent: sent.value(), arrived, promised, received })
    })
}

/// Hash of everything until the end, which must come after `length` bytes.
fn hash_of(mut reader: impl io::Read, length: usize) -> io::Result<u64> {
    let mut hash = Hash::default();
    let mut buffer = [0; 16 * 1024];
    let mut total = 0;
    loop {
        let got = reader.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        hash.update(&buffer[..got]);
        total += got;
    }
    if total == length {
        Ok(hash.value())
    } else {
        Err(io::Error::other(format!("{total} bytes, not {length}")))
    }
}

/// Names the step in a socket's error.
pub(crate) fn at(step: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{step}: {error}")
}
