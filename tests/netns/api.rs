//! The admin interface as programs use it: what it says of itself, writers that meet, the same from another host, and people
//! who mean no good.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    sync::Barrier,
    thread,
    time::Duration,
};

use lb_tests::{
    address::Family,
    daemon::{Installation, binary},
    folder::Folder,
    needs_balancer,
    netns::Netns,
    process::{self, Running},
    schema,
    server::Purpose,
    streams::Streams,
    topology::Layout,
    wait,
};
use serde_json::{Value, json};

use crate::bed::Bed;

const PATIENCE: Duration = Duration::from_secs(20);

/// Status, value of `ETag`, and body of an answer.
type Answer = (u16, Option<String>, String);

/// A request over the socket; the answer.
fn ask(socket: &Path, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\nContent-Length: {length}\r\n");
    stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).expect("send");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).expect("receive");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("a head in {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).map(str::to_owned);
    // What comes in chunks is only looked at line by line.
    (status, etag, body.to_owned())
}

/// What to ask a path for so that there is something to do, and nothing comes of it: query and body.
fn example(path: &str, method: &str) -> (&'static str, Value) {
    match (path, method) {
        ("/v1/vip", "get") => ("?vip=snat_v4", Value::Null),
        ("/v1/pool", _) => ("?pool=v4", Value::Null),
        ("/v1/server", "get") => ("?vip=snat_v4&server=s1", Value::Null),
        ("/v1/why", _) => ("?source=10.9.9.9:4000&destination=10.9.9.9:80", Value::Null),
        ("/v1/trace", _) => ("?seconds=2", Value::Null),
        ("/v1/server", _) => {
            ("?dry_run=true", json!({ "vip": "*", "server": "s1", "state": "halt", "weight": 7 }))
        }
        ("/v1/vip", _) => ("?dry_run=true", json!({ "vip": "*", "enabled": false })),
        ("/v1/connections/end", _) => ("?dry_run=true&all=true", Value::Null),
        ("/v1/edit", _) => ("?dry_run=true", json!({ "edit": "remove-vip", "name": "snat_v6" })),
        ("/v1/rollback", _) => ("?dry_run=true&number=1", Value::Null),
        (_, "post") => ("?dry_run=true", Value::Null),
        _ => ("", Value::Null),
    }
}

/// Every row of the table, asked of the program that runs: the answer is what the document says of it. Whatever changes
/// something is only tried, which changes nothing.
#[test]
fn every_answer_is_as_the_document_says_and_a_dry_run_changes_nothing() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let config = bed.config(&["snat"], 80, "");
    let balancer = bed.balance(&config);
    let streams = Streams::start(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 3);
    streams.wait_for_echoes(2);
    let (socket, audit) = (balancer.installation().socket(), balancer.installation().audit());
    let document: Value =
        serde_json::from_str(&ask(&socket, "GET", "/openapi.json", "", "").2).expect("JSON");
    let before = balancer.status();
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("methods") {
            let (query, body) = example(path, method);
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let request = format!("{path}{query}");
            let (status, etag, answer) = ask(&socket, &method.to_uppercase(), &request, "", &body);
            // There is nothing to confirm, which is an answer too.
            let expected = if path == "/v1/confirm" { 422 } else { 200 };
            assert_eq!(status, expected, "{method} {request}: {answer}");
            let response = if status == 200 {
                &operation["responses"]["200"]
            } else {
                &document["components"]["responses"]["Refused"]
            };
            if status == 200 && response["headers"].get("ETag").is_some() {
                assert_eq!(etag, Some(format!("\"{}\"", before.etag)), "{request}");
            }
            let content = &response["content"];
            let lines: Vec<_> = if content.get("application/jsonl").is_some() {
                answer.lines().filter(|line| line.starts_with('{')).collect()
            } else {
                vec![answer.as_str()]
            };
            let schema = content.as_object().and_then(|kinds| kinds.values().next()?.get("schema"));
            for line in lines.iter().filter(|_| schema.is_some()) {
                let value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{request}: {error}: {line}"));
                let fits = schema::check(&document, schema.expect("a schema"), &value);
                fits.unwrap_or_else(|why| panic!("{request}: {why}"));
            }
            assert!(path != "/v1/trace" || lines.len() > 2, "packets are seen: {answer}");
            asked += 1;
        }
    }
    assert!(asked >= 20, "{asked} rows");
    streams.unbroken_except(None);
    assert_eq!(balancer.status().etag, before.etag);
    assert_eq!(fs::read_to_string(balancer.installation().config()).expect("the file"), config.text());
    let audit = fs::read_to_string(audit).unwrap_or_default();
    assert!(!audit.contains("dry_run"), "{audit}");

    // What would be is told in words.
    let told = balancer.lbctl(&["server", "halt", "snat_v4/s1", "--dry-run"]).expect("a dry run");
    assert!(
        told.contains("s1 takes no new flows any more") && told.contains("open flows are reset"),
        "{told}"
    );
}

