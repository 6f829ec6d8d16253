//! What people use, in front of the real thing: curl, h2load, openssl, a WebSocket library as browsers have one, and
//! clients that know a VIP by name (R30, R32, R33, R34, R76, E8).

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    address::Family,
    client,
    daemon::{Balancer, Installation},
    folder::Folder,
    http::{Web, curl},
    needs_balancer, needs_module,
    netns::Netns,
    process::{self, Running},
    syslog::Receiver,
    topology::{Layout, Topology},
    wait,
};

use crate::{
    l7::{Tunnel, ask, certificate},
    names::Hosts,
};

const LIMIT: Duration = Duration::from_secs(60);
const NAME: &str = "www.example";

fn full() -> bool {
    std::env::var_os("LB_TEST_FULL").is_some()
}

/// A site with three servers, on port 80 and with TLS on port 443.
struct Bed {
    // Before the network: a server's sockets go first.
    _webs: Vec<Web>,
    net: Topology,
    certificate: String,
}

impl Bed {
    fn new() -> Self {
        let net = Topology::build(Layout::default());
        let web = |host: &lb_tests::topology::Host| {
            Web::start(&host.ns, &host.name, host.address.of(Family::V4), 80)
        };
        let webs = net.servers.iter().map(web).collect();
        Self { _webs: webs, net, certificate: certificate(NAME) }
    }

    fn vip(&self, port: u16) -> SocketAddr {
        self.net.vip(200).at(Family::V4, port)
    }

    /// Starts the balancer, waits until it serves, and gives the certificate to trust as a file, too.
    #[track_caller]
    fn start(&self) -> (Balancer<'_>, String) {
        self.start_with("", "")
    }

    /// The same, with further lines at the top of the configuration and in the VIP with TLS.
    #[track_caller]
    fn start_with(&self, top: &str, secure: &str) -> (Balancer<'_>, String) {
        let server = |host: &lb_tests::topology::Host| {
            format!("{{ name = \"{}\", address = \"{}\" }}", host.name, host.address.of(Family::V4))
        };
        let servers: Vec<_> = self.net.servers.iter().map(server).collect();
        let (servers, address) = (servers.join(", "), self.vip(0).ip());
        let config = format!(
            "{top}[health]\ninterval = \"200ms\"\n[pool.web]\nservers = [{servers}]\n\
             [vip.plain]\naddress = \"{address}\"\nport = 80\nmode = \"http\"\npool = \"web\"\n\
             [vip.secure]\naddress = \"{address}\"\nport = 443\nserver_port = 80\nmode = \"http\"\npool = \"web\"\n\
             tls = {{ certificates = [\"www.pem\"] }}\n{secure}"
        );
        let installation = Installation::new(&self.net.lb.ns, &["eth0"], &config).xdp_mode("native");
        let _ = installation.put("www.pem", &self.certificate);
        let trusted = installation.put("trusted.pem", &self.certificate);
        let balancer = installation.start();
        let _ = balancer.wait_all_up();
        let clients = self.clients();
        wait::until(LIMIT, "the first answer", || clients.run(|| ask(self.vip(80))));
        wait::until(LIMIT, "the VIP with TLS", || {
            clients.run(|| client::connect(self.vip(443), None, LIMIT).map(drop))
        });
        (balancer, trusted.to_str().expect("a path").to_owned())
    }

    fn clients(&self) -> &Netns {
        &self.net.client().ns
    }
}

