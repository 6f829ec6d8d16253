//! TLS as conformance suites test it, byte by byte: how a client may cut its words, what it is told where nothing
//! comes of it, and which certificate it gets for what it can check.

mod common;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use common::{
    Client, PATIENCE, Proxy, Server,
    tls::{Authority, Folder},
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use rustls::{
    ClientConfig, ClientConnection, SignatureAlgorithm, SupportedCipherSuite,
    crypto::aws_lc_rs::{ALL_CIPHER_SUITES, default_provider},
};
use rustls_pki_types::ServerName;

/// A proxy, and what its clients need.
struct Secured {
    authority: Authority,
    proxy: Proxy,
    _folder: Folder,
}

impl Secured {
    fn new(server: &Server, more: &str) -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        let path = folder.write("a.pem", &authority.combined(&["a.example"]));
        let keys = format!(r#", "tls": {{ "certificates": ["{}"] {more} }}"#, path.display());
        Self { authority, proxy: Proxy::start(&[server.address], &keys), _folder: folder }
    }

    fn connect(&self) -> Client {
        self.proxy.connect()
    }
}

/// A client that says what TLS would have it say as it likes.
struct Careful {
    tls: ClientConnection,
    client: Client,
}

impl Careful {
    fn new(config: &Arc<ClientConfig>, address: SocketAddr, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self {
            tls: ClientConnection::new(Arc::clone(config), name).unwrap(),
            client: Client::connect(address),
        }
    }

    /// What TLS would have us say next.
    fn words(&mut self) -> Vec<u8> {
        let mut words = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut words).unwrap();
        }
        words
    }

    /// Takes what comes; the error it makes of it, `None` at the end.
    fn listen(&mut self) -> Option<Result<(), rustls::Error>> {
        let read = self.tls.read_tls(&mut self.client.stream).unwrap();
        (read > 0).then(|| self.tls.process_new_packets().map(drop))
    }

    /// Agrees, and asks for something, with each handshake message changed by `cut`.
    fn ask(mut self, cut: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
        while self.tls.is_handshaking() {
            let words = self.words();
            for piece in cut(words).chunks(7) {
                self.client.send(piece);
            }
            if self.tls.is_handshaking() {
                self.listen().expect("it goes on").expect("it is agreed upon");
            }
        }
        self.tls
            .writer()
            .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
            .unwrap();
        let words = self.words();
        self.client.send(&words);
        while let Some(heard) = self.listen() {
            heard.expect("the answer is whole");
        }
        let mut answer = String::new();
        // An error here is an end that was not announced.
        self.tls.reader().read_to_string(&mut answer).expect("close_notify comes first (RFC 8446 §6.1)");
        answer
    }

    /// The error that comes of it.
    fn fail(mut self) -> String {
        let words = self.words();
        self.client.send(&words);
        loop {
            match self.listen() {
                Some(Ok(())) => {}
                Some(Err(error)) => return error.to_string(),
                None => return "the end".into(),
            }
        }
    }
}

/// Each record of plain handshake bytes as records of `size` bytes; what is encrypted stays as it is.
fn in_records(words: Vec<u8>, size: usize) -> Vec<u8> {
    let (mut cut, mut rest) = (Vec::new(), &words[..]);
    while let [kind, major, minor, high, low, more @ ..] = rest {
        let (payload, behind) = more.split_at(usize::from(*high) << 8 | usize::from(*low));
        let pieces: Vec<&[u8]> = if *kind == 22 { payload.chunks(size).collect() } else { vec![payload] };
        for piece in pieces {
            cut.extend([*kind, *major, *minor]);
            cut.extend((piece.len() as u16).to_be_bytes());
            cut.extend(piece);
        }
        rest = behind;
    }
    cut
}

#[test]
fn a_greeting_may_come_in_as_many_pieces_as_it_has_bytes() {
    let server = Server::echo("a");
    let secured = Secured::new(&server, "");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = secured.authority.client_with(&[b"http/1.1"], &[version]);
        for size in [1, 3, 100] {
            // Of TLS 1.2 only the first flight is handshake bytes alone: what follows has other records between.
            let cut = |words: Vec<u8>| if words.get(5) == Some(&1) { in_records(words, size) } else { words };
            let answer = Careful::new(&config, secured.proxy.address, "a.example").ask(cut);
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{size}: {answer}");
        }
    }
}

