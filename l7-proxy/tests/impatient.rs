//! Clients that go before they are answered: nothing is done for them any longer, and nobody else is the worse for them.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    Server, eventually,
    frames::{Expect, Frames, GET, HEADERS, PING, RESET, WHOLE, block, frame, get, number},
    logged::Logged,
    next_request, spec,
};
use socket2::SockRef;

const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const H2C: &str = r#", "h2c": true"#;

/// CANCEL (RFC 9113 §7).
const CANCEL: u32 = 8;

/// Answers once it is let, and counts what it is asked.
fn reluctant(leave: &Arc<AtomicBool>, asked: &Arc<AtomicUsize>) -> Server {
    let (leave, asked) = (Arc::clone(leave), Arc::clone(asked));
    Server::script(move |client, _| {
        while next_request(client).is_some() {
            asked.fetch_add(1, Ordering::SeqCst);
            eventually("the server may answer", || leave.load(Ordering::SeqCst));
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    })
}

/// A server that has one request at a time, and a queue of one.
fn crowded(server: &Server) -> Logged {
    Logged::start("json", |address, log| {
        let mut told = spec(address, H2C, &[server.address], r#", "queue": { "length": 1 }"#, log);
        told.pools[0].servers[0].max_connections = Some(1);
        told
    })
}

/// Somebody waits in the queue, goes by `go`, and the place is free for another.
fn leaves_its_place(wait: impl FnOnce(&Logged) -> Box<dyn FnOnce()>) {
    let (leave, asked) = (Arc::default(), Arc::default());
    let server = reluctant(&leave, &asked);
    let logged = crowded(&server);
    let mut first = logged.proxy.connect();
    first.send(ASKS);
    eventually("the server is busy", || asked.load(Ordering::SeqCst) == 1);
    let go = wait(&logged);
    eventually("it waits", || logged.proxy.engine().current().ready().services[0].pools()[0].waiting() == 1);
    let mut refused = logged.proxy.connect();
    refused.send(ASKS);
    assert_eq!(refused.exactly(12), b"HTTP/1.1 503", "the queue is full");
    go();
    let lines = logged.lines(2);
    assert!(lines[0].contains(r#""ended":"sQ""#) && lines[1].contains(r#""ended":"CQ""#), "{lines:?}");
    let mut next = logged.proxy.connect();
    next.send(ASKS);
    leave.store(true, Ordering::SeqCst);
    assert_eq!(next.exactly(12), b"HTTP/1.1 200");
    assert_eq!(first.exactly(12), b"HTTP/1.1 200");
    assert_eq!(asked.load(Ordering::SeqCst), 2, "nobody asked for those who went");
}

#[test]
fn a_stream_that_is_reset_leaves_the_queue() {
    leaves_its_place(|logged| {
        let mut client = Frames::begin(logged.proxy.address);
        client.0.send(&get(1));
        Box::new(move || {
            client.0.send(&number(RESET, 1, CANCEL));
            client.0.send(&frame(PING, 0, 0, b"still ok"));
            client.check(Expect::Pong(*b"still ok")).unwrap();
        })
    });
}

#[test]
fn a_client_that_is_reset_leaves_the_queue() {
    leaves_its_place(|logged| {
        let mut client = logged.proxy.connect();
        client.send(ASKS);
        Box::new(move || {
            SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        })
    });
}

#[test]
fn what_is_taken_back_at_once_reaches_no_server() {
    let server = Server::echo("a");
    let logged = Logged::of(&server, H2C);
    let mut client = Frames::begin(logged.proxy.address);
    for batch in 0..4 {
        // One write: all of it is there before any of it is looked at.
        let streams = (0..10).map(|number| (batch * 10 + number) * 2 + 1);
        let taken_back: Vec<u8> =
            streams.flat_map(|stream| [get(stream), number(RESET, stream, CANCEL)].concat()).collect();
        client.0.send(&[taken_back, frame(PING, 0, 0, b"question")].concat());
        client.check(Expect::Pong(*b"question")).unwrap();
    }
    logged.broke(40, 0, 0);
    assert_eq!(server.count(), 0);
    let lines = logged.lines(40);
    assert!(lines.iter().all(|line| line.contains(r#""ended":"CC""#)), "{lines:?}");
    client.0.send(&get(99));
    client.check(Expect::Answer(99, 200)).unwrap();
}

#[test]
fn who_is_thrown_out_keeps_its_connection_for_a_while_and_is_not_heard() {
    let server = Server::echo("a");
    let logged = Logged::of(&server, H2C);
    let mut client = Frames::begin(logged.proxy.address);
    // Each counts as five frames of no use, of which there may be a thousand in a second; two begin at most.
    let flood: Vec<u8> = (0..401)
        .flat_map(|place| [get(place * 2 + 1), number(RESET, place * 2 + 1, CANCEL)].concat())
        .collect();
    client.0.send(&flood);
    // ENHANCE_YOUR_CALM (RFC 9113 §7)
    client.check(Expect::Connection(&[11])).unwrap();
    client.0.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let end = client.0.stream.peek(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::WouldBlock), "it is neither answered nor ended");
    assert_eq!(server.count(), 0);
}

#[test]
fn who_came_first_is_served_first() {
    let leave: Arc<AtomicBool> = Arc::default();
    let may = Arc::clone(&leave);
    let server = Server::script(move |client, _| {
        while let Some(request) = next_request(client) {
            eventually("the server may answer", || may.load(Ordering::SeqCst));
            let path = request.split(' ').nth(1).unwrap().to_owned();
            client
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).as_bytes());
        }
    });
    let logged = Logged::start("json", |address, log| {
        let mut told = spec(address, H2C, &[server.address], "", log);
        told.pools[0].servers[0].max_connections = Some(1);
        told
    });
    let path = |number: u32| format!("/{number}");
    let mut client = Frames::begin(logged.proxy.address);
    // Each has its place in the queue by the time that the next one comes. What could go wrong does so with time: who waits looks
    // around again and again.
    for number in 0..12 {
        client.0.send(&frame(
            HEADERS,
            WHOLE,
            2 * number + 1,
            &block(&[GET[0], GET[1], (":path", &path(number)), GET[3]]),
        ));
        client.0.send(&frame(PING, 0, 0, b"question"));
        client.check(Expect::Pong(*b"question")).unwrap();
        std::thread::sleep(Duration::from_millis(25));
    }
    leave.store(true, Ordering::SeqCst);
    for number in 0..12 {
        assert_eq!(client.data(), path(number).as_bytes());
    }
}