/// Has `h2load` make so many requests; none may fail.
#[track_caller]
fn h2load(bed: &Bed, requests: usize, more: &[&str]) {
    let mut command = bed.clients().command("h2load");
    command.args(["-t1", "-n", &requests.to_string()]).args(more);
    // It looks no names up by itself.
    command.arg(format!("https://{}/page", bed.vip(443)));
    let output = process::output("h2load", &mut command, LIMIT);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    eprintln!("h2load {more:?}: {}; {}", line("requests: "), line("finished in "));
    let expected = format!(
        "requests: {requests} total, {requests} started, {requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout"
    );
    assert_eq!(line("requests: "), expected, "{said}");
    assert!(
        line("status codes: ").starts_with(&format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx")),
        "{said}"
    );
}

#[test]
fn h2load_curl_and_openssl_get_all_their_answers() {
    needs_balancer!();
    let bed = Bed::new();
    let (_balancer, trusted) = bed.start();
    let requests = if full() { 20_000 } else { 2_000 };
    h2load(&bed, requests, &["-c10", "-m10"]);
    h2load(&bed, requests, &["-c10", "-m1", "--h1"]);

    let ns = bed.clients();
    let resolve = format!("{NAME}:443:{}", bed.vip(443).ip());
    let url = format!("https://{NAME}/page");
    let known = ["--cacert", &trusted, "--resolve", &resolve];
    let folder = Folder::new();
    let file = format!("@{}", folder.write("body", "x".repeat(100_000)).display());
    for (version, shown) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let got = curl(ns, &[&known[..], &[version, &url]].concat());
        assert!(got.head.starts_with(shown), "{got:?}");
        let got = curl(ns, &[&known[..], &[version, "--data-binary", &file, &url]].concat());
        assert!(got.head.starts_with(shown) && got.body.contains("content-length: 100000\n"), "{got:?}");
        let got = curl(ns, &[&known[..], &[version, "--head", &url]].concat());
        assert!(got.head.starts_with(shown) && got.body.is_empty(), "{got:?}");
    }

    // R30: openssl speaks both versions of TLS, and sees the certificate.
    let ask = format!("GET /page HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    let ask = folder.write("ask", ask);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut command = ns.command("openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", "-CAfile", &trusted, version]);
        command.args(["-servername", NAME, "-verify_hostname", NAME, "-connect", &bed.vip(443).to_string()]);
        command.stdin(fs::File::open(&ask).expect("a file"));
        let output = process::output("openssl s_client", &mut command, LIMIT);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("server: s"), "{version}: {said}");
    }
}

#[test]
fn requests_and_websockets_share_a_port_and_connections_wait_longer_than_routers_do() {
    needs_balancer!();
    let bed = Bed::new();
    let (_balancer, _) = bed.start();
    let target = bed.vip(80);
    // R32: a client comes back after five and a half seconds, on the same connection.
    let mut idle = bed.clients().run(|| client::connect(target, None, LIMIT)).expect("connect");
    get(&mut idle).expect("an answer");
    let since = Instant::now();
    // R34: requests and WebSockets alternate.
    let (requests, sockets) = if full() { (500, 50) } else { (100, 10) };
    let mut tunnels = Vec::new();
    for number in 0..requests {
        bed.clients().run(|| ask(target)).unwrap_or_else(|error| panic!("request {number}: {error}"));
        if number % (requests / sockets) == 0 {
            tunnels.push(Tunnel::open(bed.clients(), target));
        }
        let alive = tunnels.len();
        tunnels[number % alive].echoes();
    }
    assert_eq!(tunnels.len(), sockets);
    // R33: a megabyte of any bytes both ways, over each.
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for tunnel in tunnels.iter_mut().take(if full() { sockets } else { 3 }) {
        let mut sending = tunnel.0.try_clone().expect("a second handle");
        let mut back = vec![0; bytes.len()];
        thread::scope(|scope| {
            scope.spawn(|| sending.write_all(&bytes).expect("send"));
            tunnel.0.read_exact(&mut back).expect("all of it");
        });
        assert!(back == bytes, "what came back is what was sent");
    }
    // How long the connection is idle is what is tested.
    thread::sleep(Duration::from_millis(5_500).saturating_sub(since.elapsed()));
    get(&mut idle).expect("an answer on the same connection");
}

/// A request on a connection that is kept.
fn get(stream: &mut TcpStream) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n").map_err(text)?;
    let mut arrived = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let said = String::from_utf8_lossy(&arrived).into_owned();
        if let Some((head, body)) = said.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
            });
            let length: usize = length.and_then(|length| length.parse().ok()).ok_or(head)?;
            if body.len() >= length {
                return if head.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(said) };
            }
        }
        match stream.read(&mut buffer).map_err(text)? {
            0 => return Err(format!("the end after {said:?}")),
            length => arrived.extend_from_slice(&buffer[..length]),
        }
    }
}

