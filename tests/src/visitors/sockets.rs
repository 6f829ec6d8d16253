//! WebSockets that stay: messages sent back, or lines of a log that come by themselves.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, ext::Protocol};
use http::{Method, Request};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    PATIENCE, Shared,
    requests::{self, at},
    secure,
};
use crate::websocket::{CLOSE, Frame, TEXT, accept, read_line_of_log};

/// The key that RFC 6455 §1.3 has for an example: nobody checks that a key is random.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Anything but random, for the same reason.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Pause between two messages.
const PAUSE: Duration = Duration::from_millis(200);

/// What a WebSocket goes over.
enum Pipe {
    Connection(Box<dyn Connection>),
    Stream(SendStream<Bytes>, RecvStream),
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A WebSocket, and what has arrived of it.
struct Open {
    pipe: Pipe,
    arrived: Vec<u8>,
}

/// Five of them: see [`super::Plan::sockets`].
pub(super) async fn five(shared: Arc<Shared>, group: usize, path: &'static str) {
    let plain = || async {
        let stream = TcpStream::connect(shared.site.plain).await.map_err(at("connect"))?;
        stream.set_nodelay(true).map_err(at("set up"))?;
        upgrade(stream, &shared.site.name, path).await
    };
    let first = live(&shared, group * 5, "plain", path, plain());
    if shared.site.secure.is_none() {
        let one = |number| live(&shared, group * 5 + number, "plain", path, plain());
        let _ = tokio::join!(first, one(1), one(2), one(3), one(4));
        return;
    }
    let connector = secure::connector(&shared.site, "http/1.1", true);
    let secure =
        || async { upgrade(secure::connect(&shared, &connector).await?, &shared.site.name, path).await };
    let second = live(&shared, group * 5 + 1, "TLS", path, secure());
    let third = live(&shared, group * 5 + 2, "TLS", path, secure());
    let two = async {
        let client = requests::client(&shared, &secure::connector(&shared.site, "h2", true)).await;
        let stream = || async {
            match &client {
                Ok(client) => stream(client.clone(), &shared.site.name, path).await,
                Err(why) => Err(why.clone()),
            }
        };
        tokio::join!(
            live(&shared, group * 5 + 3, "HTTP/2", path, stream()),
            live(&shared, group * 5 + 4, "HTTP/2", path, stream()),
        )
    };
    let _ = tokio::join!(first, second, third, two);
}

/// One from its beginning to its end, which is told.
async fn live(
    shared: &Shared,
    index: usize,
    way: &'static str,
    path: &str,
    open: impl Future<Output = Result<Open, String>>,
) {
    shared.with_socket(index, |socket| socket.way = way);
    let opened = timeout(PATIENCE, open).await.unwrap_or_else(|_| Err("it does not open".to_owned()));
    let end = match opened {
        Ok(open) if path == "/log" => open.read(shared, index).await,
        Ok(open) => open.talk(shared, index).await,
        Err(why) => Err(why),
    };
    shared.with_socket(index, |socket| socket.cut = end.err());
}

/// Asks for a WebSocket over a connection of HTTP/1.1 (RFC 6455 §4.1).
async fn upgrade(mut stream: impl Connection + 'static, host: &str, path: &str) -> Result<Open, String> {
    let ask = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.map_err(at("send"))?;
    let mut arrived = Vec::new();
    let end = loop {
        if let Some(end) = arrived.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut arrived).await.map_err(at("receive"))? == 0 {
            return Err(format!("receive: the end after {:?}", String::from_utf8_lossy(&arrived)));
        }
    };
    let head = String::from_utf8_lossy(&arrived[..end]).into_owned();
    let agreed = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value == accept(KEY));
    if !head.starts_with("HTTP/1.1 101 ") || !agreed {
        return Err(format!("receive: {head:?}"));
    }
    arrived.drain(..end);
    Ok(Open { pipe: Pipe::Connection(Box::new(stream)), arrived })
}

/// Asks for one over a connection of HTTP/2 (RFC 8441 §4).
async fn stream(client: SendRequest<Bytes>, host: &str, path: &str) -> Result<Open, String> {
    let mut client = client.ready().await.map_err(at("send"))?;
    // It may be asked for once the site has said so.
    while !client.is_extended_connect_protocol_enabled() {
        sleep(Duration::from_millis(5)).await;
        client = client.ready().await.map_err(at("send"))?;
    }
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{host}{path}"))
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"))
        .body(())
        .map_err(at("send"))?;
    let (answer, sending) = client.send_request(request, false).map_err(at("send"))?;
    let answer = answer.await.map_err(at("receive"))?;
    if answer.status() != 200 {
        return Err(format!("receive: {}", answer.status()));
    }
    Ok(Open { pipe: Pipe::Stream(sending, answer.into_body()), arrived: Vec::new() })
}

impl Open {
    /// Sends messages that must come back, and says farewell in the end.
    async fn talk(mut self, shared: &Shared, index: usize) -> Result<(), String> {
        let mut number = 0;
        while !shared.stopped() {
            let message = Frame::new(TEXT, format!("message {number}"));
            self.exchange(&message).await?;
            shared.with_socket(index, |socket| socket.frames += 1);
            number += 1;
            sleep(PAUSE).await;
        }
        self.exchange(&Frame::new(CLOSE, 1000_u16.to_be_bytes())).await
    }

    async fn exchange(&mut self, frame: &Frame) -> Result<(), String> {
        self.send(frame.bytes(Some(MASK))).await?;
        let back = self.next().await?;
        if back == *frame { Ok(()) } else { Err(format!("{back:?} came back for {frame:?}")) }
    }

    /// Reads lines, of which none may be missing.
    async fn read(mut self, shared: &Shared, index: usize) -> Result<(), String> {
        let mut next = 0;
        while !shared.stopped() {
            let frame = self.next().await?;
            let (number, delay) =
                read_line_of_log(&frame).ok_or_else(|| format!("{frame:?} is no line of a log"))?;
            if number != next {
                return Err(format!("line {number} came in place of {next}"));
            }
            next += 1;
            shared.with_socket(index, |socket| {
                socket.frames += 1;
                socket.delays.push(delay);
            });
        }
        Ok(())
    }

    /// The next frame.
    async fn next(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = Frame::take(&mut self.arrived) {
                return Ok(frame);
            }
            timeout(PATIENCE, self.more()).await.unwrap_or_else(|_| Err("nothing comes".to_owned()))?;
        }
    }

    async fn more(&mut self) -> Result<(), String> {
        let ended = || Err("receive: the end".to_owned());
        match &mut self.pipe {
            Pipe::Connection(stream) => {
                let more = stream.read_buf(&mut self.arrived).await.map_err(at("receive"))?;
                if more == 0 { ended() } else { Ok(()) }
            }
            Pipe::Stream(_, receiving) => match receiving.data().await {
                None => ended(),
                Some(data) => {
                    let data = data.map_err(at("receive"))?;
                    receiving.flow_control().release_capacity(data.len()).map_err(at("receive"))?;
                    self.arrived.extend_from_slice(&data);
                    Ok(())
                }
            },
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        match &mut self.pipe {
            Pipe::Connection(stream) => {
                stream.write_all(&bytes).await.map_err(at("send"))?;
                stream.flush().await.map_err(at("send"))
            }
            Pipe::Stream(sending, _) => sending.send_data(bytes.into(), false).map_err(at("send")),
        }
    }
}
