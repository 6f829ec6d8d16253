//! The HTTP probe: one request over HTTP/1.1 on a connection of its own, perhaps within TLS. The body of the answer is
//! read only where text is expected in it, and then no further than [`MOST`].

use std::{error::Error as _, io, net::SocketAddr};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, body::Bytes, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{MOST, Outcome, Peer, connect, failure, quote, talk::find, tls, trouble};
use crate::model::HttpCheck;

/// The largest head of an answer that is read, in bytes; anything longer is a failure.
const MAX_HEAD: usize = 16 * 1024;

/// Asks, and compares the answer with what is expected.
pub(super) async fn probe(
    peer: impl Into<Peer>,
    check: &HttpCheck,
    connector: Option<&TlsConnector>,
) -> Result<String, Outcome> {
    let (path, peer) = (&check.path, peer.into());
    let request =
        request(peer.address, check).map_err(|error| failure(format!("cannot ask for {path:?}: {error}")))?;
    match connector {
        None => ask(connect(peer).await?, request, check).await,
        Some(connector) => {
            ask(tls::handshake(peer, connector, check.host.as_deref()).await?, request, check).await
        }
    }
}

fn request(address: SocketAddr, check: &HttpCheck) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let usual = if check.tls.is_some() { 443 } else { 80 };
    let host = match (address, address.port() == usual) {
        _ if check.host.is_some() => check.host.clone().unwrap_or_default(),
        (SocketAddr::V4(v4), true) => v4.ip().to_string(),
        (SocketAddr::V6(v6), true) => format!("[{}]", v6.ip()),
        (address, false) => address.to_string(),
    };
    let mut request =
        Request::builder().method(check.method.as_str()).uri(&check.path).header(header::HOST, host);
    for (name, value) in &check.headers {
        request = request.header(name, value);
    }
    let own = [
        (header::USER_AGENT, concat!("lb-user/", env!("CARGO_PKG_VERSION"))),
        (header::ACCEPT, "*/*"),
        (header::CONNECTION, "close"),
    ];
    for (name, value) in own {
        let written = request.headers_ref().is_some_and(|headers| headers.contains_key(&name));
        if !written {
            request = request.header(name, value);
        }
    }
    request.body(Empty::new())
}

/// Sends the request and judges the answer.
async fn ask<S>(stream: S, request: Request<Empty<Bytes>>, check: &HttpCheck) -> Result<String, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = http1::Builder::new();
    let (mut sender, connection) = client
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| in_words(&error))?;
    let mut answer = std::pin::pin!(async {
        let answer = sender.send_request(request).await.map_err(|error| in_words(&error))?;
        judge(answer, check).await
    });
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection may end in the very moment it hands over the answer, or why there is none.
        _ = connection => answer.await,
    }
}

async fn judge(answer: Response<Incoming>, check: &HttpCheck) -> Result<String, Outcome> {
    let status = answer.status().as_u16();
    if !check.expect.contains(status) {
        return Err(failure(format!("HTTP status {status}, expected {}", check.expect)));
    }
    match &check.body {
        None => Ok(format!("HTTP status {status}")),
        Some(text) => {
            look_for(text, answer.into_body()).await.map_err(|why| match why {
                Outcome::Failure(why) => failure(format!("HTTP status {status}, but {why}")),
                other => other,
            })?;
            Ok(format!("HTTP status {status} with the expected text"))
        }
    }
}

/// Reads until `text` has come.
async fn look_for(text: &str, mut body: Incoming) -> Result<(), Outcome> {
    let mut heard = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| in_words(&error))?.into_data() else { continue };
        let searched = (heard.len() + 1).saturating_sub(text.len());
        heard.extend_from_slice(&data[..data.len().min(MOST - heard.len())]);
        if find(&heard[searched..], text.as_bytes()).is_some() {
            return Ok(());
        }
        if heard.len() == MOST {
            return Err(failure(format!("the first {MOST} bytes of the answer lack {text:?}")));
        }
    }
    Err(failure(format!("the answer lacks {text:?}, it is {}", quote(&heard))))
}

