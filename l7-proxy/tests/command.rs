//! What the program says and how it ends, as a service manager sees it.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use common::{Client, Server, eventually, listener};

fn l7_proxy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_l7-proxy")).args(arguments).output().expect("l7-proxy starts")
}

/// A file of this test's own that goes with it.
struct Spec(PathBuf);

impl Spec {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("l7-proxy-{}-{name}.json", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Spec {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A process that serves, and what it has said so far.
struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    fn start(spec: &Spec) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_l7-proxy"))
            .args(["--spec", spec.path()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said: Arc<Mutex<String>> = Arc::default();
        let (lines, heard) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&said));
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                heard.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let running = Self { child, said };
        running.says("serving");
        running
    }

    fn says(&self, part: &str) {
        eventually(part, || self.said.lock().unwrap().contains(part));
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(port: u16, server: &Server, more: &str) -> String {
    format!(
        r#"{{ "services": [{{ "name": "web", "listen": ["127.0.0.1:{port}"], "mode": "http", "pool": "web" {more} }}],
              "pools": [{{ "name": "web", "servers": [{{ "name": "a", "address": "127.0.0.1", "port": {} }}] }}] }}"#,
        server.address.port()
    )
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    listener().local_addr().unwrap().port()
}

#[test]
fn it_must_be_told_what_to_serve() {
    let output = l7_proxy(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--spec"));
}

#[test]
fn it_tells_its_version() {
    let output = l7_proxy(&["--version"]);
    assert!(output.status.success());
    let expected = format!("l7-proxy {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn an_argument_it_does_not_know_is_named() {
    let output = l7_proxy(&["--listen"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--listen"));
}

#[test]
fn what_is_wrong_with_a_specification_is_told_with_its_place() {
    for (name, text, told) in [
        ("syntax", "{", "EOF"),
        ("key", r#"{ "servces": [] }"#, "unknown field `servces`"),
        (
            "pool",
            r#"{ "services": [{ "name": "web", "listen": ["127.0.0.1:80"], "mode": "http", "pool": "x" }] }"#,
            "service web: pool: there is no pool \"x\"",
        ),
    ] {
        let spec = Spec::new(name, text);
        let output = l7_proxy(&["--spec", spec.path(), "--check"]);
        assert_eq!(output.status.code(), Some(78), "{name}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with(spec.path()) && said.contains(told), "{said}");
    }
    let output = l7_proxy(&["--spec", "/nowhere", "--check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere: cannot read it"));
    let good = Spec::new("good", &json(80, &Server::echo("a"), ""));
    let output = l7_proxy(&["--spec", good.path(), "--check"]);
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = listener();
    let spec = Spec::new("taken", &json(taken.local_addr().unwrap().port(), &Server::echo("a"), ""));
    let output = l7_proxy(&["--spec", spec.path()]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("service web: cannot listen to 127.0.0.1:"), "{said}");
}

#[test]
fn it_reads_its_file_again_and_ends_when_told() {
    let (server, port) = (Server::echo("a"), free_port());
    let spec = Spec::new("again", &json(port, &server, ""));
    let mut running = Running::start(&spec);
    let address = ([127, 0, 0, 1], port).into();
    let mut kept = Client::connect(address);
    let ask = |client: &mut Client| {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        String::from_utf8(client.message().1).unwrap()
    };
    assert!(ask(&mut kept).contains("X-Forwarded-Proto"));

    fs::write(&spec.0, "{").unwrap();
    running.signal("-HUP");
    running.says("what was served before still is");
    assert!(ask(&mut kept).contains("X-Forwarded-Proto"), "a bad file changes nothing");

    let changed = r#", "headers": { "forwarding": { "x_forwarded_proto": false } }"#;
    fs::write(&spec.0, json(port, &server, changed)).unwrap();
    running.signal("-HUP");
    running.says("was read again");
    assert!(!ask(&mut kept).contains("X-Forwarded-Proto"), "the same connection, the new settings");

    running.signal("-TERM");
    assert_eq!(kept.rest(), "", "a connection that is idle ends without a word");
    let status = running.child.wait().unwrap();
    assert!(status.success());
    running.says("ended");
}
