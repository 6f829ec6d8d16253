//! What becomes of requests: which server gets them, what is tried again and what is not, what is answered
//! here, and what does not notice when the specification changes.

mod common;

use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use common::{
    Client, PATIENCE, Proxy, Server, drain, eventually, header, headers, listener, next_request, spec,
};
use l7_proxy::{process::Listeners, spec::Pool};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    listener().local_addr().unwrap()
}

fn served_by(answer: &str) -> String {
    header(answer, "server").unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn requests_go_to_servers_in_turn() {
    let servers = [Server::echo("a"), Server::echo("b")];
    let proxy = Proxy::start(&[servers[0].address, servers[1].address], "");
    for _ in 0..6 {
        proxy.ask(GET);
    }
    assert_eq!(servers.iter().map(|server| server.requests().len()).collect::<Vec<_>>(), [3, 3]);
}

#[test]
fn a_server_that_does_not_answer_the_phone_costs_no_request() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[nobody(), server.address, nobody()], "");
    for _ in 0..9 {
        let answer =
            proxy.ask("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(served_by(&answer), "a");
    }
    let none = Proxy::start(&[nobody()], "");
    assert!(none.ask(GET).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_post_that_may_have_arrived_is_never_sent_again() {
    // Trap 8: the first request goes well, the second finds the connection closed after it was sent.
    let posts = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&posts);
    let server = Server::script(move |client, _| {
        next_request(client);
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        if next_request(client).is_some_and(|request| request.starts_with("POST")) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.message();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let (head, _) = client.message();
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert_eq!((posts.load(Ordering::SeqCst), server.count()), (1, 1));
}

#[test]
fn a_get_whose_old_connection_ends_is_sent_once_more() {
    let server = Server::script(|client, _| {
        next_request(client);
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        next_request(client);
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (head, _) = client.message();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    assert_eq!(server.count(), 5);
}

#[test]
fn a_server_that_ends_idle_connections_costs_no_post() {
    let server = Server::script(|client, _| {
        if next_request(client).is_some() {
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    for number in 0..200 {
        // The answer came; that the connection has ended behind it is seen before it is used again.
        eventually("the server has ended its connections", || {
            proxy.engine().current().ready().services[0].pools()[0].servers[0].live.active() == 0
        });
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let (head, _) = client.message();
        if head.starts_with("HTTP/1.1 502 ") {
            // It ended after the request was sent: then, and only then, the client is told.
            assert!(server.count() <= number + 1, "{head}");
        }
    }
}

#[test]
fn routes_lead_elsewhere() {
    let (web, api) = (Server::echo("web"), Server::echo("api"));
    let more = r#", "routes": [
            { "paths": ["/api"], "hosts": ["*.example"], "pool": "api" },
            { "headers": [{ "name": "X-Old", "value": "1" }], "redirect": { "host": "new.example", "status": 301 } },
            { "paths": ["/teapot"], "answer": { "status": 418, "body": "short and stout" } }]"#;
    let proxy = Proxy::start_changed(|address| {
        let mut told = spec(address, more, &[web.address], "", "");
        let mut pool = told.pools[0].clone();
        pool.name = "api".into();
        pool.servers[0].port = Some(api.address.port());
        told.pools.push(pool);
        told
    });
    let ask = |path: &str, host: &str, line: &str| {
        proxy.ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{line}\r\n"))
    };
    assert_eq!(served_by(&ask("/", "a.example", "")), "web");
    assert_eq!(served_by(&ask("/api/x", "a.example", "")), "api");
    assert_eq!(served_by(&ask("/x/../api/x", "a.example", "")), "api");
    assert_eq!(served_by(&ask("/api/x", "a.org", "")), "web");
    let moved = ask("/p?q", "a.org", "x-old: 1\r\n");
    assert!(moved.starts_with("HTTP/1.1 301 Moved Permanently"), "{moved}");
    assert_eq!(header(&moved, "location"), Some("http://new.example/p?q"));
    let teapot = ask("/teapot", "a.org", "");
    assert!(teapot.starts_with("HTTP/1.1 418 ") && teapot.ends_with("short and stout"), "{teapot}");
}

#[test]
fn a_redirect_keeps_host_path_and_query() {
    // R44.
    let proxy = Proxy::start_changed(|address| {
        let mut told = spec(address, r#", "redirect": { "scheme": "https" }"#, &[], "", "");
        told.services[0].pool = None;
        told
    });
    let mut client = proxy.connect();
    client.send(
        b"GET /a?b=1 HTTP/1.1\r\nHost: web.example\r\n\r\nHEAD /c HTTP/1.1\r\nHost: web.example\r\n\r\n",
    );
    let (head, _) = client.message();
    assert!(head.starts_with("HTTP/1.1 302 Found\r\n"), "{head}");
    assert_eq!(header(&head, "location"), Some("https://web.example/a?b=1"));
    let head = client.until("\r\n\r\n");
    assert_eq!(header(&head, "location"), Some("https://web.example/c"), "the connection goes on");
}

#[test]
fn answers_of_ours_are_the_operators() {
    let file = std::env::temp_dir().join(format!("l7-proxy-{}-503.http", std::process::id()));
    fs::write(&file, "HTTP/1.0 200 Sorry\r\nContent-Type: text/html\r\n\r\n<h1>back soon</h1>").unwrap();
    let pages = format!(r#", "error_pages": {{ "503": "{}" }}"#, file.display());
    let proxy = Proxy::start(&[], &pages);
    let answer = proxy.ask(GET);
    fs::remove_file(&file).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 Sorry\r\n"), "{answer}");
    assert!(header(&answer, "content-type") == Some("text/html") && answer.ends_with("<h1>back soon</h1>"));
    let plain = Proxy::start(&[], "");
    let answer = plain.ask(GET);
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert_eq!(header(&answer, "cache-control"), Some("no-store"));
}

#[test]
fn a_cookie_brings_clients_back() {
    // R17.
    let servers = [Server::echo("a"), Server::echo("b"), Server::echo("c")];
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let proxy = Proxy::start_with(
        &addresses,
        r#", "persistence": { "type": "cookie", "name": "SRV", "same_site": "lax" }"#,
        "",
        r#", "cookie_key": "secret""#,
    );
    let ask =
        |cookie: &str| proxy.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{cookie}\r\n"));
    let first = ask("");
    let set = header(&first, "set-cookie").expect("a cookie").to_owned();
    assert_eq!(header(&first, "cache-control"), Some("private"));
    assert!(set.starts_with("SRV=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
    assert!(!set.contains("s0") && !set.contains("127"), "{set}");
    let (pair, _) = set.split_once(';').unwrap();
    let server = served_by(&first);
    for _ in 0..6 {
        let answer = ask(&format!("Cookie: x=1; {pair}; y=2\r\n"));
        assert_eq!(served_by(&answer), server);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(headers(head, "set-cookie"), Vec::<&str>::new());
        assert_eq!(headers(body, "cookie"), ["x=1; y=2"], "it is not passed on: {body}");
    }
    let odd = ask("Cookie: SRV=nonsense\r\n");
    assert!(header(&odd, "set-cookie").is_some());
    let (_, body) = odd.split_once("\r\n\r\n").unwrap();
    assert_eq!(headers(body, "cookie"), Vec::<&str>::new());
}

#[test]
fn a_cookie_brings_clients_back_to_a_server_of_each_pool() {
    let servers = [Server::echo("a"), Server::echo("b"), Server::echo("c"), Server::echo("d")];
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let proxy = Proxy::start_changed(|address| {
        let service = r#", "persistence": { "type": "cookie", "name": "SRV" },
            "routes": [{ "paths": ["/v2"], "pool": "other" }]"#;
        let mut told = spec(address, service, &addresses[..2], "", "");
        let other = spec(address, "", &addresses[2..], "", "").pools.remove(0);
        told.pools.push(Pool { name: "other".into(), ..other });
        told
    });
    let mut jar = String::new();
    let mut ask = |path: &str, more: &str| {
        let cookie = if jar.is_empty() { String::new() } else { format!("Cookie: {jar}{more}\r\n") };
        let answer =
            proxy.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{cookie}\r\n"));
        if let Some(set) = header(&answer, "set-cookie") {
            jar = set.split_once(';').unwrap().0.to_owned();
        }
        (served_by(&answer), header(&answer, "set-cookie").is_some())
    };
    let (own, further) = (ask("/", ""), ask("/v2", ""));
    assert!(own.1 && further.1, "each is named once");
    for _ in 0..4 {
        assert_eq!([ask("/", ""), ask("/v2", "")], [(own.0.clone(), false), (further.0.clone(), false)]);
    }
    // Made up, and far too long: as good as none, and not carried along.
    let _ = ask("/", &".".repeat(4_000));
    let _ = ask("/v2", &".x".repeat(20));
    assert!(jar.len() < 60, "{jar}");
}

#[test]
fn an_address_stays_with_its_server() {
    // R18, R19.
    for persistence in [r#"{ "type": "source-ip" }"#, r#"{ "type": "last-successful" }"#] {
        let servers = [Server::echo("a"), Server::echo("b")];
        let proxy = Proxy::start(
            &[servers[0].address, servers[1].address],
            &format!(r#", "persistence": {persistence}"#),
        );
        for _ in 0..6 {
            proxy.ask(GET);
        }
        let mut counts = [servers[0].requests().len(), servers[1].requests().len()];
        counts.sort_unstable();
        assert_eq!(counts, [0, 6]);
    }
}

#[test]
fn a_websocket_is_passed_on_untouched() {
    // R33, trap 7: nothing is sent to the server before it has agreed.
    let server = Server::script(|client, _| {
        let head = client.until("\r\n\r\n");
        assert_eq!(header(&head, "upgrade"), Some("WebSocket"));
        assert_eq!(header(&head, "connection"), Some("keep-alive, Upgrade"));
        assert_eq!(header(&head, "sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(client.buffer.is_empty(), "nothing came before we agreed");
        client.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: deliberately-wrong\r\n\r\nfirst",
        );
        let early = client.exactly(5);
        assert_eq!(early, b"early");
        let bytes = client.exactly(1_000_000);
        client.send(&bytes);
        // Our side ends first; the other direction goes on.
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.rest(), "last words");
    });
    let proxy = Proxy::start(
        &[server.address],
        r#", "timeouts": { "response_body": "100ms", "client_idle": "100ms" }"#,
    );
    let mut client = proxy.connect();
    client.send(
        b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nearly",
    );
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert_eq!(header(&head, "sec-websocket-accept"), Some("deliberately-wrong"));
    assert_eq!(header(&head, "upgrade"), Some("websocket"));
    assert_eq!(client.exactly(5), b"first");
    // Longer than any timeout of HTTP: a tunnel has its own.
    std::thread::sleep(Duration::from_millis(250));
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    let mut sender = Client::of(client.stream.try_clone().unwrap());
    let bytes = sent.clone();
    let sending = std::thread::spawn(move || sender.send(&bytes));
    assert!(client.exactly(1_000_000) == sent);
    sending.join().unwrap();
    assert_eq!(client.rest(), "");
    client.send(b"last words");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
}

#[test]
fn a_refused_upgrade_is_an_answer_like_any_other() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.message().0.starts_with("HTTP/1.1 200"));
    assert!(client.message().1.starts_with(b"GET /2"), "what followed was the next request");
}

#[test]
fn slow_ones_are_not_waited_for() {
    let server = Server::script(|client, _| {
        while let Some(request) = next_request(client) {
            if request.starts_with("GET /stall") {
                client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            }
            if request.starts_with("GET /dead") || request.starts_with("GET /stall") {
                client.rest();
            }
        }
    });
    let proxy = Proxy::start(
        &[server.address],
        r#", "timeouts": { "client_idle": "50ms", "request_header": "50ms", "request_body": "50ms",
             "response": "50ms", "response_body": "50ms" }"#,
    );
    assert!(proxy.connect().rest().is_empty(), "idle");
    assert!(proxy.ask("GET / HTT").starts_with("HTTP/1.1 408 "), "a head that does not come");
    let body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
    assert!(proxy.ask(body).starts_with("HTTP/1.1 408 "), "a body that does not come");
    assert!(proxy.ask("GET /dead HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 504 "));
    let stalled = proxy.ask("GET /stall HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(stalled.ends_with("half"), "{stalled}");
}

#[test]
fn what_is_too_much_is_refused() {
    let server = Server::echo("a");
    let proxy = Proxy::start(
        &[server.address],
        r#", "limits": { "body_bytes": 4, "requests_per_second": 3, "connections_per_client": 2 }"#,
    );
    let long = proxy.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert!(long.starts_with("HTTP/1.1 413 "), "{long}");
    let chunks =
        proxy.ask("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert!(chunks.starts_with("HTTP/1.1 413 "), "{chunks}");
    assert!(proxy.ask(GET).starts_with("HTTP/1.1 200 "));
    assert!(proxy.ask(GET).starts_with("HTTP/1.1 429 "));
    let open = [proxy.connect(), proxy.connect()];
    eventually("both are counted", || proxy.engine().connections() == 2);
    assert_eq!(proxy.connect().rest(), "", "a third connection");
    drop(open);
}

#[test]
fn a_server_has_no_more_requests_at_once_than_it_may() {
    let busy = std::sync::Arc::new(AtomicUsize::new(0));
    let most = std::sync::Arc::new(AtomicUsize::new(0));
    let (now, seen) = (std::sync::Arc::clone(&busy), std::sync::Arc::clone(&most));
    let server = Server::script(move |client, _| {
        while next_request(client).is_some() {
            seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            now.fetch_sub(1, Ordering::SeqCst);
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let proxy = Proxy::start_changed(|address| {
        let mut told = spec(address, "", &[server.address], "", "");
        told.pools[0].servers[0].max_connections = Some(2);
        told
    });
    let address = proxy.address;
    let clients: Vec<_> = (0..10)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                client.send(GET.as_bytes());
                client.rest()
            })
        })
        .collect();
    for client in clients {
        assert!(client.join().unwrap().starts_with("HTTP/1.1 200 "));
    }
    assert!(most.load(Ordering::SeqCst) <= 2);
}

#[test]
fn what_does_not_change_does_not_notice_a_change() {
    let (old, new) = (Server::echo("old"), Server::echo("new"));
    let tunnels = Server::script(|client, _| {
        client.until("\r\n\r\n");
        client.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
        while client.stream.peek(&mut [0]).is_ok_and(|read| read > 0) {
            let byte = client.exactly(1);
            client.send(&byte);
        }
    });
    let (first, second) = (listener(), listener());
    let (web, other) = (first.local_addr().unwrap(), second.local_addr().unwrap());
    let told = |server: SocketAddr, with_other: bool| {
        let mut told = spec(web, "", &[server], "", "");
        if with_other {
            let mut more = spec(other, "", &[tunnels.address], "", "");
            more.services[0].name = "other".into();
            more.services[0].pool = Some("other".into());
            more.pools[0].name = "other".into();
            told.services.append(&mut more.services);
            told.pools.append(&mut more.pools);
        }
        told
    };
    let mut listeners = Listeners::none();
    listeners.hand_over(first).unwrap();
    listeners.hand_over(second).unwrap();
    let engine = l7_proxy::process::Engine::start(&told(old.address, true), listeners).unwrap();
    let mut client = Client::connect(web);
    let mut ask = || {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        served_by(&client.message().0)
    };
    let mut tunnel = Client::connect(other);
    tunnel.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
    tunnel.until("\r\n\r\n");
    assert_eq!(ask(), "old");
    for _ in 0..5 {
        engine.apply(&told(new.address, true), Listeners::none()).unwrap();
        assert_eq!(ask(), "new");
        engine.apply(&told(old.address, true), Listeners::none()).unwrap();
        assert_eq!(ask(), "old");
        tunnel.send(b"x");
        assert_eq!(tunnel.exactly(1), b"x");
    }
    let mut bad = told(old.address, true);
    bad.services[0].pool = Some("nothing".into());
    bad.pools[0].servers[0].state = l7_proxy::spec::ServerState::Down;
    assert!(engine.apply(&bad, Listeners::none()).is_err());
    assert_eq!(ask(), "old", "all or nothing");
    // A service that goes takes no new connections; the tunnel of it ends when it is over.
    engine.apply(&told(old.address, false), Listeners::none()).unwrap();
    eventually("nobody listens there", || std::net::TcpStream::connect(other).is_err());
    tunnel.send(b"x");
    assert_eq!(tunnel.exactly(1), b"x");
    drop(tunnel);
    drop(client);
    assert_eq!(drain(engine, PATIENCE), 0);
}

#[test]
fn the_end_waits_for_requests_but_not_for_ever() {
    let server = Server::script(|client, _| {
        next_request(client);
        std::thread::sleep(Duration::from_millis(300));
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let mut proxy = Proxy::start(&[server.address], "");
    let mut busy = proxy.connect();
    busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the server has the request", || server.count() == 1);
    assert_eq!(drain(proxy.engine.take().unwrap(), PATIENCE), 0);
    let answer = busy.rest();
    assert!(answer.ends_with("ok") && header(&answer, "connection") == Some("close"), "{answer}");

    // Who has just come is answered too; between two requests is a good moment to go.
    let server = Server::script(|client, _| {
        next_request(client);
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        next_request(client);
    });
    let mut proxy = Proxy::start(&[server.address], "");
    let (mut idle, mut fresh) = (proxy.connect(), proxy.connect());
    idle.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (head, body) = idle.message();
    assert!(head.contains("200") && body == b"ok");
    let engine = proxy.engine.take().unwrap();
    eventually("both are in", || engine.connections() == 2);
    let draining = std::thread::spawn(move || drain(engine, PATIENCE));
    assert_eq!(idle.rest(), "");
    fresh.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(fresh.rest().ends_with("ok"));
    assert_eq!(draining.join().unwrap(), 0);

    let never = Server::script(|client, _| drop(client.rest()));
    let mut proxy = Proxy::start(&[never.address], "");
    let mut busy = proxy.connect();
    busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the server has the request", || never.count() == 1);
    assert_eq!(drain(proxy.engine.take().unwrap(), Duration::from_millis(100)), 1);
    assert_eq!(busy.rest(), "");
}

#[test]
fn a_halted_server_loses_what_is_open_and_a_draining_one_does_not() {
    let server = Server::script(|client, _| {
        client.until("\r\n\r\n");
        client.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
        let byte = client.exactly(1);
        client.send(&byte);
        client.rest();
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
    client.until("\r\n\r\n");
    let told = |state| {
        let mut told = spec(proxy.address, "", &[server.address], "", "");
        told.pools[0].servers[0].state = state;
        told
    };
    proxy.engine().apply(&told(l7_proxy::spec::ServerState::Drain), Listeners::none()).unwrap();
    assert!(proxy.ask(GET).starts_with("HTTP/1.1 503 "), "nothing new");
    client.send(b"x");
    assert_eq!(client.exactly(1), b"x", "what is open goes on");
    proxy.engine().apply(&told(l7_proxy::spec::ServerState::Halt), Listeners::none()).unwrap();
    assert_eq!(client.rest(), "");
}
