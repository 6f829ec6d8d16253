//! What those who share a connection of HTTP/2 to a server do to each other: nothing.

mod common;

use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use common::{
    Client, Proxy, Server, eventually,
    frames::{
        DATA, END_HEADERS, END_STREAM, Expect, Frames, GET, GOAWAY, HEADERS, PING, RESET, WHOLE, WINDOW,
        block, frame, get, number, post, settings, websocket,
    },
    next_request,
    server2::{Server2, send_all, speaker},
};
use http::Response;

const HTTP2: &str = r#", "protocol": "http2""#;

fn proxy(server: &Server2, service: &str) -> Proxy {
    Proxy::start_with(&[server.address], service, HTTP2, "")
}

/// How many tiny messages a server sends without a pause, more than the h2 crate has anybody leave unread by default; and bytes
/// of its large answers, five of which are more than any window of a connection was.
const MESSAGES: usize = 6_000;
const LARGE: usize = 1 << 20;

#[test]
fn clients_that_take_little_do_not_end_or_hold_up_the_connection_of_others() {
    let server = Server2::start(None, true, |request, mut respond, _| {
        Box::pin(async move {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            match request.uri().path() {
                "/messages" => {
                    for number in 0..MESSAGES {
                        send_all(&mut send, Bytes::from(vec![number as u8]), number + 1 == MESSAGES).await;
                    }
                }
                "/large" => send_all(&mut send, Bytes::from(vec![b'x'; LARGE]), true).await,
                _ => send_all(&mut send, Bytes::from_static(b"ok"), true).await,
            }
            // A WebSocket stays as it is.
            if request.method() == "CONNECT" {
                std::future::pending::<()>().await;
            }
        })
    });
    let proxy = proxy(&server, r#", "h2c": true"#);
    let is_served = || {
        let answer = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("ok"), "{answer}");
    };
    is_served();
    let mut slow = Frames::begin(proxy.address);
    slow.0.send(&[settings(4, 10), number(WINDOW, 0, 1 << 30)].concat());
    let get =
        |stream, path| frame(HEADERS, WHOLE, stream, &block(&[GET[0], GET[1], (":path", path), GET[3]]));
    slow.0.send(&[get(1, "/messages"), websocket(3, "/messages")].concat());
    slow.0.send(&(2..7).flat_map(|stream| get(2 * stream + 1, "/large")).collect::<Vec<u8>>());
    // Each lets ten bytes through.
    let mut came: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let take = |slow: &mut Frames, came: &mut BTreeMap<u32, Vec<u8>>, all: usize| {
        while came.values().map(Vec::len).sum::<usize>() < all {
            let (kind, _, stream, payload) = slow.next().expect("it goes on");
            assert!(![GOAWAY, RESET].contains(&kind), "{kind} of {stream}: {payload:?}");
            if kind == DATA {
                came.entry(stream).or_default().extend(payload);
            }
        }
    };
    take(&mut slow, &mut came, 70);
    // Others get their answers over the same connection.
    (0..20).for_each(|_| is_served());
    assert_eq!(server.count(), 1);
    // And those get theirs when they want them.
    slow.0.send(&(0..7).flat_map(|stream| number(WINDOW, 2 * stream + 1, 2 << 20)).collect::<Vec<u8>>());
    take(&mut slow, &mut came, 2 * MESSAGES + 5 * LARGE);
    for (stream, bytes) in came {
        let expected: Vec<u8> = match stream {
            1 | 3 => (0..MESSAGES).map(|number| number as u8).collect(),
            _ => vec![b'x'; LARGE],
        };
        assert!(bytes == expected, "{stream}");
    }
}

#[test]
fn tiny_pieces_for_a_server_that_takes_little_do_not_end_the_clients_connection() {
    // Of HTTP/2 with windows of its own, and of HTTP/1.1; nothing is read until the client has sent all.
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let leave = Arc::clone(&go);
    let second = Server2::start(None, false, move |request, mut respond, _| {
        let leave = Arc::clone(&leave);
        Box::pin(async move {
            let mut body = request.into_body();
            let _leave = leave.acquire().await.unwrap();
            let mut bytes = 0;
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                bytes += data.len();
            }
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send_all(&mut send, Bytes::from(bytes.to_string()), true).await;
        })
    });
    let proxy = proxy(&second, r#", "h2c": true"#);
    let pieces = 90_000_u32;
    let mut client = Frames::begin(proxy.address);
    client.0.send(&post(1, &[]));
    let piece = frame(DATA, 0, 1, b"x").repeat(1_000);
    for sent in 0..pieces / 1_000 {
        client.0.send(&piece);
        if sent == 70 {
            // It has more than a window of the server's by then. Another request is served.
            client.0.send(&frame(PING, 0, 0, b"question"));
            client.check(Expect::Pong(*b"question")).unwrap();
        }
    }
    go.add_permits(10);
    client.0.send(&frame(DATA, END_STREAM, 1, b""));
    assert_eq!(client.data(), pieces.to_string().as_bytes());
}

