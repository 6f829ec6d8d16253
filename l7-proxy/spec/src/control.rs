//! What `lb-user` asks of the proxy it looks after, and what the proxy answers.
//!
//! They talk over a Unix socket ([`Channel`](crate::Channel)): one question, one answer. `lb-user` has the
//! privileges: it opens listening sockets, reads files with keys, and hands both over. The proxy has none, and goes
//! on serving when whoever asked has gone; the next one finds it by the same socket.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Network, Problem, ServerState, Span, Spec, Status};

/// What of this conversation both sides must understand alike. Another number: the proxy is replaced.
pub const CONTROL_VERSION: u32 = 4;

/// What the proxy is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Who is there? Answered with [`Reply::Hello`].
    Hello,
    /// So many bytes follow: the contents of a file that specifications name. None: there is no such file, for this
    /// reason.
    File {
        /// Its name in specifications.
        path: PathBuf,
        /// Its length in bytes, or why it cannot be read.
        contents: Result<u64, String>,
    },
    /// Listening sockets for these addresses come along, in this order.
    Listeners(Vec<SocketAddr>),
    /// A Unix socket comes along, at whose other end there are sockets that may have the address of a client
    /// ([`SocketsWanted`](crate::SocketsWanted)); in place of one that came before.
    Supply,
    /// What would be wrong with this?
    Check(Box<Spec>),
    /// Serve this from now on, in place of what is served. Refused as a whole where something is wrong.
    Serve(Box<Spec>),
    /// Servers are to be used otherwise from now on.
    Servers(Vec<ServerChange>),
    /// How is everything?
    Status,
    /// The same as OpenMetrics.
    Metrics,
    /// Who is connected? Answered with [`Reply::Connections`].
    Connections {
        /// Which are meant.
        which: ConnectionFilter,
        /// The most that are listed.
        limit: usize,
    },
    /// End these connections; answered with [`Reply::Ended`].
    EndConnections(ConnectionFilter),
    /// Copies of the listening sockets, please; answered with [`Reply::Listeners`].
    HandBack,
    /// What is remembered of clients; for the one who comes after.
    Memory,
    /// Remember this of clients.
    Remember(Memory),
    /// The end is near: `/health` says so from now on, while everything is still served.
    Announce,
    /// Accept nothing new, and end when all connections have.
    End {
        /// Or after this time.
        within: Span,
        /// Whether idle connections of clients may stay until their next request: somebody else serves in this place.
        gently: bool,
    },
}

/// How a server is to be used from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerChange {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub server: String,
    /// How.
    pub state: ServerState,
}

/// Which connections are meant: those for which all holds that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFilter {
    /// Of this service.
    pub service: Option<String>,
    /// With one of these servers, each by the names of its pool and its own.
    pub servers: Option<Vec<(String, String)>>,
    /// From clients of this network.
    pub client: Option<Network>,
}

/// A client's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientConnection {
    /// Name of the service.
    pub service: String,
    /// Where the client is, as the PROXY protocol says where it is spoken.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
    /// Pool and name of the server that it is with, or that its latest request went to.
    pub server: Option<(String, String)>,
    /// Milliseconds since its latest request began; since it came where it has made none.
    pub quiet_ms: u64,
}

/// What the proxy answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Who it is.
    Hello {
        /// [`CONTROL_VERSION`] of it.
        control: u32,
        /// Its version, for people.
        version: String,
        /// Its number among the system's processes.
        pid: u32,
        /// Device and inode of the program it runs: another file may lie in its place by now.
        program: Option<(u64, u64)>,
        /// Threads that serve: each may have a listening socket of its own for each address.
        workers: usize,
    },
    /// It is done.
    Done,
    /// This is wrong; nothing has changed.
    Wrong(Vec<Problem>),
    /// How everything is.
    Status(Status),
    /// Metrics, without the closing line.
    Metrics(String),
    /// Copies of listening sockets for these addresses come along, in this order; more follow unless it is the last.
    Listeners {
        /// The addresses; one may be there several times.
        addresses: Vec<SocketAddr>,
        /// Whether these were all.
        last: bool,
    },
    /// What is remembered of clients.
    Memory(Memory),
    /// Who is connected.
    Connections {
        /// Those that are listed: whose latest request began last come first.
        connections: Vec<ClientConnection>,
        /// How many there are.
        matching: u64,
    },
    /// So many connections were told to end.
    Ended(u64),
}

/// What is remembered of clients beyond what they say themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// For each service and pool: clients and their servers.
    pub sticky: Vec<StickyTable>,
    /// What was counted by those who came before: it is added to what is counted from now on.
    #[serde(default)]
    pub counted: Option<Status>,
}

/// Clients of a pool and the servers they stay with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StickyTable {
    /// The service.
    pub service: String,
    /// The pool.
    pub pool: String,
    /// The server that all are with, where there is one for all.
    pub last: Option<String>,
    /// Address, server, and milliseconds since the client was last seen; those not seen for longest first.
    pub clients: Vec<(std::net::IpAddr, String, u64)>,
}
