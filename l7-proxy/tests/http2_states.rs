//! HTTP/2 in each state of a stream, and its flow control and header compression in use: what RFC 9113 and
//! RFC 7541 let clients do is served, over TLS as without.

mod common;

use std::sync::{Arc, Mutex};

use Expect::{Answer, Connection, Pong, Stream};
use common::{Proxy, Server, eventually, frames::*, header, next_request};

const TIMES: &str = r#", "timeouts": { "client_idle": "2s", "request_body": "2s" }"#;

/// Lets a client say something after the answer to its request is complete.
fn afterwards(ways: &Ways, more: &[u8], expect: Expect) {
    for (way, address) in ways.addresses() {
        let mut frames = Frames::begin(address);
        frames.0.send(&get(1));
        frames.check(Answer(1, 200)).unwrap();
        frames.0.send(more);
        if matches!(expect, Connection(_)) {
            frames.0.send(&frame(PING, 0, 0, b"thatsall"));
        }
        frames.check_until_pong(expect).unwrap_or_else(|why| panic!("{way}: {why}"));
    }
}

#[test]
fn nothing_more_of_a_request_comes_after_its_end() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    let closed = Connection(&[CLOSED]);
    run(
        &ways,
        vec![(
            "DATA of a stream whose request is complete",
            [get(1), frame(DATA, 1, 1, b"x")].concat(),
            closed,
        )],
    );
    afterwards(&ways, &frame(DATA, END_STREAM, 1, b"test"), closed);
    afterwards(&ways, &get(1), closed);
    afterwards(
        &ways,
        &frame(CONTINUATION, END_HEADERS, 1, &block(&[("x", "y")])),
        Connection(&[CLOSED, PROTOCOL]),
    );
    // What does no harm is let pass.
    let question = frame(PING, 0, 0, b"question");
    let harmless = [frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]), number(WINDOW, 1, 1), number(RESET, 1, 8)];
    for frame in harmless {
        afterwards(&ways, &[frame, question.clone()].concat(), Pong(*b"question"));
    }
}

#[test]
fn windows_are_kept_to_as_they_change() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    for (_, address) in ways.addresses() {
        // One that is opened by settings, one after another.
        let mut frames = Frames::begin(address);
        frames.0.send(&[settings(4, 0), get(1), settings(4, 1)].concat());
        assert_eq!(frames.data().len(), 1);
        frames.0.send(&settings(4, 11));
        assert_eq!(frames.data().len(), 10);
        // One that is opened by an update, in a stream that is half closed, whatever else comes.
        let mut frames = Frames::begin(address);
        let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]);
        frames.0.send(&[settings(4, 0), get(1), priority, number(WINDOW, 1, 1)].concat());
        assert_eq!(frames.data().len(), 1);
        // One that becomes negative: what is used up counts.
        let mut frames = Frames::begin(address);
        frames.0.send(&settings(4, 3));
        frames.settled();
        frames.0.send(&get(1));
        assert_eq!(frames.data().len(), 3);
        frames.0.send(&settings(4, 2));
        frames.settled();
        frames.0.send(&number(WINDOW, 1, 2));
        assert_eq!(frames.data().len(), 1);
        // Settings count in their order.
        let mut frames = Frames::begin(address);
        let both = [0, 4, 0, 0, 0, 100, 0, 4, 0, 0, 0, 1];
        frames.0.send(&frame(SETTINGS, 0, 0, &both));
        frames.settled();
        frames.0.send(&get(1));
        assert_eq!(frames.data().len(), 1);
        // That of the connection is kept to as well: 65535 bytes unless more are allowed.
        let mut frames = Frames::begin(address);
        frames.0.send(&settings(4, 1 << 20));
        frames.settled();
        let long = block(&[("x-long", &"x".repeat(14_000))]);
        let mut taken = 0;
        for stream in 0..6 {
            let request = [block(&GET), long.clone()].concat();
            frames.0.send(&frame(HEADERS, WHOLE, stream * 2 + 1, &request));
        }
        while taken < 65_535 {
            taken += frames.data().len();
        }
        assert_eq!(taken, 65_535);
        frames.0.send(&frame(PING, 0, 0, b"question"));
        loop {
            let (kind, flags, ..) = frames.next().unwrap();
            assert_ne!(kind, DATA, "there is no window for it");
            if kind == PING && flags & ACK != 0 {
                break;
            }
        }
    }
}

