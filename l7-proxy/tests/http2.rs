//! HTTP/2 towards clients, over real sockets: requests as streams, WebSockets as streams, and what a client may
//! not do.

mod common;

use std::{future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{
    Proxy, Server, eventually,
    frames::{Expect, Frames, HEADERS, WHOLE, block, frame, get as get_frame, post},
    header, next_request, opens_websocket,
    tls::{Authority, Folder},
};
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{HeaderMap, Method, Request, Response};
use tokio::net::TcpStream;

const H2C: &str = r#", "h2c": true"#;

/// Runs a test on a runtime of its own, for as long as a test may last.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(common::PATIENCE, test).await.expect("it ends in time") })
}

type End = tokio::task::JoinHandle<Result<(), h2::Error>>;

/// A connection without TLS, and the task that drives it.
async fn connect_with(address: SocketAddr, builder: &Builder) -> (SendRequest<Bytes>, End) {
    let socket = TcpStream::connect(address).await.unwrap();
    let (send, connection) = builder.handshake::<_, Bytes>(socket).await.unwrap();
    (send.ready().await.unwrap(), tokio::spawn(connection))
}

async fn connect(address: SocketAddr) -> (SendRequest<Bytes>, End) {
    connect_with(address, &Builder::new()).await
}

fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://a.example{path}"))
}

/// The whole body of an answer, and its trailers.
async fn body(answer: Response<h2::RecvStream>) -> (String, Option<HeaderMap>) {
    let mut stream = answer.into_body();
    let mut all = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (String::from_utf8(all).unwrap(), stream.trailers().await.unwrap())
}

async fn get(send: &mut SendRequest<Bytes>, path: &str) -> Response<h2::RecvStream> {
    let request = request(Method::GET, path).body(()).unwrap();
    let mut ready = send.clone().ready().await.unwrap();
    ready.send_request(request, true).unwrap().0.await.unwrap()
}

#[test]
fn requests_of_one_connection_are_served_side_by_side() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], H2C);
    run(async {
        let (send, _end) = connect(proxy.address).await;
        let answers: Vec<ResponseFuture> = {
            let mut all = Vec::new();
            for number in 0..50 {
                let mut ready = send.clone().ready().await.unwrap();
                let request = request(Method::GET, &format!("/{number}?q")).body(()).unwrap();
                all.push(ready.send_request(request, true).unwrap().0);
            }
            all
        };
        for (number, answer) in answers.into_iter().enumerate() {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(answer.headers().contains_key("date"));
            let (seen, _) = body(answer).await;
            assert!(seen.starts_with(&format!("GET /{number}?q HTTP/1.1\r\nHost: a.example\r\n")), "{seen}");
            assert_eq!(header(&seen, "x-forwarded-for"), Some("127.0.0.1"));
        }
    });
}