#[test]
fn a_websocket_library_finds_nothing_to_complain_about() {
    needs_balancer!();
    needs_module!("websockets");
    let bed = Bed::new();
    let (_balancer, trusted) = bed.start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns").join("people.py");
    let (sockets, messages) = if full() { (50, 200) } else { (10, 20) };
    let mut command = bed.clients().command(lb_tests::privilege::PYTHON);
    let address = bed.vip(443).ip().to_string();
    command.arg(script).args([NAME, &address, &trusted, &sockets.to_string(), &messages.to_string()]);
    let output = process::output("python3 people.py", &mut command, LIMIT);
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    let all = sockets * (messages + 4) * 2;
    assert!(output.status.success() && said.contains(&format!("{all} messages came back")), "{said}{why}");
    eprintln!("websockets: {}", said.trim());
}

#[test]
fn a_browser_has_its_websockets_over_the_connection_of_its_requests() {
    needs_balancer!();
    // It is no tool of these tests, and takes its time: only where all figures are asked for, and where it is.
    if !full() {
        return;
    }
    if Command::new("chromium").arg("--version").output().is_err() {
        eprintln!("chromium is not there: nothing was tried with it");
        return;
    }
    let bed = Bed::new();
    let host = &bed.net.servers[0];
    let address = host.address.at(Family::V4, 514);
    let receiver = Receiver::start(&host.ns, address);
    // A page of the site itself, for a browser does not share connections with others.
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns").join("people.html");
    let page = fs::read_to_string(page).expect("the page");
    let answer =
        format!("{{ status = 200, content_type = \"text/html; charset=utf-8\", body = '''{page}''' }}");
    let top = format!("access_log = {{ to = {{ syslog = \"{address}\" }} }}\n");
    let routes = format!("routes = [{{ paths = [\"/people.html\"], answer = {answer} }}]\n");
    let (_balancer, _) = bed.start_with(&top, &routes);
    let profile = Folder::new();
    let mut command = bed.clients().command("chromium");
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--ignore-certificate-errors",
        "--enable-logging=stderr",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--host-resolver-rules=MAP {NAME} {}", bed.vip(443).ip()));
    let mut browser = Running::start("chromium", command.arg(format!("https://{NAME}/people.html")));
    browser.wait_for_line(LIMIT, "all 1000 messages came back over 20 WebSockets");
    let sockets =
        || receiver.lines().into_iter().filter(|line| line.contains("\"/socket\"")).collect::<Vec<_>>();
    wait::until(LIMIT, "a line of the log for each", || match sockets() {
        lines if lines.len() == 20 => Ok(()),
        lines => Err(format!("{lines:?}")),
    });
    let over2 = sockets().iter().filter(|line| line.contains("\"version\":\"HTTP/2.0\"")).count();
    eprintln!("chromium: {over2} of 20 WebSockets over HTTP/2");
    assert!(over2 > 0, "RFC 8441: {:?}", sockets());
}

#[test]
fn clients_find_a_vip_by_its_name_and_follow_it_elsewhere() {
    needs_balancer!();
    // R76.
    let bed = Bed::new();
    let (balancer, trusted) = bed.start();
    let (hosts, ns) = (Hosts::of(bed.clients()), bed.clients());
    let (first, second) = (bed.vip(0).ip(), bed.net.vip(201).of(Family::V4));
    let get = |more: &[&str], url: &str| curl(ns, &[more, &["--cacert", &trusted, url]].concat());
    assert_eq!(get(&[], "https://www.example/page").status, 0, "nobody knows the name yet");
    hosts.write(&format!("{first} www.example\n"));
    for version in ["--http1.1", "--http2"] {
        let got = get(&[version], "https://www.example/page");
        assert_eq!(got.status, 200, "{got:?}");
        assert!(got.body.contains("host: www.example\n"), "{got:?}");
    }
    // The name leads to another VIP: who asks again gets there.
    let moved = format!(
        "{}[vip.second]\naddress = \"{second}\"\nport = 443\nserver_port = 80\nmode = \"http\"\npool = \"web\"\n\
         tls = {{ certificates = [\"www.pem\"] }}\n",
        fs::read_to_string(balancer.installation().config()).expect("the configuration")
    );
    let _ = balancer.reload(&moved).expect("reload");
    hosts.write(&format!("{second} www.example\n"));
    wait::until_true(LIMIT, "the other VIP to be open", || {
        get(&[], "https://www.example/page").status == 200
    });
    let got = get(&["--write-out", "at %{remote_ip}\n"], "https://www.example/page");
    assert!(got.body.ends_with(&format!("at {second}\n")), "{got:?}");
}
