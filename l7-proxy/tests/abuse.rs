//! Clients and servers that would have a proxy hold their bytes, or its places, for ever: what it holds of each
//! is bounded, and others are served. Memory is that of a process of its own. `LB_TEST_FULL` asks for as many
//! clients as an attacker would bring.

mod common;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    Client, Server, eventually,
    frames::{DATA, Frames, HEADERS, RESET, WINDOW, frame, get, number, settings, websocket},
    opens_websocket,
    tls::{Authority, Folder},
};

fn clients() -> usize {
    if std::env::var_os("LB_TEST_FULL").is_some() { 2_000 } else { 300 }
}

/// A proxy in a process of its own, with a service in plain and one within TLS.
struct Apart {
    child: Child,
    plain: SocketAddr,
    secure: SocketAddr,
    _folder: Folder,
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Apart {
    fn start(server: &Server, more: &str) -> Self {
        let folder = Folder::new();
        let certificate = folder.write("a.pem", &Authority::new().combined(&["a.example"]));
        // An address of its own: ports of the usual one are taken by clients as they connect.
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let process = std::process::id().to_be_bytes();
        let own = IpAddr::from([127, process[2] | 1, process[3], COUNT.fetch_add(1, Ordering::SeqCst)]);
        let [plain, secure] = [(); 2].map(|()| TcpListener::bind((own, 0)).unwrap());
        let [plain, secure] = [plain, secure].map(|listener| listener.local_addr().unwrap());
        let (ip, port) = (server.address.ip(), server.address.port());
        let spec: PathBuf = folder.write(
            "spec.json",
            &format!(
                r#"{{ "services": [
                    {{ "name": "plain", "listen": ["{plain}"], "mode": "http", "pool": "p", "h2c": true {more} }},
                    {{ "name": "secure", "listen": ["{secure}"], "mode": "http", "pool": "p",
                       "tls": {{ "certificates": ["{}"] }} {more} }}],
                  "pools": [{{ "name": "p", "servers": [{{ "name": "a", "address": "{ip}", "port": {port} }}] }}],
                  "workers": 1 }}"#,
                certificate.display()
            ),
        );
        let child = Command::new(env!("CARGO_BIN_EXE_l7-proxy"))
            .arg("--spec")
            .arg(&spec)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // That somebody listens says little: a process that another test is about to start may hold our own listeners for
        // a moment. What serves one address listens to the other.
        eventually("it serves", || {
            let Ok(mut client) = std::net::TcpStream::connect(plain) else { return false };
            let asked = client.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
            let mut answer = String::new();
            asked.is_ok() && client.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200 ")
        });
        Self { child, plain, secure, _folder: folder }
    }

    /// Kilobytes of memory that are in use.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn is_served(&self) {
        let mut client = Client::connect(self.plain);
        client.send(b"GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = client.rest();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// Answers `/small` at once, never reads a body, and sends without end otherwise.
fn server() -> Server {
    counting(Arc::default())
}

/// The same, which counts answers that the proxy wanted no more of.
fn counting(cut: Arc<AtomicUsize>) -> Server {
    Server::script(move |client, _| {
        while let Some(head) = head(client) {
            if head.starts_with("GET /small") {
                client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            if head.starts_with("POST") {
                client.stream.set_read_timeout(None).unwrap();
                // Until the proxy gives up.
                let mut one = [0];
                while client.stream.peek(&mut one).is_ok_and(|read| read > 0) {
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                return;
            }
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n");
            let piece = vec![b'x'; 100_000];
            while client.stream.write_all(&piece).is_ok() {}
            cut.fetch_add(1, Ordering::SeqCst);
            return;
        }
    })
}

/// The next head. Bodies are not waited for.
fn head(client: &mut Client) -> Option<String> {
    let begin = client.at_most(4)?;
    Some(String::from_utf8_lossy(&begin).into_owned() + &client.until("\r\n\r\n"))
}

#[test]
fn those_who_are_slow_hold_little_and_keep_nobody_out() {
    let server = server();
    let proxy = Apart::start(&server, "");
    proxy.is_served();
    let before = proxy.memory();
    let count = clients();
    let slow: Vec<Client> = (0..count)
        .map(|number| {
            let (address, begin): (_, &[u8]) = match number % 5 {
                0 => (proxy.plain, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: "),
                1 => (proxy.plain, b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n"),
                2 => (proxy.plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
                3 => (proxy.secure, b"\x16\x03\x01\x02\x00\x01"),
                _ => (proxy.plain, b""),
            };
            let mut client = Client::connect(address);
            client.send(begin);
            client
        })
        .collect();
    for _ in 0..20 {
        proxy.is_served();
    }
    let each = proxy.memory().saturating_sub(before) / count as u64;
    println!("{each} KiB for each");
    assert!(each <= 24, "{each} KiB for each");
    drop(slow);
}

#[test]
fn heads_without_end_hold_no_more_than_they_may() {
    let server = server();
    let proxy = Apart::start(&server, r#", "limits": { "header_bytes": 65536 }"#);
    proxy.is_served();
    let before = proxy.memory();
    let count = clients() / 3;
    let bomb = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}", "a".repeat(60_000));
    let slow: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = Client::connect(proxy.plain);
            client.send(bomb.as_bytes());
            client
        })
        .collect();
    proxy.is_served();
    let each = proxy.memory().saturating_sub(before) / count as u64;
    println!("{each} KiB for each");
    assert!(each <= 160, "{each} KiB for each head of 64");
    drop(slow);
    for _ in 0..20 {
        let mut client = Client::connect(proxy.plain);
        let _ = client.stream.write_all(bomb.as_bytes());
        let _ = client.stream.write_all(bomb.as_bytes());
        assert!(client.rest().starts_with("HTTP/1.1 431 "));
    }
    proxy.is_served();
}

#[test]
fn a_body_for_a_stalled_server_stays_with_the_client() {
    let server = server();
    let proxy = Apart::start(&server, "");
    proxy.is_served();
    let before = proxy.memory();
    let mut senders: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = Client::connect(proxy.plain);
            client.send(b"POST /stalled HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
            client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
            client
        })
        .collect();
    let piece = vec![b'x'; 1 << 20];
    for client in &mut senders {
        let mut taken = 0;
        loop {
            match client.stream.write(&piece) {
                Ok(written) => taken += written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => panic!("{error}"),
            }
            assert!(taken < 200 << 20, "it is taken without end");
        }
        proxy.is_served();
    }
    let each = proxy.memory().saturating_sub(before) / 10;
    println!("{each} KiB for each");
    assert!(each <= 256, "{each} KiB for each");
}

#[test]
fn an_answer_for_a_stalled_client_stays_with_the_server() {
    let server = server();
    let proxy = Apart::start(&server, "");
    proxy.is_served();
    let before = proxy.memory();
    // HTTP/1.1, and HTTP/2 with windows of nothing.
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(proxy.plain);
        client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        stalled.push(client);
    }
    let each_of_two = 100_u32;
    let mut client = Client::connect(proxy.plain);
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0");
    for number in 0..each_of_two {
        // GET http://a/large
        let block = b"\x82\x86\x04\x06/large\x01\x01a";
        let mut frame = vec![0, 0, block.len() as u8, 1, 5];
        frame.extend((number * 2 + 1).to_be_bytes());
        frame.extend(block);
        client.send(&frame);
    }
    eventually("the server has all requests", || server.count() >= 20 + each_of_two as usize);
    proxy.is_served();
    let seen = std::cell::Cell::new(0);
    eventually("the server can send no more", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = proxy.memory();
        seen.replace(now) == now
    });
    let each = seen.get().saturating_sub(before) / u64::from(20 + each_of_two);
    println!("{each} KiB for each");
    assert!(each <= 192, "{each} KiB for each");
}

#[test]
fn an_answer_that_is_taken_by_little_is_read_by_little() {
    let server = server();
    let proxy = Apart::start(&server, "");
    proxy.is_served();
    let before = proxy.memory();
    let streams = 100;
    let mut client = Frames::begin(proxy.plain);
    client.0.send(&[settings(4, 1_000), number(WINDOW, 0, 1 << 30)].concat());
    client.0.send(&odd(streams).flat_map(get).collect::<Vec<u8>>());
    let mut missing = 1_000 * streams as usize;
    let mut more: Vec<u8> = odd(streams).flat_map(|stream| number(WINDOW, stream, 20_000)).collect();
    while missing > 0 {
        missing -= client.data().len();
        if missing == 0 && !more.is_empty() {
            client.0.send(&std::mem::take(&mut more));
            missing = 20_000 * streams as usize;
        }
    }
    proxy.is_served();
    let each = proxy.memory().saturating_sub(before) / u64::from(streams);
    println!("{each} KiB for each");
    assert!(each <= 56, "{each} KiB for each: whose client falls behind is not read far ahead");
}

/// A client of HTTP/2 that has taken nothing since what is between it and the proxy is full: the answer to a last request fills
/// that. `streams` have sent these heads by then, and their answers have begun.
fn stuffed(proxy: &Apart, settled: &[u8], streams: u32, head: impl Fn(u32) -> Vec<u8>) -> Frames {
    let mut client = Frames::begin(proxy.plain);
    client.0.send(settled);
    client.0.send(&odd(streams).flat_map(head).collect::<Vec<u8>>());
    let answers = (0..).map(|_| client.next().unwrap()).filter(|(kind, ..)| *kind == HEADERS);
    assert_eq!(answers.take(streams as usize).count(), streams as usize);
    let last = 2 * streams + 1;
    client.0.send(&[number(WINDOW, 0, 0x7fff_0000), get(last), number(WINDOW, last, 1 << 30)].concat());
    while client.next().unwrap().0 != DATA {}
    proxy.is_served();
    client
}

fn odd(streams: u32) -> impl Iterator<Item = u32> {
    (0..streams).map(|number| 2 * number + 1)
}

#[test]
fn tiny_messages_for_a_stalled_client_stay_with_the_server() {
    // Each is a frame, whose bytes are the least of it, and the client's windows are as wide as can be.
    let (sockets, messages) = (50, 2_000);
    let answered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&answered);
    let server = Server::script(move |client, _| {
        while let Some(head) = head(client) {
            if head.contains("Upgrade: websocket") {
                client.stream.set_nodelay(true).unwrap();
                client.send(opens_websocket(&head, "").as_bytes());
                // An empty ping from a client, and its pong.
                while client.at_most(6).is_some_and(|ping| ping.len() == 6) {
                    client.send(&[0x8a, 0]);
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                return;
            }
            if head.starts_with("GET /small") {
                client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n");
            while client.stream.write_all(&[b'x'; 100_000]).is_ok() {}
            return;
        }
    });
    let proxy = Apart::start(&server, "");
    let mut client = stuffed(&proxy, &settings(4, 0x3fff_ffff), sockets, |stream| websocket(stream, "/"));
    let before = proxy.memory();
    let ping = |stream| frame(DATA, 0, stream, &[0x89, 0x80, 0, 0, 0, 0]);
    let pings: Vec<u8> = odd(sockets).flat_map(ping).collect();
    for round in 1..=messages {
        client.0.send(&pings);
        if round % 100 == 0 {
            let all = round * sockets as usize;
            eventually("the server has them", || answered.load(Ordering::SeqCst) == all);
        }
    }
    proxy.is_served();
    let grown = proxy.memory().saturating_sub(before);
    println!("{grown} KiB");
    assert!(grown <= 8_192, "{grown} KiB for {} messages", messages * sockets as usize);
}

#[test]
fn windows_that_a_stalled_client_opens_by_bytes_have_little_held() {
    let cut = Arc::new(AtomicUsize::new(0));
    let server = counting(Arc::clone(&cut));
    let proxy = Apart::start(&server, r#", "limits": { "http2": { "control_frames": 1000000 } }"#);
    let streams = 100;
    let mut client = stuffed(&proxy, &settings(4, 0), streams, get);
    let before = proxy.memory();
    let opened: Vec<u8> = odd(streams).flat_map(|stream| number(WINDOW, stream, 1)).collect();
    for _ in 0..400 {
        client.0.send(&opened);
    }
    // A last one is handled when all before it are.
    client.0.send(&frame(RESET, 0, 1, &[0, 0, 0, 8]));
    eventually("the first answer is given up", || cut.load(Ordering::SeqCst) == 1);
    proxy.is_served();
    let grown = proxy.memory().saturating_sub(before);
    println!("{grown} KiB");
    assert!(grown <= 6_144, "{grown} KiB for 40,000 bytes");
}

#[test]
fn blocks_that_unfold_are_refused() {
    // "HPACK bomb": an entry of the dynamic table, named again and again with a byte each.
    let server = server();
    let proxy = Apart::start(&server, "");
    proxy.is_served();
    let before = proxy.memory();
    for _ in 0..50 {
        let mut client = Client::connect(proxy.plain);
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        let mut block = b"\x82\x86\x84\x01\x01a\x40\x01b".to_vec();
        // 3,000 bytes: a length of 127 and 2,873 more.
        block.extend([0x7f, 0xb9, 0x16]);
        block.extend([b'x'; 3_000]);
        block.extend([0xbe; 12_000]);
        let mut frame = (block.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([1, 5, 0, 0, 0, 1]);
        frame.extend(&block);
        let _ = client.stream.write_all(&frame);
        client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let _ = client.stream.peek(&mut [0; 1]);
    }
    proxy.is_served();
    let grown = proxy.memory().saturating_sub(before);
    println!("{grown} KiB");
    assert!(grown <= 16_384, "{grown} KiB: 36 MB each if they were unfolded");
}