fn in_words(error: &hyper::Error) -> Outcome {
    if error.is_parse_too_large() {
        return failure(format!("the head of the answer is larger than {MAX_HEAD} bytes"));
    }
    if error.is_parse() {
        return failure("the answer is not HTTP/1.1");
    }
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source.filter(|source| source.kind() != io::ErrorKind::UnexpectedEof) {
        Some(error) => trouble(error),
        None if source.is_some()
            || error.is_incomplete_message()
            || error.is_closed()
            || error.is_canceled() =>
        {
            failure("the server closed the connection without an answer")
        }
        None => failure(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe::scripted::{Server, Turn};

    fn check() -> HttpCheck {
        HttpCheck { path: "/health?deep=1".into(), ..HttpCheck::default() }
    }

    /// Probes a server that answers so; gives the outcome and the request as the server saw it.
    async fn probe_server(answer: Turn, check: &HttpCheck) -> (Result<String, Outcome>, String) {
        let server = Server::start(vec![Turn::HearUntil(b"\r\n\r\n"), answer, Turn::HalfClose]).await;
        let outcome = probe(server.address, check, None).await;
        (outcome, String::from_utf8(server.heard().await).unwrap())
    }

    #[tokio::test]
    async fn answers_and_what_they_mean() {
        let ok = |text: &str| Ok(text.to_owned());
        let bad = |text: &str| Err(failure(text));
        let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes();
        for (sentence, answer, expected) in [
            ("200 is fine", b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), ok("HTTP status 200")),
            ("so is a redirect", b"HTTP/1.1 302 F\r\nLocation: /\r\n\r\n".to_vec(), ok("HTTP status 302")),
            ("HTTP/1.0 will do", b"HTTP/1.0 200 OK\r\n\r\nhello".to_vec(), ok("HTTP status 200")),
            (
                "100 Continue is not the answer yet",
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n".to_vec(),
                ok("HTTP status 204"),
            ),
            (
                "a wrong status is named together with what was expected",
                b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nno\n".to_vec(),
                bad("HTTP status 503, expected 200-399"),
            ),
            ("garbage", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), bad("the answer is not HTTP/1.1")),
            ("a closed connection", Vec::new(), bad("the server closed the connection without an answer")),
            (
                "half a head",
                b"HTTP/1.1 200 OK\r\nDate: ".to_vec(),
                bad("the server closed the connection without an answer"),
            ),
            ("a huge head", huge, bad("the head of the answer is larger than 16384 bytes")),
        ] {
            let (outcome, _) = probe_server(Turn::Say(answer), &check()).await;
            assert_eq!(outcome, expected, "{sentence}");
        }
    }

    #[tokio::test]
    async fn text_is_looked_for_in_the_body_and_no_further_than_allowed() {
        let answer = |body: &str| {
            let length = body.len();
            Turn::Say(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
        };
        let head = b"HTTP/1.1 200 OK\r\n\r\n";
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n6\r\n is we\r\n2\r\nll\r\n0\r\n\r\n";
        let check = HttpCheck { body: Some("is well".into()), ..check() };
        let lacks = |what: &str| Err(failure(format!("HTTP status 200, but {what}")));
        for (sentence, answer, expected) in [
            ("it is there", answer("all is well today"), Ok("HTTP status 200 with the expected text".into())),
            ("in pieces", Turn::Say(chunked.to_vec()), Ok("HTTP status 200 with the expected text".into())),
            (
                "it is not",
                answer("all is lost"),
                lacks("the answer lacks \"is well\", it is \"all is lost\""),
            ),
            ("no body", answer(""), lacks("the answer lacks \"is well\", it is \"\"")),
            (
                "an endless one",
                Turn::SayForEver(head, b"noise "),
                lacks("the first 65536 bytes of the answer lack \"is well\""),
            ),
            (
                "it comes too late",
                answer(&format!("{}is well", " ".repeat(70_000))),
                lacks("the first 65536 bytes of the answer lack \"is well\""),
            ),
        ] {
            assert_eq!(probe_server(answer, &check).await.0, expected, "{sentence}");
        }
    }

    #[tokio::test]
    async fn the_request_is_what_was_written() {
        let answer = || Turn::Say(b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
        let (_, request) = probe_server(answer(), &check()).await;
        let request = request.to_ascii_lowercase();
        assert!(request.starts_with("get /health?deep=1 http/1.1\r\n"), "{request}");
        assert!(request.contains("host: 127.0.0.1:"), "{request}");
        assert!(request.contains(concat!("user-agent: lb-user/", env!("CARGO_PKG_VERSION"))), "{request}");
        assert!(request.contains("connection: close\r\n"), "{request}");

        let headers =
            [("X-Probe", "yes"), ("User-Agent", "probe")].map(|(name, value)| (name.into(), value.into()));
        let own = HttpCheck {
            method: "OPTIONS".into(),
            host: Some("www.example.com".into()),
            headers: headers.to_vec(),
            ..check()
        };
        let (_, request) = probe_server(answer(), &own).await;
        let request = request.to_ascii_lowercase();
        assert!(request.starts_with("options /health"), "{request}");
        for line in ["host: www.example.com\r\n", "x-probe: yes\r\n", "user-agent: probe\r\n"] {
            assert_eq!(request.matches(line).count(), 1, "{line:?} in {request}");
        }
        assert_eq!(request.matches("user-agent").count(), 1, "{request}");
    }

    #[test]
    fn host_header() {
        for (address, tls, host) in [
            ("192.0.2.1:80", false, "192.0.2.1"),
            ("192.0.2.1:80", true, "192.0.2.1:80"),
            ("192.0.2.1:443", true, "192.0.2.1"),
            ("192.0.2.1:8080", false, "192.0.2.1:8080"),
            ("[2001:db8::1]:80", false, "[2001:db8::1]"),
            ("[2001:db8::1]:8080", false, "[2001:db8::1]:8080"),
        ] {
            let tls = tls.then_some(crate::model::Trust::Anyone);
            let request = request(address.parse().unwrap(), &HttpCheck { tls, ..check() }).unwrap();
            assert_eq!(request.headers()[header::HOST], host);
        }
    }
}
