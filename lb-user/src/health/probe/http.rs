//! The HTTP probe: one `GET` over HTTP/1.1 on a connection of its own; only the status is looked at.

use std::{error::Error as _, io, net::SocketAddr, time::Duration};

use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant, time::timeout_at};

use super::{Outcome, connect, no_answer, trouble};
use crate::model::StatusRanges;

/// The largest head of an answer that is read, in bytes; anything longer is a failure.
const MAX_HEAD: usize = 16 * 1024;

/// Asks for `path` and compares the status with `expect`; the whole probe ends within `limit`.
pub(super) async fn probe(
    address: SocketAddr,
    path: &str,
    expect: &StatusRanges,
    limit: Duration,
) -> Outcome {
    let deadline = Instant::now() + limit;
    let request = match request(address, path) {
        Ok(request) => request,
        Err(error) => return Outcome::Failure(format!("cannot ask for {path:?}: {error}")),
    };
    let stream = match connect(address, limit).await {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    match timeout_at(deadline, ask(stream, request)).await {
        Ok(Ok(status)) => judge(status, expect),
        Ok(Err(error)) => in_words(&error),
        Err(_) => no_answer(limit),
    }
}

fn request(address: SocketAddr, path: &str) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let host = match (address, address.port()) {
        (SocketAddr::V4(v4), 80) => v4.ip().to_string(),
        (SocketAddr::V6(v6), 80) => format!("[{}]", v6.ip()),
        (SocketAddr::V4(v4), port) => format!("{}:{port}", v4.ip()),
        (SocketAddr::V6(v6), port) => format!("[{}]:{port}", v6.ip()),
    };
    Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("lb-user/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
}

/// Sends the request and waits for the head of the answer. The body is not read.
async fn ask(stream: TcpStream, request: Request<Empty<Bytes>>) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection may end in the very moment it hands over the answer, or why there is none.
        _ = connection => answer.await,
    };
    answer.map(|response| response.status())
}

fn judge(status: StatusCode, expect: &StatusRanges) -> Outcome {
    let status = status.as_u16();
    if expect.contains(status) {
        Outcome::Success(format!("HTTP status {status}"))
    } else {
        Outcome::Failure(format!("HTTP status {status}, expected {expect}"))
    }
}

fn in_words(error: &hyper::Error) -> Outcome {
    if error.is_parse_too_large() {
        return Outcome::Failure(format!("the head of the answer is larger than {MAX_HEAD} bytes"));
    }
    if error.is_parse() {
        return Outcome::Failure("the answer is not HTTP/1.1".into());
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) => trouble(error),
        None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
            Outcome::Failure("the server closed the connection without an answer".into())
        }
        None => Outcome::Failure(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::sleep,
    };

    use super::*;

    /// What a test server does after it has read the request.
    enum Answer {
        Bytes(Vec<u8>),
        /// A head that never ends, one byte each 20 ms.
        Drip,
        /// Never a byte.
        Silence,
    }

    /// Probes a server that answers so; gives the outcome and the request as the server saw it.
    async fn probe_server(answer: Answer, limit: Duration) -> (Outcome, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            match answer {
                // The probe may hang up before it has read everything.
                Answer::Bytes(bytes) => drop(stream.write_all(&bytes).await),
                Answer::Drip => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await.unwrap();
                    while stream.write_all(b"H").await.is_ok() {
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                Answer::Silence => drop(stream.read_to_end(&mut Vec::new()).await),
            }
            String::from_utf8(request).unwrap()
        });
        let expect = StatusRanges(vec![(200, 399)]);
        let outcome = probe(address, "/health?deep=1", &expect, limit).await;
        (outcome, server.await.unwrap())
    }

    #[tokio::test]
    async fn answers_and_what_they_mean() {
        let ok = |text: &str| Outcome::Success(text.to_owned());
        let bad = |text: &str| Outcome::Failure(text.to_owned());
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
            let (outcome, _) = probe_server(Answer::Bytes(answer), Duration::from_secs(10)).await;
            assert_eq!(outcome, expected, "{sentence}");
        }
    }

    #[tokio::test]
    async fn silence_and_dripping_end_with_the_timeout() {
        for answer in [Answer::Silence, Answer::Drip] {
            let limit = Duration::from_millis(200);
            let (outcome, _) = probe_server(answer, limit).await;
            assert_eq!(outcome, Outcome::Failure("no answer within 200ms".into()));
        }
    }

    #[tokio::test]
    async fn the_request_names_host_path_and_sender() {
        let answer = Answer::Bytes(b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
        let (_, request) = probe_server(answer, Duration::from_secs(10)).await;
        let request = request.to_ascii_lowercase();
        assert!(request.starts_with("get /health?deep=1 http/1.1\r\n"), "{request}");
        assert!(request.contains("host: 127.0.0.1:"), "{request}");
        assert!(request.contains(concat!("user-agent: lb-user/", env!("CARGO_PKG_VERSION"))), "{request}");
        assert!(request.contains("connection: close\r\n"), "{request}");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let outcome = probe(address, "/", &StatusRanges(vec![(200, 299)]), Duration::from_secs(2)).await;
        assert_eq!(outcome, Outcome::Failure("connection refused".into()));
    }

    #[test]
    fn host_header() {
        for (address, host) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("192.0.2.1:8080", "192.0.2.1:8080"),
            ("[2001:db8::1]:80", "[2001:db8::1]"),
            ("[2001:db8::1]:8080", "[2001:db8::1]:8080"),
        ] {
            let request = request(address.parse().unwrap(), "/").unwrap();
            assert_eq!(request.headers()[header::HOST], host);
        }
    }
}
