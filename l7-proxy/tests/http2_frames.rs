//! HTTP/2 frame by frame, as conformance suites send them: what RFC 9113 and RFC 7541 call an error is one, of
//! the stream or of the connection and with the code they name, and what they allow is served.

mod common;

use common::{Client, Server, frames::*};

const TIMES: &str = r#", "timeouts": { "client_idle": "2s", "request_body": "2s" }"#;

#[test]
fn what_is_allowed_is_served() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    use Expect::{Answer, Pong};
    let padded = |inner: &[u8], padding: u8| [&[padding][..], inner, &vec![0; usize::from(padding)]].concat();
    let prioritised = [&[0, 0, 0, 0, 255][..], &block(&GET)].concat();
    let cut = block(&GET);
    let indexed: &[u8] = &[0x82, 0x86, 0x84, 0x41, 9];
    run(
        &ways,
        vec![
            ("GET", get(1), Answer(1, 200)),
            ("HEAD", with(&[(":method", "HEAD"), GET[1], GET[2], GET[3]]), Answer(1, 200)),
            ("OPTIONS *", with(&[(":method", "OPTIONS"), GET[1], (":path", "*"), GET[3]]), Answer(1, 200)),
            ("POST", [post(1, &[]), frame(DATA, END_STREAM, 1, b"test")].concat(), Answer(1, 200)),
            (
                "POST in frames",
                [
                    post(1, &[("content-length", "8")]),
                    frame(DATA, 0, 1, b"test"),
                    frame(DATA, END_STREAM, 1, b"test"),
                ]
                .concat(),
                Answer(1, 200),
            ),
            (
                "padded DATA",
                [post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, &padded(b"test", 6))].concat(),
                Answer(1, 200),
            ),
            ("padded HEADERS", frame(HEADERS, WHOLE | PADDED, 1, &padded(&block(&GET), 9)), Answer(1, 200)),
            ("HEADERS with priority", frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &prioritised), Answer(1, 200)),
            (
                "trailers",
                [post(1, &[]), frame(DATA, 0, 1, b"test"), frame(HEADERS, WHOLE, 1, &block(&[("x-a", "1")]))]
                    .concat(),
                Answer(1, 200),
            ),
            (
                "PRIORITY of an idle stream, and a lower one then",
                [frame(PRIORITY, 0, 7, &[0, 0, 0, 0, 10]), get(3)].concat(),
                Answer(3, 200),
            ),
            (
                "CONTINUATION",
                [
                    frame(HEADERS, END_STREAM, 1, &cut[..10]),
                    frame(CONTINUATION, 0, 1, &cut[10..20]),
                    frame(CONTINUATION, END_HEADERS, 1, &cut[20..]),
                ]
                .concat(),
                Answer(1, 200),
            ),
            ("the static table", frame(HEADERS, WHOLE, 1, &[indexed, b"a.example"].concat()), Answer(1, 200)),
            ("a type that nobody knows", [frame(0x16, 0, 0, &[0; 8]), get(1)].concat(), Answer(1, 200)),
            ("flags that nobody knows", frame(HEADERS, WHOLE | 0xc2 & !8, 1, &block(&GET)), Answer(1, 200)),
            ("the reserved bit", frame(PING, 0, 0x8000_0000, b"reserved"), Pong(*b"reserved")),
            ("PING", frame(PING, 0, 0, b"h2spec__"), Pong(*b"h2spec__")),
            (
                "PING that is an answer",
                [frame(PING, ACK, 0, b"whatever"), frame(PING, 0, 0, b"question")].concat(),
                Pong(*b"question"),
            ),
            ("a setting that nobody knows", [settings(0xff, 1), get(1)].concat(), Answer(1, 200)),
            (
                "DATA as long as a frame may be",
                [post(1, &[]), frame(DATA, END_STREAM, 1, &[b'x'; 16_384])].concat(),
                Answer(1, 200),
            ),
            (
                "RST_STREAM with a code that nobody knows",
                [post(1, &[]), number(RESET, 1, 0xff), frame(PING, 0, 0, b"still ok")].concat(),
                Pong(*b"still ok"),
            ),
            (
                "WINDOW_UPDATE and PRIORITY of a stream whose request is complete",
                [get(1), number(WINDOW, 1, 10), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255])].concat(),
                Answer(1, 200),
            ),
            (
                "a window that becomes negative and large again",
                [settings(4, 3), get(1), settings(4, 2), number(WINDOW, 1, 65_000)].concat(),
                Answer(1, 200),
            ),
            ("te: trailers", more(&[("te", "trailers")]), Answer(1, 200)),
            ("a host that is the authority", more(&[("host", "a.example")]), Answer(1, 200)),
            ("a host for an authority", with(&[GET[0], GET[1], GET[2], ("host", "b")]), Answer(1, 200)),
        ],
    );
}