#[test]
fn a_client_with_a_closed_window_has_no_more_streams_than_it_may() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    let streams: Vec<u8> = (0..129).flat_map(|number| get(number * 2 + 1)).collect();
    let stalled = [settings(4, 0), streams].concat();
    run(&ways, vec![("a stream too many", stalled, Stream(257, &[PROTOCOL, REFUSED]))]);
}

#[test]
fn header_blocks_may_be_written_in_every_way() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    let with = |field: &[u8]| frame(HEADERS, WHOLE, 1, &[&block(&GET), field].concat());
    let before = |update: &[u8]| frame(HEADERS, WHOLE, 1, &[update, &block(&GET)].concat());
    let mut cases = vec![
        ("an index alone, whose value is empty", with(&[0xba]), Answer(1, 200)),
        ("a table of no size", before(&[0x20]), Answer(1, 200)),
        ("a table that changes twice", before(&[0x20, 0x3f, 0xe1, 0x1f]), Answer(1, 200)),
        ("no table for answers", [settings(1, 0), get(1)].concat(), Answer(1, 200)),
        (
            "a field of the table that was put there before",
            [
                frame(HEADERS, WHOLE, 1, &[&block(&GET)[..], b"\x40\x06x-test\x02ok"].concat()),
                frame(HEADERS, WHOLE, 3, &[&block(&GET)[..], &[0xbe]].concat()),
            ]
            .concat(),
            Answer(3, 200),
        ),
    ];
    // With and without indexing, and never; the name in full or in the table; in Huffman code or not.
    let names: [&[u8]; 2] = [b"\x06x-test", &[0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff]];
    let values: [&[u8]; 2] = [b"\x06h2spec", &[0x84, 0x9c, 0x48, 0xac, 0xa4]];
    for (how, prefix) in [("indexed", 0x40_u8), ("not indexed", 0), ("never indexed", 0x10)] {
        for name in names {
            for value in values {
                cases.push((how, with(&[&[prefix][..], name, value].concat()), Answer(1, 200)));
            }
        }
        // user-agent is 58 of the static table.
        let index: &[u8] = if prefix == 0x40 { &[0x7a] } else { &[prefix | 0x0f, 0x2b] };
        cases.push((how, with(&[index, values[1]].concat()), Answer(1, 200)));
    }
    run(&ways, cases);
}

