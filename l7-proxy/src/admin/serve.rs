//! Answers questions about the process, on a thread of its own: it answers while workers are busy.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};

use super::{is_healthy, metrics, status};
use crate::{log::Log, process::Current};

/// Questions at once; further ones wait.
const MOST: usize = 64;

/// How long a client may take to ask.
const ASKING: Duration = Duration::from_secs(5);

/// The thread that answers; it ends when this is dropped.
#[derive(Debug)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// The same socket once more, for a process that comes after this one.
    pub copy: Arc<TcpListener>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Answers who connects to `listener`.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(listener: TcpListener, current: Arc<Current>, log: Arc<Log>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (address, copy) = (listener.local_addr()?, Arc::new(listener.try_clone()?));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, told) = oneshot::channel();
        let thread = thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    error = run(listener, &current, &log) => {
                        if let Err(error) = error {
                            tracing::error!("admin address {address}: {error}");
                        }
                    }
                    _ = told => {}
                }
            });
        })?;
        Ok(Self { address, copy, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(listener: TcpListener, current: &Arc<Current>, log: &Arc<Log>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (current, log) = (Arc::clone(current), Arc::clone(log));
        tokio::spawn(async move {
            let answer = |request: Request<Incoming>| {
                let response = answer(&request, &current, &log);
                async move { Ok::<_, Infallible>(response) }
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(ASKING)
                .half_close(true)
                .keep_alive(false)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(socket), service_fn(answer));
            // Whether the client takes the answer is its own affair.
            let _ = tokio::time::timeout(ASKING * 4, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, current: &Current, log: &Log) -> Response<Text> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, path) => page(path, current, log),
        _ => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "405 only GET and HEAD\n".to_owned()),
    };
    let mut response = Response::new(Text(Some(text.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn page(path: &str, current: &Current, log: &Log) -> (StatusCode, &'static str, String) {
    let ready = current.ready();
    let service = path.strip_prefix("/health/");
    if path == "/health" || service.is_some() {
        return match is_healthy(&ready, current.phase(), service) {
            Some(true) => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
            Some(false) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, "not ok\n".to_owned()),
            None => (StatusCode::NOT_FOUND, PLAIN, "404 there is no such service\n".to_owned()),
        };
    }
    match path {
        "/metrics" => (
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics(&ready, current.phase(), log),
        ),
        "/status" => match serde_json::to_string_pretty(&status(&ready, current.phase())) {
            Ok(text) => (StatusCode::OK, "application/json", text + "\n"),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("500 {error}\n")),
        },
        _ => (StatusCode::NOT_FOUND, PLAIN, "404 there are /health, /metrics and /status\n".to_owned()),
    }
}

/// A text, whole.
struct Text(Option<Bytes>);

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |text| text.len() as u64))
    }
}
