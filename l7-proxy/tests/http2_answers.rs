//! Servers of HTTP/2, frame by frame: what RFC 9113 lets them say is passed on, and what it does not is a bad gateway
//! or an answer that has visibly broken off, never something else.

mod common;

use common::{Client, Proxy, Server, eventually, frames::*, header};
use socket2::{Domain, Socket, Type};

const HTTP2: &str = r#", "protocol": "http2""#;

/// A server that says these frames when it has the head of a request, each time it is asked.
fn server(answer: Vec<u8>) -> Server {
    Server::script(move |client, _| speak(client, &answer))
}

/// Speaks HTTP/2 with the proxy as far as it takes to be asked something, then says `answer`.
fn speak(client: &mut Client, answer: &[u8]) {
    if client.at_most(PREFACE.len()).is_none() {
        return;
    }
    // SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 §3).
    client.send(&settings(8, 1));
    let mut frames = Frames(Client::of(client.stream.try_clone().unwrap()));
    frames.0.buffer.append(&mut client.buffer);
    while let Some((kind, flags, _, payload)) = frames.next() {
        match kind {
            SETTINGS if flags & ACK == 0 => frames.0.send(&frame(SETTINGS, ACK, 0, &[])),
            PING if flags & ACK == 0 => frames.0.send(&frame(PING, ACK, 0, &payload)),
            HEADERS => {
                // The proxy may have gone by the end of it.
                let _ = std::io::Write::write_all(&mut frames.0.stream, answer);
            }
            _ => {}
        }
    }
}

fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(fields))
}

const OK: (&str, &str) = (":status", "200");
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// What a client of HTTP/1.1 gets, until it is whole or the connection ends.
fn answer(server: &Server) -> (String, Option<String>) {
    // What is not noticed is not a bad gateway, but one that is slow.
    let times = r#", "timeouts": { "response": "3s", "response_body": "3s" }"#;
    let proxy = Proxy::start_with(&[server.address], times, HTTP2, "");
    let mut client = proxy.connect();
    client.send(POST);
    let mut head = client.until("\r\n\r\n");
    while head.starts_with("HTTP/1.1 1") {
        assert!(!head.contains(" 101 "), "nobody asked for that: {head}");
        head = client.until("\r\n\r\n");
    }
    let body = match header(&head, "content-length") {
        Some(length) => client.at_most(length.parse().unwrap()),
        None if head.starts_with("HTTP/1.1 204") => Some(Vec::new()),
        None => {
            let mut body = Vec::new();
            while let Some(byte) = client.at_most(1) {
                body.extend(byte);
                if body.ends_with(b"0\r\n\r\n") {
                    break;
                }
            }
            body.ends_with(b"0\r\n\r\n").then_some(body)
        }
    };
    (head, body.map(|body| String::from_utf8(body).unwrap()))
}

