//! R17, R18 as far as the proxy does them: clients stay with their servers over everything that happens to it.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use lb_tests::{
    address::Family,
    client,
    daemon::{Balancer, Installation, binary},
    folder::Folder,
    http::Web,
    needs_balancer,
    netns::Netns,
    topology::{Host, Layout, Topology},
    wait,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::l7::{Tunnel, proxies};

const LIMIT: Duration = Duration::from_secs(20);

/// Connections of each client each time.
const CONNECTIONS: usize = 20;

/// VIPs with servers in turn unless a client is known: by its address in either mode, or by a cookie.
const VIPS: [(&str, &str, &str); 3] = [
    ("by_address", "http", "{ type = \"source-ip\" }"),
    ("by_connection", "tcp", "{ type = \"source-ip\" }"),
    ("by_cookie", "http", "{ type = \"cookie\", name = \"SRV\" }"),
];

fn target(net: &Topology, vip: usize) -> SocketAddr {
    net.vip(200).at(Family::V4, 80 + u16::try_from(vip).expect("a few"))
}

/// With so many of the servers.
fn config(net: &Topology, servers: usize) -> String {
    let server = |host: &Host| format!("{{ name = \"{}\", address = \"{}\" }}", host.name, host.address.v4);
    let servers: Vec<_> = net.servers[..servers].iter().map(server).collect();
    let vip = |(index, (name, mode, persistence)): (usize, &(&str, &str, &str))| {
        let target = target(net, index);
        format!(
            "[vip.{name}]\naddress = \"{}\"\nport = {}\nserver_port = 80\nmode = \"{mode}\"\npool = \"web\"\n\
             algorithm = \"round-robin\"\npersistence = {persistence}\n",
            target.ip(),
            target.port()
        )
    };
    let vips: String = VIPS.iter().enumerate().map(vip).collect();
    format!("[health]\ninterval = \"200ms\"\n[pool.web]\nservers = [{}]\n{vips}", servers.join(", "))
}

/// One request over a connection of its own: who answered, and the cookie that was set.
fn ask(target: SocketAddr, cookie: &str) -> Result<(String, Option<String>), String> {
    let mut stream = client::connect(target, None, LIMIT)?;
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{cookie}\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("{error} after {answer:?}"))?;
    let line = |start: &str| answer.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned);
    let name = line("server: ").ok_or_else(|| format!("no answer of a server: {answer:?}"))?;
    let cookie = line("set-cookie: ").or_else(|| line("Set-Cookie: "));
    Ok((name, cookie.and_then(|cookie| cookie.split(';').next().map(str::to_owned))))
}

/// Whom each client is with in each VIP; each must be with one.
#[track_caller]
fn servers(net: &Topology, cookies: &[String], when: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (index, (vip, ..)) in VIPS.iter().enumerate() {
        for (host, cookie) in net.clients.iter().zip(cookies) {
            let cookie = if index == 2 { format!("Cookie: {cookie}\r\n") } else { String::new() };
            let one = || ask(target(net, index), &cookie).map(|(name, _)| name);
            let found: Result<BTreeSet<_>, _> = host.ns.run(|| (0..CONNECTIONS).map(|_| one()).collect());
            let found = found.unwrap_or_else(|error| panic!("{vip}, {} {when}: {error}", host.name));
            assert_eq!(found.len(), 1, "{vip}: {} is with {found:?} {when}", host.name);
            all.extend(found);
        }
    }
    all
}

