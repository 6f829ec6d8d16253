//! Probes that talk, against servers that answer as real ones do and as hostile ones might.

use std::time::{Duration, Instant};

use super::{
    Network, Prober,
    scripted::{Server, Turn},
};
use crate::{
    health::{Outcome, Place, Target, TargetId},
    model::{Check, HealthCheck, HttpCheck, Password, RedisCheck, Step},
};

/// Probes a server as the runner would; gives the outcome and what the server heard.
async fn probe(check: Check, turns: Vec<Turn>, limit: Duration) -> (Outcome, Vec<u8>) {
    let server = Server::start(turns).await;
    let id = TargetId { vip: "v".into(), server: "s".into() };
    let place = Place::At { server: server.address.ip(), probe: server.address };
    let check = HealthCheck { check, timeout: limit, ..HealthCheck::default() };
    let subject = Target { id, place, check }.subject().unwrap();
    let outcome = Network::default().probe(&subject).await;
    (outcome, server.heard().await)
}

const LIMIT: Duration = Duration::from_secs(10);

fn good(words: &str) -> Outcome {
    Outcome::Success(words.into())
}

fn bad(words: &str) -> Outcome {
    Outcome::Failure(words.into())
}

fn say(words: &str) -> Turn {
    Turn::Say(words.as_bytes().to_vec())
}

fn redis(password: Option<&str>, master: bool) -> Check {
    Check::Redis(RedisCheck { password: password.map(|text| Password::Text(text.into())), master })
}

#[tokio::test]
async fn redis_is_asked_for_its_role_and_left_in_good_order() {
    let master = "+OK\r\n+PONG\r\n$33\r\n# Replication\r\nrole:master\r\nmore:1\r\n+OK\r\n";
    let turns = vec![Turn::HearUntil(b"QUIT\r\n"), say(master), Turn::HalfClose];
    let (outcome, heard) = probe(redis(Some("geheim"), true), turns, LIMIT).await;
    assert_eq!(outcome, good("PONG, role master"));
    let expected = "*2\r\n$4\r\nAUTH\r\n$6\r\ngeheim\r\n*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n*1\r\n$4\r\nQUIT\r\n";
    assert_eq!(String::from_utf8(heard).unwrap(), expected);
}

#[tokio::test]
async fn what_redis_says_and_what_it_means() {
    let slave = "+PONG\r\n$27\r\n# Replication\r\nrole:slave\r\n\r\n";
    let negative = "+PONG\r\n$-1\r\n";
    let huge = "+PONG\r\n$99999999\r\n";
    for (sentence, check, answer, expected) in [
        ("any role", redis(None, false), "+PONG\r\n+OK\r\n", good("PONG")),
        ("a replica is not the master", redis(None, true), slave, bad("its role is slave, expected master")),
        (
            "a wrong password",
            redis(Some("x"), true),
            "-WRONGPASS invalid username-password pair\r\n",
            bad("AUTH: the server says WRONGPASS invalid username-password pair"),
        ),
        (
            "a password is wanted",
            redis(None, true),
            "-NOAUTH Authentication required.\r\n",
            bad("PING: the server says NOAUTH Authentication required."),
        ),
        (
            "it is another service",
            redis(None, true),
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            bad("PING: the answer is \"HTTP/1.1 400 Bad Request\", which is not Redis's"),
        ),
        ("no role", redis(None, true), "+PONG\r\n$2\r\nab\r\n", bad("the answer to INFO names no role")),
        ("no text", redis(None, true), negative, bad("INFO: the answer is \"$-1\", which is not Redis's")),
        (
            "too much text",
            redis(None, true),
            huge,
            bad("INFO: the answer is \"$99999999\", which is not Redis's"),
        ),
        (
            "half an answer",
            redis(None, true),
            "+PONG\r\n$50\r\nrole:master",
            bad("the server closed the connection, expected the answer to INFO, it said \"role:master\""),
        ),
    ] {
        let (outcome, _) =
            probe(check, vec![Turn::HearUntil(b"QUIT\r\n"), say(answer), Turn::HalfClose], LIMIT).await;
        assert_eq!(outcome, expected, "{sentence}");
    }
}

/// A packet of MySQL.
fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![payload.len() as u8, (payload.len() >> 8) as u8, 0, number];
    packet.extend(payload);
    packet
}

const GREETING: &[u8] = b"\x0a5.5.5-10.11.6-MariaDB\0\x01\0\0\0abcdefgh\0";

