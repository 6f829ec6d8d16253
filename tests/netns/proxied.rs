//! VIPs of proxied modes: lb-user hands them to l7-proxy, which serves them without privileges.

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use lb_tests::{
    address::{Family, Subnet},
    daemon::{Balancer, Installation, binary, find_server, find_vip},
    http::{Asked, Got, Web, curl},
    needs_balancer,
    netns::Netns,
    process,
    stomp::Broker,
    topology::{Layout, Topology},
    wait,
};
use lb_user::snapshot::{Health, PoolHealth};

use crate::{
    brokers::{converse, session},
    l7::{Tunnel, ask, certificate, proxies, steady},
};

const LIMIT: Duration = Duration::from_secs(20);

fn example(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples").join(name);
    fs::read_to_string(file).expect("the example")
}

/// Clients reach VIPs of other networks through the balancer.
fn route_to(net: &Topology, network: &str) {
    net.client().ns.ip(&format!("route add {network} via {}", net.lb.address.of(Family::V4)));
}

/// A host with more addresses.
fn addresses(ns: &Netns, all: &[&str]) {
    for address in all {
        ns.ip(&format!("address add {address}/24 dev eth0"));
    }
}

fn status_line(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line of its status");
    line.trim().to_owned()
}

/// Open files of a proxy that it has no use for: those of the kernel's program, of routing, of the file system.
fn strange_files(pid: i32) -> Vec<String> {
    let routing = fs::read_to_string(format!("/proc/{pid}/net/netlink")).expect("the netlink sockets");
    let inodes: Vec<_> = routing.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").flatten();
    // Standard input is its control socket, the other two are lb-user's log.
    let own = files.filter(|file| !["0", "1", "2"].contains(&&*file.file_name().to_string_lossy()));
    let shown = own.filter_map(|file| Some(fs::read_link(file.path()).ok()?.display().to_string()));
    let is_usual = |file: &String| match file.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inode) => !inodes.contains(&inode),
        None => ["pipe:", "anon_inode:[eventpoll]", "anon_inode:[eventfd"]
            .iter()
            .any(|kind| file.starts_with(kind)),
    };
    shown.filter(|file| !is_usual(file)).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn the_flow_example_serves_in_full() {
    needs_balancer!();
    let layout = Layout { back: Subnet::FLOW, first_server: 11, ..Layout::default() };
    let net = Topology::build(layout);
    route_to(&net, "10.1.0.0/24");
    let extra: [&[&str]; 3] = [&["10.1.0.21"], &["10.1.0.22"], &["10.1.0.23", "10.1.0.24"]];
    for (host, extra) in net.servers.iter().zip(extra) {
        addresses(&host.ns, extra);
    }
    let on = |host: usize, name: &str, address: &str, port: u16| {
        Web::start(&net.servers[host].ns, name, ip(address), port)
    };
    let _web: Vec<_> =
        (0..3).map(|n| on(n, &format!("web{}", n + 1), &format!("10.1.0.{}", 11 + n), 80)).collect();
    let nodes: Vec<_> =
        (0..3).map(|n| on(n, &format!("node{}", n + 1), &format!("10.1.0.{}", 21 + n), 8000)).collect();
    let spare = on(2, "spare", "10.1.0.24", 8000);
    let broker = |n: usize| {
        let address = ip(&format!("10.1.0.{}", 21 + n));
        Broker::start(&net.servers[n].ns, &format!("stomp{}", n + 1), address, 61613)
    };
    let brokers = [0, 1, 2].map(broker);

    let installation = Installation::new(&net.lb.ns, &["eth0"], &example("flow.toml")).xdp_mode("native");
    let pem = certificate("lb.example");
    let _ = installation.put("certs/server.pem", &pem);
    let _ = installation
        .put("errors/503.http", "HTTP/1.1 503 Nobody Here\r\nContent-Type: text/plain\r\n\r\nsorry\n");
    let balancer = installation.start();
    let status = balancer.wait_all_up();
    assert!(status.vips.iter().all(|vip| vip.served), "{:?}", status.vips);
    let ns = &net.client().ns;
    let trusted = balancer.installation().put("trusted.pem", &pem);
    let trusted = trusted.to_str().expect("a path");
    let get = |url: &str| {
        curl(
            ns,
            &[
                "--cacert",
                trusted,
                "--resolve",
                "lb.example:443:10.1.0.5",
                "--resolve",
                "lb.example:8443:10.1.0.5",
                url,
            ],
        )
    };

    // R44: the redirect keeps host, path and query.
    let redirect = get("http://10.1.0.5/a?b=1");
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (302, Some("https://10.1.0.5/a?b=1")),
        "{redirect:?}"
    );
    // R45, R31: TLS ends here, the client is named to the server.
    let over_tls: Vec<Got> = (0..6).map(|_| get("https://lb.example/")).collect();
    for got in &over_tls {
        assert_eq!(got.status, 200, "{got:?}");
        assert!(got.body.contains("x-forwarded-proto: https\n"), "{got:?}");
        assert!(
            got.body.contains(&format!("x-forwarded-for: {}\n", net.client().address.of(Family::V4))),
            "{got:?}"
        );
    }
    let mut servers: Vec<_> = over_tls.iter().filter_map(Got::server).collect();
    servers.sort_unstable();
    servers.dedup();
    assert_eq!(servers, ["web1", "web2", "web3"], "each has its turn");
    // R47: plain 8000 and TLS 8443 both end on port 8000.
    for url in ["http://10.1.0.5:8000/x", "https://lb.example:8443/x"] {
        let got = get(url);
        assert!(got.server().is_some_and(|name| name.starts_with("node")), "{url}: {got:?}");
    }
    // R45, R49: TLS in front of STOMP ends here, and each client has a broker.
    for number in 0..6 {
        let target = SocketAddr::new(ip("10.1.0.5"), 61613);
        let (mut session, _, name) = session(ns, target, "lb.example", &pem).expect("a session");
        assert!(name.starts_with("stomp"), "{name}");
        converse(&mut session, &format!("job {number}")).expect("a conversation");
        session.disconnect(LIMIT).expect("a farewell");
    }
    assert_eq!(brokers.iter().map(Broker::clients).sum::<usize>(), 6);

    // R48: 503 to the check is DOWN although the port is open; with all three gone the spare serves.
    nodes.iter().for_each(|node| node.ill(true));
    for name in ["node1", "node2", "node3"] {
        let _ = balancer.wait_health(LIMIT, "flow", name, Health::Down);
        let _ = balancer.wait_health(LIMIT, "stomp", name, Health::Down);
    }
    wait::until_true(LIMIT, "the spare to serve", || get("http://10.1.0.5:8000/x").server() == Some("spare"));
    spare.ill(true);
    let _ = balancer.wait_health(LIMIT, "flow", "spare", Health::Down);
    wait::until_true(LIMIT, "nobody to serve", || get("http://10.1.0.5:8000/x").status == 503);
    nodes.iter().for_each(|node| node.ill(false));
    for name in ["node1", "node2", "node3"] {
        let _ = balancer.wait_health(LIMIT, "flow", name, Health::Up);
    }
    // R69: the operator's own page when no server is left.
    let _ = balancer.lbctl(&["server", "drain", "web/web1"]).expect("drain");
    for name in ["web1", "web2", "web3"] {
        balancer.server("halt", "web", name);
    }
    wait::until_true(LIMIT, "the page of the operator", || get("https://lb.example/").body == "sorry\n");
    for name in ["web1", "web2", "web3"] {
        balancer.server("ready", "web", name);
    }
    wait::until_true(LIMIT, "the servers to be back", || get("https://lb.example/").status == 200);

    // One truth: what the proxy has counted is in the status.
    wait::until_true(LIMIT, "the count to arrive", || {
        find_vip(&balancer.status(), "web").traffic.connections >= 8
    });
    let metrics = metrics(&balancer);
    assert!(metrics.contains("l7_requests_total{service=\"web\"}"), "{metrics}");
    assert_eq!(metrics.matches("# EOF").count(), 1);

    // The proxy has no rights, and ends with lb-user.
    let [proxy] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    assert_ne!(status_line(proxy, "Uid:").split_whitespace().next(), Some("0"));
    assert_eq!(status_line(proxy, "CapEff:"), "0000000000000000");
    assert_eq!(status_line(proxy, "CapPrm:"), "0000000000000000");
    assert_eq!(status_line(proxy, "NoNewPrivs:"), "1");
    let strange = strange_files(proxy);
    assert!(strange.is_empty(), "nothing of lb-user's is left to it: {strange:?}");
    let _ = balancer.stop();
    assert!(proxies(&net.lb.ns).is_empty());
}