#[test]
fn what_clients_say_beside_requests_is_let_pass() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    let goaway = |code: u32| frame(GOAWAY, 0, 0, &[[0; 4], code.to_be_bytes()].concat());
    let priority = |stream: u32, on: u32, weight: u8| {
        frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[weight]].concat())
    };
    let full = [&[5_u8][..], &[0; 5]].concat();
    run(
        &ways,
        vec![
            ("PRIORITY of the lowest weight", [priority(1, 0, 0), get(1)].concat(), Answer(1, 200)),
            ("PRIORITY of the highest weight", [priority(1, 0, 255), get(1)].concat(), Answer(1, 200)),
            ("PRIORITY that depends", [priority(3, 1, 0), get(1)].concat(), Answer(1, 200)),
            ("PRIORITY that excludes", [priority(1, 0x8000_0000, 0), get(1)].concat(), Answer(1, 200)),
            // RFC 9218, RFC 7838, RFC 8336.
            ("PRIORITY_UPDATE", [frame(0x10, 0, 0, b"\0\0\0\x01u=1"), get(1)].concat(), Answer(1, 200)),
            ("ALTSVC", [frame(10, 0, 0, b"\0\0x"), get(1)].concat(), Answer(1, 200)),
            ("ORIGIN", [frame(12, 0, 0, b"\0\x01a"), get(1)].concat(), Answer(1, 200)),
            (
                "an unknown type of a stream",
                [post(1, &[]), frame(0x16, 0xff, 1, b"x"), frame(DATA, 1, 1, b"x")].concat(),
                Answer(1, 200),
            ),
            ("priorities of RFC 9218", [settings(9, 1), get(1)].concat(), Answer(1, 200)),
            ("no push", [settings(2, 0), get(1)].concat(), Answer(1, 200)),
            ("the largest frames", [settings(5, 0x00ff_ffff), get(1)].concat(), Answer(1, 200)),
            ("a window of the connection", [number(WINDOW, 0, 1), get(1)].concat(), Answer(1, 200)),
            (
                "a window of a stream",
                [post(1, &[]), number(WINDOW, 1, 1), frame(DATA, 1, 1, b"x")].concat(),
                Answer(1, 200),
            ),
            (
                "nothing but padding",
                [post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, &full)].concat(),
                Answer(1, 200),
            ),
            (
                "no padding at all",
                [post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, b"\0x")].concat(),
                Answer(1, 200),
            ),
            (
                "trailers in pieces",
                [
                    post(1, &[]),
                    frame(DATA, 0, 1, b"x"),
                    frame(HEADERS, END_STREAM, 1, &block(&[("x-a", "1")])),
                    frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-b", "2")])),
                ]
                .concat(),
                Answer(1, 200),
            ),
            (
                "trailers without a body",
                [post(1, &[]), frame(HEADERS, WHOLE, 1, &block(&[("x-a", "1")]))].concat(),
                Answer(1, 200),
            ),
            ("a client that opens no more", [get(1), goaway(0)].concat(), Answer(1, 200)),
            ("a client that ends for a reason nobody knows", [get(1), goaway(0xff)].concat(), Answer(1, 200)),
            (
                "RST_STREAM of a request that is complete",
                [get(1), number(RESET, 1, 8), frame(PING, 0, 0, b"question")].concat(),
                Pong(*b"question"),
            ),
        ],
    );
    for (_, address) in ways.addresses() {
        let mut frames = Frames::begin(address);
        // Begin has seen ours, and theirs was acknowledged or will be.
        frames.0.send(&[settings(3, 100), settings(3, 101)].concat());
        (0..3).for_each(|_| frames.settled());
    }
}

#[test]
fn requests_are_malformed_in_more_ways_than_one() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    let stream = Stream(1, &[PROTOCOL]);
    let trailers = |fields: &[(&str, &str)]| {
        [post(1, &[]), frame(DATA, 0, 1, b"x"), frame(HEADERS, WHOLE, 1, &block(fields))].concat()
    };
    let connect = |fields: &[(&str, &str)]| {
        frame(HEADERS, END_HEADERS, 1, &[block(&[(":method", "CONNECT")]), block(fields)].concat())
    };
    let value = |value: &str| more(&[("x-a", value)]);
    run(
        &ways,
        vec![
            ("a blank before a value", value(" a"), stream),
            ("a blank behind a value", value("a "), stream),
            ("a tab before a value", value("\ta"), stream),
            ("a tab behind a value", value("a\t"), stream),
            ("nothing but a blank", value(" "), stream),
            ("a carriage return in a value", value("a\rb"), stream),
            ("a line feed in a value", value("a\nb"), stream),
            ("a zero at the end of a value", value("a\0"), stream),
            ("a name with a colon", more(&[("x:y", "z")]), stream),
            ("a name that is not ASCII", more(&[("x\u{e9}", "z")]), stream),
            ("an authority behind other fields", with(&[GET[0], GET[1], GET[2], ("x", "y"), GET[3]]), stream),
            ("TE with two values", more(&[("te", "gzip")]), stream),
            ("an upper case trailer", trailers(&[("X-A", "1")]), stream),
            ("a pseudo-field behind a trailer", trailers(&[("x-a", "1"), (":path", "/")]), stream),
            ("a trailer of the connection", trailers(&[("connection", "close")]), stream),
            ("a trailer with a line end", trailers(&[("x-a", "1\r\nb: c")]), stream),
            ("CONNECT without an authority", connect(&[]), stream),
            ("CONNECT with a scheme", connect(&[(":scheme", "http"), (":authority", "a:1")]), stream),
            ("an empty method", with(&[(":method", ""), GET[1], GET[2], GET[3]]), stream),
            ("an empty scheme", with(&[GET[0], (":scheme", ""), GET[2], GET[3]]), stream),
            ("two lengths that differ", more(&[("content-length", "0"), ("content-length", "1")]), stream),
        ],
    );
    assert!(server.requests().iter().all(|request| request.starts_with("POST ")), "{:?}", server.requests());
}

