//! What an operator says for the time being: weights, waiting for the end of connections, ending them, VIPs that are
//! disabled.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use lb_tests::{
    address::Family,
    client,
    daemon::{Balancer, Installation, binary, find_server, find_vip},
    folder::Folder,
    needs_balancer,
    streams::Streams,
    wait,
};
use lb_user::connections::{Listed, State};

use crate::bed::{Bed, MODES, vip_name};

const LIMIT: Duration = Duration::from_secs(20);

/// How a command ended, and what it said.
fn lbctl(balancer: &Balancer<'_>, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary("lbctl"));
    command.arg("--socket").arg(balancer.installation().socket()).args(arguments);
    let output = command.output().expect("run lbctl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// Insists that a connection still echoes.
fn echoes(stream: &TcpStream, what: &str) {
    let mut stream = stream;
    stream.write_all(b"still there\n").unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(line, "still there\n", "{what}");
}

#[test]
fn a_weight_for_the_time_being_outlasts_reload_and_restart_and_breaks_nothing() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let config = bed.config(&["snat", "dr"], 80, "");
    let balancer = bed.balance(&config);
    let client = &bed.net.client().ns;
    let target = |mode| bed.target(mode, Family::V4, 80);
    let streams = ["snat", "dr"].map(|mode| Streams::start(client, target(mode), 12));
    let told = balancer.lbctl(&["server", "weight", "*/s2", "0"]).expect("a weight");
    assert!(told.contains("snat_v4/s2: ready, weight 0 for the time being"), "{told}");
    for mode in ["snat", "dr"] {
        let tally = client::requests(client, target(mode), 100).all_answered(mode);
        assert_eq!(tally.servers(), ["s1", "s3"], "{mode}");
    }
    let weights = |balancer: &Balancer<'_>| {
        let status = balancer.status();
        let server = find_server(find_vip(&status, "snat_v4"), "s2").clone();
        (server.weight, server.weight_of_file)
    };
    let _ = balancer.lbctl(&["reload"]).expect("a reload");
    assert_eq!(weights(&balancer), (0, Some(100)));
    let balancer = balancer.kill().start();
    let _ = balancer.wait_all_up();
    assert_eq!(weights(&balancer), (0, Some(100)));
    for streams in &streams {
        streams.wait_for_echoes(20);
        streams.unbroken_except(None);
    }
    let _ = balancer.lbctl(&["server", "weight", "*/s2", "file"]).expect("the weight of the file");
    assert_eq!(weights(&balancer), (100, None));
    wait::until(LIMIT, "traffic to return to s2", || {
        let tally = client::requests(client, target("dr"), 30).all_answered("dr");
        if tally.by_server.contains_key("s2") { Ok(()) } else { Err(tally.to_string()) }
    });
}

#[test]
fn a_drain_can_be_waited_for() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    let target = bed.target("snat", Family::V4, 80);
    // Until s2 has one.
    let connections = bed.net.client().ns.run(|| {
        let open = || client::connect(target, None, LIMIT).expect("connect");
        (0..30).map(|_| open()).collect::<Vec<_>>()
    });
    let (code, said) = lbctl(&balancer, &["server", "drain", "snat_v4/s2", "--wait", "3s"]);
    assert!(code == Some(4) && said.contains("time is up; snat_v4/s2 has "), "{code:?}: {said}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lbctl(&balancer, &["server", "drain", "snat_v4/s2", "--wait", "60s"]));
        drop(connections);
        let (code, said) = waiting.join().expect("lbctl");
        assert!(code == Some(0) && said.ends_with("no connections are left\n"), "{code:?}: {said}");
    });
    let (code, said) = lbctl(&balancer, &["server", "drain", "snat_v4/s2", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_disabled_vip_refuses_new_connections_and_keeps_the_open_ones() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&MODES, 80, ""));
    let client = &bed.net.client().ns;
    let connect = |mode| {
        client.run(|| client::connect(bed.target(mode, Family::V4, 80), None, LIMIT).expect("connect"))
    };
    let open: Vec<_> = MODES
        .iter()
        .map(|&mode| {
            let streams: Vec<_> = (0..10).map(|_| connect(mode)).collect();
            for mut stream in &streams {
                stream.write_all(b"ECHO\n").expect("send");
                BufReader::new(stream).read_line(&mut String::new()).expect("the server's name");
            }
            (mode, streams)
        })
        .collect();
    for mode in MODES {
        let vip = vip_name(mode, Family::V4);
        let (code, said) = lbctl(&balancer, &["vip", "disable", &vip]);
        assert_eq!((code, said), (Some(0), format!("{vip}: disabled\n")));
        let refused = client::requests(client, bed.target(mode, Family::V4, 80), 10).none_answered(mode);
        assert!(refused.failures.iter().all(|failure| failure.contains("refused")), "{mode}: {refused}");
        let _ = client::requests(client, bed.target(mode, Family::V6, 80), 10).all_answered(mode);
    }
    let balancer = balancer.kill().start();
    let _ = balancer.wait_all_up();
    assert!(balancer.lbctl(&["vip", "list"]).expect("a list").contains("disabled"));
    for (mode, streams) in &open {
        let _ = client::requests(client, bed.target(mode, Family::V4, 80), 3).none_answered(mode);
        streams.iter().for_each(|stream| echoes(stream, mode));
    }
    let _ = balancer.lbctl(&["vip", "enable", "*"]).expect("enable");
    for (mode, streams) in &open {
        let _ = client::requests(client, bed.target(mode, Family::V4, 80), 30).all_answered(mode);
        streams.iter().for_each(|stream| echoes(stream, mode));
    }
}

