//! Lines of the log that workers send to a receiver of syslog themselves.

mod common;

use std::{net::UdpSocket, time::Duration};

use common::{Client, PATIENCE, Proxy, Server, drain, eventually, next_request, spec, tls::Folder};

/// A request on a connection that stays.
const GET: &str = "GET /PATH HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// A receiver, and the proxy's setting for it.
fn receiver() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let setting = format!(
        r#", "log": {{ "to": {{ "syslog": "{}" }}, "format": "json" }}"#,
        socket.local_addr().unwrap()
    );
    (socket, setting)
}

/// The path and the end of the next line that comes, which is a message of RFC 5424 §6.
fn next(socket: &UdpSocket) -> (String, String) {
    let mut piece = [0; 4096];
    let length = socket.recv(&mut piece).expect("a line");
    let text = str::from_utf8(&piece[..length]).unwrap();
    let [head, time, host, name, process, id, data, line] =
        text.splitn(8, ' ').collect::<Vec<_>>().try_into().unwrap();
    assert_eq!([head, host, name, id, data], ["<134>1", "-", "l7-proxy", "-", "-"], "{text}");
    assert!(time.ends_with('Z') && process == std::process::id().to_string(), "{text}");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    (line["path"].as_str().unwrap().into(), line["ended"].as_str().unwrap().into())
}

fn path(number: usize) -> String {
    format!("/{number}")
}

#[test]
fn a_worker_sends_all_its_lines_in_their_order() {
    let (socket, log) = receiver();
    let server = Server::echo("a");
    let proxy = Proxy::start_with(&[server.address], "", "", &log);
    let mut client = proxy.connect();
    for number in 0..100 {
        client.send(GET.replace("/PATH", &path(number)).as_bytes());
        client.message();
        // At once, and not when there are many.
        assert_eq!(next(&socket), (path(number), "--".into()));
    }
    let requests: String = (0..100).map(|number| GET.replace("/PATH", &path(number))).collect();
    client.send(requests.as_bytes());
    for number in 0..100 {
        client.message();
        assert_eq!(next(&socket), (path(number), "--".into()));
    }
    assert_eq!(proxy.engine().log().dropped(), 0);
}

#[test]
fn lines_about_what_breaks_off_at_the_end_are_sent() {
    let (socket, log) = receiver();
    let server = Server::script(|client, _| while next_request(client).is_some() {});
    let mut proxy = Proxy::start_with(&[server.address], "", "", &log);
    let clients: Vec<Client> = (0..40)
        .map(|number| {
            let mut client = proxy.connect();
            client.send(GET.replace("/PATH", &path(number)).as_bytes());
            client
        })
        .collect();
    eventually("the server has all requests", || server.count() == clients.len());
    assert_eq!(drain(proxy.engine.take().unwrap(), Duration::ZERO), clients.len());
    let mut paths: Vec<String> = clients.iter().map(|_| next(&socket).0).collect();
    paths.sort_by_key(|path| path[1..].parse::<usize>().unwrap());
    assert!(paths.iter().eq(&(0..clients.len()).map(path).collect::<Vec<_>>()), "{paths:?}");
}

#[test]
fn lines_follow_the_setting() {
    let (one, to_one) = receiver();
    let (other, to_other) = receiver();
    let folder = Folder::new();
    let file = folder.0.join("log");
    let to_file = format!(r#", "log": {{ "to": {{ "file": "{}" }} }}"#, file.display());
    let server = Server::echo("a");
    let proxy = Proxy::start_with(&[server.address], "", "", &to_one);
    let mut client = proxy.connect();
    let mut ask = |number: usize| {
        client.send(GET.replace("/PATH", &path(number)).as_bytes());
        client.message();
    };
    let change = |log: &str| {
        let changed = spec(proxy.address, "", &[server.address], "", log);
        proxy.engine().apply(&changed, l7_proxy::process::Listeners::none()).unwrap();
    };
    ask(0);
    assert_eq!(next(&one).0, "/0");
    change(&to_file);
    ask(1);
    eventually("a line in the file", || {
        std::fs::read_to_string(&file).unwrap_or_default().contains("\"/1\"")
    });
    change(&to_other);
    ask(2);
    assert_eq!(next(&other).0, "/2");
    change(&to_one);
    ask(3);
    assert_eq!(next(&one).0, "/3", "and nothing of what was for others");
    change("");
    // Before it reads the second, the worker has nothing to do, and would send.
    ask(4);
    ask(5);
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.send_to(b"nobody wants lines", one.local_addr().unwrap()).unwrap();
    let mut piece = [0; 64];
    let length = one.recv(&mut piece).unwrap();
    assert_eq!(&piece[..length], b"nobody wants lines");
    assert_eq!(proxy.engine().log().dropped(), 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
}

#[test]
fn nobody_waits_for_a_receiver_that_is_not_there() {
    let (socket, log) = receiver();
    drop(socket);
    let server = Server::echo("a");
    let proxy = Proxy::start_with(&[server.address], "", "", &log);
    let mut client = proxy.connect();
    for number in 0..50 {
        client.send(GET.replace("/PATH", &path(number)).as_bytes());
        assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    }
}