#[test]
fn what_is_refused_has_an_answer_without_a_body_where_head_was_asked() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    for (_, address) in ways.addresses() {
        for fields in [
            &[(":method", "HEAD"), GET[1], GET[2], GET[3], ("host", "b")][..],
            &[(":method", "HEAD"), GET[1], GET[2], GET[3], ("expect", "nothing")],
        ] {
            let mut frames = Frames::begin(address);
            frames.0.send(&with(fields));
            let flags = loop {
                let (kind, flags, ..) = frames.next().unwrap();
                if kind == HEADERS {
                    break flags;
                }
            };
            assert_eq!(flags & END_STREAM, END_STREAM);
        }
    }
    let connect = frame(HEADERS, END_HEADERS, 1, &block(&[(":method", "CONNECT"), (":authority", "a:443")]));
    let other = block(&[(":method", "CONNECT"), (":protocol", "chess"), GET[1], GET[2], GET[3]]);
    run(
        &ways,
        vec![
            ("CONNECT", connect, Answer(1, 405)),
            ("a protocol that nobody knows", frame(HEADERS, END_HEADERS, 1, &other), Answer(1, 501)),
        ],
    );
}

#[test]
fn who_does_not_hear_that_the_connection_ends_gets_no_more_of_it() {
    // The first request is never answered, the others are.
    let server = Server::script(|client, number| {
        while next_request(client).is_some() {
            if number > 0 {
                client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    let limits = r#", "h2c": true, "limits": { "requests_per_connection": 1 }"#;
    let proxy = Proxy::start(&[server.address], limits);
    let mut client = Frames::begin(proxy.address);
    client.0.send(&get(1));
    eventually("the server has it", || server.count() == 1);
    let mut stream = 3;
    eventually("it is refused", || {
        client.0.send(&get(stream));
        stream += 2;
        loop {
            // The PING that asks whether all was heard stays without an answer.
            let (kind, flags, ..) = client.next().expect("the first request goes on");
            match kind {
                RESET => return true,
                HEADERS if flags & END_STREAM != 0 => return false,
                _ => {}
            }
        }
    });
}

#[test]
fn a_body_that_is_said_to_be_empty_is_no_chunks() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], r#", "h2c": true"#);
    let mut client = Frames::begin(proxy.address);
    client.0.send(&[post(1, &[("content-length", "0")]), frame(DATA, END_STREAM, 1, b"")].concat());
    let seen = String::from_utf8(client.data()).unwrap();
    let lines = (header(&seen, "content-length"), header(&seen, "transfer-encoding"));
    assert_eq!(lines, (Some("0"), None), "{seen}");
}

#[test]
fn empty_frames_now_and_then_end_nothing() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], r#", "h2c": true"#);
    let mut client = Frames::begin(proxy.address);
    for stream in 0..30 {
        let stream = 2 * stream + 1;
        let nothing = frame(DATA, 0, stream, b"").repeat(10);
        client.0.send(&[post(stream, &[]), nothing, frame(DATA, END_STREAM, stream, b"body")].concat());
        client.check(Answer(stream, 200)).unwrap_or_else(|why| panic!("{stream}: {why}"));
    }
}

