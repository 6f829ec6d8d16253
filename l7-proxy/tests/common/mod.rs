//! A proxy in this process, servers that do exactly what a test says, and clients that see every byte.

#![allow(dead_code, reason = "each test file uses its own part of this")]

pub(crate) mod frames;
pub(crate) mod logged;
pub(crate) mod looked_after;
pub(crate) mod server2;
pub(crate) mod tls;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use l7_proxy::{
    front::Closing,
    process::{Engine, Listeners},
    spec::Spec,
};

/// What may take longest: a machine that does ten other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy with one service, `web`, and one pool, `web`.
pub(crate) struct Proxy {
    pub(crate) engine: Option<Engine>,
    pub(crate) address: SocketAddr,
}

/// A port that is listened to.
pub(crate) fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("loopback has a free port")
}

/// A specification: `service` and `pool` are further keys of each, `more` of the whole, each with a comma before
/// it.
pub(crate) fn spec(
    listen: SocketAddr,
    service: &str,
    servers: &[SocketAddr],
    pool: &str,
    more: &str,
) -> Spec {
    let servers: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(number, address)| {
            let (ip, port) = (address.ip(), address.port());
            format!(r#"{{ "name": "s{number}", "address": "{ip}", "port": {port} }}"#)
        })
        .collect();
    let mode = if service.contains("\"mode\"") { "" } else { r#", "mode": "http""# };
    let servers = servers.join(", ");
    Spec::from_json(&format!(
        r#"{{ "services": [{{ "name": "web", "listen": ["{listen}"], "pool": "web"{mode} {service} }}],
              "pools": [{{ "name": "web", "servers": [{servers}] {pool} }}], "workers": 1 {more} }}"#
    ))
    .expect("the test's specification is JSON")
}

impl Proxy {
    /// Starts one in front of `servers`, with further keys of the service.
    pub(crate) fn start(servers: &[SocketAddr], service: &str) -> Self {
        Self::start_with(servers, service, "", "")
    }

    /// The same, with further keys of the pool and of the whole.
    pub(crate) fn start_with(servers: &[SocketAddr], service: &str, pool: &str, more: &str) -> Self {
        Self::start_changed(|address| spec(address, service, servers, pool, more))
    }

    /// Starts one with a specification of the test's own for an address.
    pub(crate) fn start_changed(spec: impl FnOnce(SocketAddr) -> Spec) -> Self {
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let mut listeners = Listeners::none();
        listeners.hand_over(listener).unwrap();
        let engine =
            Engine::start(&spec(address), listeners).unwrap_or_else(|problems| panic!("{problems:?}"));
        Self { engine: Some(engine), address }
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it runs")
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Everything that comes back for these bytes, until the proxy ends the connection.
    pub(crate) fn ask(&self, request: &str) -> String {
        let mut client = self.connect();
        client.send(request.as_bytes());
        client.rest()
    }
}

/// Has an engine end, with `within` for its connections; gives how many were left then.
pub(crate) fn drain(engine: Engine, within: Duration) -> usize {
    engine.close(Closing::Soon);
    let until = Instant::now() + within;
    while engine.connections() > 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    engine.end()
}

/// A client's connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        Self::of(stream)
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the other side reads");
    }

    /// Reads more; `false` at the end.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 65_536];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came in time after {:?}: {error}", self.text()),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Reads up to and with `end`, and takes it away.
    pub(crate) fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = find(&self.buffer, end.as_bytes()) {
                let taken: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            assert!(self.more(), "the connection ended before {end:?}, after {:?}", self.text());
        }
    }

    /// Reads so many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.more(), "the connection ended after {:?}", self.text());
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads so many bytes; none where the connection ends before.
    pub(crate) fn at_most(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more() {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Whether nothing more comes for a while.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let while_ = Duration::from_millis(200);
        self.stream.set_read_timeout(Some(while_)).unwrap();
        let quiet = self.buffer.is_empty()
            && matches!(self.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        quiet
    }

    /// A head, and the body that its `content-length` says.
    pub(crate) fn message(&mut self) -> (String, Vec<u8>) {
        let head = self.until("\r\n\r\n");
        let length = header(&head, "content-length").map_or(0, |length| length.parse().expect("a number"));
        let body = self.exactly(length);
        (head, body)
    }

    /// Everything until the end.
    pub(crate) fn rest(&mut self) -> String {
        while self.more() {}
        let text = self.text();
        self.buffer.clear();
        text
    }
}

pub(crate) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// The value of a header line.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (other, value) = line.split_once(':')?;
        other.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// All values of header lines of a name.
pub(crate) fn headers<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

/// A server that does what a test says with each connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Runs `script` for each connection, in a thread of its own, with the number of the connection.
    pub(crate) fn script(script: impl Fn(&mut Client, usize) + Send + Sync + 'static) -> Self {
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let script = Arc::clone(&script);
                thread::spawn(move || {
                    // A script that fails has told why on standard error; the proxy's answer fails the test.
                    script(&mut Client::of(stream), number);
                });
            }
        });
        Self { address, connections, seen: Arc::default() }
    }

    /// Answers every request with its own head as the body, and `name` in a header line.
    pub(crate) fn echo(name: &str) -> Self {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (for_script, name) = (Arc::clone(&seen), name.to_owned());
        let server = Self::script(move |client, _| {
            while let Some(request) = next_request(client) {
                for_script.lock().unwrap().push(request.clone());
                let length = request.len();
                let body = if request.starts_with("HEAD") { "" } else { &request };
                client.send(
                    format!("HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Length: {length}\r\n\r\n{body}")
                        .as_bytes(),
                );
            }
        });
        Self { seen, ..server }
    }

    /// Requests that came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections that came.
    pub(crate) fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The answer that opens the WebSocket a request asks for (RFC 6455 §4.2.2), with more lines, each with its end.
pub(crate) fn opens_websocket(request: &str, more: &str) -> String {
    let key = header(request, "sec-websocket-key").expect("a key");
    let sha1 = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    let digest =
        aws_lc_rs::digest::digest(sha1, format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    let accept = l7_proxy::wire::base64(digest.as_ref());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// The next request with its body as it came; none when the client ends the connection.
pub(crate) fn next_request(client: &mut Client) -> Option<String> {
    while find(&client.buffer, b"\r\n\r\n").is_none() {
        if !client.more() {
            return None;
        }
    }
    let head = client.until("\r\n\r\n");
    let body = if header(&head, "transfer-encoding").is_some() {
        let mut body = client.until("0\r\n");
        body.push_str(&client.until("\r\n"));
        body
    } else {
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        String::from_utf8_lossy(&client.exactly(length)).into_owned()
    };
    Some(head + &body)
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
