//! Connections that are not HTTP through the proxy: message brokers (R49, R50) and a real Redis (R19), with TLS ended and plain.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use lb_tests::{
    address::Family,
    client,
    daemon::{Balancer, Installation, find_server, find_vip},
    http::Web,
    needs_balancer,
    netns::Netns,
    stomp::{Broker, Client, Frame},
    syslog::Receiver,
    topology::{Layout, Topology},
    visitors::secure::trusting,
    wait,
};
use lb_user::snapshot::Health;
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use crate::{l7::certificate, proxied::metrics};

const LIMIT: Duration = Duration::from_secs(20);
const NAME: &str = "mq.example";

/// A client's connection to a broker, within TLS.
pub(crate) type Session = Client<StreamOwned<ClientConnection, TcpStream>>;

/// Connects a client; gives its address and the broker that it has got.
pub(crate) fn session(
    ns: &Netns,
    target: SocketAddr,
    name: &str,
    certificate: &str,
) -> Result<(Session, SocketAddr, String), String> {
    let stream = ns.run(|| client::connect(target, None, LIMIT))?;
    let own = stream.local_addr().map_err(|error| error.to_string())?;
    let config = Arc::new(trusting(&[certificate.to_owned()], &[]));
    let name_of_server = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let mut tls = ClientConnection::new(config, name_of_server).map_err(|error| error.to_string())?;
    let mut stream = stream;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(|error| format!("TLS: {error}"))?;
    }
    // Heart-beats are due in between.
    stream.set_read_timeout(Some(Duration::from_millis(20))).map_err(|error| error.to_string())?;
    let (client, hello) = Client::connect(StreamOwned::new(tls, stream), name, LIMIT)?;
    let broker = hello.header("server").unwrap_or_default().to_owned();
    Ok((client, own, broker))
}

/// What a client does in its life: it gets what it has sent, and both sides show that they are there.
pub(crate) fn converse(session: &mut Session, text: &str) -> Result<(), String> {
    let subscribe = [("id", "0"), ("destination", "/queue/jobs"), ("receipt", "subscribed")];
    session.send(&Frame::new("SUBSCRIBE", &subscribe, ""))?;
    let receipt = session.expect("RECEIPT", LIMIT)?;
    if receipt.header("receipt-id") != Some("subscribed") {
        return Err(format!("{receipt:?} is no answer to SUBSCRIBE"));
    }
    session.send(&Frame::new("SEND", &[("destination", "/queue/jobs"), ("receipt", "sent")], text))?;
    let message = session.expect("MESSAGE", LIMIT)?;
    if message.body != text.as_bytes() || message.header("subscription") != Some("0") {
        return Err(format!("{message:?} came for {text:?}"));
    }
    session.expect("RECEIPT", LIMIT).map(drop)
}

/// One `tcplog` line, taken apart.
#[derive(Debug)]
struct Line {
    client: SocketAddr,
    vip: String,
    pool: String,
    server: String,
    /// Queue, connect, total: milliseconds.
    timers: [i64; 3],
    bytes: u64,
    ended: String,
    retries: u32,
}

impl Line {
    fn read(message: &str) -> Option<Self> {
        // RFC 5424: priority and version, time, host, program, process, id, data; then the line.
        let line = message.strip_prefix("<134>1 ")?.splitn(7, ' ').nth(6)?;
        let words: Vec<_> = line.split(' ').collect();
        let [client, date, vip, place, timers, bytes, ended, counts, queues] = words[..] else {
            return None;
        };
        let (pool, server) = place.split_once('/')?;
        let mut times = timers.split('/').map(str::parse);
        let timers = [times.next()?.ok()?, times.next()?.ok()?, times.next()?.ok()?];
        if times.next().is_some() || !date.starts_with('[') || !date.ends_with(']') || queues != "0/0" {
            return None;
        }
        Some(Self {
            client: client.parse().ok()?,
            vip: vip.to_owned(),
            pool: pool.to_owned(),
            server: server.to_owned(),
            timers,
            bytes: bytes.parse().ok()?,
            ended: ended.to_owned(),
            retries: counts.rsplit('/').next()?.parse().ok()?,
        })
    }
}

