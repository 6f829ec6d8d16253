//! R26: a server is drained, halted, put back.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use lb_tests::{address::Family, client, needs_balancer, netns::Netns, streams::Streams, wait};

use crate::bed::{Bed, MODES, vip_name};

/// A connection that has said what it has to say, and the server at its other end.
fn idle(ns: &Netns, target: SocketAddr) -> (TcpStream, String) {
    ns.run(|| {
        let stream = client::connect(target, None, Duration::from_secs(5)).expect("connect");
        (&stream).write_all(b"ECHO\n").expect("send");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("the server's name");
        (stream, line.trim().to_owned())
    })
}

/// Waits until a connection is reset; gives how long it took. The client says nothing.
fn reset_after(stream: &TcpStream, limit: Duration) -> Result<Duration, String> {
    stream.set_read_timeout(Some(limit)).expect("set up");
    let begin = Instant::now();
    match (&*stream).read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(begin.elapsed()),
        Err(error) => Err(error.to_string()),
        Ok(bytes) => Err(format!("{bytes} bytes came")),
    }
}

#[test]
fn a_drained_server_keeps_its_connections_and_gets_no_new_ones() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&MODES, 80, ""));
    let client = &bed.net.client().ns;
    let streams: Vec<_> = MODES
        .iter()
        .flat_map(|mode| Family::BOTH.map(|family| (*mode, family)))
        .map(|(mode, family)| (mode, family, Streams::start(client, bed.target(mode, family, 80), 40)))
        .collect();
    balancer.server("drain", "*", "s2");
    for (mode, family, streams) in &streams {
        assert!(streams.by_server().contains_key("s2"), "{mode} over {family}: {:?}", streams.by_server());
        let tally = client::requests(client, bed.target(mode, *family, 80), 200);
        let what = format!("{mode} over {family}");
        assert_eq!(tally.all_answered(&what).servers(), ["s1", "s3"], "{what}");
    }
    for (_, _, streams) in &streams {
        // Long enough for slots to be learned and to move.
        streams.wait_for_echoes(80);
        streams.unbroken_except(None);
    }
    balancer.server("ready", "*", "s2");
    for (mode, family, streams) in &streams {
        let target = bed.target(mode, *family, 80);
        wait::until(Duration::from_secs(10), "traffic to return to s2", || {
            let tally = client::requests(client, target, 30).all_answered(mode);
            if tally.by_server.contains_key("s2") { Ok(()) } else { Err(tally.to_string()) }
        });
        streams.unbroken_except(None);
    }
}

#[test]
fn a_halted_servers_connections_end_within_a_second_even_if_nobody_speaks() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat", "nat"], 80, ""));
    let client = &bed.net.client().ns;
    for mode in ["snat", "nat"] {
        for family in Family::BOTH {
            let (what, vip) = (format!("{mode} over {family}"), vip_name(mode, family));
            let target = bed.target(mode, family, 80);
            let connections: Vec<_> = (0..12).map(|_| idle(client, target)).collect();
            let (of_halted, others): (Vec<_>, Vec<_>) =
                connections.into_iter().partition(|(_, server)| server == "s2");
            assert!(!of_halted.is_empty() && !others.is_empty(), "{what}");
            let begin = Instant::now();
            balancer.server("halt", &vip, "s2");
            for (stream, _) in &of_halted {
                reset_after(stream, Duration::from_secs(5)).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            let took = begin.elapsed();
            assert!(took < Duration::from_secs(1), "{what}: {took:?}");
            // The server has been told, too: it holds no connection of the VIP any more but those of others.
            let server = &bed.net.servers[1].ns;
            wait::until(Duration::from_secs(5), "the server's ends to go", || {
                let mut ss = server.command("ss");
                let output = ss.args(["-Htn", "state", "established", "sport", "=", ":80"]).output();
                let sockets = String::from_utf8(output.expect("run ss").stdout).expect("text");
                let mine = client_of(mode, family, &bed);
                let left: Vec<_> = sockets.lines().filter(|line| line.contains(&mine)).collect();
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
            });
            for (stream, server) in others {
                (&stream).write_all(b"still there\n").expect("send");
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).expect("an echo");
                assert_eq!(line, "still there\n", "{what}: {server}");
            }
            let tally = client::requests(client, target, 60).all_answered(&what);
            assert_eq!(tally.servers(), ["s1", "s3"], "{what}");
            balancer.server("ready", &vip, "s2");
            let tally = client::requests(client, target, 60).all_answered(&what);
            assert_eq!(tally.servers(), ["s1", "s2", "s3"], "{what}");
        }
    }
}

/// Whom a server takes for its client.
fn client_of(mode: &str, family: Family, bed: &Bed) -> String {
    match mode {
        "nat" => bed.net.client().address.of(family).to_string(),
        _ => bed.net.lb_addresses()[1].of(family).to_string(),
    }
}

#[test]
fn a_state_that_is_for_nobody_is_refused() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    for (arguments, why) in [
        (["server", "drain", "nobody/s1"], "there is no VIP \"nobody\""),
        (["server", "halt", "snat_v4/s9"], "there is no server \"s9\" in VIP \"snat_v4\""),
        (["server", "ready", "s1"], "it must be VIP/SERVER"),
    ] {
        let refused = balancer.lbctl(&arguments).expect_err("a refusal");
        assert!(refused.contains(why), "{refused}");
    }
}
