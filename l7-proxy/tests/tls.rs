//! TLS towards clients and servers, and the PROXY protocol, over real sockets.

mod common;

use std::io::{Read, Write};

use common::{
    Client, Proxy, Server, eventually, header, spec,
    tls::{Authority, Folder, Secure, connect, shown},
};
use l7_proxy::{process::Engine, process::Listeners};

/// What comes back for a request, until the end.
fn ask(stream: &mut Secure, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn files(paths: &[std::path::PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| format!("\"{}\"", path.display())).collect();
    paths.join(", ")
}

#[test]
fn each_name_gets_its_certificate() {
    // R30, R31.
    let (authority, folder, server) = (Authority::new(), Folder::new(), Server::echo("a"));
    let apps = authority.issue(&["*.apps.example", "first.example"]);
    let sys = authority.issue(&["*.sys.example"]);
    let paths = [
        folder.write("apps.pem", &(apps.0.clone() + &apps.1)),
        folder.write("sys.pem", &(sys.1.clone() + &sys.0)),
    ];
    let proxy =
        Proxy::start(&[server.address], &format!(r#", "tls": {{ "certificates": [{}] }}"#, files(&paths)));
    let config = authority.client(&[b"http/1.1"]);
    let mut one = connect(&config, proxy.address, "a.apps.example").unwrap();
    let mut other = connect(&config, proxy.address, "B.sys.example").unwrap();
    assert_ne!(shown(&one), shown(&other));
    assert_eq!(one.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = ask(&mut one, "a.apps.example");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(header(body, "x-forwarded-proto"), Some("https"));
    assert!(ask(&mut other, "b.sys.example").starts_with("HTTP/1.1 200"));
    // The default is shown for what no certificate is for, and the client refuses it.
    let refused = connect(&config, proxy.address, "x.y.apps.example").unwrap_err().to_string();
    assert!(refused.contains("not valid for name"), "{refused}");

    let strict = Proxy::start(
        &[server.address],
        &format!(r#", "tls": {{ "certificates": [{}], "strict": true }}"#, files(&paths)),
    );
    let refused = connect(&config, strict.address, "x.y.apps.example").unwrap_err().to_string();
    assert!(refused.contains("received fatal alert"), "{refused}");
    assert!(connect(&config, strict.address, "a.apps.example").is_ok());
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_name() {
    // R45.
    let (authority, folder) = (Authority::new(), Folder::new());
    let (one, other) = (authority.issue(&["a.example"]), authority.issue(&["b.example"]));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (name, text, told) in [
        ("mismatch.pem", one.0.clone() + &other.1, "belongs to none of its certificates"),
        ("encrypted.pem", one.0.clone() + encrypted, "is encrypted"),
        ("keyless.pem", one.0.clone(), "has no private key"),
        ("certless.pem", one.1.clone(), "has no certificate"),
        ("empty.pem", String::new(), "has no private key"),
    ] {
        let path = folder.write(name, &text);
        let more = format!(r#", "tls": {{ "certificates": ["{}"] }}"#, path.display());
        let told_spec = spec(([127, 0, 0, 1], 1).into(), &more, &[], "", "");
        let problems = Engine::start(&told_spec, Listeners::none()).unwrap_err();
        let said = problems[0].to_string();
        assert!(said.contains(name) && said.contains(told), "{said}");
    }
    // The chain in any order: the leaf is the one the key is of.
    let path = folder.write("reversed.pem", &(one.1.clone() + &authority.pem() + &one.0));
    let proxy = Proxy::start(&[], &format!(r#", "tls": {{ "certificates": ["{}"] }}"#, path.display()));
    connect(&authority.client(&[]), proxy.address, "a.example").unwrap();
}

#[test]
fn a_certificate_that_is_renewed_is_shown_without_a_restart() {
    let (authority, folder, server) = (Authority::new(), Folder::new(), Server::echo("a"));
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let proxy =
        Proxy::start(&[server.address], &format!(r#", "tls": {{ "certificates": ["{}"] }}"#, path.display()));
    let config = authority.client(&[]);
    let mut kept = connect(&config, proxy.address, "a.example").unwrap();
    let before = shown(&kept);
    folder.write("a.pem", "half a file");
    folder.write("a.pem", &authority.combined(&["a.example"]));
    eventually("the new one is shown", || {
        // A client without tickets of before: it must see the certificate.
        let config = authority.client(&[]);
        shown(&connect(&config, proxy.address, "a.example").unwrap()) != before
    });
    assert!(ask(&mut kept, "a.example").starts_with("HTTP/1.1 200"), "what is open goes on");
}

#[test]
fn a_client_comes_back_with_a_ticket_whichever_worker_it_meets() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let more = format!(r#", "tls": {{ "certificates": ["{}"] }}"#, path.display());
    let proxy = Proxy::start_changed(|address| {
        let mut told = spec(address, &more, &[], "", "");
        told.workers = Some(3);
        told
    });
    let config = authority.client(&[]);
    let mut resumed = 0;
    for _ in 0..12 {
        let mut stream = connect(&config, proxy.address, "a.example").unwrap();
        ask(&mut stream, "a.example");
        resumed += usize::from(stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed));
    }
    assert_eq!(resumed, 11);
}

#[test]
fn old_versions_and_slow_handshakes_are_refused() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let proxy = Proxy::start(
        &[],
        &format!(
            r#", "tls": {{ "certificates": ["{}"], "minimum_version": "1.3", "handshake_timeout": "100ms" }}"#,
            path.display()
        ),
    );
    let old = authority.client_with(&[], &[&rustls::version::TLS12]);
    assert!(connect(&old, proxy.address, "a.example").is_err());
    assert!(connect(&authority.client(&[]), proxy.address, "a.example").is_ok());
    let mut slow = proxy.connect();
    slow.send(b"\x16\x03\x01");
    slow.rest();
}

#[test]
fn the_end_of_an_idle_connection_is_said_within_tls() {
    let (authority, folder, server) = (Authority::new(), Folder::new(), Server::echo("a"));
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let proxy = Proxy::start(
        &[server.address],
        &format!(
            r#", "tls": {{ "certificates": ["{}"] }}, "timeouts": {{ "client_idle": "100ms" }}"#,
            path.display()
        ),
    );
    let mut stream = connect(&authority.client(&[]), proxy.address, "a.example").unwrap();
    // Without the alert this would be an error: a connection that was cut.
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_request_for_another_certificates_host_is_misdirected() {
    // E7.
    let (authority, folder, server) = (Authority::new(), Folder::new(), Server::echo("a"));
    let paths = [
        folder.write("a.pem", &authority.combined(&["*.a.example"])),
        folder.write("b.pem", &authority.combined(&["b.example"])),
    ];
    let proxy = Proxy::start(
        &[server.address],
        &format!(r#", "tls": {{ "certificates": [{}], "refuse_domain_fronting": true }}"#, files(&paths)),
    );
    let config = authority.client(&[]);
    for (name, host, status) in [
        ("x.a.example", "x.a.example", 200),
        ("x.a.example", "Y.a.example:443", 200),
        ("x.a.example", "b.example", 421),
        ("b.example", "x.a.example", 421),
    ] {
        let mut stream = connect(&config, proxy.address, name).unwrap();
        let answer = ask(&mut stream, host);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name} {host}: {answer}");
    }
}

#[test]
fn links_and_cookies_are_right_for_clients_that_came_over_tls() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let server = Server::script(|client, _| {
        let own = client.stream.local_addr().unwrap();
        while let Some(request) = common::next_request(client) {
            let location = match request.split(' ').nth(1).unwrap() {
                "/own" => format!("http://{own}/x"),
                "/same" => "http://A.example/x?y#z".to_owned(),
                "/port" => "http://a.example:80/x".to_owned(),
                "/other" => "http://b.example/x".to_owned(),
                "/else" => "http://a.example:8080/x".to_owned(),
                _ => "/relative".to_owned(),
            };
            client.send(
                format!(
                    "HTTP/1.1 302 Found\r\nLocation: {location}\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; secure\r\n\
                     Content-Length: 0\r\n\r\n"
                )
                .as_bytes(),
            );
        }
    });
    let proxy = Proxy::start(
        &[server.address],
        &format!(
            r#", "tls": {{ "certificates": ["{}"] }}, "headers": {{ "rewrite": {{ "location": true, "secure_cookies": true }} }}"#,
            path.display()
        ),
    );
    for (path, location) in [
        ("/own", "https://a.example/x"),
        ("/same", "https://a.example/x?y#z"),
        ("/port", "https://a.example/x"),
        ("/other", "http://b.example/x"),
        ("/else", "http://a.example:8080/x"),
        ("/rel", "/relative"),
    ] {
        let mut stream = connect(&authority.client(&[]), proxy.address, "a.example").unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(header(&answer, "location"), Some(location), "{path}");
        assert_eq!(common::headers(&answer, "set-cookie"), ["a=1; Secure", "b=2; secure"]);
    }
}

#[test]
fn servers_are_spoken_to_with_tls() {
    let (authority, folder, server) = (Authority::new(), Folder::new(), Server::echo("a"));
    let certificate = folder.write("a.pem", &authority.combined(&["server.example"]));
    let roots = folder.write("roots.pem", &authority.pem());
    // A proxy with TLS is the server of another.
    let behind = Proxy::start(
        &[server.address],
        &format!(r#", "tls": {{ "certificates": ["{}"] }}"#, certificate.display()),
    );
    let front = |name: &str, verify: &str| {
        let tls = format!(r#", "tls": {{ "server_name": "{name}", "verify": {verify} }}"#);
        Proxy::start_with(&[behind.address], "", &tls, "")
    };
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let authorities = format!(r#"{{ "authorities": "{}" }}"#, roots.display());
    let good = front("server.example", &authorities);
    assert!(good.ask(request).starts_with("HTTP/1.1 200 "));
    assert!(front("other.example", &authorities).ask(request).starts_with("HTTP/1.1 503 "));
    assert!(front("server.example", r#""system""#).ask(request).starts_with("HTTP/1.1 503 "));
    assert!(front("other.example", r#""none""#).ask(request).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_proxy_before_us_says_who_its_client_is() {
    let (authority, folder, server) = (Authority::new(), Folder::new(), Server::echo("a"));
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let from = |network: &str, required: bool, tls: &str| {
        Proxy::start(
            &[server.address],
            &format!(
                r#", "proxy_protocol_in": {{ "from": ["{network}"], "required": {required} }}, "headers":
                {{ "forwarding": {{ "x_forwarded_port": true }} }} {tls}"#
            ),
        )
    };
    let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let told = from("127.0.0.0/8", true, "");
    let answer = told.ask(&format!("PROXY TCP4 10.1.2.3 10.0.0.100 4567 443\r\n{get}"));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(header(body, "x-forwarded-for"), Some("10.1.2.3"));
    assert_eq!(header(body, "x-forwarded-port"), Some("443"));
    assert_eq!(told.ask(get), "", "it is required");
    assert!(from("127.0.0.0/8", false, "").ask(get).starts_with("HTTP/1.1 200 "));
    let stranger = from("10.0.0.0/8", true, "");
    assert!(stranger.ask(get).starts_with("HTTP/1.1 200 "), "who may not speak it is served without");
    let forged = stranger.ask(&format!("PROXY TCP4 10.1.2.3 10.0.0.100 4567 443\r\n{get}"));
    assert!(forged.starts_with("HTTP/1.1 400 "), "{forged}");

    // Before TLS, and in pieces.
    let tls = from("127.0.0.0/8", true, &format!(r#", "tls": {{ "certificates": ["{}"] }}"#, path.display()));
    let mut socket = Client::connect(tls.address);
    for part in ["PRO", "XY TCP6 fd00::1 fd0", "0::2 4567 443\r\n"] {
        socket.send(part.as_bytes());
    }
    let name = rustls_pki_types::ServerName::try_from("a.example").unwrap();
    let connection = rustls::ClientConnection::new(authority.client(&[]), name).unwrap();
    let answer = ask(&mut rustls::StreamOwned::new(connection, socket.stream), "a.example");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(header(body, "x-forwarded-for"), Some("fd00::1"));
}

#[test]
fn servers_are_told_who_the_client_is() {
    for (version, expected) in
        [("v1", &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c")]
    {
        let server = Server::script(move |client, _| {
            assert_eq!(client.exactly(expected.len()), expected);
            if expected[0] == b'P' {
                client.until("\r\n");
            } else {
                client.exactly(12);
            }
            assert!(client.until("\r\n\r\n").starts_with("GET / "));
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(client.rest(), "", "no other client's request comes over this connection");
        });
        let pool = format!(r#", "proxy_protocol": "{version}""#);
        let proxy = Proxy::start_with(&[server.address], "", &pool, "");
        for _ in 0..3 {
            let answer = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        assert_eq!(server.count(), 3);
    }
}

#[test]
fn those_who_begin_and_never_finish_keep_nobody_out() {
    let (authority, folder, server) = (Authority::new(), Folder::new(), Server::echo("a"));
    let path = folder.write("a.pem", &authority.combined(&["a.example"]));
    let proxy = Proxy::start_with(
        &[server.address],
        &format!(r#", "tls": {{ "certificates": ["{}"], "handshake_timeout": "1h" }}"#, path.display()),
        "",
        r#", "limits": { "handshakes": 2 }"#,
    );
    let slow: Vec<_> = (0..5)
        .map(|_| {
            let mut client = proxy.connect();
            client.send(b"\x16\x03\x01");
            client
        })
        .collect();
    let config = authority.client(&[]);
    for _ in 0..5 {
        ask(&mut connect(&config, proxy.address, "a.example").unwrap(), "a.example");
    }
    // Two have places; the others had a second.
    for mut client in slow.into_iter().skip(2) {
        assert_eq!(client.rest(), "");
    }
}
