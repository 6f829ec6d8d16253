//! Requests, each in its own time, whatever becomes of the others.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{
    Reason,
    client::{ResponseFuture, SendRequest},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{interval_at, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    PATIENCE, Shared,
    secure::{self, Secure},
};

/// How often each visitor asks.
const PERIOD: Duration = Duration::from_millis(100);
/// Requests at a time over HTTP/2.
const AT_A_TIME: usize = 5;

/// Starts visitors that make so many requests in a second.
pub(super) fn start(shared: &Arc<Shared>, per_second: usize, all: &mut JoinSet<()>) {
    for number in 0..per_second as u64 / 100 {
        // Not all at once.
        let offset = Duration::from_millis(number * 7 % 50);
        all.spawn(new_plain(Arc::clone(shared), offset));
        all.spawn(new_plain(Arc::clone(shared), offset + PERIOD / 2));
        all.spawn(new_secure(Arc::clone(shared), offset + PERIOD / 3));
        all.spawn(kept(Arc::clone(shared), offset));
        all.spawn(kept(Arc::clone(shared), offset + PERIOD / 2));
        all.spawn(many(Arc::clone(shared), offset + PERIOD / 4));
    }
}

fn ticks(offset: Duration) -> tokio::time::Interval {
    interval_at((Instant::now() + offset).into(), PERIOD)
}

/// A plain connection for each request.
async fn new_plain(shared: Arc<Shared>, offset: Duration) {
    let mut ticks = ticks(offset);
    while !shared.stopped() {
        ticks.tick().await;
        let sent = Instant::now();
        let answer = patient(async {
            let mut stream = TcpStream::connect(shared.site.plain).await.map_err(at("connect"))?;
            ask(&mut stream, &shared.site.name, true).await
        });
        shared.note(sent, "plain", answer.await.map(|(server, _)| server));
    }
}

/// A connection with TLS for each request.
async fn new_secure(shared: Arc<Shared>, offset: Duration) {
    let connector = secure::connector(&shared.site, "http/1.1", false);
    let mut ticks = ticks(offset);
    while !shared.stopped() {
        ticks.tick().await;
        let sent = Instant::now();
        let answer = patient(async {
            let mut stream = secure::connect(&shared, &connector).await?;
            ask(&mut stream, &shared.site.name, true).await
        });
        shared.note(sent, "TLS", answer.await.map(|(server, _)| server));
    }
}

/// One connection with TLS for as long as the site keeps it.
async fn kept(shared: Arc<Shared>, offset: Duration) {
    let connector = secure::connector(&shared.site, "http/1.1", true);
    let mut ticks = ticks(offset);
    let mut stream = None;
    while !shared.stopped() {
        ticks.tick().await;
        let sent = Instant::now();
        let before = stream.take();
        let answer = patient(async {
            let mut used = usable(&shared, &connector, before).await?;
            let (server, keeps) = ask(&mut used, &shared.site.name, false).await?;
            stream = keeps.then_some(used);
            Ok(server)
        });
        let answer = answer.await;
        shared.note(sent, "TLS, kept", answer);
    }
}

/// A connection on which nobody has said that it ends; a new one otherwise.
async fn usable(shared: &Shared, connector: &TlsConnector, before: Option<Secure>) -> Result<Secure, String> {
    if let Some(mut stream) = before
        && timeout(Duration::ZERO, stream.read(&mut [0])).await.is_err()
    {
        return Ok(stream);
    }
    secure::connect(shared, connector).await
}

/// One HTTP/2 connection for several requests at a time.
async fn many(shared: Arc<Shared>, offset: Duration) {
    let connector = secure::connector(&shared.site, "h2", true);
    let mut ticks = ticks(offset);
    let mut client = None;
    while !shared.stopped() {
        ticks.tick().await;
        let mut begun = Vec::new();
        for _ in 0..AT_A_TIME {
            begun.push((Instant::now(), patient(begin(&shared, &connector, &mut client)).await));
        }
        for (sent, response) in begun {
            let answer = patient(async {
                match end(response?).await {
                    Err(error) if not_looked_at(&error) => {
                        shared.again.fetch_add(1, Relaxed);
                        client = None;
                        let response = begin(&shared, &connector, &mut client).await?;
                        end(response).await.map_err(at("a second time"))?
                    }
                    other => other.map_err(at("receive"))?,
                }
            });
            let answer = answer.await;
            shared.note(sent, "HTTP/2", answer);
        }
    }
}

