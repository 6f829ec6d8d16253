//! Either side may go, or say something else than expected, in each phase of a request: the other side is told
//! what is true, and no connection is used again that is not as it should be.

mod common;

use std::{
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{Client, Proxy, Server, eventually, header, next_request};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// Ends a connection with a reset.
fn reset(client: &Client) {
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_server_that_goes_before_it_answers_is_a_bad_gateway() {
    for how in 0..4 {
        for request in [GET, POST] {
            let server = Server::script(move |client, _| match how {
                0 => reset(client),
                1 => {
                    next_request(client);
                    reset(client);
                }
                2 => {
                    next_request(client);
                    client.stream.shutdown(Shutdown::Write).unwrap();
                    client.rest();
                }
                _ => {
                    next_request(client);
                    client.send(b"HTTP/1.1 200 OK\r\nContent-Le");
                }
            });
            let proxy = Proxy::start(&[server.address], "");
            let mut client = proxy.connect();
            client.send(request);
            // A reset may come so soon that there never was a connection.
            let is_told = |head: &str| {
                head.starts_with("HTTP/1.1 502 ") || (how == 0 && head.starts_with("HTTP/1.1 503 "))
            };
            let (head, _) = client.message();
            assert!(is_told(&head), "{how}: {head}");
            // The client's connection is as good as before.
            client.send(request);
            let (head, _) = client.message();
            assert!(is_told(&head), "{how}, again: {head}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_by_a_reset_is_no_whole_one() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked", "X: y"] {
        let told = Arc::new(AtomicBool::new(false));
        let go = Arc::clone(&told);
        let server = Server::script(move |client, _| {
            next_request(client);
            client.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes());
            client.send(b"5\r\nhello\r\n");
            eventually("it has arrived", || go.load(Ordering::SeqCst));
            reset(client);
        });
        let proxy = Proxy::start(&[server.address], "");
        let mut client = proxy.connect();
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        client.until("hello");
        // The server cuts it when the client has seen that.
        told.store(true, Ordering::SeqCst);
        let answer = client.rest();
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}

#[test]
fn a_server_hears_that_its_client_has_gone() {
    let heard: Arc<Mutex<u32>> = Arc::default();
    let counted = Arc::clone(&heard);
    let server = Server::script(move |client, _| {
        client.until("\r\n\r\n");
        client.rest();
        *counted.lock().unwrap() += 1;
    });
    let proxy = Proxy::start(&[server.address], "");
    for (number, request) in [GET, &POST[..POST.len() - 2]].into_iter().enumerate() {
        let mut client = proxy.connect();
        client.send(request);
        eventually("the server has it", || server.count() > number);
        reset(&client);
        drop(client);
        eventually("the server hears of it", || *heard.lock().unwrap() > number as u32);
    }
}

#[test]
fn what_a_server_says_beyond_its_answer_ends_its_connection() {
    for answer in [
        "HTTP/1.1 204 No Content\r\n\r\nbody",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let server = Server::script(move |client, number| {
            while next_request(client).is_some() {
                let number = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
                client.send(if number.ends_with('0') { answer.as_bytes() } else { number.as_bytes() });
            }
        });
        let proxy = Proxy::start(&[server.address], "");
        let mut client = proxy.connect();
        client.send(GET);
        client.until("\r\n\r\n");
        let mut other = proxy.connect();
        other.send(GET);
        assert_eq!(other.message().1, b"1", "{answer:?}");
    }
    // The same for HEAD, to which some answer with a body.
    let server = Server::script(|client, number| {
        while next_request(client).is_some() {
            client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").as_bytes());
        }
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.until("\r\n\r\n");
    client.send(GET);
    assert_eq!(client.message().1, b"1");
}

#[test]
fn an_answer_before_the_body_leaves_no_connection_half_way() {
    let server = Server::script(|client, number| {
        client.until("\r\n\r\n");
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").as_bytes());
        client.rest();
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\nbegin");
    let (head, body) = client.message();
    assert_eq!((header(&head, "content-length"), &body[..]), (Some("1"), &b"0"[..]));
    // The rest of the body would be read as a request.
    client.send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.rest(), "");
    let mut other = proxy.connect();
    other.send(GET);
    assert_eq!(other.message().1, b"1");
}

#[test]
fn a_wish_to_upgrade_that_is_not_granted_changes_nothing() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.message().1.starts_with(b"GET /ws "));
    assert!(client.message().1.starts_with(b"GET /next "));
    assert_eq!(server.count(), 1);
}

#[test]
fn informational_answers_without_end_are_no_answer() {
    let server = Server::script(|client, _| {
        next_request(client);
        client.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(1_000).as_bytes());
        client.rest();
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(GET);
    let mut seen = 0;
    let last = loop {
        let head = client.until("\r\n\r\n");
        if !head.starts_with("HTTP/1.1 102 ") {
            break head;
        }
        seen += 1;
    };
    assert!(last.starts_with("HTTP/1.1 502 ") && seen <= 64, "{seen}: {last}");
}

#[test]
fn an_answer_with_a_folded_line_is_a_bad_gateway() {
    // RFC 9112 §5.2.
    let server = Server::script(|client, _| {
        next_request(client);
        client.send(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n");
        client.rest();
    });
    let proxy = Proxy::start(&[server.address], "");
    let mut client = proxy.connect();
    client.send(GET);
    assert!(client.message().0.starts_with("HTTP/1.1 502 "));
}

#[test]
fn who_waits_for_leave_to_send_is_not_late_with_it() {
    // RFC 9110 §10.1.1. It is the server that says nothing.
    let server = Server::script(|client, _| {
        client.until("\r\n\r\n");
        client.rest();
    });
    let timeouts = r#", "timeouts": { "request_body": "100ms", "response": "500ms" }"#;
    let proxy = Proxy::start(&[server.address], timeouts);
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let head = client.message().0;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    // One that begins to send without it may be.
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nab");
    let head = client.message().0;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
}