#[test]
fn who_takes_its_time_has_all_of_what_was_asked_for_before_the_end() {
    const BODY: usize = 60_000;
    let server = Server::script(|client, _| {
        while next_request(client).is_some() {
            client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").as_bytes());
            client.send(&[b'x'; BODY]);
        }
    });
    let limits = r#", "h2c": true, "limits": { "requests_per_connection": 120 }"#;
    let proxy = Proxy::start(&[server.address], limits);
    let mut client = Frames::begin(proxy.address);
    socket2::SockRef::from(&client.0.stream).set_recv_buffer_size(64 * 1024).unwrap();
    client.0.send(&[settings(4, 1 << 30), number(WINDOW, 0, 1 << 30)].concat());
    client.0.send(&(0..120).flat_map(|stream| get(2 * stream + 1)).collect::<Vec<u8>>());
    // More than sockets hold. It is said what is to be, and longer than an end takes by itself.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let (mut bytes, mut ended) = (0, 0);
    while ended < 120 {
        let (kind, flags, _, payload) = client.next().expect("all of it comes");
        assert_ne!(kind, RESET);
        if kind == DATA {
            bytes += payload.len();
            ended += u32::from(flags & END_STREAM);
        }
    }
    assert_eq!(bytes, 120 * BODY);
}

#[test]
fn trailers_may_be_cut_anywhere() {
    // RFC 9113 §4.3.
    let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&bodies);
    let server = Server::script(move |client, _| {
        loop {
            client.until("\r\n\r\n");
            seen.lock().unwrap().push(client.until("\r\n\r\n"));
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let proxy = Proxy::start(&[server.address], r#", "h2c": true"#);
    let trailers = [field("x-t", "1"), field("x-u", "2")].concat();
    for first in 0..trailers.len() {
        for second in [0, 1, 2].map(|more| (first + more).min(trailers.len())) {
            let mut client = Frames::begin(proxy.address);
            let parts = [
                post(1, &[]),
                frame(DATA, 0, 1, b"body"),
                frame(HEADERS, END_STREAM, 1, &trailers[..first]),
                frame(CONTINUATION, 0, 1, &trailers[first..second]),
                frame(CONTINUATION, END_HEADERS, 1, &trailers[second..]),
            ];
            client.0.send(&parts.concat());
            client.check(Answer(1, 200)).unwrap_or_else(|why| panic!("{first}, {second}: {why}"));
            let body = bodies.lock().unwrap().pop().unwrap();
            assert_eq!(body, "4\r\nbody\r\n0\r\nx-t: 1\r\nx-u: 2\r\n\r\n", "{first}, {second}");
        }
    }
}

#[test]
fn trailers_of_a_client_are_not_cut_short_in_silence() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], r#", "h2c": true"#);
    let large = "x".repeat(15_000);
    for (lines, expect) in [(4, Answer(1, 200)), (5, Connection(&[11]))] {
        let mut client = Frames::begin(proxy.address);
        client.0.send(&[post(1, &[]), frame(DATA, 0, 1, b"body")].concat());
        for line in 0..lines {
            let (kind, flags) = if line == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
            let flags = if line + 1 == lines { flags | END_HEADERS } else { flags };
            // The last one is soon there as a whole.
            let value = if line == 4 { &large[..6_000] } else { &large };
            client.0.send(&frame(kind, flags, 1, &field(&format!("x-{line}"), value)));
        }
        client.check(expect).unwrap_or_else(|why| panic!("{lines}: {why}"));
    }
    // And the server has not got the one that was cut for whole.
    let whole = server.requests().iter().filter(|request| request.starts_with("POST ")).count();
    assert_eq!(whole, 1);
}
