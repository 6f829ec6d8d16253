//! A server that says who it is, and remembers who came.
//!
//! One listener per port for both families. The first line a client sends chooses what happens:
//!
//! | first line | answer |
//! |---|---|
//! | an HTTP/1 request line | `200` with the server's name as body; the connection ends |
//! | `ECHO` | the server's name as a line, then everything that comes, until the client closes |
//! | `TRANSFER n seed` | takes `n` bytes, answers their hash, then sends `n` bytes of [`crate::pattern::Pattern`] `seed + 1` |
//! | nothing, just a close | nothing: what a health probe does |
//!
//! A UDP server on the same port answers each datagram with its name and the datagram.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{netns::Netns, wait};

use conversation::{answer_datagrams, converse};

mod conversation;

/// What a client came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Not known yet: connected and silent.
    Unknown,
    /// Closed without a word: a health probe.
    Probe,
    /// An HTTP request.
    Request,
    /// A long stream.
    Echo,
    /// A transfer.
    Transfer,
    /// A datagram.
    Datagram,
}

/// A connection or datagram that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// When.
    pub at: Instant,
    /// Who it came from, as the server saw it.
    pub peer: SocketAddr,
    /// Where it was sent to, as the server saw it. For datagrams only the port is known.
    pub local: SocketAddr,
    /// What for.
    pub purpose: Purpose,
}

/// A running server; all its ports close on drop.
#[derive(Debug)]
pub struct Server {
    state: Arc<State>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    name: String,
    ports: Mutex<Ports>,
    visits: Mutex<Vec<Visit>>,
    open: Mutex<HashMap<usize, TcpStream>>,
}

#[derive(Debug)]
struct Ports {
    /// Where to listen.
    address: IpAddr,
    tcp: BTreeMap<u16, TcpListener>,
    udp: BTreeMap<u16, UdpSocket>,
    wanted: Vec<u16>,
    stopping: bool,
    /// How often the accepting thread has taken notice of the fields above.
    noticed: u64,
}

impl Server {
    /// Starts a server in a namespace with these TCP ports open; the same UDP ports too when `udp` is set.
    ///
    /// # Panics
    /// When a port cannot be opened.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &Netns, name: &str, ports: &[u16], udp: bool) -> Self {
        Self::start_on(ns, name, Ipv6Addr::UNSPECIFIED.into(), ports, udp)
    }

    /// [`Self::start`] on a single address of the namespace.
    ///
    /// # Panics
    /// When a port cannot be opened.
    #[track_caller]
    #[must_use]
    pub fn start_on(ns: &Netns, name: &str, address: IpAddr, ports: &[u16], udp: bool) -> Self {
        let (wake, woken) = UnixStream::pair().expect("a pair of sockets");
        woken.set_nonblocking(true).expect("a non-blocking socket");
        let mut first = Ports::new(address);
        first.wanted = ports.to_vec();
        ns.run(|| {
            first.open_wanted();
            for &port in ports.iter().filter(|_| udp) {
                let socket = UdpSocket::bind((address, port)).expect("bind a UDP port");
                socket.set_nonblocking(true).expect("a non-blocking socket");
                first.udp.insert(port, socket);
            }
        });
        let state = Arc::new(State {
            name: name.to_owned(),
            ports: Mutex::new(first),
            visits: Mutex::default(),
            open: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let thread = Some(ns.spawn(move || serve(&shared, &woken)));
        Self { state, wake, thread }
    }

    /// The server's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Closes a TCP port: new connections are refused once this returns. Connections that are open stay.
    pub fn close(&self, port: u16) {
        self.change(|ports| {
            ports.wanted.retain(|&open| open != port);
            ports.tcp.remove(&port);
        });
    }

    /// Opens a TCP port, again or for the first time; it is open when this returns.
    pub fn open(&self, port: u16) {
        self.change(|ports| ports.wanted.push(port));
    }

    /// Changes the ports and waits until the accepting thread has carried it out.
    #[track_caller]
    fn change(&self, change: impl FnOnce(&mut Ports)) {
        let mut ports = self.state.ports();
        change(&mut ports);
        let before = ports.noticed;
        drop(ports);
        self.wake();
        wait::until_true(Duration::from_secs(5), "a server to change its ports", || {
            self.state.ports().noticed > before
        });
    }

    /// Everyone who came so far.
    #[must_use]
    pub fn visits(&self) -> Vec<Visit> {
        lock(&self.state.visits).clone()
    }

    /// Those who came to `port` for this purpose so far.
    #[must_use]
    pub fn visits_for(&self, port: u16, purpose: Purpose) -> Vec<Visit> {
        self.visits()
            .into_iter()
            .filter(|visit| visit.local.port() == port && visit.purpose == purpose)
            .collect()
    }

    /// Closes all open connections at once, with a reset where data was under way.
    pub fn cut_connections(&self) {
        for stream in lock(&self.state.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn wake(&self) {
        let _ = (&self.wake).write_all(b"!");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.ports().stopping = true;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.cut_connections();
    }
}

impl State {
    fn ports(&self) -> MutexGuard<'_, Ports> {
        lock(&self.ports)
    }

    /// Notes a visit and gives its number, by which its purpose can be told later.
    fn note(&self, peer: SocketAddr, local: SocketAddr, purpose: Purpose) -> usize {
        let mut visits = lock(&self.visits);
        visits.push(Visit { at: Instant::now(), peer: plain(peer), local: plain(local), purpose });
        visits.len() - 1
    }
}

impl Ports {
    fn new(address: IpAddr) -> Self {
        Self {
            address,
            tcp: BTreeMap::new(),
            udp: BTreeMap::new(),
            wanted: Vec::new(),
            stopping: false,
            noticed: 0,
        }
    }

    /// Opens the TCP ports that are wanted and closed. Must run in the server's namespace.
    fn open_wanted(&mut self) {
        for &port in &self.wanted {
            self.tcp.entry(port).or_insert_with(|| {
                let listener = TcpListener::bind((self.address, port))
                    .unwrap_or_else(|error| panic!("open TCP port {port}: {error}"));
                listener.set_nonblocking(true).expect("a non-blocking listener");
                listener
            });
        }
    }
}

/// Accepts until told to stop.
fn serve(state: &Arc<State>, woken: &UnixStream) {
    loop {
        let mut ports = state.ports();
        if ports.stopping {
            *ports = Ports::new(ports.address);
            return;
        }
        ports.open_wanted();
        ports.noticed += 1;
        let tcp: Vec<_> =
            ports.tcp.values().map(|socket| socket.try_clone().expect("clone a socket")).collect();
        let udp: Vec<_> =
            ports.udp.values().map(|socket| socket.try_clone().expect("clone a socket")).collect();
        drop(ports);

        accept_until_woken(state, woken, &tcp, &udp);
    }
}

fn accept_until_woken(state: &Arc<State>, woken: &UnixStream, tcp: &[TcpListener], udp: &[UdpSocket]) {
    loop {
        let mut fds: Vec<_> = vec![PollFd::new(woken, PollFlags::IN)];
        fds.extend(tcp.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        fds.extend(udp.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[0].revents().is_empty() {
            let _ = (&*woken).read(&mut [0; 64]);
            return;
        }
        for listener in tcp {
            while let Ok((stream, peer)) = listener.accept() {
                let state = Arc::clone(state);
                thread::spawn(move || converse(&state, stream, peer));
            }
        }
        for socket in udp {
            answer_datagrams(state, socket);
        }
    }
}

/// IPv4 addresses as such, not wrapped in IPv6 as a socket for both families reports them.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::to_canonical(&address.ip()), address.port())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this lock")
}
