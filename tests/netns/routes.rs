//! VIPs that lead to several pools: routes, fallback pools, names in TLS greetings; and how the tier above learns of the end.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use lb_tests::{
    address::Family,
    client,
    daemon::{Balancer, Installation, binary, find_server, find_vip},
    http::{Got, Web, curl},
    needs_balancer, process,
    tls::{self, TlsServer},
    topology::{Layout, Topology},
    wait,
};
use lb_user::{
    connections::Listed,
    plan::Admin,
    snapshot::{Health, PoolHealth},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::l7::{Tunnel, ask, proxies};

const LIMIT: Duration = Duration::from_secs(20);

const HEALTH: &str = "[health]\ncheck = \"http\"\npath = \"/health\"\ninterval = \"100ms\"\n";

/// A pool of servers, each a name, a host and a port.
fn pool(net: &Topology, name: &str, servers: &[(&str, usize, u16)]) -> String {
    let server = |&(server, host, port): &(&str, usize, u16)| {
        let address = net.servers[host].address.of(Family::V4);
        format!("{{ name = \"{server}\", address = \"{address}\", port = {port} }}")
    };
    let servers: Vec<_> = servers.iter().map(server).collect();
    format!("[pool.{name}]\nservers = [{}]\n", servers.join(", "))
}

/// Web servers for such a pool; each says its pool and its name.
fn webs(net: &Topology, pool: &str, servers: &[(&str, usize, u16)]) -> Vec<Web> {
    let start = |&(server, host, port): &(&str, usize, u16)| {
        let host = &net.servers[host];
        Web::start(&host.ns, &format!("{pool}-{server}"), host.address.of(Family::V4), port)
    };
    servers.iter().map(start).collect()
}

fn vip(name: &str, address: IpAddr, port: u16, mode: &str, more: &str) -> String {
    format!("[vip.{name}]\naddress = \"{address}\"\nport = {port}\nmode = \"{mode}\"\n{more}\n")
}

fn start<'a>(net: &'a Topology, config: &str) -> Balancer<'a> {
    Installation::new(&net.lb.ns, &["eth0"], config).xdp_mode("native").start()
}

const WEB: [(&str, usize, u16); 2] = [("s1", 0, 80), ("s2", 1, 80)];
const API: [(&str, usize, u16); 2] = [("s1", 0, 9000), ("s2", 1, 9001)];
const SORRY: [(&str, usize, u16); 1] = [("s1", 2, 7000)];

/// A request under way, of whose body a part is still to come.
struct Upload(TcpStream);

impl Upload {
    fn begin(net: &Topology, target: SocketAddr) -> Self {
        let mut stream = net.client().ns.run(|| client::connect(target, None, LIMIT)).expect("connect");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let head =
            "POST /api/long HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhello";
        stream.write_all(head.as_bytes()).expect("send");
        Self(stream)
    }

