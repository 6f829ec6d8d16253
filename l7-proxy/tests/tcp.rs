//! Mode `tcp` over real sockets: bytes both ways, half-closed connections, timers, TLS ended and passed on.

mod common;

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::Duration,
};

use common::{
    Client, Proxy, Server, eventually, header, spec,
    tls::{Authority, Folder, connect},
};
use l7_proxy::{process::Engine, process::Listeners};

const TCP: &str = r#", "mode": "tcp""#;

/// Sends everything back, and ends when the client has ended.
fn echo() -> Server {
    Server::script(|client, _| {
        let mut bytes = [0; 4_096];
        while let Ok(read @ 1..) = client.stream.read(&mut bytes) {
            client.send(&bytes[..read]);
        }
    })
}

#[test]
fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let server = Server::script(|client, _| {
        // The server speaks first, as MySQL's does.
        client.send(b"hello ");
        assert_eq!(client.rest(), "question", "all of it, and the end of it");
        client.send(b"answer");
    });
    let proxy = Proxy::start(&[server.address], TCP);
    let mut client = proxy.connect();
    assert_eq!(client.exactly(6), b"hello ");
    client.send(b"question");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "answer");
}

#[test]
fn much_arrives_whole_with_a_reader_that_is_slow_to_begin() {
    let server = echo();
    let proxy = Proxy::start(&[server.address], TCP);
    let mut client = proxy.connect();
    let sent: Vec<u8> = (0..8_000_000_u32).map(|number| (number * 31 % 251) as u8).collect();
    let mut sender = Client::of(client.stream.try_clone().unwrap());
    let bytes = sent.clone();
    let sending = std::thread::spawn(move || {
        sender.send(&bytes);
        sender.stream.shutdown(Shutdown::Write).unwrap();
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(client.exactly(sent.len()) == sent);
    assert_eq!(client.rest(), "");
    sending.join().unwrap();
}

#[test]
fn what_is_idle_or_lasts_too_long_ends() {
    let server = echo();
    let idle = Proxy::start(&[server.address], r#", "mode": "tcp", "timeouts": { "tunnel": "200ms" }"#);
    let mut client = idle.connect();
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(60));
        client.send(b"x");
        assert_eq!(client.exactly(1), b"x", "who sends is not idle");
    }
    assert_eq!(client.rest(), "");
    let old = Proxy::start(&[server.address], r#", "mode": "tcp", "timeouts": { "lifetime": "300ms" }"#);
    let mut client = old.connect();
    let started = std::time::Instant::now();
    while client.stream.write_all(b"x").is_ok() && client.stream.read(&mut [0]).is_ok_and(|read| read > 0) {
        assert!(started.elapsed() < common::PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_connection_that_is_refused_is_made_elsewhere() {
    let (gone, server) = (common::listener().local_addr().unwrap(), echo());
    let proxy = Proxy::start(&[gone, server.address], TCP);
    for _ in 0..4 {
        let mut client = proxy.connect();
        client.send(b"x");
        assert_eq!(client.exactly(1), b"x");
    }
    assert_eq!(Proxy::start(&[gone], TCP).connect().rest(), "");
}

#[test]
fn tls_ends_here_and_bytes_go_on_plain() {
    // R47: 61613 with TLS leads to 61613 plain.
    let (authority, folder, server) = (Authority::new(), Folder::new(), echo());
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let proxy = Proxy::start(
        &[server.address],
        &format!(r#", "mode": "tcp", "tls": {{ "certificates": ["{}"] }}"#, path.display()),
    );
    let mut stream = connect(&authority.client(&[]), proxy.address, "a.example").unwrap();
    stream.write_all(b"CONNECT\naccept-version:1.2\n\n\0").unwrap();
    let mut bytes = [0; 29];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"CONNECT\naccept-version:1.2\n\n\0");
    // What the client says is over is over for the server, and the answer is over in turn.
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    assert_eq!(stream.read(&mut bytes).unwrap(), 0);
}

#[test]
fn a_tcp_service_may_lead_to_an_http_pool() {
    // R46: balanced per request.
    let (authority, folder) = (Authority::new(), Folder::new());
    let servers = [Server::echo("a"), Server::echo("b")];
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let tls = format!(r#", "mode": "tcp", "tls": {{ "certificates": ["{}"] }}"#, path.display());
    let addresses = [servers[0].address, servers[1].address];
    let proxy = Proxy::start_with(&addresses, &tls, r#", "mode": "http""#, "");
    let mut stream = connect(&authority.client(&[]), proxy.address, "a.example").unwrap();
    for _ in 0..4 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") || answer.windows(4).filter(|end| end == b"\r\n\r\n").count() < 2
        {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.extend_from_slice(&byte);
        }
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(header(answer.split_once("\r\n\r\n").unwrap().1, "x-forwarded-proto"), Some("https"));
    }
    assert_eq!(servers.map(|server| server.requests().len()), [2, 2]);
    let reverse = spec(([127, 0, 0, 1], 1).into(), "", &[], r#", "mode": "tcp""#, "");
    let problems = Engine::start(&reverse, Listeners::none()).unwrap_err();
    assert!(problems[0].to_string().contains("cannot serve mode http"), "{problems:?}");
}

#[test]
fn names_lead_elsewhere_without_ending_tls() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let names = ["one.example", "two.example", "other.example"];
    // Proxies with TLS are the servers behind.
    let behind: Vec<(Server, Proxy)> = names
        .iter()
        .map(|name| {
            let server = Server::echo(name);
            let path = folder.write(name, &authority.combined(&[name, "x.two.example"]));
            let tls = format!(r#", "tls": {{ "certificates": ["{}"] }}"#, path.display());
            let proxy = Proxy::start(&[server.address], &tls);
            (server, proxy)
        })
        .collect();
    let proxy = Proxy::start_changed(|address| {
        let mut told = spec(
            address,
            r#", "mode": "tcp", "sni_routes": [{ "names": ["one.example"], "pool": "one" },
                 { "names": ["two.example", "*.two.example"], "pool": "two" }]"#,
            &[behind[2].1.address],
            "",
            "",
        );
        for (name, (_, proxy)) in ["one", "two"].iter().zip(&behind) {
            let mut pool = told.pools[0].clone();
            pool.name = (*name).into();
            pool.servers[0].port = Some(proxy.address.port());
            told.pools.push(pool);
        }
        told
    });
    for (name, server) in
        [("one.example", "one.example"), ("x.two.example", "two.example"), ("other.example", "other.example")]
    {
        let mut stream = connect(&authority.client(&[]), proxy.address, name).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(header(&answer, "server"), Some(server), "{name}");
    }
}

#[test]
fn connections_are_told_line_by_line() {
    // R50.
    let (folder, server) = (Folder::new(), echo());
    let file = folder.0.join("log");
    let log = format!(r#", "log": {{ "to": {{ "file": "{}" }}, "format": "haproxy" }}"#, file.display());
    let proxy = Proxy::start_with(&[server.address], TCP, r#", "title": "flow""#, &log);
    let mut client = proxy.connect();
    client.send(b"12345");
    client.exactly(5);
    let port = client.stream.local_addr().unwrap().port();
    drop(client);
    eventually("a line", || std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
    let line = std::fs::read_to_string(&file).unwrap();
    assert!(line.starts_with(&format!("127.0.0.1:{port} [")), "{line}");
    assert!(line.contains("] web flow/s0 0/") && line.ends_with(" 5 -- 0/0/0/0/0 0/0\n"), "{line}");
}

#[test]
fn who_has_been_told_all_may_leave_without_a_word() {
    // R50: many clients close a connection without saying so within TLS. After the server's end that is no failure.
    let (authority, folder) = (Authority::new(), Folder::new());
    let server = Server::script(|client, _| {
        client.until("DISCONNECT");
        client.send(b"RECEIPT");
    });
    let (path, file) = (folder.write("a.pem", &authority.combined(&["a.example"])), folder.0.join("log"));
    let service = format!(r#", "mode": "tcp", "tls": {{ "certificates": ["{}"] }}"#, path.display());
    let log = format!(r#", "log": {{ "to": {{ "file": "{}" }}, "format": "haproxy" }}"#, file.display());
    let proxy = Proxy::start_with(&[server.address], &service, "", &log);
    let line = |number: usize| {
        let lines = || std::fs::read_to_string(&file).unwrap_or_default();
        eventually("a line", || lines().lines().count() > number);
        lines().lines().nth(number).unwrap().to_owned()
    };
    let mut stream = connect(&authority.client(&[]), proxy.address, "a.example").unwrap();
    stream.write_all(b"DISCONNECT").unwrap();
    let mut said = Vec::new();
    assert_eq!(stream.read_to_end(&mut said).unwrap(), 7);
    drop(stream);
    assert!(line(0).ends_with(" 7 -- 0/0/0/0/0 0/0"), "{}", line(0));
    // Before it, somebody may have cut the connection.
    let mut stream = connect(&authority.client(&[]), proxy.address, "a.example").unwrap();
    stream.write_all(b"CONN").unwrap();
    drop(stream);
    assert!(line(1).ends_with(" 0 CD 0/0/0/0/0 0/0"), "{}", line(1));
}

#[test]
fn an_answer_that_is_cut_within_tls_does_not_look_whole() {
    // The client has said all it has to say; the server leaves in the middle of its answer, without close_notify.
    let (authority, folder) = (Authority::new(), Folder::new());
    let config = authority.server("server.example");
    let server = Server::script(move |client, _| {
        let mut tls = rustls::ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut client.stream);
        stream.read_to_end(&mut Vec::new()).unwrap();
        stream.write_all(b"half").unwrap();
    });
    let (path, file) = (folder.write("a.pem", &authority.combined(&["a.example"])), folder.0.join("log"));
    let service = format!(r#", "mode": "tcp", "tls": {{ "certificates": ["{}"] }}"#, path.display());
    let pool = r#", "tls": { "server_name": "server.example", "verify": "none" }"#;
    let log = format!(r#", "log": {{ "to": {{ "file": "{}" }}, "format": "haproxy" }}"#, file.display());
    let proxy = Proxy::start_with(&[server.address], &service, pool, &log);
    let mut stream = connect(&authority.client(&[]), proxy.address, "a.example").unwrap();
    stream.write_all(b"all").unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut said = Vec::new();
    let end = stream.read_to_end(&mut said).map_err(|error| error.kind());
    assert_eq!((&said[..], end), (&b"half"[..], Err(std::io::ErrorKind::UnexpectedEof)));
    eventually("a line", || std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
    let line = std::fs::read_to_string(&file).unwrap();
    assert!(line.contains(" 4 SD "), "{line}");
}

#[test]
fn a_reset_is_passed_on_as_one() {
    // What was cut off must not look complete, on either side.
    let came = std::sync::Arc::new(std::sync::Mutex::new(None));
    let seen = std::sync::Arc::clone(&came);
    let server = Server::script(move |client, number| {
        client.until("hello");
        if number == 0 {
            let mut byte = [0];
            *seen.lock().unwrap() =
                Some(std::io::Read::read(&mut client.stream, &mut byte).map_err(|e| e.kind()));
        } else {
            client.send(b"half");
            socket2::SockRef::from(&client.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
    });
    let proxy = Proxy::start(&[server.address], TCP);
    let mut client = proxy.connect();
    client.send(b"hello");
    eventually("it is passed on", || server.count() == 1);
    socket2::SockRef::from(&client.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    eventually("the server has seen it", || came.lock().unwrap().is_some());
    assert_eq!(*came.lock().unwrap(), Some(Err(std::io::ErrorKind::ConnectionReset)));
    let mut client = proxy.connect();
    client.send(b"hello");
    let error = loop {
        match std::io::Read::read(&mut client.stream, &mut [0; 16]) {
            Ok(0) => panic!("it looks whole"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// What a client gets of a server that does not take all and then ends, or resets, the connection, which is plain or TLS; and the
/// end.
fn last_words(is_tls: bool, is_reset: bool) -> (usize, Result<(), std::io::ErrorKind>) {
    const WORDS: [u8; 10_000] = [b'w'; 10_000];
    let step = std::sync::Arc::new(std::sync::Barrier::new(2));
    let (authority, stepped) = (Authority::new(), std::sync::Arc::clone(&step));
    let config = authority.server("server.example");
    let server = Server::script(move |client, _| {
        let mut tls = rustls::ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
        if is_tls {
            let mut stream = rustls::Stream::new(&mut tls, &mut client.stream);
            stream.read_exact(&mut [0; 5]).unwrap();
            stepped.wait();
            stream.write_all(&WORDS).unwrap();
            if !is_reset {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        } else {
            client.until("hello");
            stepped.wait();
            client.send(&WORDS);
        }
        if !is_reset {
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        stepped.wait();
        if is_reset {
            socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        // What it has not read is answered by a reset in any case.
    });
    let pool = if is_tls { r#", "tls": { "server_name": "server.example", "verify": "none" }"# } else { "" };
    let proxy = Proxy::start_with(&[server.address], TCP, pool, "");
    let mut client = proxy.connect();
    client.send(b"hello");
    // More than the kernel keeps: the proxy has some to pass on when the server goes.
    client.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while client.stream.write_all(&[b'x'; 100_000]).is_ok() {}
    step.wait();
    eventually("it is all there", || client.stream.peek(&mut [0; WORDS.len()]).unwrap() == WORDS.len());
    step.wait();
    eventually("the server is left", || {
        proxy.engine().current().ready().services[0].pools()[0].servers[0].live.active() == 0
    });
    let mut said = Vec::new();
    let end = client.stream.read_to_end(&mut said).map_err(|error| error.kind());
    (said.len(), end.map(drop))
}

#[test]
fn what_a_server_said_last_arrives_though_it_did_not_take_all() {
    for is_tls in [false, true] {
        assert_eq!(last_words(is_tls, false), (10_000, Ok(())), "{is_tls}");
        // What was cut off must not look complete.
        let cut = Err(std::io::ErrorKind::ConnectionReset);
        assert_eq!(last_words(is_tls, true), (10_000, cut), "{is_tls}");
    }
}
