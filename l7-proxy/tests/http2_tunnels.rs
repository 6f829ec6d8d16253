//! What becomes another protocol's where one side speaks HTTP/2: CONNECT, WebSockets, and what becomes none.

mod common;

use bytes::Bytes;
use common::{
    Client, Proxy, Server,
    frames::{
        DATA, END_HEADERS, END_STREAM, Expect, Frames, HEADERS, block, field, frame, read_status, websocket,
    },
    header, headers, next_request, opens_websocket,
    server2::{Server2, send_all},
};
use http::Response;

const HTTP2: &str = r#", "protocol": "http2""#;

fn connect(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&[(":method", "CONNECT"), (":authority", "a.example:1")]))
}

#[test]
fn connect_of_a_client_of_http2_opens_a_tunnel_where_it_may() {
    let first = Server::script(|client, _| {
        let head = client.until("\r\n\r\n");
        assert!(head.starts_with("CONNECT a.example:1 HTTP/1.1\r\n"), "{head}");
        client.send(b"HTTP/1.1 200 OK\r\n\r\nhello");
        assert_eq!(client.rest(), "question");
        client.send(b"bye");
    });
    let second = Server2::start(None, false, |request, mut respond, _| {
        Box::pin(async move {
            assert_eq!(
                (request.method().as_str(), request.uri().to_string().as_str()),
                ("CONNECT", "a.example:1")
            );
            let mut body = request.into_body();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send_all(&mut send, Bytes::from_static(b"hello"), false).await;
            let mut came = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                came.extend_from_slice(&data);
            }
            assert_eq!(came, b"question");
            send_all(&mut send, Bytes::from_static(b"bye"), true).await;
        })
    });
    let may = r#", "h2c": true, "headers": { "allow_connect": true }"#;
    for (address, pool) in [(first.address, ""), (second.address, HTTP2)] {
        let proxy = Proxy::start_with(&[address], may, pool, "");
        let mut client = Frames::begin(proxy.address);
        client.0.send(&connect(1));
        let (flags, head) = loop {
            let (kind, flags, _, payload) = client.next().expect("it is answered");
            if kind == HEADERS {
                break (flags, payload);
            }
        };
        assert_eq!((flags, read_status(&head)), (END_HEADERS, 200));
        assert_eq!(client.data(), b"hello");
        client.0.send(&frame(DATA, END_STREAM, 1, b"question"));
        assert_eq!(client.data(), b"bye");
    }
    // And not where it may not.
    let proxy = Proxy::start(&[first.address], r#", "h2c": true"#);
    let mut client = Frames::begin(proxy.address);
    client.0.send(&connect(1));
    client.check(Expect::Answer(1, 405)).unwrap();
    let answer = proxy
        .ask("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[test]
fn a_handshake_that_the_server_has_not_understood_opens_nothing() {
    // The key is ours, so it is for us to look (RFC 6455 §4.1).
    let server = Server::script(|client, _| {
        while let Some(request) = next_request(client) {
            // One key: who has two may go by either.
            assert_eq!(headers(&request, "sec-websocket-key").len(), 1, "{request}");
            let right = opens_websocket(&request, "");
            let answer = match request.split(' ').nth(1).unwrap() {
                "/accept" => right.replace("Accept: ", "Accept: x"),
                "/nothing" => right.replace("Sec-WebSocket-Accept", "X-Accept"),
                "/other" => right.replace("Upgrade: websocket", "Upgrade: x"),
                "/connection" => right.replace("Connection: Upgrade", "Connection: x"),
                _ => right,
            };
            client.send(answer.as_bytes());
        }
    });
    let proxy = Proxy::start(&[server.address], r#", "h2c": true"#);
    for path in ["/accept", "/nothing", "/other", "/connection"] {
        let mut client = Frames::begin(proxy.address);
        client.0.send(&websocket(1, path));
        client.check(Expect::Answer(1, 502)).unwrap_or_else(|told| panic!("{path}: {told}"));
    }
    let mut client = Frames::begin(proxy.address);
    // Keys that a client makes up are not part of it (RFC 8441 §5).
    let keys = [field("sec-websocket-key", "YQ=="), field("sec-websocket-key", "Yg==")].concat();
    let mut right = websocket(1, "/right");
    right[2] += keys.len() as u8;
    client.0.send(&[right, keys].concat());
    let head = loop {
        let (kind, flags, _, payload) = client.next().expect("it is answered");
        if kind == HEADERS {
            assert_eq!(flags, END_HEADERS);
            break payload;
        }
    };
    assert_eq!(read_status(&head), 200);
}

#[test]
fn an_upgrade_that_a_server_of_http2_does_not_know_is_disregarded() {
    let server = Server2::echo(None);
    let pool = r#", "protocol": "http2", "outliers": { "failures": 1 }"#;
    let proxy = Proxy::start_with(&[server.address], "", pool, "");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (line, more, body) in [
        ("GET /1", "Upgrade: TLS/1.2\r\n", ""),
        ("GET /2", "Upgrade: websocket\r\n", ""),
        ("POST /3", &*format!("Upgrade: websocket\r\n{key}Content-Length: 5\r\n"), "hello"),
        ("POST /4", &*format!("Upgrade: websocket\r\n{key}"), ""),
    ] {
        let mut client = proxy.connect();
        client.send(
            format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{more}\r\n{body}").as_bytes(),
        );
        let (head, seen) = client.message();
        let seen = String::from_utf8(seen).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{line}: {head}");
        assert!(seen.starts_with(&line.replace(' ', " http://a")), "{seen}");
        assert!(seen.ends_with(&format!("\r\n\r\n{body}")) && header(&seen, "upgrade").is_none(), "{seen}");
    }
    assert_eq!(server.count(), 1);
}

#[test]
fn a_client_that_begins_with_a_websocket_is_with_its_server_from_then_on() {
    let server = Server::script(|client, _| {
        let request = next_request(client).unwrap();
        client.send(opens_websocket(&request, "").as_bytes());
        client.rest();
    });
    let cookie = r#", "persistence": { "type": "cookie", "name": "S" }"#;
    let proxy = Proxy::start(&[server.address], cookie);
    let mut client: Client = proxy.connect();
    client.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(header(&head, "set-cookie").is_some_and(|cookie| cookie.starts_with("S=")), "{head}");
}