/// A connection of HTTP/2.
pub(super) async fn client(shared: &Shared, connector: &TlsConnector) -> Result<SendRequest<Bytes>, String> {
    let stream = secure::connect(shared, connector).await?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(at("begin HTTP/2"))?;
    // Whoever uses it is told how it ended.
    tokio::spawn(connection);
    Ok(client)
}

/// Makes a request, over a new connection if the one there is takes no more.
async fn begin(
    shared: &Shared,
    connector: &TlsConnector,
    client: &mut Option<SendRequest<Bytes>>,
) -> Result<ResponseFuture, String> {
    let mut why = String::new();
    for _ in 0..2 {
        let used = match client.take() {
            Some(used) => used,
            None => self::client(shared, connector).await?,
        };
        let request = Request::get(format!("https://{}/page", shared.site.name)).body(());
        match used.ready().await {
            Ok(mut used) => match used.send_request(request.map_err(|error| error.to_string())?, true) {
                Ok((response, _)) => {
                    *client = Some(used);
                    return Ok(response);
                }
                Err(error) => why = error.to_string(),
            },
            Err(error) => why = error.to_string(),
        }
    }
    Err(format!("send: {why}"))
}

/// What the answer says; the outer error is for an answer that did not come.
async fn end(response: ResponseFuture) -> Result<Result<String, String>, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        text.extend_from_slice(&data);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(if head.status == 200 { server(&text) } else { Err(format!("receive: {} {text:?}", head.status)) })
}

/// Whether the site said that a request had not reached it (RFC 9113 §8.7).
fn not_looked_at(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// One request and its answer; gives the server and whether the connection can be used again.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    last: bool,
) -> Result<(String, bool), String> {
    let connection = if last { "close" } else { "keep-alive" };
    let head = format!("GET /page HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.map_err(at("send"))?;
    let mut arrived = Vec::new();
    loop {
        if let Some(answer) = read(&String::from_utf8_lossy(&arrived)) {
            return answer;
        }
        if stream.read_buf(&mut arrived).await.map_err(at("receive"))? == 0 {
            return Err(format!("receive: the end after {:?}", String::from_utf8_lossy(&arrived)));
        }
    }
}

/// An answer of HTTP/1.1, once it is whole.
fn read(arrived: &str) -> Option<Result<(String, bool), String>> {
    let (head, body) = arrived.split_once("\r\n\r\n")?;
    let field = |name: &str| {
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    };
    let length: usize = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if body.len() < length {
        return None;
    }
    if !head.starts_with("HTTP/1.1 200 ") {
        return Some(Err(format!("receive: {arrived:?}")));
    }
    let keeps = field("connection").is_none_or(|words| !words.eq_ignore_ascii_case("close"));
    Some(server(body).map(|server| (server, keeps)))
}

/// Who answered, by the word of [`crate::http::Web`].
fn server(body: &str) -> Result<String, String> {
    let name = body.lines().find_map(|line| line.strip_prefix("server: "));
    name.map(str::to_owned).ok_or_else(|| format!("receive: not an answer of ours: {body:?}"))
}

async fn patient<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// Names the step in an error.
pub(super) fn at<E: std::fmt::Display>(step: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{step}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_when_it_is_whole_and_of_ours() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nserver: s1";
        assert_eq!(read(&whole[..whole.len() - 1]), None);
        assert_eq!(read(whole), Some(Ok(("s1".into(), true))));
        let last = whole.replace("OK\r\n", "OK\r\nconnection: close\r\n");
        assert_eq!(read(&last), Some(Ok(("s1".into(), false))));
        assert!(read(&whole.replace("200 OK", "503 No")).is_some_and(|answer| answer.is_err()));
        assert!(read(&whole.replace("server", "others")).is_some_and(|answer| answer.is_err()));
    }
}