#[test]
fn malformed_requests_are_errors_of_their_stream() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    let stream = Expect::Stream(1, &[PROTOCOL]);
    let long = "a".repeat(100);
    run(
        &ways,
        vec![
            ("a name in upper case", more(&[("X-TEST", "ok")]), stream),
            ("a name that is empty", more(&[("", "x")]), stream),
            ("a name with a blank", more(&[("x y", "x")]), stream),
            ("a name with a line end", more(&[("x\r\ny", "x")]), stream),
            ("a value with a line end", more(&[("x", "a\r\nb: c")]), stream),
            ("a value with a zero", more(&[("x", "a\0b")]), stream),
            ("an unknown pseudo-field", more(&[(":test", "ok")]), stream),
            ("a pseudo-field of answers", more(&[(":status", "200")]), stream),
            ("a pseudo-field behind others", with(&[GET[0], GET[1], ("x", "y"), GET[2], GET[3]]), stream),
            (
                "a pseudo-field as a trailer",
                [post(1, &[]), frame(HEADERS, WHOLE, 1, &block(&[(":method", "POST")]))].concat(),
                stream,
            ),
            ("connection", more(&[("connection", "keep-alive")]), stream),
            ("keep-alive", more(&[("keep-alive", "5")]), stream),
            ("proxy-connection", more(&[("proxy-connection", "keep-alive")]), stream),
            ("transfer-encoding", more(&[("transfer-encoding", "chunked")]), stream),
            ("upgrade", more(&[("upgrade", "websocket")]), stream),
            ("te", more(&[("te", "trailers, deflate")]), stream),
            ("an empty path", with(&[GET[0], GET[1], (":path", ""), GET[3]]), stream),
            ("no method", with(&GET[1..]), stream),
            ("no scheme", with(&[GET[0], GET[2], GET[3]]), stream),
            ("no path", with(&[GET[0], GET[1], GET[3]]), stream),
            ("two methods", with(&[GET[0], GET[0], GET[1], GET[2], GET[3]]), stream),
            ("two schemes", with(&[GET[0], GET[1], GET[1], GET[2], GET[3]]), stream),
            ("two paths", with(&[GET[0], GET[1], GET[2], GET[2], GET[3]]), stream),
            ("two authorities", with(&[GET[0], GET[1], GET[2], GET[3], GET[3]]), stream),
            ("a method with a blank", with(&[(":method", "GET / HTTP/1.1"), GET[1], GET[2], GET[3]]), stream),
            ("a scheme with a blank", with(&[GET[0], (":scheme", "http x"), GET[2], GET[3]]), stream),
            ("a path with a blank", with(&[GET[0], GET[1], (":path", "/ HTTP/1.1"), GET[3]]), stream),
            ("a path without a slash", with(&[GET[0], GET[1], (":path", "a"), GET[3]]), stream),
            ("CONNECT with a path", with(&[(":method", "CONNECT"), GET[1], GET[2], GET[3]]), stream),
            (
                "a protocol without CONNECT",
                with(&[GET[0], GET[1], GET[2], GET[3], (":protocol", "websocket")]),
                stream,
            ),
            (
                "a WebSocket without a path",
                with(&[(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[3]]),
                stream,
            ),
            (
                "more than content-length says",
                [post(1, &[("content-length", "1")]), frame(DATA, END_STREAM, 1, b"test")].concat(),
                stream,
            ),
            (
                "less than content-length says",
                [post(1, &[("content-length", "9")]), frame(DATA, END_STREAM, 1, b"test")].concat(),
                stream,
            ),
            (
                "less, in frames",
                [
                    post(1, &[("content-length", "9")]),
                    frame(DATA, 0, 1, b"test"),
                    frame(DATA, END_STREAM, 1, b"test"),
                ]
                .concat(),
                stream,
            ),
            ("nothing, where content-length says more", more(&[("content-length", "1")]), stream),
            ("a content-length that is none", more(&[("content-length", "+0")]), stream),
            (
                "trailers that do not end the stream",
                [post(1, &[]), frame(HEADERS, END_HEADERS, 1, &block(&[("x-test", "ok")]))].concat(),
                stream,
            ),
            (
                "HEADERS that depend on themselves",
                frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 255][..], &block(&GET)].concat()),
                stream,
            ),
            ("WINDOW_UPDATE of nothing", [post(1, &[]), number(WINDOW, 1, 0)].concat(), stream),
            (
                "a window beyond all",
                [post(1, &[]), number(WINDOW, 1, 0x7fff_ffff), number(WINDOW, 1, 0x7fff_ffff)].concat(),
                Expect::Stream(1, &[FLOW]),
            ),
            (
                "PRIORITY too short",
                [post(1, &[]), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
                Expect::Stream(1, &[SIZE]),
            ),
            (
                "DATA after its end",
                [post(1, &[]), frame(DATA, END_STREAM, 1, b"x"), frame(DATA, END_STREAM, 1, b"x")].concat(),
                Expect::Stream(1, &[CLOSED]),
            ),
        ],
    );
    let refused = |fields: &[(&str, &str)], status| (String::new(), with(fields), Expect::Answer(1, status));
    for (_, bytes, expect) in [
        refused(&[GET[0], GET[1], GET[2], (":authority", "a"), ("host", "b")], 400),
        refused(&[GET[0], GET[1], GET[2], (":authority", "u@a")], 400),
        refused(&[GET[0], GET[1], (":path", "*"), GET[3]], 400),
        refused(&[GET[0], GET[1], GET[2]], 400),
        refused(&[GET[0], GET[1], GET[2], ("host", "a"), ("host", "a")], 400),
        refused(&[GET[0], GET[1], GET[2], GET[3], ("expect", &long)], 417),
    ] {
        run(&ways, vec![("refused with an answer", bytes, expect)]);
    }
    let served = |request: &&String| !request.starts_with("POST");
    assert_eq!(server.requests().iter().filter(served).count(), 0, "{:?}", server.requests());
}