#[test]
fn a_line_for_each_connection_of_a_broker_reaches_the_receiver_and_pools_are_counted() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let place = |index: usize| net.servers[index].address.of(Family::V4);
    let nodes: Vec<_> =
        [0, 1].map(|n| Web::start(&net.servers[n].ns, &format!("node{}", n + 1), place(n), 8000)).into();
    let start = |n: usize| Broker::start(&net.servers[n].ns, &format!("node{}", n + 1), place(n), 61613);
    let mut brokers: Vec<_> = [0, 1].map(start).into();
    let receiver = Receiver::start(&net.servers[2].ns, SocketAddr::new(place(2), 514));
    let vip = net.vip(200).at(Family::V4, 61613);
    let config = format!(
        "access_log = {{ to = {{ syslog = \"{}:514\" }}, format = \"haproxy\" }}\n[health]\ninterval = \"200ms\"\n\
         [pool.flow]\nhealth = {{ check = \"http\", path = \"/commanderRequest/health\", port = 8000 }}\n\
         servers = [{{ name = \"node1\", address = \"{}\" }}, {{ name = \"node2\", address = \"{}\" }}]\n\
         [vip.stomp]\naddress = \"{}\"\nport = 61613\nmode = \"tcp\"\npool = \"flow\"\n\
         tls = {{ certificates = [\"mq.pem\"] }}\n",
        place(2),
        place(0),
        place(1),
        vip.ip()
    );
    let installation = Installation::new(&net.lb.ns, &["eth0"], &config).xdp_mode("native");
    let pem = certificate(NAME);
    let _ = installation.put("mq.pem", &pem);
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    let ns = &net.client().ns;
    wait::until(LIMIT, "the VIP to be open", || ns.run(|| client::connect(vip, None, LIMIT)));

    // R50: a line for each, with what it says of the connection.
    let count = if std::env::var_os("LB_TEST_FULL").is_some() { 200 } else { 20 };
    let mut known = Vec::new();
    for number in 0..count {
        let began = Instant::now();
        let (mut session, own, broker) = session(ns, vip, NAME, &pem).expect("a session");
        converse(&mut session, &format!("job {number}")).expect("a conversation");
        if number < 2 {
            session.rest(5, LIMIT).expect("heart-beats");
        }
        let least = began.elapsed();
        session.disconnect(LIMIT).expect("a farewell");
        known.push((own, broker, least, began.elapsed()));
    }
    assert_eq!(brokers.iter().map(Broker::clients).sum::<usize>(), count);
    let lines = || receiver.lines().iter().filter_map(|line| Line::read(line)).collect::<Vec<_>>();
    let of = |own: SocketAddr| lines().into_iter().filter(|line| line.client == own).collect::<Vec<_>>();
    wait::until(LIMIT, "all lines", || {
        let missing = known.iter().filter(|(own, ..)| of(*own).is_empty()).count();
        if missing == 0 {
            Ok(())
        } else {
            Err(format!("{missing} of {count} are missing: {:?}", receiver.lines()))
        }
    });
    for (own, broker, least, most) in &known {
        let [line] = &of(*own)[..] else { panic!("one line for {own}: {:?}", receiver.lines()) };
        assert_eq!(
            (&*line.vip, &*line.pool, &*line.server, &*line.ended, line.retries),
            ("stomp~", "flow", &**broker, "--", 0),
            "{line:?}"
        );
        let [_, connect, total] =
            line.timers.map(|time| Duration::from_millis(time.try_into().unwrap_or(u64::MAX)));
        // It is told in whole milliseconds, and begins after the handshake or before.
        let slack = Duration::from_millis(50);
        assert!(
            connect <= total && total + slack >= *least / 4 && total <= *most + slack * 20,
            "{line:?} {least:?} {most:?}"
        );
        assert!(line.bytes > 200, "CONNECTED, RECEIPT, MESSAGE: {line:?}");
    }

    // R50: statistics of the pool.
    let of_pool = |balancer: &Balancer<'_>| -> u64 {
        let shown = balancer.lbctl(&["pool", "show", "flow", "-o", "json"]).expect("lbctl pool show");
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let servers = shown["servers"].as_array().expect("servers");
        let count = |server: &serde_json::Value| server["vips"][0]["traffic"]["connections"].as_u64();
        servers.iter().map(|server| count(server).expect("a count")).sum()
    };
    wait::until(LIMIT, "lbctl to count them", || match of_pool(&balancer) {
        counted if counted >= count as u64 => Ok(()),
        counted => Err(format!("{counted}")),
    });
    let text = metrics(&balancer);
    let sum: u64 = text
        .lines()
        .filter(|line| line.starts_with("l7_server_requests_total{service=\"stomp\",pool=\"flow\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert!(sum >= count as u64, "{sum} of {count}: {text}");

    // R49: who is checked on another port stays up while its broker is gone, and another is tried.
    brokers[0].end();
    for _ in 0..4 {
        let (session, own, broker) = session(ns, vip, NAME, &pem).expect("a session with the other");
        assert_eq!(broker, "node2");
        session.disconnect(LIMIT).expect("a farewell");
        wait::until(LIMIT, "its line", || of(own).pop().ok_or_else(|| format!("{:?}", receiver.lines())));
    }
    assert!(
        lines().iter().any(|line| line.retries > 0),
        "one of them was tried first: {:?}",
        receiver.lines()
    );
    let status = balancer.status();
    assert_eq!(find_server(find_vip(&status, "stomp"), "node1").health, Health::Up);
    // Nobody is left: the connection ends, and the line says how.
    brokers[1].end();
    let before = lines().len();
    assert!(session(ns, vip, NAME, &pem).is_err());
    let line = wait::until(LIMIT, "the line of a failed connection", || {
        lines().into_iter().nth(before).ok_or_else(|| format!("{:?}", receiver.lines()))
    });
    assert_eq!((&*line.pool, &*line.server, &*line.ended), ("flow", "<NOSRV>", "SC"), "{line:?}");
    // R49: the other port alone makes it down, with its broker at work.
    brokers = [0, 1].map(start).into();
    nodes[0].end();
    let _ = balancer.wait_health(LIMIT, "stomp", "node1", Health::Down);
    let with_the_other = || {
        let (session, _, broker) = session(ns, vip, NAME, &pem).expect("a session");
        session.disconnect(LIMIT).expect("a farewell");
        broker == "node2"
    };
    wait::until_true(LIMIT, "the broker beside it to get nothing", || (0..4).all(|_| with_the_other()));
    let before = brokers[0].clients();
    assert!((0..8).all(|_| with_the_other()) && brokers[0].clients() == before);
}