#[test]
fn a_greeting_may_be_as_long_as_sixteen_kibibytes() {
    let server = Server::echo("a");
    let secured = Secured::new(&server, "");
    let names: Vec<Vec<u8>> = (0..64_u8).map(|number| vec![b'!' + number; 250]).collect();
    let mut names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    names.push(b"http/1.1");
    let config = secured.authority.client(&names);
    let mut client = Careful::new(&config, secured.proxy.address, "a.example");
    let words = client.words();
    assert!(words.len() > 16_000);
    client.client.send(&words);
    let answer = client.ask(|words| words);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// A greeting of this version, with nothing that is optional.
fn hello(version: u8) -> Vec<u8> {
    let body = [&[3, version][..], &[7; 32], &[0, 0, 4, 0, 0x2f, 0xc0, 0x13, 1, 0]].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

#[test]
fn what_nothing_comes_of_is_told_in_words_that_fit() {
    let server = Server::echo("a");
    let secured = Secured::new(&server, "");
    let told = |bytes: &[u8]| {
        let mut client = secured.connect();
        client.send(bytes);
        let mut answer = Vec::new();
        client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        client.stream.read_to_end(&mut answer).expect("it ends, and not with a reset");
        answer
    };
    // RFC 8446 §4.2.1, appendix D: protocol_version; RFC 5246 §7.4.1.3.
    for old in 0..3 {
        assert_eq!(told(&hello(old))[..], [21, 3, 1, 0, 2, 2, 70], "SSL 3.0, TLS 1.0, TLS 1.1");
    }
    let plain = String::from_utf8(told(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")).unwrap();
    assert!(plain.starts_with("HTTP/1.1 400 ") && plain.contains("HTTPS"), "{plain}");
    // A request in pieces: what comes behind the answer makes no reset, unless it comes very late.
    let in_pieces = || {
        let mut client = secured.connect();
        client.send(b"GET / HTTP/1.1\r\n");
        client.rest();
        (0..200).all(|_| client.stream.write_all(b"X-A: b\r\n").is_ok())
    };
    assert!((0..10).filter(|_| in_pieces()).count() > 7, "a reset follows the answer");
    // An alert or nothing, but an end.
    for odd in
        [&b"SSH-2.0-x\r\n"[..], &[0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16], &[22, 3, 1, 0xff, 0xff, 1, 2, 3]]
    {
        let answer = told(odd);
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    let mut empty = hello(3);
    empty[3..5].copy_from_slice(&[0, 0]);
    assert_eq!(told(&empty[..5]).first().copied().unwrap_or(21), 21);
    // RFC 7301 §3.2: no_application_protocol.
    let other = secured.authority.client(&[b"gopher"]);
    let failed = Careful::new(&other, secured.proxy.address, "a.example").fail();
    assert!(failed.contains("NoApplicationProtocol"), "{failed}");
    // RFC 8446 §4.2.1: protocol_version again, where only TLS 1.3 is spoken.
    let strict = Secured::new(&server, r#", "minimum_version": "1.3""#);
    let old = strict.authority.client_with(&[], &[&rustls::version::TLS12]);
    let failed = Careful::new(&old, strict.proxy.address, "a.example").fail();
    assert!(failed.contains("ProtocolVersion"), "{failed}");
}

#[test]
fn the_version_at_the_head_of_a_greeting_says_nothing_where_an_extension_does() {
    // RFC 8446 §4.2.1: legacy_version is not to be used then.
    let server = Server::echo("a");
    let secured = Secured::new(&server, "");
    let config = secured.authority.client(&[b"http/1.1"]);
    for (version, expected) in [(0, 21), (1, 22), (2, 22), (3, 22)] {
        let mut client = Careful::new(&config, secured.proxy.address, "a.example");
        let mut words = client.words();
        assert_eq!(words[9..11], [3, 3], "where it stands");
        words[10] = version;
        client.client.send(&words);
        // A handshake message, or an alert.
        assert_eq!(client.client.exactly(1), [expected], "3.{version}");
    }
}

#[test]
fn nothing_early_is_taken() {
    // RFC 8446 §8: what comes early may come twice.
    let server = Server::echo("a");
    let secured = Secured::new(&server, "");
    let mut config = ClientConfig::clone(&secured.authority.client(&[b"http/1.1"]));
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let mut client = Careful::new(&config, secured.proxy.address, "a.example");
        assert!(client.tls.early_data().is_none(), "a ticket says that none is taken");
        let answer = client.ask(|words| words);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[test]
fn a_client_gets_a_certificate_that_it_can_check() {
    let (authority, folder, server) = (Authority::new(), Folder::new(), Server::echo("a"));
    let files: Vec<String> = [
        ("rsa", "a.example", KeyPair::generate_for(&PKCS_RSA_SHA256)),
        ("p256", "a.example", KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)),
        ("p384", "b.example", KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)),
    ]
    .into_iter()
    .map(|(file, name, key)| {
        let path = folder.write(&format!("{file}.pem"), &authority.combined_with(&[name], &key.unwrap()));
        format!("\"{}\"", path.display())
    })
    .collect();
    let keys = format!(r#", "tls": {{ "certificates": [{}] }}"#, files.join(", "));
    let proxy = Proxy::start(&[server.address], &keys);
    let of = |algorithm: SignatureAlgorithm| -> Vec<SupportedCipherSuite> {
        let is_of = |suite: &&SupportedCipherSuite| {
            matches!(suite, SupportedCipherSuite::Tls12(_)) && suite.usable_for_signature_algorithm(algorithm)
        };
        ALL_CIPHER_SUITES.iter().filter(is_of).copied().collect()
    };
    for (name, algorithm) in [
        ("a.example", SignatureAlgorithm::RSA),
        ("a.example", SignatureAlgorithm::ECDSA),
        ("b.example", SignatureAlgorithm::ECDSA),
    ] {
        let provider = rustls::crypto::CryptoProvider { cipher_suites: of(algorithm), ..default_provider() };
        let config = Arc::new(authority.client_of_provider(provider));
        // The suites alone decide: nothing else would be agreed upon.
        let answer = Careful::new(&config, proxy.address, name).ask(|words| words);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{name}: {answer}");
    }
}