#[test]
fn broken_frames_are_errors_of_the_connection() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    use Expect::{Connection, Stream};
    let protocol = Connection(&[PROTOCOL]);
    // The h2 crate does not tell what was wrong with a block.
    let broken = Connection(&[COMPRESSION, PROTOCOL]);
    let cut = block(&GET);
    let begun = frame(HEADERS, END_STREAM, 1, &cut[..10]);
    run(
        &ways,
        vec![
            ("DATA of an idle stream", frame(DATA, END_STREAM, 1, b"x"), Connection(&[PROTOCOL, CLOSED])),
            ("RST_STREAM of an idle stream", number(RESET, 1, 8), protocol),
            ("WINDOW_UPDATE of an idle stream", number(WINDOW, 1, 100), protocol),
            ("CONTINUATION of an idle stream", frame(CONTINUATION, END_HEADERS, 1, &cut), protocol),
            ("an even stream", get(2), protocol),
            ("a stream below one before it", [get(5), get(3)].concat(), protocol),
            ("DATA of no stream", frame(DATA, END_STREAM, 0, b"x"), protocol),
            ("HEADERS of no stream", get(0), protocol),
            ("PRIORITY of no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1]), protocol),
            ("RST_STREAM of no stream", number(RESET, 0, 8), protocol),
            (
                "CONTINUATION of no stream",
                [begun.clone(), frame(CONTINUATION, 4, 0, &cut[10..])].concat(),
                protocol,
            ),
            ("SETTINGS of a stream", frame(SETTINGS, 0, 1, &[]), protocol),
            ("PING of a stream", frame(PING, 0, 1, &[0; 8]), protocol),
            ("GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), protocol),
            (
                "PUSH_PROMISE",
                [post(1, &[]), frame(PUSH, END_HEADERS, 1, &[&[0, 0, 0, 3][..], &cut].concat())].concat(),
                protocol,
            ),
            (
                "RST_STREAM too short",
                [post(1, &[]), frame(RESET, 0, 1, &[0; 3])].concat(),
                Connection(&[SIZE]),
            ),
            ("PING too short", frame(PING, 0, 0, &[0; 6]), Connection(&[SIZE])),
            ("SETTINGS too short", frame(SETTINGS, 0, 0, &[0; 3]), Connection(&[SIZE])),
            ("SETTINGS that acknowledge with bytes", frame(SETTINGS, ACK, 0, &[0; 6]), Connection(&[SIZE])),
            ("WINDOW_UPDATE too short", frame(WINDOW, 0, 0, &[0; 3]), Connection(&[SIZE])),
            ("WINDOW_UPDATE of nothing", number(WINDOW, 0, 0), protocol),
            (
                "a window beyond all",
                [number(WINDOW, 0, 0x7fff_ffff), number(WINDOW, 0, 0x7fff_ffff)].concat(),
                Connection(&[FLOW]),
            ),
            ("ENABLE_PUSH 2", settings(2, 2), protocol),
            ("a first window beyond all", settings(4, 0x8000_0000), Connection(&[FLOW])),
            (
                "a first window that takes another beyond all",
                [post(1, &[]), number(WINDOW, 1, 0x7fff_0000), settings(4, 0x7fff_ffff)].concat(),
                Connection(&[FLOW]),
            ),
            ("frames of fewer than 16384 bytes", settings(5, 16_383), protocol),
            ("frames of more than 16777215 bytes", settings(5, 16_777_216), protocol),
            (
                "DATA that is too long",
                [post(1, &[]), frame(DATA, END_STREAM, 1, &[0; 16_385])].concat(),
                Stream(1, &[SIZE]),
            ),
            ("HEADERS that are too long", frame(HEADERS, WHOLE, 1, &[0; 16_385]), Connection(&[SIZE])),
            (
                "DATA with more padding than bytes",
                [post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, &[9, 1, 2])].concat(),
                protocol,
            ),
            (
                "HEADERS with more padding than bytes",
                frame(HEADERS, WHOLE | PADDED, 1, &[&[200][..], &cut].concat()),
                protocol,
            ),
            (
                "PRIORITY within a block",
                [begun.clone(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])].concat(),
                protocol,
            ),
            ("HEADERS within a block", [begun.clone(), get(3)].concat(), protocol),
            ("DATA within a block", [begun.clone(), frame(DATA, 0, 1, b"x")].concat(), protocol),
            (
                "an unknown type within a block",
                [begun.clone(), frame(0x16, 0, 1, &[0; 8])].concat(),
                protocol,
            ),
            (
                "CONTINUATION of another stream",
                [begun, frame(CONTINUATION, END_HEADERS, 3, &cut[10..])].concat(),
                protocol,
            ),
            (
                "CONTINUATION behind an end",
                [post(1, &[]), frame(CONTINUATION, END_HEADERS, 1, &cut)].concat(),
                protocol,
            ),
            (
                "CONTINUATION behind DATA",
                [post(1, &[]), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, &cut)].concat(),
                protocol,
            ),
            ("HEADERS behind the end of a request", [get(1), get(1)].concat(), Connection(&[CLOSED])),
            (
                "DATA of a stream that was reset",
                [post(1, &[]), number(RESET, 1, 8), frame(DATA, END_STREAM, 1, b"x")].concat(),
                Stream(1, &[CLOSED]),
            ),
            (
                "HEADERS of a stream that was reset",
                [post(1, &[]), number(RESET, 1, 8), get(1)].concat(),
                Stream(1, &[CLOSED, PROTOCOL]),
            ),
            // RFC 7541.
            ("a block that is none", frame(HEADERS, WHOLE, 1, &[0x40]), broken),
            ("an index that is none", frame(HEADERS, WHOLE, 1, &[&cut[..], &[0xff, 0x50]].concat()), broken),
            ("index 0", frame(HEADERS, WHOLE, 1, &[&cut[..], &[0x80]].concat()), broken),
            (
                "a literal with an index that is none",
                frame(HEADERS, WHOLE, 1, &[&cut[..], &[0x7f, 0x50, 1, b'x']].concat()),
                broken,
            ),
            (
                "a table's size at the end of a block",
                frame(HEADERS, WHOLE, 1, &[&cut[..], &[0x20]].concat()),
                broken,
            ),
            (
                "a table larger than allowed",
                frame(HEADERS, WHOLE, 1, &[&[0x3f, 0xe2, 0x1f][..], &cut].concat()),
                broken,
            ),
            (
                "Huffman code with too much padding",
                frame(HEADERS, WHOLE, 1, &[&cut[..], &[0, 1, b'x', 0x82, 0x1f, 0xff]].concat()),
                broken,
            ),
            (
                "Huffman code padded with zeros",
                frame(HEADERS, WHOLE, 1, &[&cut[..], &[0, 1, b'x', 0x81, 0x18]].concat()),
                broken,
            ),
            (
                "Huffman code with an end in it",
                frame(HEADERS, WHOLE, 1, &[&cut[..], &[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]].concat()),
                broken,
            ),
        ],
    );
}