#[test]
fn tiny_pieces_of_a_request_that_waits_for_a_server_are_kept() {
    let go = Arc::new(std::sync::Barrier::new(2));
    let held = Arc::clone(&go);
    let server = Server::script(move |client, _| {
        while let Some(request) = next_request(client) {
            if request.starts_with("GET /held") {
                held.wait();
            }
            let body = request.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len()).to_string();
            client
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        }
    });
    let proxy = Proxy::start_changed(|address| {
        let mut told = common::spec(address, r#", "h2c": true"#, &[server.address], "", "");
        told.pools[0].servers[0].max_connections = Some(1);
        told
    });
    let mut first = Client::connect(proxy.address);
    first.send(b"GET /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    eventually("the server is busy", || server.count() == 1);
    let mut client = Frames::begin(proxy.address);
    let pieces = 30_000;
    client.0.send(&post(1, &[("content-length", &pieces.to_string())]));
    for _ in 0..pieces / 1_000 {
        client.0.send(&frame(DATA, 0, 1, b"x").repeat(1_000));
    }
    client.0.send(&frame(PING, 0, 0, b"question"));
    client.check(Expect::Pong(*b"question")).unwrap();
    go.wait();
    assert!(first.rest().starts_with("HTTP/1.1 200 "));
    client.0.send(&frame(DATA, END_STREAM, 1, b""));
    assert_eq!(client.data(), pieces.to_string().as_bytes());
}

/// A server that takes these many streams at a time, and answers all but tunnels.
fn server_of_few(streams: u32) -> Server2 {
    let mut speaker = speaker(true);
    speaker.max_concurrent_streams(streams);
    Server2::start_as(speaker, None, |request, mut respond, _| {
        Box::pin(async move {
            let tunnel = request.method() == "CONNECT";
            let mut send = respond.send_response(Response::new(()), !tunnel).unwrap();
            if tunnel {
                std::future::poll_fn(|context| send.poll_reset(context)).await.unwrap();
            }
        })
    })
}

#[test]
fn tunnels_count_as_what_a_server_has_to_do() {
    let server = server_of_few(2);
    let proxy = proxy(&server, r#", "timeouts": { "response": "2s" }"#);
    let upgrade = || {
        let mut client = proxy.connect();
        client.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 101 "));
        client
    };
    let is_served = || {
        let answer = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    };
    let tunnels = [upgrade(), upgrade()];
    assert_eq!(server.count(), 1);
    is_served();
    assert_eq!(server.count(), 2, "the first connection is full");
    drop(tunnels);
    // It has room again once it was told.
    let _others = [upgrade(), upgrade()];
    is_served();
    assert!(server.count() <= 3);
}

#[test]
fn what_comes_late_of_streams_that_were_given_up_harms_no_others() {
    const GIVEN_UP: u32 = 120;
    let server = Server::script(move |client, _| {
        let mut frames = Frames::answer(client);
        let mut given_up = Vec::new();
        while let Some((kind, _, stream, _)) = frames.next_of_stream() {
            match kind {
                HEADERS if stream > 1 => frames.0.send(&frame(HEADERS, END_HEADERS, stream, &[0x88])),
                RESET => given_up.push(stream),
                _ => {}
            }
            if given_up.len() < GIVEN_UP as usize {
                continue;
            }
            // What was on its way to all of them comes by and by; then the first stream is answered.
            for _ in 0..30 {
                let late = given_up.iter().flat_map(|&stream| frame(DATA, 0, stream, b"x"));
                frames.0.send(&late.chain(frame(PING, 0, 0, b"question")).collect::<Vec<u8>>());
                frames.check(Expect::Pong(*b"question")).unwrap();
            }
            frames.0.send(&frame(HEADERS, WHOLE, 1, &[0x88]));
            given_up.clear();
        }
    });
    let proxy = Proxy::start_with(&[server.address], r#", "h2c": true"#, HTTP2, "");
    let mut first = proxy.connect();
    first.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    eventually("it has reached the server", || server.count() == 1);
    let mut client = Frames::begin(proxy.address);
    client.0.send(&(0..GIVEN_UP).flat_map(|number| get(2 * number + 1)).collect::<Vec<u8>>());
    let mut answered = 0;
    while answered < GIVEN_UP {
        let (kind, ..) = client.next().expect("it goes on");
        answered += u32::from(kind == HEADERS);
    }
    drop(client);
    let answer = first.rest();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(server.count(), 1);
}

#[test]
fn heads_of_a_server_are_no_larger_than_they_may_be() {
    let server = Server2::start(None, false, |request, mut respond, _| {
        Box::pin(async move {
            let (interim, lines) = match request.uri().path() {
                "/lines" => (0, 2_000),
                "/bytes" => (0, 80),
                "/interim" => (80, 1),
                _ => (10, 10),
            };
            let fields = |mut head: http::response::Builder, lines| {
                for line in 0..lines {
                    head = head.header(format!("x-{line}"), "x".repeat(1_000));
                }
                head.body(()).unwrap()
            };
            for _ in 0..interim {
                // They are refused at some time.
                let _ = respond.send_informational(fields(Response::builder().status(103), 2));
            }
            let lines = if lines == 2_000 {
                let mut response = Response::new(());
                for line in 0..lines {
                    let name = http::HeaderName::try_from(format!("x-{line}")).unwrap();
                    response.headers_mut().insert(name, "".parse().unwrap());
                }
                response
            } else {
                fields(Response::builder(), lines)
            };
            let _ = respond.send_response(lines, true);
        })
    });
    let proxy = proxy(&server, "");
    let status = |path: &str| {
        let mut client = proxy.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
        loop {
            let head = client.until("\r\n\r\n");
            if !head.starts_with("HTTP/1.1 103 ") {
                return head[9..12].to_owned();
            }
        }
    };
    for (path, expected) in [("/", "200"), ("/lines", "502"), ("/bytes", "502"), ("/interim", "502")] {
        assert_eq!(status(path), expected, "{path}");
    }
}

#[test]
fn a_client_that_has_gone_is_seen_while_its_body_waits() {
    let (came, gone): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
    let (asked, told) = (Arc::clone(&came), Arc::clone(&gone));
    // It reads nothing: 65,535 bytes are as much as it takes.
    let server = Server2::start(None, true, move |request, mut respond, _| {
        let (asked, told) = (Arc::clone(&asked), Arc::clone(&told));
        Box::pin(async move {
            asked.store(true, Ordering::SeqCst);
            let is_tunnel = request.method() == "CONNECT";
            let _unread = request.into_body();
            let reset = if is_tunnel {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                std::future::poll_fn(|context| send.poll_reset(context)).await
            } else {
                std::future::poll_fn(|context| respond.poll_reset(context)).await
            };
            told.store(reset.is_ok(), Ordering::SeqCst);
        })
    });
    let proxy = proxy(&server, r#", "h2c": true"#);
    for (what, head) in [("POST", post(1, &[])), ("a WebSocket", websocket(1, "/"))] {
        came.store(false, Ordering::SeqCst);
        gone.store(false, Ordering::SeqCst);
        let mut client = Frames::begin(proxy.address);
        client.0.send(&[head, frame(DATA, 0, 1, &[0; 16_000]).repeat(6)].concat());
        client.0.send(&frame(PING, 0, 0, b"question"));
        client.check(Expect::Pong(*b"question")).unwrap();
        eventually("the server has it", || came.load(Ordering::SeqCst));
        client.0.send(&number(RESET, 1, 8));
        eventually(&format!("the server of {what} is told"), || gone.load(Ordering::SeqCst));
    }
}

#[test]
fn trailers_are_not_lost_by_trying_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tries);
    let server = Server2::start(None, false, move |request, mut respond, _| {
        let counter = Arc::clone(&counter);
        Box::pin(async move {
            let mut body = request.into_body();
            while body.data().await.is_some() {}
            let came = body.trailers().await;
            if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                let came = came.unwrap().unwrap_or_default();
                assert_eq!(came["x-sum"], "1");
                respond.send_response(Response::new(()), true).unwrap();
            }
        })
    });
    let proxy = proxy(&server, "");
    let answer = proxy.ask(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, TE\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\nX-Sum: 1\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

#[test]
fn a_server_that_reads_nothing_more_has_its_connection_ended() {
    let server = Server::script(|client, _| {
        let mut frames = Frames::answer(client);
        // Until a request is there: after that nothing is read, but it may send as much as it likes.
        while !matches!(frames.next_of_stream(), Some((HEADERS, ..)) | None) {}
        frames.0.send(&[number(WINDOW, 0, 1 << 30), number(WINDOW, 1, 1 << 30)].concat());
        loop {
            std::thread::park();
        }
    });
    let proxy = Proxy::start_with(
        &[server.address],
        r#", "timeouts": { "response": "1s", "request_body": "1s" }"#,
        HTTP2,
        "",
    );
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\nConnection: close\r\n\r\n");
    let mut sender = client.stream.try_clone().unwrap();
    std::thread::spawn(move || while sender.write_all(&[0; 100_000]).is_ok() {});
    let answer = client.until("\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    eventually("the connection is given up", || !has_connection_to(server.address));
}

/// Whether anybody on this host holds a connection to this address.
fn has_connection_to(address: SocketAddr) -> bool {
    let SocketAddr::V4(address) = address else { panic!("{address}") };
    let to = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    sockets.lines().any(|line| {
        let mut words = line.split_whitespace().skip(2);
        // Its other end, and that it is established (1).
        words.next() == Some(&to) && words.next() == Some("01")
    })
}

#[test]
fn empty_frames_of_a_server_end_nothing() {
    let server = Server2::start(None, false, |_, mut respond, _| {
        Box::pin(async move {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            for _ in 0..30 {
                send.send_data(Bytes::new(), false).unwrap();
                tokio::task::yield_now().await;
            }
            send_all(&mut send, Bytes::from_static(b"ok"), true).await;
        })
    });
    let proxy = proxy(&server, "");
    for number in 0..10 {
        let answer = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("ok"), "{number}: {answer}");
    }
    assert_eq!(server.count(), 1);
}

#[test]
fn what_a_server_has_looked_at_is_not_asked_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tries);
    let server = Server2::start(None, false, move |request, mut respond, _| {
        let counter = Arc::clone(&counter);
        Box::pin(async move {
            if request.uri().path() == "/bad" {
                counter.fetch_add(1, Ordering::SeqCst);
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
            } else {
                respond.send_response(Response::new(()), true).unwrap();
            }
        })
    });
    let proxy = proxy(&server, "");
    // Over a new connection, and over one that has served others.
    for tried in 1..=2 {
        let bad = proxy.ask("GET /bad HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(bad.starts_with("HTTP/1.1 502 "), "{bad}");
        assert_eq!(tries.load(Ordering::SeqCst), tried);
        let good = proxy.ask("GET /good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200 "), "{good}");
    }
    assert_eq!(server.count(), 1, "the connection is not to blame");
}

#[test]
fn empty_frames_of_a_server_end_nothing_however_they_are_cut() {
    let server = Server::script(|client, _| {
        client.stream.set_nodelay(true).unwrap();
        let mut frames = Frames::answer(client);
        while let Some((kind, _, stream, _)) = frames.next_of_stream() {
            if kind != HEADERS {
                continue;
            }
            frames.0.send(&frame(HEADERS, END_HEADERS, stream, &[0x88]));
            let nothing = frame(DATA, 0, stream, b"");
            for number in 0..300 {
                // In between, what came is read: a PING is answered.
                let (begin, rest) = nothing.split_at(1 + number % 8);
                frames.0.send(&[&frame(PING, 0, 0, b"question"), begin].concat());
                frames.check(Expect::Pong(*b"question")).unwrap();
                frames.0.send(rest);
            }
            frames.0.send(&frame(DATA, END_STREAM, stream, b"ok"));
        }
    });
    let proxy = Proxy::start_with(&[server.address], "", HTTP2, "");
    let answer = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("ok"), "{answer}");
}

#[test]
fn trailers_of_a_server_are_no_larger_than_a_head_may_be() {
    let server = Server2::start(None, false, |request, mut respond, _| {
        Box::pin(async move {
            let lines = if request.uri().path() == "/large" { 80 } else { 10 };
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            for line in 0..lines {
                let name = http::HeaderName::try_from(format!("x-{line}")).unwrap();
                trailers.insert(name, "x".repeat(1_000).parse().unwrap());
            }
            send.send_trailers(trailers).unwrap();
        })
    });
    let proxy = proxy(&server, "");
    let ask = |path: &str| {
        proxy.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n"))
    };
    let small = ask("/");
    assert!(small.contains("\r\n0\r\n") && small.ends_with("xxx\r\n\r\n"), "{small}");
    // Broken off, so that nobody takes it for the whole.
    let large = ask("/large");
    assert!(!large.contains("\r\n0\r\n"), "{large}");
}