#[tokio::test]
async fn a_greeting_of_mysql_is_enough_and_an_error_is_told() {
    let blocked = b"\xff\x69\x04Host '10.0.0.9' is blocked because of many connection errors";
    let with_state = b"\xff\x10\x04#08004Too many connections";
    for (sentence, greeting, expected) in [
        ("a greeting", packet(0, GREETING), good("greeted by 10.11.6-MariaDB")),
        (
            "blocked",
            packet(0, blocked),
            bad("the server says: Host '10.0.0.9' is blocked because of many connection errors (error 1129)"),
        ),
        ("full", packet(0, with_state), bad("the server says: Too many connections (error 1040)")),
        ("an error without a word", packet(0, b"\xff"), bad("the server refuses connections")),
        ("an old protocol", packet(0, b"\x09abc"), bad("the greeting is not MySQL's")),
        ("an empty packet", packet(0, b""), bad("the greeting is not MySQL's")),
        (
            "another service",
            b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            bad("a packet of MySQL is 4739923 bytes long, which is more than 65536"),
        ),
    ] {
        let check = Check::Mysql { user: None };
        let (outcome, heard) = probe(check, vec![Turn::Say(greeting), Turn::HalfClose], LIMIT).await;
        assert_eq!(outcome, expected, "{sentence}");
        assert_eq!(heard, b"", "{sentence}");
    }
}

#[tokio::test]
async fn a_user_logs_in_to_mysql_and_out_again() {
    let check = || Check::Mysql { user: Some("lb_check".into()) };
    const END: &[u8] = b"mysql_native_password\0";
    let switch = b"\xfecaching_sha2_password\0abcdefgh\0";
    let denied = b"\xff\x15\x04#28000Access denied for user 'lb_check'@'10.0.0.9' (using password: NO)";
    let ok = b"\0\0\0\x02\0\0\0";
    let greet = || Turn::Say(packet(0, GREETING));
    let (outcome, heard) =
        probe(check(), vec![greet(), Turn::HearUntil(END), Turn::Say(packet(2, ok)), Turn::Wait], LIMIT)
            .await;
    assert_eq!(outcome, good("logged in to 10.11.6-MariaDB"));
    assert_eq!(&heard[3..8], [1, 0, 0x82, 0x08, 0], "packet 1, capabilities");
    assert!(heard[36..].starts_with(b"lb_check\0\0mysql_native_password\0"), "{}", heard.escape_ascii());
    assert!(heard.ends_with(&[1, 0, 0, 0, 1]), "it says goodbye");

    let turns = vec![
        greet(),
        Turn::HearUntil(END),
        Turn::Say(packet(2, switch)),
        Turn::HearUntil(&[0, 0, 0, 3]),
        Turn::Say(packet(4, ok)),
        Turn::Wait,
    ];
    assert_eq!(probe(check(), turns, LIMIT).await.0, good("logged in to 10.11.6-MariaDB"));

    let turns = vec![greet(), Turn::HearUntil(END), Turn::Say(packet(2, denied)), Turn::HalfClose];
    let why =
        "the server says: Access denied for user 'lb_check'@'10.0.0.9' (using password: NO) (error 1045)";
    assert_eq!(probe(check(), turns, LIMIT).await.0, bad(why));

    let more = packet(2, b"\x01\x04");
    let turns = vec![greet(), Turn::HearUntil(END), Turn::Say(more.repeat(9)), Turn::Wait];
    assert_eq!(probe(check(), turns, LIMIT).await.0, bad("the login came to no end"));
}

fn mail() -> Check {
    Check::Script(vec![
        Step::Begins(b"220 ".to_vec()),
        Step::Send(b"EHLO lb\r\n".to_vec()),
        Step::Expect(b"250 ".to_vec()),
        Step::Send(b"QUIT\r\n".to_vec()),
        Step::Begins(b"OK\r\n221".to_vec()),
    ])
}

#[tokio::test]
async fn a_script_is_played_step_by_step() {
    let turns = vec![
        Turn::Drip(b"220 mail\r\n", Duration::from_millis(1)),
        Turn::HearUntil(b"EHLO lb\r\n"),
        say("250-PIPELINING\r\n250 OK"),
        Turn::HearUntil(b"QUIT\r\n"),
        say("\r\n221 bye\r\n"),
        Turn::HalfClose,
    ];
    // What is left of the line with "250 " is what the last step begins with.
    let (outcome, heard) = probe(mail(), turns, LIMIT).await;
    assert_eq!(outcome, good("the conversation went as it should, 5 steps"));
    assert_eq!(heard, b"EHLO lb\r\nQUIT\r\n");
}

