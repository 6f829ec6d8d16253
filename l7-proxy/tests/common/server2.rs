//! Servers that speak HTTP/2, and answer each request as a test says.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

use super::listener;

/// A server whose requests are answered by `serve`, and how many connections it got.
pub(crate) struct Server2 {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
}

pub(crate) type Served = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Server2 {
    pub(crate) fn start<F>(tls: Option<tokio_rustls::TlsAcceptor>, connect: bool, serve: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>, usize) -> Served + Send + Sync + 'static,
    {
        Self::start_as(speaker(connect), tls, serve)
    }

    /// The same, which speaks as it is told.
    pub(crate) fn start_as<F>(speaker: Builder, tls: Option<tokio_rustls::TlsAcceptor>, serve: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>, usize) -> Served + Send + Sync + 'static,
    {
        let listener = listener();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (counter, serve) = (Arc::clone(&connections), Arc::new(serve));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let number = counter.fetch_add(1, Ordering::SeqCst);
                    let (speaker, tls, serve) = (speaker.clone(), tls.clone(), Arc::clone(&serve));
                    tokio::spawn(async move {
                        match tls {
                            None => drive(socket, &speaker, number, serve).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(socket).await {
                                    drive(stream, &speaker, number, serve).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        Self { address, connections }
    }

    /// Answers with what it saw: method, authority and path in a line, then the fields, then the body.
    pub(crate) fn echo(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        Self::start(tls, true, |request, mut respond, number| {
            Box::pin(async move {
                let (parts, mut body) = request.into_parts();
                let mut seen = format!("{} {}\r\n", parts.method, parts.uri);
                for (name, value) in &parts.headers {
                    seen += &format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
                }
                seen += "\r\n";
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    seen += &String::from_utf8_lossy(&data);
                }
                if let Ok(Some(trailers)) = body.trailers().await {
                    for (name, value) in &trailers {
                        seen += &format!("|{name}={}", String::from_utf8_lossy(value.as_bytes()));
                    }
                }
                let head =
                    Response::builder().header("x-connection", number).header("content-length", seen.len());
                let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                send_all(&mut send, Bytes::from(seen), true).await;
            })
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// How such a server speaks; `connect` where it opens tunnels in streams (RFC 8441).
pub(crate) fn speaker(connect: bool) -> Builder {
    let mut builder = Builder::new();
    // It takes as many tiny frames as there may be.
    builder.data_frame_budget(1 << 30);
    if connect {
        builder.enable_connect_protocol();
    }
    builder
}

pub(crate) async fn drive<T, F>(stream: T, speaker: &Builder, number: usize, serve: Arc<F>)
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<RecvStream>, SendResponse<Bytes>, usize) -> Served,
{
    let Ok(mut connection) = speaker.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(serve(request, respond, number));
    }
}

pub(crate) async fn send_all(send: &mut SendStream<Bytes>, mut data: Bytes, last: bool) {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let Some(Ok(room)) = std::future::poll_fn(|context| send.poll_capacity(context)).await else {
            return;
        };
        let part = data.split_to(room.min(data.len()));
        let is_last = last && data.is_empty();
        if send.send_data(part, is_last).is_err() {
            return;
        }
    }
}