/// What `/metrics` says.
pub(crate) fn metrics(balancer: &Balancer<'_>) -> String {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--unix-socket"])
        .arg(balancer.installation().socket())
        .arg("http://lb/metrics");
    let output = process::output("curl", &mut command, LIMIT);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_tas_example_serves_in_full() {
    needs_balancer!();
    let layout = Layout { back: Subnet::TAS, first_server: 10, ..Layout::default() };
    let net = Topology::build(layout);
    route_to(&net, "10.0.0.0/24");
    addresses(&net.servers[0].ns, &["10.0.4.20", "10.0.4.30"]);
    addresses(&net.servers[1].ns, &["10.0.4.21", "10.0.4.2"]);
    let mut servers = Vec::new();
    for (number, host) in net.servers.iter().enumerate() {
        for port in [80, 443, 8080] {
            let address = ip(&format!("10.0.4.{}", 10 + number));
            servers.push(Web::start(&host.ns, &format!("gorouter-{number}"), address, port));
        }
    }
    for (number, address) in [(0, "10.0.4.20"), (1, "10.0.4.21")] {
        for port in [80, 1024, 1123] {
            servers.push(Web::start(
                &net.servers[number].ns,
                &format!("tcp-router-{number}"),
                ip(address),
                port,
            ));
        }
    }
    servers.push(Web::start(&net.servers[0].ns, "diego-brain-0", ip("10.0.4.30"), 2222));
    servers.push(Web::start(&net.servers[1].ns, "ops-manager", ip("10.0.4.2"), 443));

    let installation = Installation::new(&net.lb.ns, &["eth0"], &example("tas.toml")).xdp_mode("native");
    let (apps, sys) = (certificate("*.apps.example"), certificate("*.sys.example"));
    let _ = installation.put("certs/apps.pem", &apps);
    let _ = installation.put("certs/sys.pem", &sys);
    let balancer = installation.start();
    let status = balancer.wait_all_up();
    assert!(
        status.vips.iter().all(|vip| vip.served && vip.health == PoolHealth::Healthy),
        "{:?}",
        status.vips
    );
    let ns = &net.client().ns;
    let trusted = balancer.installation().put("trusted.pem", format!("{apps}{sys}"));
    let trusted = trusted.to_str().expect("a path");
    // R30: each name its certificate.
    for name in ["a.apps.example", "b.sys.example"] {
        let resolve = format!("{name}:443:10.0.0.10");
        for version in ["--http1.1", "--http2"] {
            let got = curl(
                ns,
                &[version, "--cacert", trusted, "--resolve", &resolve, &format!("https://{name}/x")],
            );
            assert_eq!(got.status, 200, "{got:?}");
            assert!(
                got.body.contains("x-forwarded-proto: https\n")
                    && got.body.contains(&format!("host: {name}\n"))
            );
        }
    }
    let other = curl(
        ns,
        &["--cacert", trusted, "--resolve", "x.y.apps.example:443:10.0.0.10", "https://x.y.apps.example/"],
    );
    assert_eq!(other.status, 0, "one label only: {other:?}");
    // R31, R40: this client is not in 10.0.0.0/24, so what it says of itself does not count.
    let lies = ["-H", "X-Forwarded-For: 1.2.3.4", "-H", "X-Forwarded-Proto: https"];
    let got = curl(ns, &[&lies[..], &["http://10.0.0.10/"]].concat());
    let client = net.client().address.of(Family::V4);
    assert!(got.body.contains(&format!("x-forwarded-for: {client}\n")), "{got:?}");
    assert!(got.body.contains("x-forwarded-proto: http\n"), "{got:?}");
    // R34: WebSockets on the same port as HTTP; R35, R36: and through the kernel beside it.
    for address in ["10.0.0.10:80", "10.0.0.11:80", "10.0.0.10:8443"] {
        let target: SocketAddr = address.parse().expect("an address");
        let mut tunnel = Tunnel::open(ns, target);
        tunnel.echoes();
        assert_eq!(curl(ns, &[&format!("http://{address}/")]).status, 200, "{address}");
        tunnel.echoes();
    }
    // R38: what was added harms no WebSocket.
    let asked: Vec<_> =
        servers.iter().flat_map(Web::asked).filter(|asked| asked.line.starts_with("GET /ws")).collect();
    let added = |asked: &Asked| {
        ["x-forwarded-for", "x-forwarded-proto"].iter().all(|name| asked.header(name).is_some())
    };
    assert_eq!(
        asked.iter().filter(|asked| added(asked)).count(),
        1,
        "by the proxy, not by the kernel: {asked:?}"
    );
    for (url, server) in [
        ("http://10.0.0.12:1024/", "tcp-router"),
        ("http://10.0.0.12:1123/", "tcp-router"),
        ("http://10.0.0.10:2222/", "diego-brain-0"),
        ("http://10.0.0.13:443/", "ops-manager"),
    ] {
        let got = curl(ns, &[url]);
        assert!(got.server().is_some_and(|name| name.starts_with(server)), "{url}: {got:?}");
    }
    // E1: a router that drains is out of rotation.
    servers.iter().filter(|server| server.name() == "gorouter-1").for_each(|server| server.ill(true));
    let _ = balancer.wait_health(LIMIT, "apps_http", "gorouter-1", Health::Down);
    wait::until_true(LIMIT, "the router to get nothing", || {
        (0..6).all(|_| curl(ns, &["http://10.0.0.10/"]).server() != Some("gorouter-1"))
    });
}

/// A small configuration with a proxied VIP.
pub(crate) fn one_vip(net: &Topology, more: &str) -> String {
    let servers: Vec<_> = net
        .servers
        .iter()
        .map(|host| format!("{{ name = \"{}\", address = \"{}\" }}", host.name, host.address.of(Family::V4)))
        .collect();
    format!(
        "[health]\ninterval = \"100ms\"\n[pool.web]\nservers = [{}]\n[vip.web]\naddress = \"{}\"\nport = 80\nmode = \
         \"http\"\npool = \"web\"\n{more}",
        servers.join(", "),
        net.vip(200).of(Family::V4)
    )
}

pub(crate) fn webs(net: &Topology) -> Vec<Web> {
    net.servers.iter().map(|host| Web::start(&host.ns, &host.name, host.address.of(Family::V4), 80)).collect()
}

#[test]
fn reloads_restarts_kills_and_upgrades_cut_nobody() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let _servers = webs(&net);
    let target = net.vip(200).at(Family::V4, 80);
    // A copy, so that it can be replaced as a package manager does.
    let folder = lb_tests::folder::Folder::new();
    let program = folder.file("l7-proxy");
    let install = || {
        fs::copy(binary("l7-proxy"), folder.file("new")).expect("copy a program");
        fs::rename(folder.file("new"), &program).expect("put a program in place");
    };
    install();
    let path = program.to_str().expect("a path");
    let installation = Installation::new(&net.lb.ns, &["eth0"], &one_vip(&net, ""))
        .xdp_mode("native")
        .option("--keep-forwarding")
        .option("--l7-proxy")
        .option(path);
    let mut balancer = installation.start();
    let _ = balancer.wait_all_up();
    wait::until(LIMIT, "the first answer", || net.client().ns.run(|| ask(target)));
    let [first] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    let mut tunnels: Vec<_> = (0..20).map(|_| Tunnel::open(&net.client().ns, target)).collect();
    let finish = steady(&net.client().ns, target);

    // Another VIP comes and goes: the same process.
    for round in 0..5 {
        let more = format!(
            "[vip.other]\naddress = \"{}\"\nport = {}\nmode = \"http\"\nredirect = {{ scheme = \"https\" }}\n",
            net.vip(201).of(Family::V4),
            81 + round
        );
        let _ = balancer.reload(&one_vip(&net, &more)).expect("reload");
        let _ = balancer.reload(&one_vip(&net, "")).expect("reload");
    }
    assert_eq!(proxies(&net.lb.ns), [first]);
    tunnels.iter_mut().for_each(Tunnel::echoes);

    // lb-user is restarted and killed: the same process.
    balancer = balancer.stop().0.start();
    balancer = balancer.kill().start();
    let _ = balancer.wait_all_up();
    assert_eq!(proxies(&net.lb.ns), [first]);
    tunnels.iter_mut().for_each(Tunnel::echoes);
    wait::until_true(LIMIT, "the count to go on", || {
        find_vip(&balancer.status(), "web").traffic.connections > 20
    });
    let before = find_vip(&balancer.status(), "web").traffic.connections;

    // The program is replaced: at a reload, and at a restart. The former ones keep their WebSockets.
    install();
    let _ = balancer.lbctl(&["reload"]).expect("reload");
    // By then it serves: one that nobody reaches would end with the next.
    wait::until_true(LIMIT, "the new proxy to take over", || {
        proxies(&net.lb.ns).len() == 2 && balancer.log().contains("lets its clients finish")
    });
    tunnels.extend((0..5).map(|_| Tunnel::open(&net.client().ns, target)));
    install();
    balancer = balancer.stop().0.start();
    wait::until_true(LIMIT, "the newest proxy to take over", || proxies(&net.lb.ns).len() == 3);
    tunnels.iter_mut().for_each(Tunnel::echoes);
    wait::until_true(LIMIT, "the count to go on", || {
        find_vip(&balancer.status(), "web").traffic.connections > before
    });

    let (done, failed) = finish();
    assert_eq!(failed, Vec::<String>::new(), "of {done}");
    assert!(done > 100, "{done} requests");
    // Clients of those that only let them finish are seen too, and can be ended: with a reset.
    let listed = balancer.lbctl(&["conn", "list", "--vip", "web", "-o", "json"]).expect("a list");
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["matching"], tunnels.len(), "{listed}");
    let said = balancer.lbctl(&["conn", "kill", "--vip", "web"]).expect("an end");
    assert!(said.contains(&tunnels.len().to_string()), "{said}");
    for tunnel in &mut tunnels {
        let end = tunnel.0.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    }
    wait::until_true(LIMIT, "one process to be left", || proxies(&net.lb.ns).len() == 1);

    // Who is killed is replaced, and clients wait meanwhile.
    let [last] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(last).expect("a number"),
        rustix::process::Signal::KILL,
    )
    .expect("kill");
    let began = Instant::now();
    net.client().ns.run(|| ask(target)).expect("an answer of the next one");
    eprintln!("served {:?} after l7-proxy was killed", began.elapsed());
    assert_ne!(proxies(&net.lb.ns), [last]);

    // Nothing is left behind.
    let installation = balancer.stop().0;
    assert_eq!(proxies(&net.lb.ns).len(), 1, "it goes on serving");
    net.client().ns.run(|| ask(target)).expect("an answer while lb-user is away");
    // A start whose configuration has nothing for it has it end; so does a start that is told to clean up.
    installation.configure("");
    let balancer = installation.start();
    wait::until_true(LIMIT, "the proxy to end", || proxies(&net.lb.ns).is_empty());
    let _ = balancer.reload(&one_vip(&net, "")).expect("reload");
    wait::until(LIMIT, "an answer of another one", || net.client().ns.run(|| ask(target)));
    let installation = balancer.stop().0;
    assert_eq!(proxies(&net.lb.ns).len(), 1);
    let (status, said) = installation.clean_up();
    assert!(status.success() && said.contains("ended l7-proxy"), "{said}");
    assert!(proxies(&net.lb.ns).is_empty());
}