#[test]
fn within_tls_it_is_agreed_upon() {
    let (authority, folder, server) = (Authority::new(), Folder::new(), Server::echo("a"));
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let proxy =
        Proxy::start(&[server.address], &format!(r#", "tls": {{ "certificates": ["{}"] }}"#, path.display()));
    run(async {
        let connector = tokio_rustls::TlsConnector::from(authority.client(&[b"h2", b"http/1.1"]));
        let socket = TcpStream::connect(proxy.address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("a.example").unwrap();
        let tls = connector.connect(name, socket).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut send, connection) = h2::client::handshake(tls).await.unwrap();
        let _end = tokio::spawn(connection);
        let (seen, _) = body(get(&mut send, "/").await).await;
        assert_eq!(header(&seen, "x-forwarded-proto"), Some("https"));
    });
}

#[test]
fn bodies_and_trailers_go_both_ways() {
    let server = Server::script(|client, _| {
        let request = next_request(client).unwrap();
        assert!(
            request.contains("transfer-encoding: chunked") || request.contains("Transfer-Encoding: chunked")
        );
        assert_eq!(header(&request, "te"), Some("trailers"));
        client.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        client.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request: ");
        client.send(request.split_once("\r\n\r\n").unwrap().1.replace("\r\n", "|").as_bytes());
        client.send(b"\r\n\r\n3\r\nabc\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 3\r\n\r\n");
    });
    let proxy = Proxy::start(&[server.address], H2C);
    run(async {
        let (mut send, _end) = connect(proxy.address).await;
        let request = request(Method::POST, "/").header("te", "trailers").body(()).unwrap();
        let (mut answer, mut stream) = send.send_request(request, false).unwrap();
        stream.send_data("hello".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        let hints = poll_fn(|context| answer.poll_informational(context)).await.unwrap().unwrap();
        assert_eq!((hints.status().as_u16(), hints.headers()["link"].as_bytes()), (103, &b"</x>"[..]));
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers()["x-request"], "5|hello|0|x-sum: 1|");
        assert!(!answer.headers().contains_key("transfer-encoding"));
        let (text, trailers) = body(answer).await;
        let trailers = trailers.unwrap();
        assert_eq!((text.as_str(), &trailers["grpc-status"]), ("abc", &"0".parse().unwrap()));
        assert!(!trailers.contains_key("content-length"));
    });
}

#[test]
fn a_server_sees_one_line_of_cookies() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], H2C);
    run(async {
        let (mut send, _end) = connect(proxy.address).await;
        let request =
            request(Method::GET, "/").header("cookie", "a=1").header("cookie", "b=2").body(()).unwrap();
        let answer = send.send_request(request, true).unwrap().0.await.unwrap();
        let (seen, _) = body(answer).await;
        assert_eq!(common::headers(&seen, "cookie"), ["a=1; b=2"]);
    });
}

#[test]
fn what_is_refused_with_http1_is_refused_here() {
    let server = Server::echo("a");
    let proxy = Proxy::start(
        &[server.address],
        r#", "h2c": true, "limits": { "header_count": 20, "body_bytes": 4 }"#,
    );
    run(async {
        let (send, _end) = connect(proxy.address).await;
        let status = async |request: Request<()>| {
            let mut ready = send.clone().ready().await.unwrap();
            ready.send_request(request, true).unwrap().0.await.unwrap().status().as_u16()
        };
        let host = |host: &str| request(Method::GET, "/").header("host", host).body(()).unwrap();
        assert_eq!(status(host("a.example")).await, 200);
        assert_eq!(status(host("b.example")).await, 400);
        let many = (0..21).fold(request(Method::GET, "/"), |request, number| {
            request.header("cookie", format!("c{number}=1"))
        });
        assert_eq!(status(many.body(()).unwrap()).await, 431, "crumbs count");
        let connect = Request::builder().method(Method::CONNECT).uri("a.example:443").body(()).unwrap();
        assert_eq!(status(connect).await, 405);
        let mut ready = send.clone().ready().await.unwrap();
        let (answer, mut stream) =
            ready.send_request(request(Method::POST, "/").body(()).unwrap(), false).unwrap();
        stream.send_data("hello".into(), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 413);
    });
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_websocket_reaches_a_server_that_speaks_http1() {
    // E8, RFC 8441.
    let server = Server::script(|client, _| {
        let head = client.until("\r\n\r\n");
        assert!(head.starts_with("GET /chat HTTP/1.1\r\nHost: a.example\r\n"), "{head}");
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        assert_eq!(header(&head, "connection"), Some("Upgrade"));
        assert_eq!(header(&head, "sec-websocket-version"), Some("13"));
        assert_eq!(header(&head, "sec-websocket-key").map(str::len), Some(24));
        client.send((opens_websocket(&head, "Sec-WebSocket-Protocol: p\r\n") + "hello").as_bytes());
        let bytes = client.exactly(300_000);
        client.send(&bytes);
        assert_eq!(client.rest(), "", "the client has ended its side");
    });
    let proxy = Proxy::start(&[server.address], H2C);
    run(async {
        let (mut send, _end) = connect(proxy.address).await;
        let mut request =
            request(Method::CONNECT, "/chat").header("sec-websocket-version", "13").body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (answer, mut stream) = send.send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
            (200, &"p".parse().unwrap())
        );
        assert!(!answer.headers().contains_key("sec-websocket-accept"));
        let mut receive = answer.into_body();
        let sent: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        let copy = sent.clone();
        let sending = tokio::spawn(async move {
            let mut rest = Bytes::from(copy);
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len());
                let granted = poll_fn(|context| stream.poll_capacity(context)).await.unwrap().unwrap();
                stream.send_data(rest.split_to(granted.min(rest.len())), false).unwrap();
            }
            stream
        });
        let mut got = Vec::new();
        while got.len() < 5 + sent.len() {
            let data = receive.data().await.unwrap().unwrap();
            receive.flow_control().release_capacity(data.len()).unwrap();
            got.extend_from_slice(&data);
        }
        assert!(got[..5] == *b"hello" && got[5..] == sent);
        let mut stream = sending.await.unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
        while let Some(data) = receive.data().await {
            assert!(data.unwrap().is_empty());
        }
    });
}

