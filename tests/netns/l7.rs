//! What tests of proxied VIPs share: certificates, WebSockets, steady clients.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use lb_tests::{client, daemon::binary, netns::Netns, process};

const LIMIT: Duration = Duration::from_secs(20);

/// A PEM file with a certificate for this name and its key, as `lbctl` makes it.
pub(crate) fn certificate(name: &str) -> String {
    let mut command = Command::new(binary("lbctl"));
    let output =
        process::output("lbctl", command.args(["cert", "selfsign", "--fqdn", name, "--out", "-"]), LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("PEM")
}

/// The numbers of the l7-proxy processes of a namespace.
pub(crate) fn proxies(ns: &Netns) -> Vec<i32> {
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    ns.processes().into_iter().filter(|pid| name(pid).trim() == "l7-proxy").collect()
}

/// A connection over which a WebSocket was asked for, and got.
pub(crate) struct Tunnel(pub(crate) TcpStream);

impl Tunnel {
    pub(crate) fn open(ns: &Netns, target: SocketAddr) -> Self {
        let mut stream = ns.run(|| client::connect(target, None, LIMIT)).expect("connect");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let ask = "GET /ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        stream.write_all(ask.as_bytes()).expect("send");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101") && head.contains("deliberately-wrong"), "R33: {head}");
        Self(stream)
    }

    pub(crate) fn echoes(&mut self) {
        self.0.write_all(b"hello").expect("send");
        let mut back = [0; 5];
        self.0.read_exact(&mut back).expect("an echo");
        assert_eq!(&back, b"hello");
    }
}

/// Requests one after the other, on a connection each, until told to stop; what failed.
pub(crate) fn steady(ns: &Netns, target: SocketAddr) -> impl FnOnce() -> (usize, Vec<String>) {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = std::sync::Arc::clone(&stop);
    let thread = ns.spawn(move || {
        let (mut done, mut failed) = (0, Vec::new());
        while !told.load(std::sync::atomic::Ordering::SeqCst) {
            match ask(target) {
                Ok(()) => done += 1,
                Err(error) => failed.push(error),
            }
        }
        (done, failed)
    });
    move || {
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        thread.join().expect("the client")
    }
}

pub(crate) fn ask(target: SocketAddr) -> Result<(), String> {
    let mut stream = client::connect(target, None, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(|error| error.to_string())?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("{error} after {answer:?}"))?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("got {answer:?}")) }
}