#[test]
fn clients_stay_with_their_servers_over_everything_that_happens_to_the_proxy() {
    needs_balancer!();
    let net = Topology::build(Layout { clients: 3, ..Layout::default() });
    let web = |host: &Host| Web::start(&host.ns, &host.name, host.address.of(Family::V4), 80);
    let _webs: Vec<_> = net.servers.iter().map(web).collect();
    let folder = Folder::new();
    let install = || {
        fs::copy(binary("l7-proxy"), folder.file("new")).expect("copy a program");
        fs::rename(folder.file("new"), folder.file("l7-proxy")).expect("put a program in place");
    };
    install();
    let mut balancer = Installation::new(&net.lb.ns, &["eth0"], &config(&net, 2))
        .xdp_mode("native")
        .option("--keep-forwarding")
        .option("--l7-proxy")
        .option(folder.file("l7-proxy").to_str().expect("a path"))
        .start();
    let _ = balancer.wait_all_up();
    let first = |host: &Host, vip: usize| {
        wait::until(LIMIT, "the first answer", || host.ns.run(|| ask(target(&net, vip), "")))
    };
    let cookies: Vec<_> = net.clients.iter().map(|host| first(host, 2).1.expect("a cookie")).collect();
    let _ = net.clients.iter().map(|host| [first(host, 0), first(host, 1)]).collect::<Vec<_>>();
    let known = servers(&net, &cookies, "at first");
    assert!(known.iter().any(|name| name != &known[0]), "they are spread: {known:?}");
    // R18: what is open stays open.
    let mut tunnel = Tunnel::open(&net.clients[0].ns, target(&net, 0));
    let mut same = |balancer: &Balancer<'_>, when: &str| {
        let _ = balancer.wait_all_up();
        assert_eq!(servers(&net, &cookies, when), known, "{when}");
        tunnel.echoes();
    };

    let _ = balancer.reload(&config(&net, 3)).expect("reload");
    same(&balancer, "with another server");
    let before = proxies(&net.lb.ns);
    install();
    let _ = balancer.lbctl(&["reload"]).expect("reload");
    wait_for_another(&net.lb.ns, &before);
    same(&balancer, "after a take-over");
    balancer = balancer.stop().0.start();
    same(&balancer, "after a restart of lb-user");
    balancer = balancer.kill().start();
    same(&balancer, "after lb-user was killed");

    // lb-user asks the proxy from time to time, the first time as soon as it has found it, and tells the next one.
    let newest = |all: &[i32]| *all.iter().find(|pid| !before.contains(pid)).expect("the newest");
    let all = proxies(&net.lb.ns);
    kill_process(Pid::from_raw(newest(&all)).expect("a number"), Signal::KILL).expect("kill");
    wait_for_another(&net.lb.ns, &all);
    let _ = balancer.wait_all_up();
    let after = servers(&net, &cookies, "after l7-proxy was killed");
    assert_eq!(after, known, "after l7-proxy was killed");
    tunnel.echoes();
}

/// For how long nobody says anything: `LB_TEST_FULL` is for the ten minutes of R18.
fn silence() -> Duration {
    Duration::from_secs(if std::env::var_os("LB_TEST_FULL").is_some() { 600 } else { 3 })
}

#[test]
fn what_is_open_and_silent_goes_on() {
    needs_balancer!();
    let net = Topology::build(Layout { clients: 3, ..Layout::default() });
    let web = |host: &Host| Web::start(&host.ns, &host.name, host.address.of(Family::V4), 80);
    let _webs: Vec<_> = net.servers.iter().map(web).collect();
    // As nova_novncproxy is: layer 4 in the example, and by the proxy.
    let of_kernel = net.vip(200).at(Family::V4, 6080);
    let config = format!(
        "{}[vip.by_kernel]\naddress = \"{}\"\nport = 6080\nserver_port = 80\nmode = \"snat\"\npool = \"web\"\n\
         persistence = {{ type = \"source-ip\" }}\n",
        config(&net, 3),
        of_kernel.ip()
    );
    let balancer = Installation::new(&net.lb.ns, &["eth0"], &config).xdp_mode("native").start();
    let _ = balancer.wait_all_up();
    let open =
        |host: &Host| [of_kernel, target(&net, 0), target(&net, 1)].map(|to| Tunnel::open(&host.ns, to));
    let mut tunnels: Vec<_> = net.clients.iter().flat_map(open).collect();
    // That nothing happens is what this is about.
    std::thread::sleep(silence());
    tunnels.iter_mut().for_each(Tunnel::echoes);
}

#[track_caller]
fn wait_for_another(ns: &Netns, before: &[i32]) {
    wait::until(LIMIT, "another process", || {
        let all = proxies(ns);
        if all.iter().any(|pid| !before.contains(pid)) { Ok(()) } else { Err(format!("{all:?}")) }
    });
}