#[test]
fn what_servers_may_say_is_passed_on() {
    let data = |text: &str, flags: u8| frame(DATA, flags, 1, text.as_bytes());
    let goaway = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
    for (name, frames, expected) in [
        ("plain", [head(1, END_HEADERS, &[OK]), data("ok", END_STREAM)].concat(), "2\r\nok\r\n0\r\n\r\n"),
        (
            "with a length",
            [head(1, END_HEADERS, &[OK, ("content-length", "2")]), data("ok", END_STREAM)].concat(),
            "ok",
        ),
        ("without a body", head(1, WHOLE, &[OK]), ""),
        ("204", head(1, WHOLE, &[(":status", "204")]), ""),
        (
            "in pieces, padded, with things between",
            [
                frame(HEADERS, 0, 1, &block(&[OK])),
                frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")])),
                frame(PING, 0, 0, b"question"),
                frame(DATA, PADDED, 1, b"\x03ok\0\0\0"),
                frame(0x77, 0, 1, b"?"),
                frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
                settings(4, 1_000),
                data("", 0),
                data("", END_STREAM),
            ]
            .concat(),
            "2\r\nok\r\n0\r\n\r\n",
        ),
        (
            // RFC 9113 §8.1: the answer is complete, and the rest of the request is not asked for.
            "early, and then it resets the stream without an error",
            [
                head(1, END_HEADERS, &[OK, ("content-length", "2")]),
                data("ok", END_STREAM),
                number(RESET, 1, 0),
            ]
            .concat(),
            "ok",
        ),
        (
            "and it takes no more requests",
            [goaway(1), head(1, END_HEADERS, &[OK, ("content-length", "2")]), data("ok", END_STREAM)]
                .concat(),
            "ok",
        ),
    ] {
        let (head, body) = answer(&server(frames));
        assert!(head.starts_with("HTTP/1.1 20"), "{name}: {head}");
        assert_eq!(body.as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn a_tunnel_whose_server_is_done_and_wants_no_more_ends_without_a_reset() {
    let said = "last words".repeat(6_000);
    let pieces = said.as_bytes().chunks(15_000);
    let data = pieces.map(|piece| frame(DATA, 0, 1, piece)).collect::<Vec<_>>().concat();
    let frames = [
        head(1, END_HEADERS, &[OK]),
        data,
        frame(DATA, END_STREAM, 1, &[]),
        // RFC 9113 §8.1.
        number(RESET, 1, 0),
    ];
    let server = server(frames.concat());
    let proxy = Proxy::start_with(&[server.address], "", HTTP2, "");
    // Who takes little at a time: the rest is still with the proxy when the server has gone.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    let mut client = Client::of(socket.into());
    client.send(
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let answer = client.until("\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    eventually("the server is left", || {
        proxy.engine().current().ready().services[0].pools()[0].servers[0].live.active() == 0
    });
    assert!(client.exactly(said.len()) == said.as_bytes());
    let end = std::io::Read::read(&mut client.stream, &mut [0]);
    assert!(matches!(end, Ok(0)), "{end:?}");
}

#[test]
fn what_the_server_of_a_tunnel_said_last_arrives_though_the_client_goes_on_speaking() {
    let server = Server::script(|client, _| {
        let mut frames = Frames::answer(client);
        frames.0.send(&settings(8, 1));
        let mut room = 65_535;
        while let Some((kind, _, stream, payload)) = frames.next_of_stream() {
            match kind {
                HEADERS => frames.0.send(&head(stream, END_HEADERS, &[OK])),
                DATA => room -= payload.len(),
                _ => {}
            }
            if room == 0 {
                // Nobody takes what the client still has to say.
                let last = [frame(DATA, END_STREAM, stream, b"1008"), number(RESET, stream, 0)];
                frames.0.send(&last.concat());
            }
        }
    });
    let proxy = Proxy::start_with(&[server.address], "", HTTP2, "");
    for _ in 0..3 {
        let mut client = proxy.connect();
        client.send(
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        client.until("\r\n\r\n");
        client.send(&[b'x'; 100_000]);
        assert_eq!(client.rest(), "1008");
        let end = std::io::Read::read(&mut client.stream, &mut [0]);
        assert!(matches!(end, Ok(0)), "{end:?}");
    }
}

#[test]
fn what_is_no_answer_is_a_bad_gateway() {
    let mut failed = Vec::new();
    let more = |fields: &[(&str, &str)]| head(1, WHOLE, &[&[OK], fields].concat());
    for (name, frames) in [
        ("no status", head(1, WHOLE, &[("x", "y")])),
        ("two", more(&[OK])),
        ("a status of two digits", head(1, WHOLE, &[(":status", "20")])),
        ("a status that is none", head(1, WHOLE, &[(":status", "abc")])),
        ("an empty status", head(1, WHOLE, &[(":status", "")])),
        ("a status behind a field", head(1, WHOLE, &[("x", "y"), OK])),
        ("101", head(1, END_HEADERS, &[(":status", "101")])),
        ("101 and more", [head(1, END_HEADERS, &[(":status", "101")]), head(1, WHOLE, &[OK])].concat()),
        ("103 that is the end", head(1, WHOLE, &[(":status", "103")])),
        ("a name in upper case", more(&[("X-A", "b")])),
        ("connection", more(&[("connection", "close")])),
        ("transfer-encoding", more(&[("transfer-encoding", "chunked")])),
        ("a value with a line end", more(&[("x", "a\r\nb: c")])),
        ("two lengths", more(&[("content-length", "0"), ("content-length", "1")])),
        ("a length that is none", more(&[("content-length", "+1")])),
        ("a length, and nothing", more(&[("content-length", "1")])),
        ("DATA first", frame(DATA, END_STREAM, 1, b"x")),
        ("RST_STREAM", number(RESET, 1, 2)),
        (
            "a push",
            [frame(PUSH, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block(&GET)].concat()), more(&[])].concat(),
        ),
        ("HEADERS of another stream", head(3, WHOLE, &[OK])),
        ("HEADERS of an even stream", head(2, WHOLE, &[OK])),
        ("a window beyond all", settings(4, 0x8000_0000)),
        ("frames that are too long", frame(DATA, 0, 1, &[0; 20_000])),
        ("a block that is none", frame(HEADERS, WHOLE, 1, &[0x40])),
        ("PING too short", frame(PING, 0, 0, b"x")),
        ("HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ] {
        let (head, body) = answer(&server(frames));
        if !head.starts_with("HTTP/1.1 502 ") || body.is_none() {
            failed.push(format!("{name}: {}", head.lines().next().unwrap_or_default()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn an_answer_that_is_not_as_long_as_it_should_be_is_not_whole() {
    let begun = |length: &str| head(1, END_HEADERS, &[OK, ("content-length", length)]);
    let open = || head(1, END_HEADERS, &[OK]);
    let data = |text: &str, flags: u8| frame(DATA, flags, 1, text.as_bytes());
    for (name, frames) in [
        ("shorter than its length", [begun("5"), data("abc", END_STREAM)].concat()),
        ("longer than its length", [begun("2"), data("a", 0), data("bcd", END_STREAM)].concat()),
        ("reset", [open(), data("abc", 0), number(RESET, 1, 2)].concat()),
        ("reset without an error", [open(), data("abc", 0), number(RESET, 1, 0)].concat()),
        ("trailers that are no end", [open(), data("abc", 0), head(1, END_HEADERS, &[("x", "y")])].concat()),
        ("a connection that is no HTTP/2 any more", [open(), data("abc", 0), vec![0xff; 64]].concat()),
    ] {
        let (head, body) = answer(&server(frames));
        // Where nothing was passed on yet, it may be told in full.
        assert!(body.is_none() || head.starts_with("HTTP/1.1 502 "), "{name}: {head}{body:?}");
    }
}

#[test]
fn a_server_that_never_speaks_http2_is_a_bad_gateway_or_none() {
    for words in [
        &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
        b"",
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
    ] {
        let server = Server::script(move |client, _| client.send(words));
        let (head, _) = answer(&server);
        assert!(head.starts_with("HTTP/1.1 502 ") || head.starts_with("HTTP/1.1 503 "), "{words:?}: {head}");
    }
}