#[test]
fn a_websocket_that_is_refused_is_not_open() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], H2C);
    run(async {
        let (mut send, _end) = connect(proxy.address).await;
        let mut request = request(Method::CONNECT, "/").body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (answer, _stream) = send.send_request(request, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 502, "200 would say that it is");
    });
}

#[test]
fn rapid_resets_end_the_connection_and_are_counted() {
    // Trap 9.
    let server = Server::script(|client, _| drop(client.rest()));
    let proxy = Proxy::start_with(&[server.address], H2C, "", r#", "admin": "127.0.0.1:0""#);
    let admin = proxy.engine().admin().unwrap();
    run(async {
        let (send, end) = connect(proxy.address).await;
        for _ in 0..5_000 {
            let Ok(mut ready) = send.clone().ready().await else { break };
            let request = request(Method::GET, "/").body(()).unwrap();
            let Ok((_, mut stream)) = ready.send_request(request, true) else { break };
            stream.send_reset(h2::Reason::CANCEL);
        }
        // A client that still writes may see the end before it sees why.
        let error = end.await.unwrap().unwrap_err();
        assert!(error.is_io() || error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM), "{error:?}");
    });
    eventually("it is counted", || {
        let mut client = common::Client::connect(admin);
        client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        client.rest().contains("l7_refused_total{service=\"web\",limit=\"http2\"} 1\n")
    });
}

#[test]
fn heads_of_a_connection_hold_no_more_than_they_may_together() {
    use common::frames::{Expect, Frames, REFUSED, RESET, WHOLE, block, frame, number};
    let server = Server::script(|client, _| drop(client.rest()));
    let limits = r#", "h2c": true, "limits": { "http2": { "connection_window": 100000 } }"#;
    let proxy = Proxy::start(&[server.address], limits);
    let mut client = Frames::begin(proxy.address);
    // 3,000 bytes are put into the table, and fourteen more bytes are another 42,000.
    let mut fields = block(&common::frames::GET);
    fields.extend([0x40, 1, b'b', 0x7f, 0xb9, 0x16]);
    fields.extend([b'x'; 3_000]);
    fields.extend([0xbe; 14]);
    client.0.send(&frame(common::frames::HEADERS, WHOLE, 1, &fields));
    let again = [block(&common::frames::GET), vec![0xbe; 15]].concat();
    client.0.send(&frame(common::frames::HEADERS, WHOLE, 3, &again));
    eventually("two are at the server", || server.count() == 2);
    client.0.send(&frame(common::frames::HEADERS, WHOLE, 5, &again));
    client.check(Expect::Stream(5, &[REFUSED])).unwrap();
    // Where one leaves, another has its room.
    client.0.send(&number(RESET, 1, 8));
    let mut streams = (7..).step_by(2);
    eventually("another is at the server", || {
        let stream = streams.next().unwrap();
        client.0.send(&frame(common::frames::HEADERS, WHOLE, stream, &again));
        server.count() == 3
    });
}

