//! Certificates of clients: who is let in, and what servers are told (E4, the matrix of haproxy-boshrelease).

mod common;

use std::{
    io::{Read, Write},
    sync::Arc,
};

use common::{
    Proxy, Server, find, header, headers, spec,
    tls::{Authority, Folder, Secure, connect},
};
use l7_proxy::process::Listeners;
use rustls::{ClientConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

const LINES: [&str; 8] = [
    "x-ssl-client",
    "x-ssl-client-session-id",
    "x-ssl-client-verify",
    "x-ssl-client-subject-dn",
    "x-ssl-client-subject-cn",
    "x-ssl-client-issuer-dn",
    "x-ssl-client-notbefore",
    "x-ssl-client-notafter",
];

struct Case {
    server: Server,
    proxy: Proxy,
    with: Arc<ClientConfig>,
    without: Arc<ClientConfig>,
    certificate: String,
    _folder: Folder,
}

impl Case {
    fn new(required: bool, headers: &str) -> Self {
        let (authority, clients, folder) = (Authority::new(), Authority::new(), Folder::new());
        let (own, theirs) = (
            folder.write("a.pem", &authority.combined(&["a.example"])),
            folder.write("ca.pem", &clients.pem()),
        );
        let server = Server::echo("a");
        let proxy = Proxy::start(
            &[server.address],
            &format!(
                r#", "tls": {{ "certificates": ["{}"], "client_certificates": {{ "authorities": "{}", "required": {required} }} }}{headers}"#,
                own.display(),
                theirs.display()
            ),
        );
        let (with, certificate) = authority.client_of(&clients, &[]);
        let certificate = l7_proxy::wire::base64(&certificate);
        Self { server, proxy, with, without: authority.client(&[]), certificate, _folder: folder }
    }

    /// The head that a server saw.
    fn seen(&self, config: &Arc<ClientConfig>, lines: &str) -> String {
        let mut stream = connect(config, self.proxy.address, "a.example").unwrap();
        ask(&mut stream, lines).expect("an answer")
    }
}

fn ask(stream: &mut Secure, lines: &str) -> Option<String> {
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n").as_bytes()).ok()?;
    let mut all = Vec::new();
    let mut bytes = [0; 16_384];
    // The head of the answer, and the head that the server saw as its body.
    while find(&all, b"\r\n\r\n").is_none_or(|first| find(&all[first + 4..], b"\r\n\r\n").is_none()) {
        match stream.read(&mut bytes) {
            Ok(read) if read > 0 => all.extend_from_slice(&bytes[..read]),
            _ => return None,
        }
    }
    let text = String::from_utf8(all).unwrap();
    Some(text.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn servers_are_told_as_the_mode_says() {
    const SPOOFED: &str = "X-Forwarded-Client-Cert: theirs\r\nX_Forwarded_Client_Cert: theirs\r\n\
         X-SSL-Client: 1\r\nX-SSL-Client-Verify: 0\r\nX_SSL_Client_Subject_CN: root\r\n";
    const SIGNED: &str = "X-Forwarded-Client-Cert: theirs\r\nX-Cf-Proxy-Signature: abc123\r\n";
    for (mode, plain, signed, shown, shown_and_signed) in [
        ("always_forward_only", "theirs", "theirs", "theirs", "theirs"),
        ("forward_only", "", "", "theirs", "theirs"),
        ("sanitize_set", "", "", "ours", "ours"),
        ("forward_only_if_route_service", "", "theirs", "ours", "ours"),
    ] {
        let case =
            Case::new(false, &format!(r#", "headers": {{ "forwarded_client_certificate": "{mode}" }}"#));
        for (config, lines, expected) in [
            (&case.without, SPOOFED, plain),
            (&case.without, SIGNED, signed),
            (&case.with, SPOOFED, shown),
            (&case.with, SIGNED, shown_and_signed),
        ] {
            let seen = case.seen(config, lines);
            let expected: &[&str] = match expected {
                "" => &[],
                "ours" => &[&case.certificate],
                theirs => &[theirs],
            };
            assert_eq!(headers(&seen, "x-forwarded-client-cert"), expected, "{mode}: {seen}");
            let has_shown = Arc::ptr_eq(config, &case.with);
            for name in LINES {
                assert_eq!(headers(&seen, name).len(), usize::from(has_shown), "{mode}, {name}: {seen}");
            }
            assert!(!seen.contains("X_SSL") && !seen.contains("root"), "{mode}: {seen}");
            assert_eq!(seen.contains("X_Forwarded_Client_Cert"), expected == ["theirs"] && lines == SPOOFED);
            if has_shown {
                assert_eq!(header(&seen, "x-ssl-client"), Some("1"));
                assert_eq!(header(&seen, "x-ssl-client-verify"), Some("0"));
                assert_eq!(header(&seen, "x-ssl-client-subject-cn"), Some("Client"));
                let subject = header(&seen, "x-ssl-client-subject-dn").unwrap();
                assert!(
                    subject.contains("/C=CH") && subject.contains("/O=Example / \"\\xC3\\x84\""),
                    "{subject}"
                );
                assert!(header(&seen, "x-ssl-client-issuer-dn").unwrap().ends_with("/CN=test authority"));
                assert!(header(&seen, "x-ssl-client-notafter").unwrap().ends_with('Z'));
            }
        }
    }
}

#[test]
fn where_none_are_asked_for_nothing_changes() {
    let server = Server::echo("a");
    let proxy = Proxy::start(&[server.address], "");
    let seen = proxy.ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-SSL-Client: 1\r\nX-Forwarded-Client-Cert: theirs\r\n\r\n",
    );
    assert!(seen.contains("X-SSL-Client: 1\r\n") && seen.contains("X-Forwarded-Client-Cert: theirs\r\n"));
    let strict =
        Proxy::start(&[server.address], r#", "headers": { "forwarded_client_certificate": "sanitize_set" }"#);
    let seen = strict.ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-SSL-Client: 1\r\nX-Forwarded-Client-Cert: theirs\r\n\r\n",
    );
    assert!(!seen.contains("X-SSL-Client") && !seen.contains("X-Forwarded-Client-Cert"), "{seen}");
}

#[test]
fn who_must_show_one_and_does_not_is_refused() {
    let case = Case::new(true, "");
    assert!(case.seen(&case.with, "").starts_with("GET / "));
    // With TLS 1.3 a client learns of it only when it reads.
    let refused = connect(&case.without, case.proxy.address, "a.example")
        .map_or(true, |mut stream| ask(&mut stream, "").is_none());
    assert!(refused);
    let (stranger, _) = Authority::new().client_of(&Authority::new(), &[]);
    assert!(connect(&stranger, case.proxy.address, "a.example").is_err());
    assert_eq!(case.server.requests().len(), 1);
}

#[test]
fn one_that_nobody_believes_is_refused_even_where_none_is_required() {
    let (authority, clients, folder) = (Authority::new(), Authority::new(), Folder::new());
    let (own, theirs) =
        (folder.write("a.pem", &authority.combined(&["a.example"])), folder.write("ca.pem", &clients.pem()));
    let server = Server::echo("a");
    let proxy = Proxy::start(
        &[server.address],
        &format!(
            r#", "tls": {{ "certificates": ["{}"], "client_certificates": {{ "authorities": "{}" }} }}"#,
            own.display(),
            theirs.display()
        ),
    );
    let (stranger, _) = authority.client_of(&Authority::new(), &[]);
    let refused = connect(&stranger, proxy.address, "a.example")
        .map_or(true, |mut stream| ask(&mut stream, "").is_none());
    assert!(refused);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_ticket_from_before_does_not_stand_for_a_certificate() {
    let (authority, clients, folder) = (Authority::new(), Authority::new(), Folder::new());
    let (own, theirs) =
        (folder.write("a.pem", &authority.combined(&["a.example"])), folder.write("ca.pem", &clients.pem()));
    let server = Server::echo("a");
    let tls = |more: &str| format!(r#", "tls": {{ "certificates": ["{}"]{more} }}"#, own.display());
    let proxy = Proxy::start(&[server.address], &tls(""));
    let config = authority.client(&[]);
    for _ in 0..3 {
        let mut stream = connect(&config, proxy.address, "a.example").unwrap();
        ask(&mut stream, "").unwrap();
    }
    let required = tls(&format!(
        r#", "client_certificates": {{ "authorities": "{}", "required": true }}"#,
        theirs.display()
    ));
    proxy
        .engine()
        .apply(&spec(proxy.address, &required, &[server.address], "", ""), Listeners::none())
        .unwrap();
    let refused = connect(&config, proxy.address, "a.example")
        .map_or(true, |mut stream| ask(&mut stream, "").is_none());
    assert!(refused, "it came in with a ticket");
}

#[test]
fn a_server_that_asks_for_one_is_shown_ours() {
    let (authority, ours, folder) = (Authority::new(), Authority::new(), Folder::new());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ours.pem().as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let (certificate, key) = authority.issue(&["server.example"]);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let server = Server::script(move |client, _| {
        let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(tls, client.stream.try_clone().unwrap());
        let mut seen = Vec::new();
        let mut bytes = [0; 4_096];
        while find(&seen, b"\r\n\r\n").is_none() {
            match stream.read(&mut bytes) {
                Ok(read) if read > 0 => seen.extend_from_slice(&bytes[..read]),
                _ => return,
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    });
    let ca = folder.write("ca.pem", &authority.pem());
    let shown = folder.write("shown.pem", &ours.combined(&["proxy.example"]));
    let pool = |more: &str| {
        format!(
            r#", "tls": {{ "server_name": "server.example", "verify": {{ "authorities": "{}" }}{more} }}"#,
            ca.display()
        )
    };
    let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let with = pool(&format!(r#", "certificate": "{}""#, shown.display()));
    let proxy = Proxy::start_with(&[server.address], "", &with, "");
    assert!(proxy.ask(get).starts_with("HTTP/1.1 200 "));
    let proxy = Proxy::start_with(&[server.address], "", &pool(""), "");
    let answer = proxy.ask(get);
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
}
