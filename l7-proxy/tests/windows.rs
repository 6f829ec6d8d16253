//! Clients of HTTP/2 that let answers through by little: what is no fault of theirs, and who is made to wait.

mod common;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use common::{
    Client, Proxy, Server,
    frames::{
        DATA, END_STREAM, Expect, Frames, GOAWAY, HEADERS, PING, WINDOW, frame, get, number, settings,
        websocket,
    },
    next_request, opens_websocket,
};

const H2C: &str = r#", "h2c": true"#;
/// Answers with so many bytes; where it is asked for a WebSocket, it sends as many through it.
fn server(bytes: usize) -> Server {
    Server::script(move |client, _| {
        while let Some(request) = next_request(client) {
            let head = if request.contains("Upgrade: websocket") {
                opens_websocket(&request, "")
            } else {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")
            };
            client.send(head.as_bytes());
            client.send(&vec![b'x'; bytes]);
        }
    })
}

/// A proxy, and where it is looked after.
fn start(server: &Server, service: &str) -> (Proxy, SocketAddr) {
    let proxy = Proxy::start_with(&[server.address], service, "", r#", "admin": "127.0.0.1:0""#);
    let admin = proxy.engine().admin().unwrap();
    (proxy, admin)
}

/// How often clients were put behind others.
fn put_behind(admin: SocketAddr) -> u32 {
    metric(admin, "l7_put_behind_total{")
}

/// What one that begins so counts.
fn metric(admin: SocketAddr, begin: &str) -> u32 {
    let mut client = Client::connect(admin);
    client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let metrics = client.rest();
    assert!(metrics.contains("l7_requests_total"), "{metrics}");
    let line = metrics.lines().find(|line| line.starts_with(begin));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// Has so many bytes come through the window of the first stream, opened by `by` at a time.
fn sip(client: &mut Frames, bytes: u32, by: u32) {
    for _ in 0..bytes / by {
        client.0.send(&[number(WINDOW, 0, by), number(WINDOW, 1, by)].concat());
        let mut missing = by as usize;
        while missing > 0 {
            missing -= client.data().len();
        }
    }
}

#[test]
fn who_opens_windows_by_next_to_nothing_is_put_behind_others() {
    let server = server(60_000);
    for (name, request) in [("an answer", get(1)), ("a tunnel", websocket(1, "/"))] {
        let (proxy, admin) = start(&server, H2C);
        // A hundred in a second are forgiven, and those are well within one.
        for (bytes, by, behind) in [(90, 1, false), (55 * 1_024, 1_024, false), (1_000, 1, true)] {
            let mut client = Frames::begin(proxy.address);
            client.0.send(&[&settings(4, 0), &request[..]].concat());
            while client.next().expect("an answer").0 != HEADERS {}
            sip(&mut client, bytes, by);
            assert_eq!(put_behind(admin) > 0, behind, "{name}: {bytes} bytes by {by}");
            // The rest comes for whoever opens it.
            client.0.send(&[number(WINDOW, 0, 60_000), number(WINDOW, 1, 60_000)].concat());
            let mut missing = 60_000 - bytes as usize;
            while missing > 0 {
                missing -= client.data().len();
            }
        }
    }
}

#[test]
fn what_is_left_of_a_narrow_connection_is_no_fault() {
    // The default window of a connection for a hundred answers: what is left of it is now and then a byte.
    let server = server(20_001);
    let (proxy, admin) = start(&server, H2C);
    // Clients open it again by half or by four kilobytes; some by every frame that they have taken, and frames get smaller and
    // smaller by that, which is dear, but those are served too, and soon.
    let began = Instant::now();
    for step in [32_768, 4_096, 1] {
        let mut client = Frames::begin(proxy.address);
        let streams: BTreeSet<u32> = (0..100).map(|number| 2 * number + 1).collect();
        client.0.send(&settings(4, 1 << 20));
        client.0.send(&streams.iter().flat_map(|&stream| get(stream)).collect::<Vec<u8>>());
        let (mut left, mut taken, mut bytes) = (streams, 0, 0);
        while !left.is_empty() {
            let (kind, flags, stream, payload) = client.next().expect("it goes on");
            if kind == DATA {
                taken += payload.len() as u32;
                bytes += payload.len();
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                left.remove(&stream);
            }
            if taken >= step {
                client.0.send(&number(WINDOW, 0, std::mem::take(&mut taken)));
            }
        }
        assert_eq!(bytes, 100 * 20_001);
        assert!(step == 1 || put_behind(admin) == 0, "{step}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn settings_that_open_all_windows_by_next_to_nothing_stall_nothing() {
    let server = server(50_000);
    let proxy = Proxy::start(&[server.address], H2C);
    let mut client = Frames::begin(proxy.address);
    client.0.send(&settings(4, 0));
    client.0.send(&(0..128).flat_map(|number| get(2 * number + 1)).collect::<Vec<u8>>());
    let answered = (0..).map(|_| client.next().unwrap()).filter(|(kind, ..)| *kind == HEADERS).take(128);
    assert_eq!(answered.count(), 128);
    client.0.send(&(1..16).flat_map(|bytes| settings(4, bytes)).collect::<Vec<u8>>());
    client.0.send(&frame(PING, 0, 0, b"question"));
    client.check(Expect::Pong(*b"question")).unwrap();
}

#[test]
fn windows_are_opened_for_what_was_sent_or_the_connection_ends() {
    let server = server(60_000);
    let proxy = Proxy::start(&[server.address], H2C);
    // As often as one likes while something comes through them, by the frame and by the byte.
    let mut client = Frames::begin(proxy.address);
    client.0.send(&get(1));
    let mut missing = 60_000;
    while missing > 0 {
        missing -= client.data().len();
    }
    client.0.send(&number(WINDOW, 0, 1).repeat(7_000));
    client.0.send(&frame(PING, 0, 0, b"question"));
    client.check(Expect::Pong(*b"question")).unwrap();
    // Others open what nothing has gone through: within two seconds at most, which are counted one by one.
    let mut client = Frames::begin(proxy.address);
    client.0.send(&number(WINDOW, 0, 1).repeat(900));
    client.0.send(&frame(PING, 0, 0, b"question"));
    client.check(Expect::Pong(*b"question")).unwrap();
    client.0.send(&number(WINDOW, 0, 1).repeat(2_100));
    let (kind, .., payload) = client.next().unwrap();
    assert_eq!((kind, payload[7]), (GOAWAY, 11), "ENHANCE_YOUR_CALM");
}