/// Of many who have seen the same, one changes something, whatever they want; the others learn what.
#[test]
fn of_parallel_writers_exactly_one_wins() {
    needs_balancer!();
    const WRITERS: usize = 8;
    let bed = Bed::new(Layout::default(), &[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    let socket = balancer.installation().socket();
    for round in 0..5 {
        let (_, etag, _) = ask(&socket, "GET", "/v1/config", "", "");
        let seen = format!("If-Match: {}\r\n", etag.expect("an ETag"));
        let together = Barrier::new(WRITERS);
        let write = |number: usize| {
            let weight = 10 * (round + 1) + number;
            let steer = json!({ "vip": "snat_v4", "server": "s1", "weight": weight });
            let server = json!({ "name": format!("n{weight}"), "address": "10.77.0.9", "weight": weight });
            let edit = json!({ "edit": "add-server", "pool": "v4", "keys": server });
            let (path, body) =
                if number.is_multiple_of(2) { ("/v1/server", steer) } else { ("/v1/edit", edit) };
            let _ = together.wait();
            ask(&socket, "POST", path, &seen, &body.to_string())
        };
        let write = &write;
        let answers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..WRITERS).map(|number| scope.spawn(move || write(number))).collect();
            threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
        });
        let won: Vec<_> = answers.iter().filter(|(status, ..)| *status == 200).collect();
        assert_eq!(won.len(), 1, "round {round}: {answers:?}");
        for (status, etag, body) in answers.iter().filter(|(status, ..)| *status != 200) {
            let problem: Value = serde_json::from_str::<Value>(body).expect("JSON")["error"].clone();
            assert_eq!((*status, &problem["code"]), (412, &"changed".into()), "{body}");
            assert_eq!(etag.as_ref(), won[0].1.as_ref(), "what is in use now");
            assert_eq!(problem["since"].as_array().map(Vec::len), Some(1), "{body}");
        }
        let file = fs::read_to_string(balancer.installation().config()).expect("the file");
        let text: Value = serde_json::from_str(&ask(&socket, "GET", "/v1/config", "", "").2).expect("JSON");
        let servers = |text: &str| text.matches("10.77.0.9").count();
        assert_eq!(
            servers(&file),
            servers(text["text"].as_str().expect("a text")),
            "what is in use is the file"
        );
    }
    let etag = balancer.status().etag;
    let late = balancer.lbctl(&["vip", "disable", "*", "--if-match", "0-0"]).expect_err("never seen");
    assert!(late.contains("something else is in use"), "{late}");
    let _ = balancer.lbctl(&["vip", "disable", "*", "--if-match", &etag]).expect("what is in use");
}

/// What another host needs to ask.
struct Visitor<'a> {
    ns: &'a Netns,
    url: String,
    folder: Folder,
}

