//! Servers that speak HTTP/2: with or without TLS, beside clients of either HTTP.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use common::{
    Client, Proxy, eventually, header, headers, next_request,
    server2::{Served, Server2, drive, send_all, speaker},
    tls::{Authority, Folder},
};
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpListener;

const HTTP2: &str = r#", "protocol": "http2""#;

fn proxy(server: &Server2, service: &str) -> Proxy {
    Proxy::start_with(&[server.address], service, HTTP2, "")
}

#[test]
fn requests_of_many_clients_share_a_connection() {
    let server = Server2::echo(None);
    let proxy = proxy(&server, "");
    let address = proxy.address;
    let first = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    let clients: Vec<_> = (0..10)
        .map(|client| {
            thread::spawn(move || {
                let mut connection = Client::connect(address);
                for number in 0..20 {
                    connection.send(
                        format!("GET /{client}/{number}?q HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\n\r\n")
                            .as_bytes(),
                    );
                    let (head, body) = connection.message();
                    let seen = String::from_utf8(body).unwrap();
                    assert!(
                        seen.starts_with(&format!("GET http://a.example/{client}/{number}?q\r\n")),
                        "{seen}"
                    );
                    assert_eq!(header(&seen, "x-forwarded-for"), Some("127.0.0.1"));
                    assert_eq!((header(&seen, "x-a"), header(&seen, "host")), (Some("1"), None));
                    assert!(header(&head, "date").is_some());
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(server.count(), 1);
}

#[test]
fn bodies_and_trailers_go_both_ways() {
    let server = Server2::start(None, false, |request, mut respond, _| {
        Box::pin(async move {
            let mut body = request.into_body();
            let mut all = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                all.extend_from_slice(&data);
            }
            let came = body.trailers().await.unwrap().unwrap_or_default();
            respond.send_informational(Response::builder().status(103).body(()).unwrap()).unwrap();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send_all(&mut send, Bytes::from(all), false).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-came", came["x-sum"].clone());
            send.send_trailers(trailers).unwrap();
        })
    });
    let proxy = proxy(&server, "");
    let body: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut client = proxy.connect();
    let mut sender = Client::of(client.stream.try_clone().unwrap());
    let copy = body.clone();
    let sending = thread::spawn(move || {
        sender.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
        for piece in copy.chunks(70_000) {
            sender.send(format!("{:x}\r\n", piece.len()).as_bytes());
            sender.send(piece);
            sender.send(b"\r\n");
        }
        sender.send(b"0\r\nX-Sum: 42\r\nContent-Length: 1\r\n\r\n");
    });
    assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 103 "));
    let head = client.until("\r\n\r\n");
    assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
    let mut got = Vec::new();
    loop {
        let size = usize::from_str_radix(client.until("\r\n").trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        got.extend(client.exactly(size));
        client.until("\r\n");
    }
    assert_eq!(client.until("\r\n\r\n"), "x-came: 42\r\n\r\n");
    sending.join().unwrap();
    assert!(got == body);
}

#[test]
fn answers_without_a_body_have_none() {
    let server = Server2::start(None, false, |request, mut respond, _| {
        Box::pin(async move {
            let status = request.uri().path()[1..].parse::<u16>().unwrap();
            let head = Response::builder().status(status);
            let head = if status == 200 { head.header("content-length", "7") } else { head };
            respond.send_response(head.body(()).unwrap(), true).unwrap();
        })
    });
    let proxy = proxy(&server, "");
    let mut client = proxy.connect();
    for (request, length) in
        [("GET /204", None), ("GET /304", None), ("HEAD /200", Some("7")), ("GET /404", Some("0"))]
    {
        client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let head = client.until("\r\n\r\n");
        assert!(head.contains(&request[request.len() - 3..]), "{head}");
        assert_eq!(
            (header(&head, "content-length"), header(&head, "transfer-encoding")),
            (length, None),
            "{head}"
        );
    }
    client.send(b"GET /200 HTTP/1.1\r\nHost: a\r\n\r\n");
    let (head, _) = client.message();
    assert!(head.starts_with("HTTP/1.1 502 "), "an answer that lacks its body is none: {head}");
}

#[test]
fn within_tls_it_is_agreed_upon() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (certificate, key) = authority.issue(&["server.example"]);
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
    let path = folder.write("ca.pem", &authority.pem());
    let pool = format!(
        r#"{HTTP2}, "tls": {{ "server_name": "server.example", "verify": {{ "authorities": "{}" }} }}"#,
        path.display()
    );
    let without = tokio_rustls::TlsAcceptor::from(Arc::new(config.clone()));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = Server2::echo(Some(tokio_rustls::TlsAcceptor::from(Arc::new(config))));
    let proxy = Proxy::start_with(&[server.address], "", &pool, "");
    let answer = proxy.ask("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("GET https://a/x\r\n"), "{answer}");
    // A server that does not agree is not spoken to in what it may not understand.
    let other = Server2::echo(Some(without));
    let proxy = Proxy::start_with(&[other.address], "", &pool, "");
    assert!(proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 503 "));
}

#[test]
fn what_the_server_has_not_touched_is_sent_again() {
    // RFC 9113 §8.7; R14: nothing else is.
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refused);
    let server = Server2::start(None, false, move |request, mut respond, number| {
        let counter = Arc::clone(&counter);
        Box::pin(async move {
            let reason = match request.uri().path() {
                "/refused" if number == 0 => Some(h2::Reason::REFUSED_STREAM),
                "/broken" => Some(h2::Reason::INTERNAL_ERROR),
                _ => None,
            };
            if let Some(reason) = reason {
                counter.fetch_add(1, Ordering::SeqCst);
                return respond.send_reset(reason);
            }
            respond.send_response(Response::new(()), true).unwrap();
        })
    });
    let proxy = proxy(&server, "");
    let ask =
        |request: &str| proxy.ask(&format!("{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    assert!(ask("POST /refused").starts_with("HTTP/1.1 200 "));
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    assert!(ask("POST /broken").starts_with("HTTP/1.1 502 "));
    assert_eq!(refused.load(Ordering::SeqCst), 2, "it may have been acted upon");
}

#[test]
fn a_connection_that_nobody_needs_is_ended() {
    let server = Server2::start(None, false, |_, mut respond, number| {
        Box::pin(async move {
            let head = Response::builder().header("x-connection", number);
            respond.send_response(head.body(()).unwrap(), true).unwrap();
        })
    });
    let proxy = proxy(&server, r#", "timeouts": { "server_idle": "100ms" }"#);
    let by = || {
        let answer = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        header(&answer, "x-connection").map(str::to_owned)
    };
    assert_eq!(by().as_deref(), Some("0"));
    let live = || proxy.engine().current().ready().services[0].pools()[0].servers[0].live.idle();
    eventually("it is ended", || live() == 0);
    assert_eq!(by().as_deref(), Some("1"));
}

/// A client's handshake, and what comes back.
fn upgrade(proxy: &Proxy) -> (Client, String) {
    let mut client = proxy.connect();
    client.send(
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = client.until("\r\n\r\n");
    (client, head)
}

#[test]
fn a_websocket_is_a_stream_where_the_server_offers_that() {
    // RFC 8441.
    let server = Server2::start(None, true, |request, mut respond, _| {
        Box::pin(async move {
            let protocol = request.extensions().get::<h2::ext::Protocol>().cloned().unwrap();
            assert_eq!((request.method().as_str(), protocol.as_str()), ("CONNECT", "websocket"));
            assert_eq!(request.uri().path(), "/chat");
            assert!(request.headers().get("sec-websocket-key").is_none());
            assert_eq!(request.headers()["sec-websocket-version"], "13");
            let mut body = request.into_body();
            let head = Response::builder().header("sec-websocket-protocol", "p");
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                send_all(&mut send, data, false).await;
            }
            let _ = send.send_data(Bytes::new(), true);
        })
    });
    let proxy = proxy(&server, "");
    let (mut client, head) = upgrade(&proxy);
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    // The example of RFC 6455 §1.3.
    assert_eq!(header(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(headers(&head, "sec-websocket-protocol"), ["p"]);
    assert_eq!(
        (headers(&head, "upgrade"), headers(&head, "connection")),
        (vec!["websocket"], vec!["Upgrade"])
    );
    let bytes: Vec<u8> = (0..500_000_u32).map(|number| (number % 253) as u8).collect();
    let mut sender = Client::of(client.stream.try_clone().unwrap());
    let copy = bytes.clone();
    let sending = thread::spawn(move || {
        sender.send(&copy);
        sender.stream.shutdown(std::net::Shutdown::Write).unwrap();
    });
    assert!(client.exactly(bytes.len()) == bytes);
    sending.join().unwrap();
    assert_eq!(client.rest(), "", "the end is passed on");
}

#[test]
fn a_websocket_goes_over_http1_where_the_server_offers_no_streams_for_it() {
    let listener = common::listener();
    let address = listener.local_addr().unwrap();
    // A server that speaks both, as it is begun with.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut first = [0; 3];
                while stream.peek(&mut first).unwrap() < 3 {}
                if &first == b"PRI" {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        stream.set_nonblocking(true).unwrap();
                        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                        let serve = |_, mut respond: SendResponse<Bytes>, _| -> Served {
                            Box::pin(async move { drop(respond.send_response(Response::new(()), true)) })
                        };
                        drive(stream, &speaker(false), 0, Arc::new(serve)).await;
                    });
                } else {
                    let mut client = Client::of(stream);
                    let request = next_request(&mut client).unwrap();
                    assert_eq!(header(&request, "upgrade"), Some("websocket"));
                    client.send(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello",
                    );
                    client.rest();
                }
            });
        }
    });
    let proxy = Proxy::start_with(&[address], "", HTTP2, "");
    let get = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(get.starts_with("HTTP/1.1 200 "), "{get}");
    let (mut client, head) = upgrade(&proxy);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.exactly(5), b"hello");
}

#[test]
fn a_client_of_http2_reaches_it_too() {
    let server = Server2::echo(None);
    let proxy = proxy(&server, r#", "h2c": true"#);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
        let _end = tokio::spawn(connection);
        let request = Request::post("http://a.example/x").header("te", "trailers").body(()).unwrap();
        let (answer, mut stream) = send.send_request(request, false).unwrap();
        stream.send_data("hello".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let mut seen = Vec::new();
        while let Some(data) = body.data().await {
            seen.extend_from_slice(&data.unwrap());
        }
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.starts_with("POST http://a.example/x\r\n"), "{seen}");
        assert!(seen.contains("\r\nte: trailers\r\n") && seen.ends_with("\r\n\r\nhello|x-sum=1"), "{seen}");
    });
}

#[test]
fn a_stalled_server_and_a_stalled_client_hold_little() {
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let server = Server2::start(None, false, move |request, mut respond, _| {
        let counter = Arc::clone(&counter);
        Box::pin(async move {
            if request.uri().path() == "/small" {
                respond.send_response(Response::new(()), true).unwrap();
                return;
            }
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            for _ in 0..1_000 {
                send_all(&mut send, Bytes::from(vec![b'x'; 100_000]), false).await;
                counter.fetch_add(100_000, Ordering::SeqCst);
            }
        })
    });
    let proxy = proxy(&server, r#", "timeouts": { "client_write": "1s" }"#);
    let mut stalled = proxy.connect();
    stalled.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    stalled.until("\r\n\r\n");
    for _ in 0..20 {
        let small = proxy.ask("GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(small.starts_with("HTTP/1.1 200 "), "others of the same connection are served: {small}");
    }
    assert!(written.load(Ordering::SeqCst) < 20_000_000);
}

#[test]
fn a_server_that_is_about_to_end_finishes_what_it_has() {
    // GOAWAY: requests under way are answered, later ones go over another connection.
    let listener = common::listener();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let connections: Arc<AtomicUsize> = Arc::default();
    let counter = Arc::clone(&connections);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        // Each connection serves one request.
                        connection.graceful_shutdown();
                        tokio::spawn(async move {
                            tokio::task::yield_now().await;
                            let head = Response::builder().header("x-connection", number);
                            respond.send_response(head.body(()).unwrap(), true).unwrap();
                        });
                    }
                });
            }
        });
    });
    let proxy = Proxy::start_with(&[address], "", HTTP2, "");
    for _ in 0..30 {
        let answer =
            proxy.ask("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(connections.load(Ordering::SeqCst) > 1);
}