#[test]
fn what_the_proxy_could_not_serve_is_refused_and_changes_nothing() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let _servers = webs(&net);
    let target = net.vip(200).at(Family::V4, 80);
    let with_tls = one_vip(&net, "tls = { certificates = [\"a.pem\"] }\n");
    let refused = |installation: Installation<'_>| {
        let (status, said) = installation.run_to_end();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(proxies(&net.lb.ns).is_empty(), "nothing is left");
        said
    };
    let new = |config: &str| Installation::new(&net.lb.ns, &["eth0"], config).xdp_mode("native");
    // A start serves what it can: what lacks a file says so.
    let balancer = new(&with_tls).start();
    let _ = balancer.wait_for(LIMIT, "the VIP to be told of", |status| {
        let vip = find_vip(status, "web");
        let told = !vip.served && vip.note.as_deref().is_some_and(|why| why.contains("a.pem"));
        if told { Ok(()) } else { Err(format!("{:?}", vip.note)) }
    });
    let _ = balancer.stop();
    assert!(proxies(&net.lb.ns).is_empty(), "nothing is left");
    let said = refused(new(&one_vip(&net, "")).option("--l7-proxy").option("/nowhere/l7-proxy"));
    assert!(said.contains("/nowhere/l7-proxy"), "{said}");
    let said = refused(new(&one_vip(&net, "")).option("--l7-user").option("root"));
    assert!(said.contains("not run as root"), "{said}");
    let said = refused(new(&one_vip(&net, "")).option("--l7-user").option("nobody-at-all"));
    assert!(said.contains("no user \"nobody-at-all\""), "{said}");

    let balancer = new(&one_vip(&net, "")).start();
    let _ = balancer.wait_all_up();
    wait::until(LIMIT, "the first answer", || net.client().ns.run(|| ask(target)));
    // The key of one, the certificate of another.
    let parts = |text: &str, kind: &str| -> String {
        let from = text.find(&format!("-----BEGIN {kind}-----")).expect("a beginning");
        let end = format!("-----END {kind}-----");
        let to = text[from..].find(&end).expect("an end") + from + end.len();
        format!("{}\n", &text[from..to])
    };
    let mismatched =
        parts(&certificate("a.example"), "PRIVATE KEY") + &parts(&certificate("b.example"), "CERTIFICATE");
    let _ = balancer.installation().put("a.pem", mismatched);
    let said = balancer.reload(&with_tls).expect_err("a key of another certificate");
    assert!(said.contains("a.pem"), "R45: {said}");
    net.client().ns.run(|| ask(target)).expect("what was served still is");
    assert!(balancer.status().last_reload.is_some_and(|last| last.problem.is_some()));

    // A disabled VIP lets nobody in and keeps those who are.
    let _ = balancer.reload(&one_vip(&net, "")).expect("reload");
    let mut tunnel = Tunnel::open(&net.client().ns, target);
    let _ = balancer.lbctl(&["vip", "disable", "web"]).expect("disable");
    wait::until_true(LIMIT, "it to be closed", || net.client().ns.run(|| ask(target)).is_err());
    tunnel.echoes();
    let _ = balancer.lbctl(&["vip", "enable", "web"]).expect("enable");
    wait::until(LIMIT, "it to be open", || net.client().ns.run(|| ask(target)));
    tunnel.echoes();

    // Halt ends what is open; drain does not.
    let server = find_vip(&balancer.status(), "web")
        .servers
        .iter()
        .map(|server| server.name.clone())
        .collect::<Vec<_>>();
    for name in &server {
        balancer.server("drain", "web", name);
    }
    wait::until_true(LIMIT, "nobody to get anything new", || net.client().ns.run(|| ask(target)).is_err());
    tunnel.echoes();
    for name in &server {
        balancer.server("halt", "web", name);
    }
    assert_eq!(tunnel.0.read(&mut [0]).unwrap_or(0), 0, "R26: the end of it");
    assert!(!find_server(find_vip(&balancer.status(), "web"), &server[0]).active);
}