#[tokio::test]
async fn the_step_that_fails_is_named_with_what_came_instead() {
    for (sentence, turns, expected) in [
        (
            "another beginning",
            vec![say("554 no\r\n"), Turn::Wait],
            "step 1: expected \"220 \" first, it said \"554 no\\r\\n\"",
        ),
        (
            "a beginning that is too short",
            vec![say("22"), Turn::HalfClose],
            "step 1: the server closed the connection, expected \"220 \", it said \"22\"",
        ),
        (
            "the end instead of an answer",
            vec![say("220 "), Turn::HearUntil(b"\r\n"), Turn::HalfClose],
            "step 3: the server closed the connection, expected \"250 \"",
        ),
        (
            "an endless answer",
            vec![say("220 "), Turn::SayForEver(b"", b"spam spam spam ")],
            "step 3: \"250 \" is not in the first 65536 bytes of the answer",
        ),
    ] {
        assert_eq!(probe(mail(), turns, LIMIT).await.0, bad(expected), "{sentence}");
    }
}

/// Everything ends in time, whatever the server does.
#[tokio::test]
async fn silence_and_dripping_end_with_the_timeout() {
    let limit = Duration::from_millis(200);
    let http = || Check::Http(HttpCheck { body: Some("never".into()), ..HttpCheck::default() });
    let tls = || Check::Tls { host: None, trust: crate::model::Trust::Anyone };
    let checks = || [http(), tls(), redis(None, true), Check::Mysql { user: Some("u".into()) }, mail()];
    for check in checks() {
        let began = Instant::now();
        let (outcome, _) = probe(check.clone(), vec![Turn::Wait], limit).await;
        assert_eq!(outcome, bad("no answer within 200ms"), "{check:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{check:?}");
    }
    for (check, beginning) in [
        (
            http(),
            &b"HTTP/1.1 200 OK\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"[..],
        ),
        (tls(), b"\x16\x03\x03\x40\0xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        (redis(None, true), b"+PONGxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        (mail(), b"220 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ] {
        let (outcome, _) =
            probe(check.clone(), vec![Turn::Drip(beginning, Duration::from_millis(20)), Turn::Wait], limit)
                .await;
        assert_eq!(outcome, bad("no answer within 200ms"), "{check:?}");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_called_that() {
    let tls = || Check::Tls { host: Some("www.example.com".into()), trust: crate::model::Trust::Anyone };
    for (turns, expected) in [
        (vec![say("SSH-2.0-OpenSSH_9.2\r\n"), Turn::Wait], "the answer is not TLS"),
        (
            vec![Turn::HearUntil(b"www.example.com"), Turn::HalfClose],
            "the server closed the connection during the TLS handshake",
        ),
        (
            vec![Turn::Say(b"\x15\x03\x03\0\x02\x02\x28".to_vec()), Turn::Wait],
            "TLS: received fatal alert: HandshakeFailure",
        ),
    ] {
        assert_eq!(probe(tls(), turns, LIMIT).await.0, bad(expected));
    }
}

#[tokio::test]
async fn datagrams_are_answered_or_at_least_not_refused() {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let mut said = [0; 100];
        while let Ok((length, from)) = socket.recv_from(&mut said).await {
            if &said[..length] != b"silence" {
                socket.send_to(b"\x12\x34answer", from).await.unwrap();
            }
        }
    });
    let ask = async |address: std::net::SocketAddr, send: &[u8], reply: Option<&[u8]>| {
        let id = TargetId { vip: "v".into(), server: "s".into() };
        let check = Check::Udp { send: send.to_vec(), reply: reply.map(<[u8]>::to_vec) };
        let check = HealthCheck { check, timeout: Duration::from_millis(300), ..HealthCheck::default() };
        let subject =
            Target { id, place: Place::At { server: address.ip(), probe: address }, check }.subject();
        Network::default().probe(&subject.unwrap()).await
    };
    assert_eq!(ask(address, b"ask", Some(b"\x12\x34")).await, good("answered"));
    let unexpected = "the answer is \"\\x124answer\", expected \"other\"";
    assert_eq!(ask(address, b"ask", Some(b"other")).await, bad(unexpected));
    assert_eq!(ask(address, b"silence", Some(b"x")).await, bad("no answer within 300ms"));
    assert_eq!(ask(address, b"silence", None).await, good("the port is not reported closed"));
    assert_eq!(ask(address, b"ask", None).await, good("answered"));
    answering.abort();
    let _ = answering.await;
    let refused = bad("port unreachable: nothing listens there");
    assert_eq!(ask(address, b"ask", None).await, refused);
    assert_eq!(ask(address, b"ask", Some(b"x")).await, refused);
}
