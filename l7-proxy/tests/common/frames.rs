//! HTTP/2 frame by frame: what a client says that knows every byte of it, and what it expects to hear.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{io::Write, net::SocketAddr, sync::Arc};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{
    Client, Proxy, Server, listener,
    tls::{Authority, Folder},
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types of frames, and flags.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 32;
pub(crate) const WHOLE: u8 = END_HEADERS | END_STREAM;

// Error codes.
pub(crate) const PROTOCOL: u32 = 1;
pub(crate) const FLOW: u32 = 3;
pub(crate) const CLOSED: u32 = 5;
pub(crate) const SIZE: u32 = 6;
pub(crate) const REFUSED: u32 = 7;
pub(crate) const COMPRESSION: u32 = 9;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field as it is, in no table.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| -> Vec<u8> {
        // An integer with a prefix of seven bits.
        match text.len() {
            short @ ..127 => vec![short as u8],
            long => {
                let mut rest = long - 127;
                let mut bytes = vec![127];
                while rest >= 128 {
                    bytes.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                bytes.push(rest as u8);
                bytes
            }
        }
    };
    [&[0][..], &length(name), name.as_bytes(), &length(value), value.as_bytes()].concat()
}

pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

pub(crate) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
pub(crate) const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

/// Asks for a WebSocket (RFC 8441 §4).
pub(crate) fn websocket(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a.example"),
        ("sec-websocket-version", "13"),
    ];
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &block(&GET))
}

pub(crate) fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[block(&POST), block(more)].concat())
}

/// GET with other fields.
pub(crate) fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(fields))
}

pub(crate) fn more(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &[block(&GET), block(fields)].concat())
}

pub(crate) fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

pub(crate) fn number(kind: u8, stream: u32, value: u32) -> Vec<u8> {
    frame(kind, 0, stream, &value.to_be_bytes())
}

