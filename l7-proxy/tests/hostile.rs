//! Bytes that nobody means well with: whatever comes, parsers answer, and the proxy goes on serving others.
//! Numbers look random and are the same each time, so that what fails once fails again.

mod common;

use bytes::BytesMut;
use common::{Proxy, Server};
use l7_proxy::{
    http::Intent,
    proxy_protocol,
    tcp::greeting,
    wire::{Body, Framing, HeadLimits, Piece, Request, Scan},
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    /// A text with a few bytes changed, cut out or doubled.
    fn spoil(&mut self, text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match self.below(4) {
                0 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => {
                    let end = (at + self.below(20)).min(bytes.len());
                    let part = bytes[at.min(end)..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => {
                    let tokens: [&[u8]; 8] =
                        [b"\r\n", b":", b" ", b"\0", b"chunked", b"Content-Length: 1\r\n", b"\xff", b","];
                    let token = tokens[self.below(8)];
                    bytes.splice(at..at, token.iter().copied());
                }
            }
        }
        bytes
    }
}

const REQUESTS: [&[u8]; 4] = [
    b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nCookie: SRV=x; y=z\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\n\r\n",
    b"POST http://a:80/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n\r\n",
    b"PUT / HTTP/1.0\r\nContent-Length: 3\r\nX-Forwarded-For: 1.2.3.4\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n\x81\x05hello",
];

#[test]
fn parsers_answer_whatever_comes() {
    let limits = HeadLimits { bytes: 4_096, lines: 32, target: 1_024 };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut request = Request::default();
    let mut understood = 0;
    for round in 0..60_000 {
        let bytes = random.spoil(REQUESTS[round % REQUESTS.len()]);
        // However the bytes are cut, the head ends at the same place.
        let mut whole = Scan::default();
        let end = whole.end(&bytes, &limits);
        let mut cut = Scan::default();
        let at = random.below(bytes.len() + 1);
        let first = cut.end(&bytes[..at], &limits);
        if let (Ok(None), Ok(Some(end))) = (first, end) {
            assert_eq!(cut.end(&bytes, &limits), Ok(Some(end)));
        }
        let Ok(Some(end)) = end else { continue };
        if request.parse(&bytes[..end], &limits).is_ok()
            && let Ok(intent) = Intent::of(&request, false)
        {
            understood += 1;
            let mut body = Body::from(intent.framing);
            let mut rest = BytesMut::from(&bytes[end..]);
            while let Ok(Some(piece)) = body.take(&mut rest) {
                if !matches!(piece, Piece::Data(_)) {
                    break;
                }
            }
        }
    }
    assert!(understood > 1_000, "what is understood is tested too: {understood}");
    let mut body = Body::from(Framing::Chunked);
    assert!(body.take(&mut BytesMut::from(&b"\xff"[..])).is_err());
}

#[test]
fn greetings_and_proxy_headers_are_read_whatever_comes() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let proxied: [&[u8]; 2] = [
        b"PROXY TCP4 10.1.2.3 10.0.0.100 4567 443\r\nGET",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\x0a\x01\x02\x03\x0a\0\0\x64\x11\xd7\x01\xbb\x04\0\0GET",
    ];
    // A greeting with the name `a.b`.
    let mut hello = vec![22, 3, 1, 0, 0x39, 1, 0, 0, 0x35, 3, 3];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0, 0, 12, 0, 0, 0, 8, 0, 6, 0, 0, 3, b'a', b'.', b'b']);
    hello[4] = (hello.len() - 5) as u8;
    hello[8] = (hello.len() - 9) as u8;
    assert_eq!(greeting::greeting(&hello), greeting::Greeting::Name(Some("a.b".into())));
    for round in 0..60_000 {
        let bytes = random.spoil(proxied[round % 2]);
        if let Ok(Some((_, length))) = proxy_protocol::read(&bytes) {
            assert!(length <= bytes.len());
        }
        let bytes = random.spoil(&hello);
        let _ = greeting::greeting(&bytes);
    }
}

#[test]
fn a_proxy_that_is_sent_nonsense_serves_on() {
    let server = Server::echo("a");
    let proxy = Proxy::start(
        &[server.address],
        r#", "h2c": true, "timeouts": { "request_header": "100ms", "request_body": "100ms", "client_idle": "100ms" }"#,
    );
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    for round in 0..300 {
        let mut client = proxy.connect();
        let bytes = if round % 5 == 4 {
            let preface =
                [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[9; 40]].concat();
            random.spoil(&preface)
        } else {
            random.spoil(REQUESTS[round % REQUESTS.len()])
        };
        // It may have been answered and closed before all was sent.
        let _ = std::io::Write::write_all(&mut client.stream, &bytes);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        let answer = client.rest();
        assert!(
            round % 5 == 4 || answer.is_empty() || answer.starts_with("HTTP/1.1 "),
            "{}: {answer}",
            String::from_utf8_lossy(&bytes)
        );
    }
    let answer = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