#[test]
fn connections_are_listed_and_ended_by_client_and_by_server() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&MODES, 80, ""));
    let client = &bed.net.client().ns;
    let list = |filter: &[&str]| -> Listed {
        let told = balancer.lbctl(&[&["conn", "list", "-o", "json"], filter].concat()).expect("a list");
        serde_json::from_str(&told).expect("what connections are like")
    };
    for (mode, family) in [("snat", Family::V4), ("nat", Family::V6)] {
        let (vip, target) = (vip_name(mode, family), bed.target(mode, family, 80));
        let streams = Streams::start(client, target, 12);
        streams.wait_for_echoes(3);
        let listed = list(&["--vip", &vip]);
        let of_s2 = list(&["--server", &format!("{vip}/s2")]);
        assert_eq!((listed.matching, of_s2.matching as usize), (12, streams.by_server()["s2"]), "{vip}");
        let one = &of_s2.connections[0];
        let server = bed.net.servers[1].address.at(family, 80);
        assert_eq!((one.vip_address, one.server_address, one.state), (target, Some(server), State::Open));
        assert_eq!(one.client.ip(), bed.net.client().address.of(family));
        let nobody = list(&["--client", "192.0.2.77"]);
        assert_eq!((nobody.matching, nobody.connections.len()), (0, 0));

        let told = balancer.lbctl(&["conn", "kill", "--server", &format!("{vip}/s2")]).expect("an end");
        assert_eq!(
            told,
            format!("{} connections ended", of_s2.matching).replace("1 connections", "1 connection")
        );
        wait::until_true(LIMIT, "the connections of s2 to break", || {
            streams.reports().iter().all(|report| report.server != "s2" || report.broken.is_some())
        });
        streams.wait_for_echoes(3);
        streams.unbroken_except(Some("s2"));
    }
    // One that says nothing learns it, too.
    let target = bed.target("snat", Family::V4, 80);
    let mut idle = client.run(|| client::connect(target, None, LIMIT).expect("connect"));
    idle.set_read_timeout(Some(LIMIT)).expect("set up");
    wait::until_true(LIMIT, "the connection to be listed", || list(&["--vip", "snat_v4"]).matching > 0);
    let address = bed.net.client().address.of(Family::V4).to_string();
    let _ = balancer.lbctl(&["conn", "kill", "--client", &address]).expect("an end");
    assert_eq!(idle.read(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    let refused = balancer.lbctl(&["conn", "kill", "--vip", "dr_v4"]).expect_err("nobody knows them");
    assert!(refused.contains("of mode dr: of its connections a hash is kept"), "{refused}");
    let _ = client::requests(client, target, 30).all_answered("everybody may come again");
}

/// R77, R29, R68: from a client's place, from the balancer's, and what the balancer itself listens on.
#[test]
fn vips_are_opened_servers_are_reached_and_own_sockets_are_listed() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let top = bed.config(&MODES, 80, "");
    let balancer = Installation::new(&bed.net.lb.ns, &["eth0"], top.text())
        .xdp_mode("native")
        .option("--metrics")
        .option("127.0.0.1:9100")
        .start();
    let _ = balancer.wait_all_up();
    let (client, lb) = (bed.net.client().ns.name(), bed.net.lb.ns.name());
    let (code, said) = lbctl(&balancer, &["verify", "--netns", client]);
    assert!(code == Some(0) && said.matches(" ok ").count() == 6, "{code:?}: {said}");
    let (code, said) = lbctl(&balancer, &["verify", "--netns", lb, "snat_v4"]);
    assert!(code == Some(5) && said.contains("this host has the address itself"), "{code:?}: {said}");
    let (code, said) = lbctl(&balancer, &["probe", "--netns", lb]);
    assert!(code == Some(0) && said.matches("connected").count() == 6, "{code:?}: {said}");
    let mac = bed.net.servers[0].mac.to_string();
    assert!(said.contains(&mac) && said.contains("eth0 from "), "{said}");

    bed.servers.iter().for_each(|server| server.close(80));
    let (code, said) = lbctl(&balancer, &["verify", "--netns", client, "-o", "json", "--timeout", "1s"]);
    let failed = said.matches("\"failed\"").count();
    assert!(code == Some(5) && failed == 6 && said.contains("6 of 6 VIPs do not answer"), "{code:?}: {said}");
    bed.net.unplug(&bed.net.servers[1]);
    bed.net.lb.ns.ip("neigh flush dev eth0");
    let (code, said) = lbctl(&balancer, &["probe", "--netns", lb, "--timeout", "1s"]);
    assert!(
        code == Some(5) && said.contains("connection refused") && said.contains("answer"),
        "{code:?}: {said}"
    );

    let listed = balancer.lbctl(&["sockets", "-o", "json"]).expect("sockets");
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let own = |row: &&serde_json::Value| row["pid"] == balancer.id();
    let mut ours: Vec<_> = listed.as_array().expect("a list").iter().filter(own).collect();
    let metrics = ours.pop().expect("the port of metrics");
    assert_eq!((metrics["address"].as_str(), metrics["port"].as_u64()), (Some("127.0.0.1"), Some(9_100)));
    assert!(ours.is_empty(), "{ours:?}");
    let told = bed.net.lb.ns.command("ss").args(["-Hlntup"]).output().expect("run ss").stdout;
    let told = String::from_utf8(told).expect("text");
    assert_eq!(told.lines().filter(|line| line.contains("lb-user")).count(), 1, "{told}");
}

