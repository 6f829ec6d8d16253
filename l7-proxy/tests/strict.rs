//! HTTP/1.1 where proxies were fooled before: each case is answered as the standard asks, and reaches a server
//! only as what it cannot be misread for.

mod common;

use std::{
    io::{ErrorKind, Read},
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use common::{Client, Proxy, Server, header, headers, next_request};

const END: &str = "Host: a\r\nConnection: close\r\n";

/// The status of the answer to these bytes.
fn status(proxy: &Proxy, request: &[u8]) -> u16 {
    let mut client = proxy.connect();
    client.send(request);
    let answer = client.rest();
    let shown = String::from_utf8_lossy(request);
    assert!(answer.starts_with("HTTP/1.1 "), "{shown:?}: {answer:?}");
    answer[9..12].parse().unwrap()
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], r#", "headers": { "allow_connect": true }"#);
    let chunked = |body: &str| format!("POST / HTTP/1.1\r\n{END}Transfer-Encoding: chunked\r\n\r\n{body}");
    let with = |lines: &str, body: &str| format!("POST / HTTP/1.1\r\n{END}{lines}\r\n\r\n{body}");
    let extended = format!("1;{}\r\nx\r\n", "e".repeat(1_000)).repeat(40);
    for (request, expected) in [
        // Line ends and blank lines.
        (format!("\rGET / HTTP/1.1\r\n{END}\r\n"), 400),
        (format!("\r\r\nGET / HTTP/1.1\r\n{END}\r\n"), 400),
        (format!("{}GET / HTTP/1.1\r\n{END}\r\n", "\r\n".repeat(100)), 400),
        (format!("GET / HTTP/1.1\r\n{END}X: a\rb\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{END}X: a\0b\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{END}X\0: a\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{END}: a\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{END}Xa\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n {END}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{END}X\t: a\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{END}X: a\r\n\tb\r\n\r\n"), 400),
        // The first line.
        (format!("GET  / HTTP/1.1\r\n{END}\r\n"), 400),
        (format!("GET\t/ HTTP/1.1\r\n{END}\r\n"), 400),
        (format!("GET / HTTP/1.1 \r\n{END}\r\n"), 400),
        (format!("GET /a b HTTP/1.1\r\n{END}\r\n"), 400),
        (format!("GET / http/1.1\r\n{END}\r\n"), 400),
        (format!("GET / HTTP/1.10\r\n{END}\r\n"), 400),
        (format!("GET / HTTP/01.1\r\n{END}\r\n"), 400),
        (format!("G(T / HTTP/1.1\r\n{END}\r\n"), 400),
        (format!("GET a HTTP/1.1\r\n{END}\r\n"), 400),
        (format!("GET * HTTP/1.1\r\n{END}\r\n"), 400),
        (format!("GET http://u:p@a/ HTTP/1.1\r\n{END}\r\n"), 400),
        (format!("GET /\u{7f} HTTP/1.1\r\n{END}\r\n"), 400),
        // Hosts.
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".into(), 400),
        ("GET http://a/ HTTP/1.1\r\n\r\n".into(), 400),
        // Lengths.
        (with("Content-Length: 1, 1", "x"), 400),
        (with("Content-Length: 1\r\nContent-Length: 1", "x"), 400),
        (with("Content-Length: 0x1", "x"), 400),
        (with("Content-Length: 1_0", "x"), 400),
        (with("Content-Length: -0", "x"), 400),
        (with("Content-Length: \u{b}1", "x"), 400),
        (with("Content-Length:", ""), 400),
        (with("Content-Length: 18446744073709551617", "x"), 400),
        // Codings.
        (with("Transfer-Encoding: chunked\r\nContent-Length: 0", "0\r\n\r\n"), 400),
        (with("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), 501),
        (with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 501),
        (with("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"), 400),
        (with("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), 400),
        (with("Transfer-Encoding: chunked;q=1", "0\r\n\r\n"), 400),
        (with("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"), 400),
        (with("Transfer-Encoding:", "0\r\n\r\n"), 400),
        (with("Transfer-Encoding: identity", ""), 400),
        (with("Transfer-Encoding : chunked", "0\r\n\r\n"), 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        // Chunks.
        (chunked("5 x\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked("5\nhello\r\n0\r\n\r\n"), 400),
        (chunked("5\r\nhello0\r\n\r\n"), 400),
        (chunked("5;a\nhello\r\n0\r\n\r\n"), 400),
        (chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked("+5\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked("0x5\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked("5\r\nhello\r\n0\r\nA : b\r\n\r\n"), 400),
        (chunked("5\r\nhello\r\n0\r\n A: b\r\n\r\n"), 400),
        (chunked("5\r\nhello\r\n0\r\nA: b\n\r\n\r\n"), 400),
        (chunked(&format!("{extended}0\r\n\r\n")), 400),
        // What is neither.
        (with("Expect: 200-maybe", ""), 417),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\nabc".into(), 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
    ] {
        assert_eq!(status(&proxy, request.as_bytes()), expected, "{request:?}");
    }
    // What can become nothing good is told at once: to wait for its end is how it is noticed.
    let patient = Proxy::start(&[server.address], r#", "timeouts": { "request_header": "1h" }"#);
    for request in [
        "GET / HTTP/1.1\rHost: a\r\r",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb",
        "GET / HTTP/1.1\nHost: a\n",
        " GET",
    ] {
        assert_eq!(status(&patient, request.as_bytes()), 400, "{request:?}");
    }
    // Chunks that turn out malformed may have begun their way; nothing else has.
    for request in server.requests() {
        assert!(header(&request, "transfer-encoding").is_some(), "{request}");
    }
}

#[test]
fn what_is_odd_but_clear_is_passed_on_in_one_plain_form() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let seen = |request: &str| {
        let answer = proxy.ask(request);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{request:?}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    assert!(seen(&format!("\r\n\r\nGET / HTTP/1.1\r\n{END}\r\n")).starts_with("GET / HTTP/1.1\r\n"));
    let post = seen(&format!("POST / HTTP/1.1\r\n{END}Content-Length:   0005\t\r\n\r\nhello"));
    assert_eq!(headers(&post, "content-length"), ["5"]);
    let post = seen(&format!(
        "POST / HTTP/1.1\r\n{END}Transfer-Encoding: CHUNKED\r\n\r\n005 ; a=\"b c\"\r\nhello\r\n000\r\n\r\n"
    ));
    assert_eq!(headers(&post, "transfer-encoding"), ["chunked"]);
    assert!(post.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{post}");
    let later = seen(&format!("GET / HTTP/1.7\r\n{END}\r\n"));
    assert!(later.starts_with("GET / HTTP/1.1\r\n"), "{later}");
    let waiting = seen("GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(header(&waiting, "expect"), None, "HTTP/1.0 knows no 100: {waiting}");
    let old = seen("GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(header(&old, "upgrade"), None, "RFC 9110 §7.8: {old}");
}

#[test]
fn lines_after_the_body_change_nothing_before_it() {
    // RFC 9110 §6.5.1.
    let server = Server::script(|client, _| {
        client.until("0\r\n");
        let trailers = client.until("\r\n\r\n");
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", trailers.len()).as_bytes());
        client.send(trailers.as_bytes());
    });
    let proxy = Proxy::start(&[server.address], "");
    let lines = "X-Sum: 1\r\nTransfer-Encoding: x\r\nHost: b\r\nAuthorization: x\r\nContent-Type: x\r\n\
                 Content-Encoding: x\r\nContent-Range: x\r\nX-Forwarded-For: 1.1.1.1\r\nX_Forwarded_For: 1.1.1.1\r\n\
                 Cookie: a=b\r\nSet-Cookie: a=b\r\nExpect: 100-continue\r\nCache-Control: no-store\r\nRange: x\r\n\
                 If-Match: x\r\nTrailer: X\r\nConnection: close\r\nTE: x\r\nProxy-Authorization: x\r\nX-More: 2\r\n";
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n");
    client.send(format!("{lines}\r\n").as_bytes());
    let (_, trailers) = client.message();
    assert_eq!(String::from_utf8(trailers).unwrap(), "X-Sum: 1\r\nX-More: 2\r\n\r\n");
}

#[test]
fn blanks_before_a_colon_go_from_answers() {
    // RFC 9112 §5.1: refused in requests, removed from answers.
    let server = Server::script(|client, _| {
        next_request(client);
        client
            .send(b"HTTP/1.1 200 OK\r\nX-A \t: 1\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("\r\nX-A: 1\r\n"), "{head}");
    assert_eq!(headers(&head, "transfer-encoding"), ["chunked"]);
    assert_eq!(client.until("0\r\n\r\n"), "2\r\nok\r\n0\r\n\r\n");
}

#[test]
fn an_old_client_is_shown_that_its_answer_broke_off() {
    // Without a length the end of the connection is the end of the answer: only a reset says otherwise.
    let server = Server::script(|client, _| {
        next_request(client);
        client.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.0\r\n\r\n");
    let mut bytes = [0; 1_024];
    let error = loop {
        match client.stream.read(&mut bytes) {
            Ok(0) => panic!("it looks whole"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_client_that_does_not_send_its_body_is_told_once() {
    let server = Server::script(|client, _| drop(client.rest()));
    let proxy = Proxy::start(&[server.address], r#", "timeouts": { "request_body": "100ms" }"#);
    let answer = proxy.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(header(&answer, "connection"), Some("close"), "RFC 9110 §15.5.9");
}

#[test]
fn what_must_not_be_sent_twice_is_not_sent_over_a_connection_that_may_be_about_to_end() {
    // E3: a server that ends connections when they have been idle for half a second. The request that comes just
    // then is what this is about: here the server always ends the connection when one does.
    let late: Arc<Mutex<u32>> = Arc::default();
    let counted = Arc::clone(&late);
    let server = Server::script(move |client, _| {
        loop {
            let since = Instant::now();
            if next_request(client).is_none() {
                return;
            }
            if since.elapsed() > Duration::from_millis(500) {
                *counted.lock().unwrap() += 1;
                return;
            }
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let proxy = Proxy::start(&[server.address], "");
    let address = proxy.address;
    let (many, rounds) = if std::env::var_os("LB_TEST_FULL").is_some() { (100, 20) } else { (20, 3) };
    let together = Arc::new(Barrier::new(many));
    let clients: Vec<_> = (0..many)
        .map(|_| {
            let together = Arc::clone(&together);
            thread::spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..rounds {
                    together.wait();
                    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
                    let (head, _) = client.message();
                    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                    // How long the connection is idle is what is tested.
                    thread::sleep(Duration::from_millis(600));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(*late.lock().unwrap(), 0);
    // What may be sent twice is sent over such a connection, and again where it has ended.
    let answer = proxy.ask(&format!("GET / HTTP/1.1\r\n{END}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