#[test]
fn a_client_that_takes_nothing_holds_little_and_nobody_else_up() {
    // Trap 4: what a stalled stream may hold is bounded, and the server is not read on.
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let server = Server::script(move |client, _| {
        let request = next_request(client).unwrap();
        if request.starts_with("GET /small") {
            return client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let piece = vec![b'x'; 100_000];
        for _ in 0..1_000 {
            if std::io::Write::write_all(&mut client.stream, &piece).is_err() {
                return;
            }
            counted.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst);
        }
    });
    let proxy = Proxy::start(&[server.address], r#", "h2c": true, "timeouts": { "client_write": "1s" }"#);
    run(async {
        let mut builder = Builder::new();
        builder.initial_window_size(1_000);
        let (mut send, _end) = connect_with(proxy.address, &builder).await;
        let stalled = get(&mut send, "/large").await;
        for _ in 0..20 {
            assert_eq!(body(get(&mut send, "/small").await).await.0, "ok");
        }
        let so_far = written.load(std::sync::atomic::Ordering::SeqCst);
        assert!(so_far < 20_000_000, "{so_far} bytes were taken off a server for nobody");
        let mut stream = stalled.into_body();
        let mut cut = false;
        while let Some(data) = stream.data().await {
            if data.is_err() {
                cut = true;
                break;
            }
        }
        assert!(cut, "it is not waited for without end");
        assert_eq!(body(get(&mut send, "/small").await).await.0, "ok", "the connection goes on");
    });
}

#[test]
fn the_end_is_announced_and_waits_for_streams() {
    let server = Server::script(|client, _| {
        next_request(client);
        std::thread::sleep(Duration::from_millis(300));
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let mut proxy = Proxy::start(&[server.address], H2C);
    run(async {
        let (mut send, end) = connect(proxy.address).await;
        let request = request(Method::GET, "/").body(()).unwrap();
        let answer = send.send_request(request, true).unwrap().0;
        while server.count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let engine = proxy.engine.take().unwrap();
        let draining = std::thread::spawn(move || common::drain(engine, common::PATIENCE));
        assert_eq!(body(answer.await.unwrap()).await.0, "ok");
        drop(send);
        end.await.unwrap().unwrap();
        assert_eq!(draining.join().unwrap(), 0);
    });
}

#[test]
fn a_connection_without_streams_does_not_hold_up_the_end() {
    let server = Server::echo("a");
    let mut proxy = Proxy::start(&[server.address], H2C);
    run(async {
        let (mut send, _end) = connect(proxy.address).await;
        assert_eq!(get(&mut send, "/").await.status(), 200);
        let engine = proxy.engine.take().unwrap();
        let draining = tokio::task::spawn_blocking(move || common::drain(engine, common::PATIENCE));
        assert_eq!(draining.await.unwrap(), 0);
    });
}

#[test]
fn clients_of_http1_are_served_beside_it() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], H2C);
    let answer = proxy.ask("PRI / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let without = Proxy::start(&[server.address], "");
    let refused = without.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 505 "), "{refused}");
    // Who speaks neither is told nothing in one of them (RFC 9113 §3.4), but where only one is spoken, or was.
    const NEITHER: &str = "INVALID CONNECTION PREFACE\r\n\r\n";
    assert_eq!(proxy.ask(NEITHER), "");
    for part in ["INVALID", "INVALID CONNECTION PREFACE"] {
        let mut client = proxy.connect();
        client.send(part.as_bytes());
        client.send(&NEITHER.as_bytes()[part.len()..]);
        assert_eq!(client.rest(), "");
    }
    let refused = without.ask(NEITHER);
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    let later = proxy.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{NEITHER}"));
    assert!(later.starts_with("HTTP/1.1 200 ") && later.contains("HTTP/1.1 400 "), "{later}");
    let refused = proxy.ask("GET / HTTP/x\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
}

#[test]
fn streams_that_an_operator_ends_are_not_their_clients_fault() {
    let server = Server::script(|client, _| {
        client.until("\r\n\r\n");
        client.send(b"HTTP/1.1 200 OK\r\n\r\nhalf");
        client.rest();
    });
    let folder = Folder::new();
    let log = folder.0.join("log");
    let more = format!(r#", "log": {{ "to": {{ "file": "{}" }} }}"#, log.display());
    let proxy = Proxy::start_with(&[server.address], H2C, "", &more);
    let mut client = Frames::begin(proxy.address);
    client.0.send(&get_frame(1));
    assert_eq!(client.data(), b"half");
    assert_eq!(proxy.engine().end_clients(&l7_proxy::spec::ConnectionFilter::default()), 1);
    let end = loop {
        match std::io::Read::read(&mut client.0.stream, &mut [0; 64]) {
            Ok(1..) => {}
            end => break end.map_err(|error| error.kind()),
        }
    };
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    eventually("the line is written", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains(r#""ended":"KD""#))
    });
    let engine = proxy.engine();
    let metrics =
        l7_proxy::admin::metrics(&engine.current().ready(), engine.current().phase(), &engine.log());
    for (by, count) in [("operator", 1), ("client", 0)] {
        let line = format!("l7_broken_total{{service=\"web\",by=\"{by}\"}} {count}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn malformed_streams_without_end_are_the_end_of_the_connection() {
    // The server may have begun its work by the time that trailers turn out to be malformed.
    const CALM: u32 = 11;
    let server = Server::echo("a");
    let more = r#", "h2c": true, "limits": { "http2": { "own_resets": 10 } }"#;
    let proxy = Proxy::start(&[server.address], more);
    let trailers = |stream| frame(HEADERS, WHOLE, stream, &block(&[("x", " a")]));
    let kinds: [&dyn Fn(u32) -> Vec<u8>; 2] = [
        &|stream| {
            let fields = [common::frames::GET.as_slice(), &[("x", "a ")]].concat();
            frame(HEADERS, WHOLE, stream, &block(&fields))
        },
        &|stream| [post(stream, &[]), trailers(stream)].concat(),
    ];
    for kind in kinds {
        let mut client = Frames::begin(proxy.address);
        for number in 0..10 {
            client.0.send(&kind(2 * number + 1));
        }
        // So many may be, and the connection goes on.
        client.0.send(&get_frame(21));
        client.check(Expect::Answer(21, 200)).unwrap();
        client.0.send(&kind(23));
        assert_eq!(code_of_goaway(&mut client), Some(CALM));
    }
    let engine = proxy.engine();
    let metrics =
        l7_proxy::admin::metrics(&engine.current().ready(), engine.current().phase(), &engine.log());
    assert!(metrics.contains("l7_refused_total{service=\"web\",limit=\"http2\"} 2\n"), "{metrics}");
}

/// Why the connection ends; nothing where that is not said.
fn code_of_goaway(client: &mut Frames) -> Option<u32> {
    while let Some((kind, _, _, payload)) = client.next() {
        if kind == common::frames::GOAWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
    None
}

#[test]
fn the_log_says_which_field_was_malformed() {
    let (folder, server) = (Folder::new(), Server::echo("a"));
    let log = folder.0.join("log");
    let more = format!(r#", "log": {{ "to": {{ "file": "{}" }} }}"#, log.display());
    let proxy = Proxy::start_with(&[server.address], H2C, "", &more);
    let mut client = Frames::begin(proxy.address);
    let fields = [common::frames::GET.as_slice(), &[("x-odd", "secret ")]].concat();
    client.0.send(&frame(HEADERS, WHOLE, 1, &block(&fields)));
    client.check(Expect::Stream(1, &[common::frames::PROTOCOL])).unwrap();
    let line = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("a line", || line().ends_with('\n'));
    let asked =
        r#""method":"GET","host":"a.example","path":"/","version":"HTTP/2.0","malformed_field":"x-odd""#;
    assert!(line().contains(asked) && !line().contains("secret"), "{}", line());
}