/// What a case expects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// The connection ends with one of these codes, or at once.
    Connection(&'static [u32]),
    /// The stream, or the connection, ends with one of these codes.
    Stream(u32, &'static [u32]),
    /// The stream is answered in full with this status.
    Answer(u32, u16),
    /// A PING with these bytes is acknowledged.
    Pong([u8; 8]),
}

pub(crate) struct Frames(pub(crate) Client);

impl Frames {
    pub(crate) fn begin(address: SocketAddr) -> Self {
        let mut client = Client::connect(address);
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        let mut frames = Self(client);
        let (kind, ..) = frames.next().expect("settings come first");
        assert_eq!(kind, SETTINGS);
        frames.0.send(&frame(SETTINGS, ACK, 0, &[]));
        frames
    }

    /// A server's side of a connection, which has said its settings.
    pub(crate) fn answer(client: &Client) -> Self {
        let mut client = Client::of(client.stream.try_clone().unwrap());
        assert_eq!(client.exactly(PREFACE.len()), PREFACE);
        client.send(&frame(SETTINGS, 0, 0, &[]));
        Self(client)
    }

    /// The next frame that is for a stream, at a server's side; the others are acknowledged.
    pub(crate) fn next_of_stream(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            match self.next()? {
                (SETTINGS | PING, ACK, ..) => {}
                (kind @ (SETTINGS | PING), _, _, payload) => {
                    let payload = if kind == PING { payload } else { Vec::new() };
                    self.0.send(&frame(kind, ACK, 0, &payload));
                }
                (_, _, 0, _) => {}
                of_stream => return Some(of_stream),
            }
        }
    }

    /// The next frame: type, flags, stream, payload; none at the end.
    pub(crate) fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head = self.0.at_most(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, self.0.at_most(length)?))
    }

    /// The payload of the next DATA.
    pub(crate) fn data(&mut self) -> Vec<u8> {
        loop {
            let (kind, flags, _, payload) = self.next().expect("DATA comes");
            match kind {
                DATA => return payload,
                HEADERS => assert!(flags & END_STREAM == 0, "an answer without DATA"),
                GOAWAY | RESET => panic!("frame of type {kind}: {payload:?}"),
                _ => {}
            }
        }
    }

    /// Waits until settings are acknowledged.
    pub(crate) fn settled(&mut self) {
        let mut is_settled = false;
        while !is_settled {
            let (kind, flags, ..) = self.next().expect("settings are acknowledged");
            is_settled = kind == SETTINGS && flags & ACK != 0;
        }
    }

    /// What came until it is clear whether `expect` holds.
    pub(crate) fn check(&mut self, expect: Expect) -> Result<(), String> {
        let mut status = None;
        loop {
            let Some((kind, flags, stream, payload)) = self.next() else {
                return match expect {
                    Expect::Connection(_) | Expect::Stream(..) => Ok(()),
                    _ => Err("the connection ended".into()),
                };
            };
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match (kind, expect) {
                (GOAWAY, Expect::Connection(codes) | Expect::Stream(_, codes)) => {
                    return codes.contains(&code(4)).then_some(()).ok_or(format!("GOAWAY {}", code(4)));
                }
                (GOAWAY, _) if code(4) != 0 => return Err(format!("GOAWAY {}", code(4))),
                (RESET, Expect::Stream(id, codes)) if stream == id => {
                    return codes.contains(&code(0)).then_some(()).ok_or(format!("RST_STREAM {}", code(0)));
                }
                (RESET, Expect::Answer(id, _)) if stream == id => {
                    return Err(format!("RST_STREAM {}", code(0)));
                }
                (HEADERS, Expect::Answer(id, _)) if stream == id => {
                    status = status.or(Some(read_status(&payload)));
                }
                (PING, Expect::Pong(bytes)) if flags & ACK != 0 => {
                    return (payload == bytes).then_some(()).ok_or(format!("pong {payload:?}"));
                }
                _ => {}
            }
            if let (Expect::Answer(id, expected), HEADERS | DATA) = (expect, kind)
                && stream == id
                && flags & END_STREAM != 0
            {
                return (status == Some(expected)).then_some(()).ok_or(format!("status {status:?}"));
            }
            if let (Expect::Stream(id, _), HEADERS | DATA) = (expect, kind)
                && stream == id
                && flags & END_STREAM != 0
            {
                return Err("it was answered".into());
            }
        }
    }
}

/// The status that a header block begins with: from the static table, or a literal of its name.
pub(crate) fn read_status(block: &[u8]) -> u16 {
    match block {
        // The size of the table changes first (RFC 7541 §6.3).
        [0x20..=0x3e, rest @ ..] => read_status(rest),
        [indexed, ..] if indexed & 0x80 != 0 => match indexed & 0x7f {
            8 => 200,
            9 => 204,
            10 => 206,
            11 => 304,
            12 => 400,
            13 => 404,
            14 => 500,
            other => panic!("index {other} is no status"),
        },
        // A literal, perhaps in Huffman code, where digits have 5 or 6 bits.
        [_, length, rest @ ..] if length & 0x80 == 0 => {
            std::str::from_utf8(&rest[..usize::from(*length)]).unwrap().parse().unwrap()
        }
        [_, length, rest @ ..] => {
            let mut bits: u64 =
                rest[..usize::from(length & 0x7f)].iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
            bits <<= 64 - u32::from(length & 0x7f) * 8;
            let mut status = 0;
            for _ in 0..3 {
                let five = bits >> 59;
                let (digit, used) = if five < 3 { (five, 5) } else { ((bits >> 58) - 0x19 + 3, 6) };
                status = status * 10 + digit as u16;
                bits <<= used;
            }
            status
        }
        _ => panic!("no status"),
    }
}

/// The ways into a proxy that speaks HTTP/2: with and without TLS. Cases must come out the same.
pub(crate) struct Ways {
    plain: Proxy,
    _secure: Proxy,
    /// Where what is said without TLS goes on within it.
    tunnel: SocketAddr,
    _folder: Folder,
}