    fn end(mut self) -> String {
        self.0.write_all(b"world").expect("send the rest");
        let mut answer = String::new();
        let _ = self.0.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

#[test]
fn requests_go_where_routes_say_and_to_the_fallback_pool_when_nobody_is_left() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let (web, api) = (webs(&net, "web", &WEB), webs(&net, "api", &API));
    let _sorry = webs(&net, "sorry", &SORRY);
    let address = net.vip(200).of(Family::V4);
    let config = |beta: &str| {
        let routes = format!(
            "pool = \"web\"\nfallback_pool = \"sorry\"\nroutes = [\n\
             {{ paths = [\"/api\"], pool = \"api\" }},\n\
             {{ hosts = [\"*.api.example\"], methods = [\"GET\"], pool = \"api\" }},\n\
             {{ headers = [{{ name = \"X-Beta\", value = \"{beta}\" }}], pool = \"api\" }},\n\
             {{ paths = [\"/old\"], redirect = {{ host = \"new.example\", path = \"/n\", status = 308 }} }},\n\
             {{ paths = [\"/gone\"], answer = {{ status = 410, body = \"gone for good\" }} }},\n]"
        );
        [
            HEALTH.to_owned(),
            pool(&net, "web", &WEB),
            pool(&net, "api", &API),
            pool(&net, "sorry", &SORRY),
            vip("shop", address, 80, "http", &routes),
            vip("paged", address, 81, "http", "pool = \"web\"\nerror_pages = { 503 = \"503.http\" }"),
        ]
        .concat()
    };
    let installation = Installation::new(&net.lb.ns, &["eth0"], &config("1")).xdp_mode("native");
    let _ =
        installation.put("503.http", "HTTP/1.1 599 Nobody Here\r\nContent-Type: text/plain\r\n\r\nsorry\n");
    let balancer = installation.start();
    let status = balancer.wait_all_up();
    let shop = find_vip(&status, "shop");
    let names: Vec<_> = shop.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["s1", "s2", "api:s1", "api:s2", "sorry:s1"]);
    let get = |more: &[&str], path: &str| -> Got {
        let url = format!("http://{address}{path}");
        let got = curl(&net.client().ns, &[more, &[&url]].concat());
        assert_ne!(got.status, 0, "{path} {more:?}: {got:?}");
        got
    };
    let pool_of =
        |got: &Got| got.server().and_then(|name| name.split('-').next()).unwrap_or("none").to_owned();
    wait::until_true(LIMIT, "the first answer", || get(&[], "/").status == 200);
    for (more, path, pool) in [
        (&[][..], "/", "web"),
        (&[], "/apis", "web"),
        (&[], "/api/x?y", "api"),
        (&[], "/x/../api", "web"),
        (&["--path-as-is"], "/x/../api", "api"),
        (&["-H", "Host: v2.api.example"], "/", "api"),
        (&["-H", "Host: v2.api.example", "-X", "PUT"], "/", "web"),
        (&["-H", "Host: api.example"], "/", "web"),
        (&["-H", "X-Beta: 1"], "/", "api"),
        (&["-H", "X-Beta: 2"], "/", "web"),
    ] {
        let path = if path == "/x/../api" && more.is_empty() { "/x/api" } else { path };
        assert_eq!(pool_of(&get(more, path)), pool, "{path} {more:?}");
    }
    let old = get(&[], "/old/page?q=1");
    assert_eq!((old.status, old.header("location")), (308, Some("http://new.example/n?q=1")), "{old:?}");
    let gone = get(&[], "/gone");
    assert_eq!((gone.status, gone.body.as_str()), (410, "gone for good"));

    // A server of a further pool is drained under its own name; others do not notice.
    balancer.server("drain", "shop", "api:s1");
    wait::until_true(LIMIT, "it to get nothing", || {
        (0..6).all(|_| get(&[], "/api").server() == Some("api-s2"))
    });
    let servers: Vec<_> = (0..8).filter_map(|_| get(&[], "/").server().map(str::to_owned)).collect();
    assert!(servers.iter().any(|name| name == "web-s1"), "the other of that name is none: {servers:?}");
    let status = balancer.status();
    let drained = find_server(find_vip(&status, "shop"), "api:s1");
    assert_eq!((drained.state, drained.active, drained.pool.as_deref()), (Admin::Drain, false, Some("api")));
    let shown = balancer.lbctl(&["pool", "show", "api"]).expect("lbctl pool show");
    assert!(shown.lines().any(|line| line.starts_with("s1") && line.contains("drained")), "{shown}");
    let listed = balancer.lbctl(&["vip", "list"]).expect("lbctl vip list");
    assert!(listed.contains("web, api, sorry") && listed.contains("4/5"), "{listed}");
    balancer.server("ready", "*", "api:s1");

    // Connections are listed with the server of their latest request, and ended.
    let mut doomed = Tunnel::open(&net.client().ns, SocketAddr::new(address, 80));
    doomed.echoes();
    let one = wait::until(LIMIT, "the others to be over", || {
        let listed = balancer.lbctl(&["conn", "list", "--vip", "shop", "-o", "json"])?;
        let Listed { mut connections, matching } =
            serde_json::from_str(&listed).map_err(|error| format!("{error}: {listed}"))?;
        connections.pop().filter(|_| matching == 1).ok_or(listed)
    });
    assert_eq!((one.vip.as_str(), one.vip_address), ("shop", SocketAddr::new(address, 80)));
    assert_eq!(one.client, doomed.0.local_addr().expect("an address"));
    let with = format!("shop/{}", one.server);
    let ended = balancer.lbctl(&["conn", "kill", "--server", &with]).expect("lbctl conn kill");
    assert_eq!(ended, "1 connection ended");
    assert_eq!(doomed.0.read(&mut [0]).unwrap_or(0), 0, "it is closed");
    wait::until_true(LIMIT, "nobody to be connected", || {
        balancer.lbctl(&["conn", "list", "--vip", "shop"]).as_deref() == Ok("no connections")
    });

