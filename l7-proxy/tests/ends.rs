//! Connections that an operator, a halt, a client or a server ends: whoever it was is named, and nobody takes a half for
//! the whole.

mod common;

use std::{
    io::{ErrorKind, Read as _},
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    Client, Proxy, Server, eventually,
    frames::{DATA, END_STREAM, Frames, HEADERS, block, frame},
    logged::Logged,
    opens_websocket, spec,
};
use l7_proxy::{
    process::Listeners,
    spec::{ConnectionFilter, ServerState, Span},
};

const REQUEST: &str = "GET /path HTTP/1.1\r\nHost: a.example\r\n\r\n";
const TCP: &str = r#", "mode": "tcp""#;
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";

/// Begins an answer that never ends.
fn half() -> Server {
    Server::script(|client, _| {
        client.until("\r\n\r\n");
        client.send(b"HTTP/1.1 200 OK\r\n\r\nhalf");
        client.rest();
    })
}

fn is_reset(client: &mut Client) {
    let end = client.stream.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset), "a reset, and nothing before it");
}

#[test]
fn who_is_ended_by_an_operator_is_reset_and_written_down() {
    for service in ["", TCP] {
        let server = half();
        let logged = Logged::of(&server, service);
        let mut client = logged.proxy.connect();
        client.send(b"GET /path HTTP/1.0\r\nHost: a.example\r\n\r\n");
        client.until("half");
        logged.kill(1);
        is_reset(&mut client);
        let line = &logged.lines(1)[0];
        assert!(line.contains(r#""ended":"KD""#), "{line}");
        assert!(line.contains(r#""pool":"web","server":"s0","#), "{line}");
        logged.broke(0, 0, 1);
        if service.is_empty() {
            for part in [r#""method":"GET""#, r#""path":"/path""#, r#""status":200,"#, r#""answer_ms":"#] {
                assert!(line.contains(part), "{part}: {line}");
            }
            assert!(logged.metrics().contains("l7_requests_total{service=\"web\"} 1\n"), "it was one");
        }
        eventually("the place at the server is free", || logged.server().active() == 0);
    }
}

#[test]
fn who_is_ended_before_the_answer_gets_none_and_has_a_line_of_its_kind() {
    let server = Server::script(|client, _| drop(client.rest()));
    let logged = Logged::start("haproxy", |address, log| spec(address, "", &[server.address], "", log));
    let mut client = logged.proxy.connect();
    client.send(REQUEST.as_bytes());
    eventually("the server has it", || server.count() == 1);
    logged.kill(1);
    is_reset(&mut client);
    let line = &logged.lines(1)[0];
    assert!(line.contains(" web web/s0 0/0/"), "{line}");
    assert!(
        line.contains(" -1 ") && line.contains(" KD-- ") && line.ends_with("\"GET /path HTTP/1.1\""),
        "{line}"
    );
    logged.broke(0, 0, 1);
}

#[test]
fn who_is_ended_before_a_server_is_reached_is_reset_and_written_down() {
    // One that has not said which name it wants, and one that waits for a place.
    let server = Server::script(|client, _| drop(client.rest()));
    let names = r#", "mode": "tcp", "sni_routes": [{ "names": ["a.example"], "pool": "web" }]"#;
    let logged = Logged::of(&server, names);
    let mut client = logged.proxy.connect();
    logged.kill(1);
    is_reset(&mut client);
    assert!(logged.lines(1)[0].contains(r#""ended":"KD""#));
    logged.broke(0, 0, 1);

    let logged = Logged::start("json", |address, log| {
        let mut told = spec(address, TCP, &[server.address], "", log);
        told.pools[0].servers[0].max_connections = Some(1);
        told
    });
    let mut served = logged.proxy.connect();
    served.send(b"x");
    eventually("the server has it", || logged.server().active() == 1);
    let mut waits = logged.proxy.connect();
    logged.kill(2);
    is_reset(&mut served);
    is_reset(&mut waits);
    let lines = logged.lines(2);
    assert!(lines.iter().all(|line| line.contains(r#""ended":"KD""#)), "{lines:?}");
    logged.broke(0, 0, 2);
}

#[test]
fn what_is_given_up_of_a_request_does_not_wait_for_a_server_that_takes_nothing() {
    let end = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&end);
    let step = Arc::new(std::sync::Barrier::new(2));
    let stepped = Arc::clone(&step);
    let server = Server::script(move |client, _| {
        client.until("\r\n\r\n");
        stepped.wait();
        let mut piece = vec![0; 1 << 20];
        let ended = loop {
            match std::io::Read::read(&mut client.stream, &mut piece) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error.kind()),
            }
        };
        *seen.lock().unwrap() = Some(ended);
    });
    let logged = Logged::of(&server, "");
    let mut client = logged.proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    client.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while std::io::Write::write_all(&mut client.stream, &[b'x'; 100_000]).is_ok() {}
    logged.kill(1);
    eventually("it is given up", || logged.server().active() == 0);
    step.wait();
    eventually("the server sees the end", || end.lock().unwrap().is_some());
    assert_eq!(*end.lock().unwrap(), Some(Err(std::io::ErrorKind::ConnectionReset)));
}

#[test]
fn a_request_that_was_passed_on_whole_reaches_its_server_whole() {
    const WHOLE: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let end = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&end);
    let step = Arc::new(std::sync::Barrier::new(2));
    let stepped = Arc::clone(&step);
    let server = Server::script(move |client, _| {
        let is_whole = |bytes: &[u8]| bytes.ends_with(b"\r\n\r\nbody");
        eventually("it is all there", || {
            let mut piece = [0; 1_000];
            let length = client.stream.peek(&mut piece).unwrap();
            is_whole(&piece[..length])
        });
        stepped.wait();
        stepped.wait();
        let mut all = Vec::new();
        let ended = std::io::Read::read_to_end(&mut client.stream, &mut all).map_err(|error| error.kind());
        *seen.lock().unwrap() = Some((is_whole(&all), ended.is_ok()));
    });
    let logged = Logged::of(&server, "");
    let mut client = logged.proxy.connect();
    client.send(WHOLE);
    step.wait();
    logged.kill(1);
    eventually("it is given up", || logged.server().active() == 0);
    step.wait();
    eventually("the server sees the end", || end.lock().unwrap().is_some());
    assert_eq!(*end.lock().unwrap(), Some((true, true)));
}

/// Opens a WebSocket as stream 1, and ends its own side.
fn half_closed(proxy: &Proxy) -> Frames {
    let mut client = Frames::begin(proxy.address);
    client.settled();
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a.example"),
        ("sec-websocket-version", "13"),
    ];
    client.0.send(&frame(HEADERS, common::frames::END_HEADERS, 1, &block(&fields)));
    while client.next().expect("an answer").0 != HEADERS {}
    client.0.send(&frame(DATA, END_STREAM, 1, b"bye"));
    client
}

#[test]
fn a_websocket_over_http2_ends_though_its_client_has_finished() {
    let heard = Arc::new(AtomicUsize::new(0));
    let ends = Arc::clone(&heard);
    let server = Server::script(move |client, _| {
        let request = client.until("\r\n\r\n");
        client.send(opens_websocket(&request, "").as_bytes());
        assert_eq!(client.rest(), "bye", "and the end of it");
        ends.fetch_add(1, Ordering::SeqCst);
        // It has nothing to say, for as long as anybody may listen.
        while client.stream.take_error().is_ok_and(|error| error.is_none()) {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let logged = Logged::of(&server, r#", "h2c": true"#);
    let client = half_closed(&logged.proxy);
    eventually("the server has heard all", || heard.load(Ordering::SeqCst) == 1);
    logged.kill(1);
    let line = logged.lines(1).remove(0);
    assert!(line.contains(r#""ended":"KD""#), "{line}");
    eventually("the place at the server is free", || logged.server().active() == 0);
    drop(client);
    // One that goes without being told to.
    let client = half_closed(&logged.proxy);
    eventually("the server has heard all", || heard.load(Ordering::SeqCst) == 2);
    drop(client);
    let line = logged.lines(2).remove(1);
    assert!(line.contains(r#""ended":"CD""#), "{line}");
    eventually("the place at the server is free", || logged.server().active() == 0);
}

#[test]
fn whoever_broke_it_is_named() {
    let server = half();
    let halt = |logged: &Logged| {
        logged.proxy.engine().set_server_state("web", "s0", ServerState::Halt).unwrap();
    };
    for service in ["", TCP, r#", "h2c": true"#] {
        let logged = Logged::of(&server, service);
        if service.contains("h2c") {
            let mut client = Frames::begin(logged.proxy.address);
            client.0.send(&common::frames::get(1));
            assert_eq!(client.data(), b"half");
            halt(&logged);
            logged.broke(0, 0, 1);
            continue;
        }
        let mut client = logged.proxy.connect();
        client.send(REQUEST.as_bytes());
        client.until("half");
        halt(&logged);
        client.rest();
        logged.broke(0, 0, 1);
    }
    // A body that makes no sense, while the answer is on its way already.
    let logged = Logged::of(&server, "");
    let mut client = logged.proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.until("half");
    client.send(b"no chunk\r\n");
    client.rest();
    assert!(logged.lines(1)[0].contains(r#""ended":"PD""#));
    logged.broke(1, 0, 0);
    // An answer that breaks off.
    let server = Server::script(|client, _| {
        client.until("\r\n\r\n");
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let logged = Logged::of(&server, "");
    assert!(logged.proxy.ask(REQUEST).ends_with("half"));
    logged.broke(0, 1, 0);
}

#[test]
fn tunnels_stay_within_reach_over_changes_of_how_servers_are_reached() {
    let server = Server::script(|client, _| {
        client.until("\r\n\r\n");
        client.send(SWITCHED);
        client.rest();
    });
    let logged = Logged::of(&server, "");
    let open = || {
        let mut client = logged.proxy.connect();
        client.send(UPGRADE.as_bytes());
        client.until("\r\n\r\n");
        client
    };
    let change = |seconds, state| {
        let mut told = spec(logged.proxy.address, "", &[server.address], "", "");
        told.services[0].timeouts.server_idle = Span::from_secs(seconds);
        told.pools[0].servers[0].state = state;
        logged.proxy.engine().apply(&told, Listeners::none()).unwrap();
    };
    let (mut first, mut second) = (open(), open());
    let before = logged.server();
    for seconds in [1, 2] {
        change(seconds, ServerState::Up);
    }
    assert!(!Arc::ptr_eq(&before, &logged.server()), "nothing of the former server is kept");
    let with = ConnectionFilter {
        servers: Some(vec![("web".into(), "s0".into())]),
        client: None,
        service: Some("web".into()),
    };
    let (shown, count) = logged.proxy.engine().clients(&with, 10);
    assert_eq!(count, 2);
    assert_eq!(shown[0].server, Some(("web".into(), "s0".into())));
    first.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(first.rest(), "");
    eventually("it is over", || logged.proxy.engine().clients(&with, 0).1 == 1);
    change(2, ServerState::Halt);
    assert_eq!(second.rest(), "");
    // The same by another way, after one more change.
    change(2, ServerState::Up);
    let mut third = open();
    change(3, ServerState::Up);
    logged.proxy.engine().set_server_state("web", "s0", ServerState::Halt).unwrap();
    assert_eq!(third.rest(), "");
}
