//! `/metrics` over TCP, for a monitoring system on another machine: nothing can be changed here, and nothing else is told.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::CONTENT_TYPE;
use crate::admin::{
    Handle,
    crowd::{Busy, Crowd},
};

/// Connections served at once; for one more, one that asks nothing is closed.
const MAX_CONNECTIONS: usize = 16;

/// A client has this long to send the head of a request, also of the next one on the same connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// No connection lives longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Pause after the kernel gave no connection.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Listens, so that an address that cannot be had is known at the start.
///
/// # Errors
/// When the system refuses.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until the future is dropped. Without a listener there is nothing to do.
pub async fn serve(listener: Option<TcpListener>, handle: Handle) {
    let Some(listener) = listener else { return std::future::pending().await };
    let mut connections = Crowd::new(MAX_CONNECTIONS);
    loop {
        connections.admit().await;
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(|busy| connection(stream, busy, handle.clone()));
                }
                Err(error) => {
                    warn!("metrics: cannot accept a connection: {error}");
                    sleep(AFTER_FAILURE).await;
                }
            },
            () = connections.gone() => {}
        }
    }
}

async fn connection(stream: TcpStream, busy: Busy, handle: Handle) {
    let service = service_fn(|request| {
        let (handle, busy) = (handle.clone(), &busy);
        async move {
            let _in_hand = busy.begin();
            Ok::<_, Infallible>(answer(&request, &handle).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
        debug!("metrics: {error}");
    }
}

async fn answer(request: &Request<Incoming>, handle: &Handle) -> Response<Full<Bytes>> {
    let refused = |status, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return refused(StatusCode::NOT_FOUND, "there is only /metrics here\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let text = handle.metrics().await;
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}