impl Ways {
    /// With further keys of the service.
    pub(crate) fn to(server: &Server, service: &str) -> Self {
        Self::with(server, service, "")
    }

    /// With further keys of the service, and of the whole for the way without TLS.
    pub(crate) fn with(server: &Server, service: &str, more: &str) -> Self {
        let plain = Proxy::start_with(&[server.address], &format!(r#", "h2c": true {service}"#), "", more);
        let (authority, folder) = (Authority::new(), Folder::new());
        let path = folder.write("a.pem", &authority.combined(&["a.example"]));
        let tls = format!(r#", "tls": {{ "certificates": ["{}"] }} {service}"#, path.display());
        let secure = Proxy::start(&[server.address], &tls);
        let tunnel = tunnel(authority.client(&[b"h2"]), secure.address);
        Self { plain, _secure: secure, tunnel, _folder: folder }
    }

    /// The proxy without TLS.
    pub(crate) fn plain(&self) -> &Proxy {
        &self.plain
    }

    pub(crate) fn addresses(&self) -> [(&'static str, SocketAddr); 2] {
        [("plain", self.plain.address), ("TLS", self.tunnel)]
    }
}

/// Passes on what comes without TLS to `address`, within it; until the process ends.
fn tunnel(config: Arc<ClientConfig>, address: SocketAddr) -> SocketAddr {
    let listener = listener();
    let own = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let pass_on = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let connector = TlsConnector::from(Arc::clone(&config));
            tokio::spawn(async move {
                let socket = tokio::net::TcpStream::connect(address).await.unwrap();
                socket.set_nodelay(true).unwrap();
                let name = ServerName::try_from("a.example").unwrap();
                let mut tls = connector.connect(name, socket).await.unwrap();
                assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                // That it ends is for the test to judge.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut tls).await;
            });
        }
    };
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(pass_on);
    });
    own
}

/// Runs cases, each on a connection of its own and over every way, whole and, unless they are long, by the byte; and tells all
/// that fail.
pub(crate) fn run(ways: &Ways, cases: Vec<(&str, Vec<u8>, Expect)>) {
    let mut failed = Vec::new();
    let [plain, secure] = ways.addresses();
    for ((way, address), at_once) in
        [(plain, usize::MAX), (secure, usize::MAX), (("plain, by the byte", plain.1), 1)]
    {
        for (name, bytes, expect) in cases.iter().filter(|(_, bytes, _)| bytes.len() / at_once < 2_000) {
            let mut frames = Frames::begin(address);
            frames.0.stream.set_nodelay(true).unwrap();
            // It may be over before all was sent.
            let _ = bytes.chunks(at_once).try_for_each(|part| frames.0.stream.write_all(part));
            // Where nothing is wrong, a PING behind it all is answered: nobody waits for what does not come.
            if matches!(expect, Expect::Connection(_)) {
                let _ = frames.0.stream.write_all(&frame(PING, 0, 0, b"thatsall"));
            }
            if let Err(why) = frames.check_until_pong(*expect) {
                failed.push(format!("{way}, {name}: {why}, not {expect:?}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

impl Frames {
    pub(crate) fn check_until_pong(&mut self, expect: Expect) -> Result<(), String> {
        let Expect::Connection(codes) = expect else { return self.check(expect) };
        let mut pong = false;
        loop {
            match self.next() {
                None => return Err("it ends, and nobody says why".into()),
                Some((GOAWAY, _, _, payload)) => {
                    let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
                    return codes.contains(&code).then_some(()).ok_or(format!("GOAWAY {code}"));
                }
                Some((PING, flags, ..)) if flags & ACK != 0 => pong = true,
                // The end may be said just behind it, but not after an answer that came later.
                Some((kind, ..)) if pong && kind != RESET => return Err("it goes on".into()),
                Some(_) => {}
            }
            if pong && self.0.is_quiet() {
                return Err("it goes on".into());
            }
        }
    }
}
