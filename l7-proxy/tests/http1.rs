//! HTTP/1.1 over real sockets: what a client sends, what a server sees, and what comes back, byte by byte.

mod common;

use std::net::Shutdown;

use common::{Client, Proxy, Server, header, headers, next_request};

/// The head that a server saw, for a request that an echo answers.
fn seen_by_server(proxy: &Proxy, request: &str) -> String {
    let answer = proxy.ask(request);
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{answer}");
    body.to_owned()
}

#[test]
fn a_request_reaches_a_server_and_its_answer_comes_back() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let answer = proxy.ask("GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nX-A:  1 \r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(header(head, "server"), Some("a"));
    assert_eq!(header(head, "connection"), Some("close"));
    assert!(header(head, "date").is_some(), "RFC 9110 §6.6.1: {head}");
    assert!(body.starts_with("GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\n"), "{body}");
    assert_eq!(header(body, "x-a"), Some("1"));
    assert_eq!(header(body, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(header(body, "x-forwarded-proto"), Some("http"));
    assert_eq!(header(body, "connection"), None);
}

#[test]
fn connections_are_used_again_on_both_sides() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    for number in 0..20 {
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let (head, body) = client.message();
        assert_eq!(header(&head, "connection"), None);
        assert!(body.starts_with(format!("GET /{number} ").as_bytes()));
    }
    assert_eq!(server.count(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let requests: String = (0..10)
        .map(|number| format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"))
        .collect();
    let mut client = proxy.connect();
    client.send(requests.as_bytes());
    for number in 0..10 {
        let (_, body) = client.message();
        assert!(body.starts_with(format!("POST /{number} ").as_bytes()) && body.ends_with(b"\r\n\r\nabc"));
    }
}

#[test]
fn malformed_requests_are_answered_and_reach_no_server() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let long = "a".repeat(20_000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("GET /\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00", 400),
        (&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("X: {long}\r\n").repeat(4)), 431),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200)), 431),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    ] {
        // Trap 1: the answer comes although the connection ends, and says that it does.
        let answer = proxy.ask(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer:?}");
        if status != 405 {
            assert_eq!(header(&answer, "connection"), Some("close"), "{request:?}");
        }
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn a_client_that_has_finished_sending_gets_its_answer() {
    // Trap 2.
    let server = Server::script(|client, _| {
        let request = next_request(client).unwrap();
        assert!(request.ends_with("hello"));
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    client.stream.shutdown(Shutdown::Write).unwrap();
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
}

#[test]
fn a_body_that_is_cut_short_is_no_request() {
    let server = Server::script(|client, _| drop(client.rest()));
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(client.rest().starts_with("HTTP/1.1 400 "));
}

#[test]
fn chunks_and_trailers_go_through_in_both_directions() {
    let server = Server::script(|client, _| {
        let head = client.until("\r\n\r\n");
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
        let body = client.until("0\r\n");
        assert_eq!(body, "5\r\nhello\r\n6\r\n world\r\n0\r\n");
        let trailers = client.until("\r\n\r\n");
        assert_eq!(trailers, "X-Sum: 1\r\n\r\n", "what frames or routes a message is no trailer");
        client.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n");
        client.send(b"3;ext=1\r\nabc\r\n");
        client.send(b"0\r\nX-T: 9\r\n\r\n");
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n",
    );
    client.send(b"0\r\nX-Sum: 1\r\nContent-Length: 7\r\nHost: b\r\n\r\n");
    let head = client.until("\r\n\r\n");
    assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(client.until("\r\n\r\n"), "3\r\nabc\r\n0\r\nX-T: 9\r\n\r\n");
}

#[test]
fn informational_answers_are_passed_on() {
    let server = Server::script(|client, _| {
        let head = client.until("\r\n\r\n");
        assert_eq!(header(&head, "expect"), Some("100-continue"));
        client.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(client.exactly(5), b"hello");
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let hints = client.until("\r\n\r\n");
    assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\n") && header(&hints, "link") == Some("</a>"));
    assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"hello");
    assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn old_clients_get_what_they_understand() {
    let server = Server::script(|client, _| {
        while let Some(request) = next_request(client) {
            assert!(request.starts_with("GET / HTTP/1.1\r\nHost: "), "{request}");
            client.send(
                b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            client.send(b"3\r\nabc\r\n0\r\nX: y\r\n\r\n");
        }
    });
    let proxy = Proxy::start(&[server.address], "");
    let answer = proxy.ask("GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(header(&answer, "transfer-encoding").is_none() && answer.ends_with("\r\n\r\nabc"), "{answer}");
}

#[test]
fn answers_without_a_body_have_none() {
    let server = Server::script(|client, _| {
        while let Some(request) = next_request(client) {
            client.send(match request.split(' ').nth(1).unwrap() {
                "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n",
                _ => &b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"[..],
            });
        }
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    for (request, status, length) in
        [("GET /204", "204", None), ("GET /304", "304", Some("9")), ("HEAD /", "200", Some("7"))]
    {
        client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let head = client.until("\r\n\r\n");
        assert!(head.contains(status) && header(&head, "content-length") == length, "{head}");
        assert_eq!(header(&head, "transfer-encoding"), None, "{head}");
    }
    assert!(client.buffer.is_empty());
    assert_eq!(server.count(), 1, "none of them costs a connection");
}

#[test]
fn an_answer_without_length_lasts_until_the_server_ends_it() {
    let server = Server::script(|client, _| {
        next_request(client);
        client.send(b"HTTP/1.0 200 OK\r\n\r\nsome");
        client.send(b"thing");
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.until("\r\n\r\n");
    assert_eq!(
        header(&head, "transfer-encoding"),
        Some("chunked"),
        "the client's connection goes on: {head}"
    );
    let body = client.until("0\r\n\r\n");
    assert!(body.contains("some"), "{body}");
}

#[test]
fn an_answer_that_breaks_off_is_shown_to_be_broken() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let server = Server::script(move |client, _| {
            next_request(client);
            client.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes());
            client.send(b"a\r\n0123456789");
        });
        let proxy = Proxy::start(&[server.address], "");
        let mut client = proxy.connect();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.rest();
        assert!(answer.contains("0123456789") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}

#[test]
fn what_is_of_one_connection_stays_there() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let seen = seen_by_server(
        &proxy,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop, Host, X-Forwarded-For\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: x\r\nTE: trailers, gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\nX-Kept: 1\r\n\r\n",
    );
    for gone in ["x-hop", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert_eq!(header(&seen, gone), None, "{seen}");
    }
    assert_eq!(header(&seen, "host"), Some("a"));
    assert_eq!(header(&seen, "te"), Some("trailers"));
    assert_eq!(header(&seen, "connection"), Some("TE"));
    assert_eq!(header(&seen, "x-kept"), Some("1"));
    assert_eq!(header(&seen, "x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn an_absolute_target_decides_whose_the_request_is() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let seen =
        seen_by_server(&proxy, "GET http://b.example?x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(seen.starts_with("GET /?x HTTP/1.1\r\nHost: b.example\r\n"), "{seen}");
    let seen = seen_by_server(&proxy, "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(seen.starts_with("OPTIONS * HTTP/1.1\r\nHost: a\r\n"), "{seen}");
}

#[test]
fn what_clients_say_about_themselves_counts_only_of_trusted_ones() {
    let server = Server::echo("a");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 1.2.3.4\r\n\
         X-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=1.2.3.4\r\n\
         X_Forwarded_For: 9.9.9.9\r\nX-Request-Id: theirs\r\n\r\n";
    let forwarding = r#"{ "x_forwarded_host": true, "x_forwarded_port": true, "forwarded": true, "via": true,
        "request_id": "X-Request-Id" }"#;
    let from_anyone =
        Proxy::start(&[server.address], &format!(r#", "headers": {{ "forwarding": {forwarding} }}"#));
    let seen = seen_by_server(&from_anyone, request);
    assert_eq!(headers(&seen, "x-forwarded-for"), ["127.0.0.1"], "{seen}");
    assert_eq!(headers(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(headers(&seen, "x-forwarded-host"), ["a"]);
    assert_eq!(headers(&seen, "x-forwarded-port"), [from_anyone.address.port().to_string()]);
    assert_eq!(headers(&seen, "forwarded"), ["for=127.0.0.1;host=\"a\";proto=http"]);
    assert_eq!(headers(&seen, "x_forwarded_for"), Vec::<&str>::new());
    assert_eq!(headers(&seen, "via"), ["1.1 l7-proxy"]);
    assert!(matches!(headers(&seen, "x-request-id")[..], [id] if id.len() == 32), "{seen}");

    let from_proxy = Proxy::start(
        &[server.address],
        &format!(r#", "headers": {{ "forwarding": {forwarding} }}, "trusted_proxies": ["127.0.0.0/8"]"#),
    );
    let seen = seen_by_server(&from_proxy, request);
    assert_eq!(headers(&seen, "x-forwarded-for"), ["1.2.3.4, 5.6.7.8, 127.0.0.1"]);
    assert_eq!(headers(&seen, "x-forwarded-proto"), ["https"]);
    assert_eq!(headers(&seen, "x-forwarded-host"), ["evil"]);
    assert_eq!(headers(&seen, "forwarded"), ["for=1.2.3.4, for=127.0.0.1;host=\"a\";proto=http"]);
    assert_eq!(headers(&seen, "x-request-id"), ["theirs"]);
}

#[test]
fn lines_are_set_and_removed_as_told() {
    let server = Server::echo("a");
    let proxy = Proxy::start(
        &[server.address],
        r#", "headers": { "remove_request": ["X-Secret"], "set_request": [{ "name": "X-Env", "value": "prod" }],
             "remove_response": ["Server"], "set_response": [{ "name": "X-Frame-Options", "value": "DENY" }] }"#,
    );
    let answer =
        proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nx-secret: 1\r\nX-ENV: theirs\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(headers(body, "x-env"), ["prod"]);
    assert_eq!(header(body, "x-secret"), None);
    assert_eq!(header(head, "server"), None);
    assert_eq!(headers(head, "x-frame-options"), ["DENY"]);
}

#[test]
fn an_early_answer_is_passed_on_and_ends_the_connection() {
    let server = Server::script(|client, _| {
        client.until("\r\n\r\n");
        client.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegin");
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("no"), "{answer}");
}

#[test]
fn an_answer_that_cannot_be_relied_on_is_a_bad_gateway() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX y: z\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "hello\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ] {
        let server = Server::script(move |client, _| {
            next_request(client);
            client.send(answer.as_bytes());
            client.rest();
        });
        let proxy = Proxy::start(&[server.address], "");
        let mut client = proxy.connect();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 502 "), "{answer:?}: {head}");
    }
}

#[test]
fn what_a_server_would_rather_speak_is_passed_on() {
    let server = Server::script(|client, _| {
        next_request(client);
        client.send(
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
        );
    });
    let proxy = Proxy::start(&[server.address], "");
    let answer = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(headers(&answer, "upgrade"), ["TLS/1.0"]);
    assert_eq!(headers(&answer, "connection"), ["close, upgrade"]);
}

#[test]
fn large_bodies_arrive_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let expected = body.clone();
    let server = Server::script(move |client, _| {
        let head = client.until("\r\n\r\n");
        let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
        let body = client.exactly(length);
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        client.send(&body);
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    let mut sender = Client::of(client.stream.try_clone().unwrap());
    let sending = std::thread::spawn(move || {
        sender
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        sender.send(&body);
    });
    let (head, answer) = client.message();
    sending.join().unwrap();
    assert!(head.starts_with("HTTP/1.1 200"));
    assert!(answer == expected);
}
