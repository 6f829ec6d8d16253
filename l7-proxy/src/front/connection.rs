//! What is done with a connection that was accepted.

use std::{future::poll_fn, io, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{Door, http1, http2};
use crate::{
    http::Client,
    io::{Stream, fill},
    model::Service,
    proxy_protocol::{self, Header},
    server::Ends,
    spec::Mode,
    state::{By, Refusal},
    tcp,
    tls::Shown,
};

/// How long a proxy before us may take to say whose connection it is.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a handshake may take while there are more than there should be.
const CROWDED: Duration = Duration::from_secs(1);

/// Serves a connection until it ends.
pub async fn welcome(door: Door, mut socket: TcpStream, mut ends: Ends) {
    let service = Arc::clone(&door.entry.service());
    let counters = service.state.counters(door.worker);
    let _ = SockRef::from(&socket).set_tcp_nodelay(true);
    let mut input = BytesMut::new();
    match proxied(&service, &mut socket, &mut input, ends).await {
        Ok(said) => ends = said,
        Err(_) => return counters.refused(Refusal::ProxyProtocol),
    }
    let _connected = match service.state.connect(ends.client.ip(), &service.limits) {
        Ok(connected) => connected,
        Err(refusal) => return counters.refused(refusal),
    };
    counters.connection();
    let (mut stream, name, shown) = match &service.tls {
        None => (Stream::Plain(socket), None, None),
        Some(tls) => {
            // Who says nothing takes no place.
            if tls.spoken_to(&mut socket).await.is_err() {
                return counters.refused(Refusal::Handshake);
            }
            // Where all places are taken, perhaps by those who begin and never finish, others must be quick
            // rather than wait.
            let place = door.handshakes.try_acquire();
            let most = if place.is_ok() { Duration::MAX } else { CROWDED };
            match Box::pin(tls.accept(socket, most)).await {
                Ok(stream) => {
                    let name = stream.get_ref().1.server_name().map(|name| name.to_ascii_lowercase().into());
                    let shown = Shown::of(stream.get_ref().1).map(Arc::new);
                    (Stream::Accepted(stream), name, shown)
                }
                Err(_) => return counters.refused(Refusal::Handshake),
            }
        }
    };
    let client = Client::new(ends, service.tls.is_some(), name, shown, &service);
    let crowd = Arc::clone(&door.crowd);
    let _stay = crowd.enter(&door.entry, &client);
    let guest = Arc::clone(&client.guest);
    // Each in memory of its own: a connection holds what it needs, not what another kind would.
    let served = async {
        match service.mode {
            Mode::Http if is_http2(&service, &mut stream, &mut input).await => {
                Box::pin(http2::serve(door, service.clone(), stream, input, client)).await;
            }
            Mode::Http => Box::pin(http1::serve(door, service.clone(), stream, input, client)).await,
            Mode::Tcp => Box::pin(tcp::serve(&door, &service, stream, input, client)).await,
        }
    };
    let mut served = pin!(served);
    tokio::select! {
        biased;
        () = &mut served => {}
        // What passes bytes on knows by itself how that ends, and may have been asked a moment too early.
        () = guest.killed() => {
            let _ = poll_fn(|context| Poll::Ready(served.as_mut().poll(context))).await;
        }
    }
    if guest.is_killed() {
        counters.broke(By::Operator);
    }
}

/// How HTTP/2 begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether the client speaks HTTP/2: agreed upon within TLS, or begun without asking where that is allowed.
async fn is_http2(service: &Service, stream: &mut Stream, input: &mut BytesMut) -> bool {
    match stream {
        Stream::Accepted(_) => return stream.alpn() == Some(b"h2"),
        _ if !service.h2c => return false,
        _ => {}
    }
    let begins = |input: &BytesMut| {
        let length = input.len().min(PREFACE.len());
        input[..length] == PREFACE[..length]
    };
    let read = async {
        while begins(input) && input.len() < PREFACE.len() {
            match poll_fn(|context| fill(stream, input, 2_048, context)).await {
                Ok(read) if read > 0 => {}
                _ => break,
            }
        }
    };
    // Who is silent is dealt with as a client of HTTP/1.1 is.
    let _ = tokio::time::timeout(service.timeouts.client_idle.get(), read).await;
    input.len() >= PREFACE.len() && begins(input)
}

/// The ends of a connection, as the proxy before us says if it is one that may. Nothing behind the header is
/// read, since it may be TLS, which reads for itself; what turns out to be no header is left in `input`.
async fn proxied(
    service: &Service,
    socket: &mut TcpStream,
    input: &mut BytesMut,
    ends: Ends,
) -> io::Result<Ends> {
    let Some(told) = &service.proxy_protocol else { return Ok(ends) };
    if !told.from.iter().any(|network| network.contains(ends.client.ip())) {
        return Ok(ends);
    }
    let read = async {
        let mut bytes = [0; proxy_protocol::MOST_BYTES];
        loop {
            let before = input.len();
            let seen = socket.peek(&mut bytes[before..]).await?;
            if seen == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match proxy_protocol::read(&bytes[..before + seen]) {
                Ok(Some((header, length))) => {
                    socket.read_exact(&mut bytes[before..length]).await?;
                    input.clear();
                    return Ok(match header {
                        Header::Proxied(said) => said,
                        Header::Own => ends,
                    });
                }
                // A header so far: it is taken, so that only what is new wakes us.
                Ok(None) => {
                    socket.read_exact(&mut bytes[before..before + seen]).await?;
                    input.extend_from_slice(&bytes[before..before + seen]);
                }
                Err(_) if !told.required => return Ok(ends),
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    };
    tokio::time::timeout(PROXY_TIMEOUT, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