/// R75.
#[test]
fn a_bundle_for_support_has_everything_but_secrets() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let secret = "correct-horse-battery";
    let check = |more: &str| {
        format!(
            "health = {{ check = \"redis\", password = \"{secret}\", interval = \"200ms\" }} # {secret}\n{more}"
        )
    };
    let balancer = bed.start(&bed.config(&["snat"], 80, &check("")));
    let changed = check("mss = 1400").replace(secret, &format!("{secret}-2"));
    let _ = balancer.reload(bed.config(&["snat"], 80, &changed).text()).expect("a reload");
    let _ = client::requests(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 1);
    let folder = Folder::new();
    let file = folder.path().join("bundle.tar");
    let (code, said) =
        lbctl(&balancer, &["support-bundle", "--out", file.to_str().expect("a path in UTF-8")]);
    assert_eq!(code, Some(0), "{said}");
    let unpacked = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(folder.path()).status();
    assert!(unpacked.expect("run tar").success());
    let inside = fs::read_dir(folder.path()).expect("a folder").flatten().find(|entry| entry.path().is_dir());
    let read = |name: &str| {
        let path = inside.as_ref().expect("a folder in the bundle").path().join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}; {said}"))
    };
    for (name, words) in [
        ("status.json", "\"snat_v4\""),
        ("metrics.txt", "lb_vip_up"),
        ("history.json", "\"number\": 2"),
        ("maps.json", "\"VIPS4\""),
        ("connections.json", "\"matching\""),
        ("config.toml", "(hidden)"),
        ("addresses.txt", "inet"),
        ("about.txt", "lbctl "),
    ] {
        assert!(read(name).contains(words), "{name}");
    }
    let all = fs::read(&file).expect("the bundle");
    let found = all.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(!found, "the password is in the bundle");
    assert!(!balancer.log().contains(secret), "the password is in the log");
}

#[test]
fn who_waits_for_a_drain_is_not_disturbed_by_a_restart() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    let target = bed.target("snat", Family::V4, 80);
    let connections = bed.net.client().ns.run(|| {
        let open = || client::connect(target, None, LIMIT).expect("connect");
        (0..30).map(|_| open()).collect::<Vec<_>>()
    });
    let mut command = Command::new(binary("lbctl"));
    command.arg("--socket").arg(balancer.installation().socket());
    command.args(["server", "drain", "*/s2", "--wait", "60s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = command.spawn().expect("run lbctl");
    let _ = balancer.wait_for(LIMIT, "the drain", |status| {
        let server = find_server(find_vip(status, "snat_v4"), "s2");
        if server.state.to_string() == "drain" { Ok(()) } else { Err(server.state.to_string()) }
    });
    let balancer = balancer.kill().start();
    let _ = balancer.wait_all_up();
    drop(connections);
    let output = waiting.wait_with_output().expect("lbctl");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(0) && said.contains("no connections are left"), "{said}");
}
