//! A web server that says who it is and what it was asked; and browsers: `curl` in a namespace.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::{netns::Netns, process, websocket};

const LIMIT: Duration = Duration::from_secs(20);

/// A request as a server has seen it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method, target and version.
    pub line: String,
    /// Header lines by lower-case name; those of one name joined by ", ".
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
    /// Who connected.
    pub peer: SocketAddr,
}

/// A web server on one address and port. Its threads end with their connections, and it listens until the process ends
/// or it is dropped.
#[derive(Debug)]
pub struct Web {
    shared: Arc<Shared>,
    listener: TcpListener,
}

#[derive(Debug)]
struct Shared {
    name: String,
    asked: Mutex<Vec<Asked>>,
    ill: AtomicBool,
    ended: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Web {
    /// Starts a server that answers every request with 200, its name, and the request as it came. `/health` and the like
    /// (`…health`) are answered with 503 while it is [`Self::ill`]. WebSockets to `/socket` have their messages sent back,
    /// those to `/log` are sent a numbered line every ten milliseconds ([`crate::websocket`]); to any other path an upgrade
    /// is answered with a wrong `Sec-WebSocket-Accept`, after which all bytes come back.
    ///
    /// # Panics
    /// When the port cannot be had.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &Netns, name: &str, address: impl Into<IpAddr>, port: u16) -> Self {
        let address = SocketAddr::new(address.into(), port);
        let listener = ns.run(|| TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|error| panic!("{name}: listen on {address}: {error}"));
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            asked: Mutex::default(),
            ill: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let accepting = listener.try_clone().expect("a copy of a socket");
        thread::spawn(move || {
            for stream in accepting.incoming() {
                // A socket that was shut down gives errors for ever.
                if of_thread.ended.load(SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&of_thread);
                shared.connections().extend(stream.try_clone());
                thread::spawn(move || {
                    let peer = stream.peer_addr().ok();
                    shared.serve(&stream);
                    // There is a copy, by which it would stay open.
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    shared.connections().retain(|one| one.peer_addr().ok() != peer);
                });
            }
        });
        Self { shared, listener }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listener.local_addr().map_or(0, |address| address.port())
    }

    /// The name it says.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Requests so far, but for those of health checks.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| !asked.line.contains("health")).cloned().collect()
    }

    /// Whether it says that it is ill when it is checked.
    pub fn ill(&self, ill: bool) {
        self.shared.ill.store(ill, SeqCst);
    }

    /// Ends it at once, its connections included.
    pub fn end(&self) {
        self.shared.ended.store(true, SeqCst);
        // Whoever waits for the next connection waits no longer, and nobody else is let in.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for connection in self.shared.connections().drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: &TcpStream) {
        let (Ok(peer), Ok(copy)) = (stream.peer_addr(), stream.try_clone()) else { return };
        let mut input = BufReader::new(copy);
        while let Some(asked) = read(&mut input, peer) {
            let is_check = asked.line.contains("health");
            let upgrade = asked.headers.get("upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
            let status = if is_check && self.ill.load(SeqCst) { "503 Service Unavailable" } else { "200 OK" };
            let last =
                asked.headers.get("connection").is_some_and(|words| words.eq_ignore_ascii_case("close"));
            let said = format!("server: {}\n{}", self.name, asked.shown());
            let path = asked.line.split(' ').nth(1).unwrap_or_default().to_owned();
            let key = asked.header("sec-websocket-key").unwrap_or_default().to_owned();
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
            if upgrade {
                let accept = match &*path {
                    "/socket" | "/log" => websocket::accept(&key),
                    _ => "deliberately-wrong".to_owned(),
                };
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                // A message is sent when it is there. The client sees what fails, and is the judge.
                let _ = stream.set_nodelay(true);
                let _ = stream.write_all(head.as_bytes()).and_then(|()| match &*path {
                    "/socket" => websocket::echo(&mut input, stream),
                    "/log" => websocket::stream(stream),
                    _ => std::io::copy(&mut input, &mut stream).map(drop),
                });
                return;
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{said}", said.len());
            if stream.write_all(answer.as_bytes()).is_err() || last {
                return;
            }
        }
    }
}

impl Asked {
    fn shown(&self) -> String {
        let lines = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        format!("peer: {}\n{}\n{}", self.peer.ip(), self.line, lines.collect::<String>())
    }

    /// A header line.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// The next request; `None` at the end.
fn read(input: &mut BufReader<TcpStream>, peer: SocketAddr) -> Option<Asked> {
    let mut next = || {
        let mut line = String::new();
        (input.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let line = next()?;
    let mut headers = BTreeMap::<String, String>::new();
    while let Some(line) = next().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        headers
            .entry(name.to_ascii_lowercase())
            .and_modify(|before| *before = format!("{before}, {value}"))
            .or_insert_with(|| value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    Some(Asked { line, headers, body, peer })
}

/// What `curl` got.
#[derive(Clone, Debug)]
pub struct Got {
    /// The status; 0 for no answer.
    pub status: u16,
    /// Head of the last answer.
    pub head: String,
    /// Its body.
    pub body: String,
    /// What curl had to say when something failed.
    pub error: String,
}

impl Got {
    /// The server that answered, by its own word.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.body.lines().find_map(|line| line.strip_prefix("server: "))
    }

    /// A header line of the answer; the name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let is_it = |line: &&str| line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        self.head.lines().find(is_it).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }
}

/// Runs `curl` in a namespace.
///
/// # Panics
/// When it does not end.
#[track_caller]
#[must_use]
pub fn curl(ns: &Netns, arguments: &[&str]) -> Got {
    let mut command: Command = ns.command("curl");
    command.args(["--silent", "--show-error", "--include", "--max-time", "10"]).args(arguments);
    let output = process::output("curl", &mut command, LIMIT);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Interim answers and those of proxies come before the last one.
    let mut rest = text.as_str();
    let mut head = "";
    while rest.starts_with("HTTP/") {
        let Some((this, after)) = rest.split_once("\r\n\r\n") else { break };
        (head, rest) = (this, after);
    }
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Got { status, head: head.to_owned(), body: rest.to_owned(), error }
}