impl Visitor<'_> {
    /// A token of a role, noted in the file of the balancer's host.
    fn token(&self, role: &str) {
        let file = self.folder.file("tokens");
        let file = file.to_str().expect("a path");
        let mut new = Command::new(binary("lbctl"));
        new.args(["token", "new", "--role", role, "--name", role, "--file", file]);
        let made = process::output("lbctl token", &mut new, PATIENCE);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.keep(role, &made.stdout);
    }

    fn keep(&self, name: &str, secret: &[u8]) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.write(name, secret);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
    }

    fn command(&self, role: &str, arguments: &[&str]) -> Command {
        let mut command = self.ns.command(binary("lbctl"));
        command.args(["--api", &self.url]).arg("--token-file").arg(self.folder.file(role));
        command.arg("--ca").arg(self.folder.file("cert.pem")).args(arguments);
        command
    }

    /// `lbctl` with the token of a role, which goes on.
    fn start(&self, role: &str, arguments: &[&str]) -> Running {
        Running::start("lbctl", &mut self.command(role, arguments))
    }

    /// `lbctl` with the token of a role, from the other host.
    fn lbctl(&self, role: &str, arguments: &[&str]) -> Result<String, String> {
        let output = process::output("lbctl", &mut self.command(role, arguments), PATIENCE);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

const PORT: u16 = 9443;

/// A balancer that is served over TCP, and who asks it from the client's host.
fn remote(bed: &Bed) -> (Installation<'_>, Visitor<'_>) {
    let address = bed.net.lb_addresses()[0].of(Family::V4);
    let folder = Folder::new();
    let mut make = Command::new(binary("lbctl"));
    make.args(["cert", "selfsign", "--fqdn", &address.to_string(), "--out"]).arg(folder.file("cert.pem"));
    assert!(process::output("lbctl cert", &mut make, PATIENCE).status.success());
    let visitor = Visitor { ns: &bed.net.client().ns, url: format!("https://{address}:{PORT}"), folder };
    let option = |name: &str, file: &str| format!("--api-{name}={}", visitor.folder.file(file).display());
    let config = bed.config(&["snat"], 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text())
        .xdp_mode("native")
        .option(&format!("--api={address}:{PORT}"))
        .option(&option("cert", "cert.pem"))
        .option(&option("tokens", "tokens"));
    (installation, visitor)
}

#[test]
fn from_another_host_a_token_says_who_may_do_what_until_it_is_revoked() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let (installation, visitor) = remote(&bed);
    for role in ["viewer", "operator", "admin"] {
        visitor.token(role);
    }
    visitor.keep("nobody", b"lb_0000");
    let audit = installation.audit();
    let balancer = installation.start();
    let _ = balancer.wait_all_up();

    let may = |role, arguments: &[&str]| {
        visitor.lbctl(role, arguments).unwrap_or_else(|why| panic!("{role}: {why}"))
    };
    assert!(may("viewer", &["status"]).contains("snat_v4"));
    assert!(may("viewer", &["why", "10.0.0.1:1", "10.0.0.2:80"]).contains("verdict"));
    assert!(may("operator", &["server", "drain", "snat_v4/s1"]).contains("snat_v4/s1: drain"));
    assert!(may("operator", &["conn", "kill", "--all", "--dry-run"]).contains("would be ended"));
    let _ = may("operator", &["trace", "--duration", "1"]);
    assert!(may("admin", &["vip", "remove", "snat_v6", "--dry-run"]).contains("- vip.snat_v6"));
    assert!(may("admin", &["reload"]).contains("is in use: 2 VIPs"));
    let may_not = |role, arguments: &[&str]| visitor.lbctl(role, arguments).expect_err(role);
    assert!(may_not("viewer", &["vip", "disable", "*"]).contains("takes a token of the role operator"));
    assert!(may_not("operator", &["reload"]).contains("takes a token of the role admin"));
    assert!(may_not("nobody", &["status"]).contains("this token is not known"));
    assert!(may_not("viewer", &["probe"]).contains("run it there, without --api"));

    let text = fs::read_to_string(audit).expect("the audit log");
    for expected in [r#""token":"operator","role":"operator""#, r#""status":403"#, r#""status":401"#] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let sockets = balancer.lbctl(&["sockets"]).expect("sockets");
    assert!(sockets.contains(&format!(":{PORT}")), "{sockets}");

    // A line that goes is a token that goes, and with it who watches by it; a file that is wrong changes nothing.
    let mut watch = visitor.start("admin", &["trace", "host", "192.0.2.99"]);
    let log = || balancer.log();
    wait::until_true(PATIENCE, "somebody to watch", || log().matches("packets are watched").count() == 2);
    let tokens = visitor.folder.file("tokens");
    let lines = fs::read_to_string(&tokens).expect("tokens");
    fs::write(&tokens, "nonsense").expect("write");
    let told = balancer.lbctl(&["reload"]).expect("a reload");
    assert!(told.contains("is in use"), "{told}");
    let _ = may("admin", &["status"]);
    let without: Vec<_> = lines.lines().filter(|line| !line.starts_with("admin")).collect();
    fs::write(&tokens, without.join("\n")).expect("write");
    let _ = balancer.lbctl(&["reload"]).expect("a reload");
    assert!(may_not("admin", &["status"]).contains("not known"));
    let _ = watch.wait(PATIENCE);
    let _ = may("viewer", &["status"]);
    let _ = balancer.stop();
}

#[test]
fn without_protection_it_does_not_start() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let (installation, visitor) = remote(&bed);
    let refused = |why: &str| {
        let (status, log) = installation.run_to_end();
        assert!(!status.success() && log.contains(why), "{why}: {log}");
    };
    refused("cannot read");
    visitor.token("admin");
    let chmod = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(visitor.folder.file("tokens"), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    chmod(0o644);
    refused("say chmod 600");
    chmod(0o600);
    let _ = installation.start();
}

/// Resident memory of a process, in KiB.
fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Ten thousand connections that say nothing, or half of something, over both ways; bodies that are too large, of the wrong
/// kind, or do not come. Servers are checked as before, streams go on, and who has something to ask is answered.
#[test]
fn whoever_means_no_good_changes_nothing_for_servers_clients_and_operators() {
    needs_balancer!();
    const EACH: usize = 5_000;
    const PROBES: usize = 12;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("more open files");
    let bed = Bed::new(Layout::default(), &[80]);
    let (installation, visitor) = remote(&bed);
    visitor.token("viewer");
    let socket = installation.socket();
    let balancer = installation.start();
    let before = balancer.wait_all_up();
    let client = &bed.net.client().ns;
    let streams = Streams::start(client, bed.target("snat", Family::V4, 80), 6);
    streams.wait_for_echoes(2);
    let more_probes = || {
        let seen = bed.servers[0].visits_for(80, Purpose::Probe).len();
        let begin = std::time::Instant::now();
        wait::until(Duration::from_secs(60), "a dozen probes", || {
            let count = bed.servers[0].visits_for(80, Purpose::Probe).len() - seen;
            if count >= PROBES { Ok(()) } else { Err(format!("{count} probes")) }
        });
        begin.elapsed()
    };
    let usual = more_probes();
    let memory = resident(balancer.id());

    let address = bed.net.lb_addresses()[0].at(Family::V4, PORT);
    let silent: Vec<_> = (0..EACH)
        .map(|number| {
            let mut stream = UnixStream::connect(&socket).expect("connect to the socket");
            // Closing may come before the words.
            let _ =
                stream.write_all(if number.is_multiple_of(2) { b"" } else { b"POST /v1/vip HTTP/1.1\r\nHo" });
            stream
        })
        .collect();
    let strangers: Vec<_> = client.run(|| {
        let connect = |number: usize| {
            let mut stream = TcpStream::connect(address).expect("connect over TCP");
            let _ = stream.write_all(if number.is_multiple_of(2) { b"" } else { b"\x16\x03\x01" });
            stream
        };
        (0..EACH).map(connect).collect()
    });
    let under_abuse = more_probes();
    let huge = format!("{{\"vip\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(ask(&socket, "POST", "/v1/vip", "", &huge).0, 413);
    let form = "Content-Type: text/plain\r\n";
    assert_eq!(ask(&socket, "POST", "/v1/vip", form, "{}").0, 415);
    for (body, status) in [("{", 400), ("[]", 422), (r#"{"vip":7,"enabled":true}"#, 422)] {
        assert_eq!(ask(&socket, "POST", "/v1/vip", "", body).0, status, "{body}");
    }
    let mut slow = UnixStream::connect(&socket).expect("connect");
    slow.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    slow.write_all(b"POST /v1/vip HTTP/1.1\r\nHost: lb\r\nContent-Length: 9\r\n\r\n{").expect("send");
    let mut answer = String::new();
    let _ = slow.read_to_string(&mut answer).expect("an end");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let seen = visitor.lbctl("viewer", &["status", "-o", "json"]).expect("an answer over TCP");
    assert!(seen.contains("snat_v4"));

    // As often as before, as far as a busy machine goes.
    assert!(
        under_abuse < usual * 3 + Duration::from_secs(2),
        "{under_abuse:?} for a dozen probes, {usual:?} before"
    );
    let after = balancer.status();
    for (one, other) in before.vips.iter().zip(&after.vips) {
        let since = |vip: &lb_user::snapshot::VipStatus| -> Vec<_> {
            vip.servers.iter().map(|server| (server.health, server.since)).collect()
        };
        assert_eq!(since(one), since(other), "nobody was found ill: {}", one.name);
    }
    assert_eq!(after.etag, before.etag);
    streams.wait_for_echoes(2);
    streams.unbroken_except(None);
    let grown = resident(balancer.id()).saturating_sub(memory);
    assert!(grown < 32 << 10, "{grown} KiB more than before");
    drop((silent, strangers));
}