    // A reload that changes a route alone: nobody is cut.
    let target = SocketAddr::new(address, 80);
    let (mut tunnel, upload) = (Tunnel::open(&net.client().ns, target), Upload::begin(&net, target));
    let before = proxies(&net.lb.ns);
    let _ = balancer.reload(&config("2")).expect("reload");
    wait::until_true(LIMIT, "the other route", || pool_of(&get(&["-H", "X-Beta: 2"], "/")) == "api");
    tunnel.echoes();
    assert!(upload.end().starts_with("HTTP/1.1 200"));
    assert_eq!(proxies(&net.lb.ns), before);

    // R69: the further pool serves while its own has nobody; without one there is the page, with its status.
    web.iter().for_each(|server| server.ill(true));
    let _ = balancer.wait_health(LIMIT, "shop", "s1", Health::Down);
    let _ = balancer.wait_health(LIMIT, "shop", "s2", Health::Down);
    wait::until_true(LIMIT, "the fallback pool", || pool_of(&get(&[], "/")) == "sorry");
    assert_eq!(pool_of(&get(&[], "/api")), "api", "the other pool goes on");
    wait::until_true(LIMIT, "the page", || {
        let paged = curl(&net.client().ns, &[&format!("http://{address}:81/")]);
        (paged.status, paged.body.as_str()) == (599, "sorry\n")
    });
    let status = balancer.status();
    let shop = find_vip(&status, "shop");
    assert_eq!((shop.health, shop.further_pools[0].health), (PoolHealth::Degraded, PoolHealth::Healthy));
    assert_eq!(shop.note.as_deref(), Some("no server of pool web is up"));
    assert_eq!(find_vip(&status, "paged").health, PoolHealth::Down);
    api.iter().for_each(|server| server.ill(true));
    wait::until_true(LIMIT, "the fallback pool for all", || pool_of(&get(&[], "/api")) == "sorry");
    web.iter().for_each(|server| server.ill(false));
    wait::until_true(LIMIT, "its own pool again", || pool_of(&get(&[], "/")) == "web");

    // A pool that is new to a VIP which is open is tried at once, and another own pool gets no client a 503.
    let turned = config("1").replacen("pool = \"web\"\nfallback_pool = \"sorry\"", "pool = \"sorry\"", 1);
    let _ = balancer.reload(&turned).expect("reload");
    wait::until_true(LIMIT, "the other own pool", || {
        let got = get(&[], "/");
        assert_eq!(got.status, 200, "{got:?}");
        pool_of(&got) == "sorry"
    });
}

#[test]
fn names_lead_to_servers_without_ending_tls_and_tcp_in_front_of_http_is_balanced_per_request() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let shown: Vec<_> = net
        .servers
        .iter()
        .map(|host| TlsServer::start(&host.ns, &format!("{}.example", host.name), 443))
        .collect();
    let _web = webs(&net, "web", &WEB);
    let address = net.vip(200).of(Family::V4);
    let names = "pool = \"c\"\nsni_routes = [{ names = [\"a.example\"], pool = \"a\" }, { names = [\"*.b.example\"], pool = \"b\" }]";
    let config = [
        "[health]\ninterval = \"100ms\"\n".to_owned(),
        pool(&net, "a", &[("s1", 0, 443)]),
        pool(&net, "b", &[("s2", 1, 443)]),
        pool(&net, "c", &[("s3", 2, 443)]),
        pool(&net, "web", &WEB) + "mode = \"http\"\n",
        vip("names", address, 443, "tcp", names),
        vip("requests", address, 80, "tcp", "pool = \"web\""),
    ]
    .concat();
    let balancer = start(&net, &config);
    let _ = balancer.wait_all_up();
    let trusted: Vec<_> = shown.iter().map(TlsServer::certificate).collect();
    let target = SocketAddr::new(address, 443);
    let seen = |name: Option<&str>| -> String {
        let handshake = tls::handshake_for(&net.client().ns, target, name, &trusted);
        handshake.unwrap_or_else(|error| panic!("{name:?}: {error}")).name
    };
    wait::until(LIMIT, "the VIP to be open", || net.client().ns.run(|| client::connect(target, None, LIMIT)));
    for (name, server) in [
        (Some("a.example"), "s1.example"),
        (Some("x.b.example"), "s2.example"),
        (Some("b.example"), "s3.example"),
        (Some("other.example"), "s3.example"),
        (None, "s3.example"),
    ] {
        assert_eq!(seen(name), server, "{name:?}");
    }
    balancer.server("halt", "names", "a:s1");
    wait::until_true(LIMIT, "it to get nothing", || {
        tls::handshake_for(&net.client().ns, target, Some("a.example"), &trusted).is_err()
    });
    assert_eq!(seen(Some("x.b.example")), "s2.example", "the others go on");

    // R46: requests over one connection go to both servers.
    wait::until(LIMIT, "an answer", || net.client().ns.run(|| ask(SocketAddr::new(address, 80))));
    let url = format!("http://{address}/");
    let got = curl(&net.client().ns, &[&url, &url, &url, &url]);
    let both = ["web-s1", "web-s2"].map(|name| got.head.contains(name) || got.body.contains(name));
    assert_eq!(both, [true, true], "{got:?}");
}