#[test]
fn what_is_no_preface_is_refused() {
    let server = Server::echo("a");
    let ways = Ways::to(&server, TIMES);
    for (way, address) in ways.addresses() {
        // One that begins as HTTP/1.1 could; and one that is of neither, which nobody is told in one of them.
        for (odd, begin) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"[..], "HTTP/1.1 505 "),
            (b"INVALID CONNECTION PREFACE\r\n\r\n", ""),
        ] {
            let mut client = Client::connect(address);
            client.send(odd);
            let answer = client.rest();
            assert!(way == "TLS" || answer.get(..13).unwrap_or_default() == begin, "{answer}");
        }
        let mut client = Client::connect(address);
        client.send(&[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat());
        let mut frames = Frames(client);
        frames.check(Expect::Connection(&[PROTOCOL])).unwrap();
    }
}

#[test]
fn a_client_has_no_more_streams_than_it_may() {
    let server = Server::script(|client, _| drop(client.rest()));
    let ways = Ways::to(&server, r#", "limits": { "http2": { "streams": 3 } }"#);
    let streams: Vec<u8> = (0..4).flat_map(|number| get(number * 2 + 1)).collect();
    run(&ways, vec![("a stream too many", streams, Expect::Stream(7, &[PROTOCOL, REFUSED]))]);
}

#[test]
fn frames_that_only_keep_us_busy_end_the_connection() {
    let server = Server::script(|client, _| drop(client.rest()));
    let ways = Ways::with(&server, "", r#", "admin": "127.0.0.1:0""#);
    let admin = ways.plain().engine().admin().unwrap();
    let calm = Expect::Connection(&[11]);
    let flood = |begin: Vec<u8>, frame: Vec<u8>| [begin, frame.repeat(5_000)].concat();
    run(
        &ways,
        vec![
            ("PING", flood(Vec::new(), frame(PING, 0, 0, &[0; 8])), calm),
            ("SETTINGS", flood(Vec::new(), frame(SETTINGS, 0, 0, &[])), calm),
            ("PRIORITY", flood(Vec::new(), frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1])), calm),
            ("empty DATA", flood(post(1, &[]), frame(DATA, 0, 1, &[])), calm),
            ("unknown frames", flood(Vec::new(), frame(0x77, 0, 0, &[])), calm),
            ("empty CONTINUATION", flood(frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 1, &[])), calm),
        ],
    );
    common::eventually("each is counted", || {
        let mut client = Client::connect(admin);
        client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        client.rest().contains("l7_refused_total{service=\"web\",limit=\"http2\"} 6\n")
    });
}