#[test]
fn a_bad_certificate_is_the_affair_of_its_vip_alone() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let _servers = webs(&net);
    let target = net.vip(200).at(Family::V4, 80);
    let secure = net.vip(201).of(Family::V4);
    let config = one_vip(
        &net,
        &format!(
            "[vip.secure]\naddress = \"{secure}\"\nport = 443\nserver_port = 80\nmode = \"http\"\npool = \"web\"\ntls = {{ \
             certificates = [\"a.pem\"] }}\n"
        ),
    );
    let installation = Installation::new(&net.lb.ns, &["eth0"], &config).xdp_mode("native");
    let good = certificate("a.example");
    let _ = installation.put("a.pem", &good);
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    let ns = &net.client().ns;
    let resolve = format!("a.example:443:{secure}");
    let trusted = balancer.installation().put("trusted.pem", &good);
    let trusted = trusted.to_str().expect("a path");
    let over_tls = || curl(ns, &["--cacert", trusted, "--resolve", &resolve, "https://a.example/"]).status;
    wait::until(LIMIT, "the first answer", || ns.run(|| ask(target)));
    wait::until_true(LIMIT, "the first answer over TLS", || over_tls() == 200);

    // The one from before is still shown, and everything else can change.
    let _ = balancer.installation().put("a.pem", "no certificate at all");
    let _ = balancer.lbctl(&["vip", "disable", "web"]).expect("disable");
    wait::until_true(LIMIT, "it to be closed", || ns.run(|| ask(target)).is_err());
    let _ = balancer.lbctl(&["vip", "enable", "web"]).expect("enable");
    wait::until(LIMIT, "it to be open", || ns.run(|| ask(target)));
    for round in 0..20 {
        ns.run(|| ask(target)).unwrap_or_else(|error| panic!("request {round}: {error}"));
    }
    assert_eq!(over_tls(), 200);
    balancer.server("halt", "web", "s2");
    wait::until_true(LIMIT, "s2 to get nothing", || {
        let url = format!("http://{target}/");
        (0..6).all(|_| curl(ns, &[&url]).server().is_some_and(|name| name != "s2"))
    });

    // A new proxy cannot show what is not there; the other VIP is served, and one truth is told.
    let [proxy] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    let id = rustix::process::Pid::from_raw(proxy).expect("a number");
    rustix::process::kill_process(id, rustix::process::Signal::KILL).expect("kill");
    ns.run(|| ask(target)).expect("an answer of the next one");
    let _ = balancer.wait_for(LIMIT, "the VIP to be told of", |status| {
        let (web, secure) = (find_vip(status, "web"), find_vip(status, "secure"));
        let why = secure.note.clone().unwrap_or_default();
        let told = web.served && !secure.served && why.contains("a.pem");
        if told { Ok(()) } else { Err(format!("{:?} {:?}", web.note, secure.note)) }
    });
    let _ = balancer.installation().put("a.pem", &good);
    wait::until_true(LIMIT, "it to be served again", || over_tls() == 200);
    assert!(balancer.status().vips.iter().all(|vip| vip.served));
}