#[test]
fn the_tier_above_learns_of_the_end_before_it_comes() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let web = webs(&net, "web", &WEB);
    let address = net.vip(200).of(Family::V4);
    let own = net.lb.address.of(Family::V4);
    // A port for which it takes privileges; and threads other than usual, for which another process takes over.
    let config = |workers: u8| {
        let top = format!(
            "[proxy]\nadmin = \"{own}:901\"\nworkers = {workers}\ndrain = {{ grace = \"60s\", timeout = \"5s\" }}\n"
        );
        [top, HEALTH.to_owned(), pool(&net, "web", &WEB), vip("web", address, 80, "http", "pool = \"web\"")]
            .concat()
    };
    let balancer = start(&net, &config(1));
    let _ = balancer.wait_all_up();
    let ns = &net.client().ns;
    let health = |path: &str| curl(ns, &[&format!("http://{own}:901/health{path}")]).status;
    let target = SocketAddr::new(address, 80);
    wait::until_true(LIMIT, "it to be well", || {
        (health(""), health("/web"), health("/none")) == (200, 200, 404)
    });
    wait::until(LIMIT, "an answer", || ns.run(|| ask(target)));
    web.iter().for_each(|server| server.ill(true));
    wait::until_true(LIMIT, "E6: nobody to be up", || health("") == 503);
    web.iter().for_each(|server| server.ill(false));
    wait::until_true(LIMIT, "somebody to be up", || health("") == 200);
    let [first] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    let mut tunnel = Tunnel::open(ns, target);
    let _ = balancer.reload(&config(2)).expect("reload");
    wait::until_true(LIMIT, "another process", || proxies(&net.lb.ns).iter().any(|&pid| pid != first));
    wait::until_true(LIMIT, "it to tell of health", || health("") == 200);
    tunnel.echoes();
    drop(tunnel);
    wait::until_true(LIMIT, "the first to end", || !proxies(&net.lb.ns).contains(&first));
    let refused = balancer.reload(&config(2).replace(":901", ":80")).map(drop);
    assert_eq!(refused, Ok(()), "its own address is not that of a VIP");
    // A port that somebody else has, and an address that this host does not have.
    let taken = net.lb.ns.run(|| TcpListener::bind((own, 902))).expect("a port");
    let refused = balancer.reload(&config(2).replace(":901", ":902")).expect_err("taken");
    assert!(refused.contains("is in use by"), "{refused}");
    drop(taken);
    let strange = format!("admin = \"{}:901", net.vip(250).of(Family::V4));
    let elsewhere = config(2).replace(&format!("admin = \"{own}:901"), &strange);
    let _ = balancer.reload(&elsewhere).expect("reload");
    assert!(balancer.log().contains("no address of this host"), "{}", balancer.log());
    let _ = balancer.reload(&config(2)).expect("reload");
    wait::until_true(LIMIT, "it to tell of health again", || health("") == 200);
    // --check knows that the proxy of this configuration is where it would be.
    let mut command = net.lb.ns.command(binary("lb-user"));
    command.args(balancer.installation().arguments()).arg("--check");
    let output = process::output("lb-user --check", &mut command, LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // E6: first it says so, and serves; then it ends.
    let id = Pid::from_raw(balancer.id().cast_signed()).expect("a process");
    kill_process(id, Signal::TERM).expect("SIGTERM");
    wait::until_true(LIMIT, "it to be about to end", || health("") == 503);
    for round in 0..5 {
        ns.run(|| ask(target)).unwrap_or_else(|error| panic!("request {round}: {error}"));
    }
    let servers = find_vip(&balancer.status(), "web").servers.len();
    assert_eq!(servers, 2, "it can still be asked");
    // The second signal means at once.
    let _ = balancer.stop();
    assert!(proxies(&net.lb.ns).is_empty());
}
