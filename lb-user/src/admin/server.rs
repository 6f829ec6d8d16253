//! Accepts connections on the admin socket and serves them within limits.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use http_body_util::Either;
use hyper::{Request, body::Incoming, header::HeaderMap, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use super::{
    Handle, Role, Socket,
    api::{self, Caller},
    audit::Who,
    counts::Way,
    crowd::{Busy, Crowd},
    error::Refusal,
};

/// Connections served at once; for one more, one that asks nothing is closed.
const MAX_CONNECTIONS: usize = 64;

/// A client has this long to send the head of a request, also of the next one on the same connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// No connection lives longer, however slowly its client reads; but for one that watches packets.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is looked whether a connection has lived for long enough.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Pause after the kernel gave no connection, e.g. for want of file descriptors.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves the admin interface until the future is dropped, which cuts all connections and removes the
/// socket.
pub async fn serve(socket: Socket, handle: Handle) {
    let mut connections = Crowd::new(MAX_CONNECTIONS);
    loop {
        connections.admit().await;
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok(stream) => {
                    handle.counts.connected(Way::Socket);
                    let caller = caller(&stream, socket.owner());
                    connections.spawn(|busy| connection(stream, caller, busy, handle.clone()));
                }
                Err(error) => {
                    warn!("admin socket: cannot accept a connection: {error}");
                    sleep(AFTER_FAILURE).await;
                }
            },
            () = connections.gone() => {}
        }
    }
}

/// Who is at the other end. Root and the user who owns the socket may do everything, others nothing.
fn caller(stream: &UnixStream, owner: u32) -> Caller {
    // Whoever cannot be named is nobody.
    let (uid, pid) = stream.peer_cred().map_or((u32::MAX, None), |peer| (peer.uid(), peer.pid()));
    let known = uid == 0 || uid == owner;
    let standing = if known { Ok(Role::Admin) } else { Err(Refusal::Forbidden { uid }) };
    Caller { who: Who::User { uid, pid }, from: "socket".into(), standing }
}

async fn connection(stream: UnixStream, caller: Caller, busy: Busy, handle: Handle) {
    if caller.standing.is_err() {
        warn!("admin socket: {} is refused", caller.who);
    }
    exchange(stream, Way::Socket, busy, &handle, |_| caller.clone(), || true).await;
}

/// Requests and answers on one connection, within limits. `caller` says who asks, by the head of a request; `still`, whether
/// who is being told of packets may be told of more.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    way: Way,
    busy: Busy,
    handle: &Handle,
    caller: impl Fn(&HeaderMap) -> Caller,
    still: impl Fn() -> bool,
) {
    // Whether what is sent at present has no end by itself.
    let endless = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let (caller, endless, busy) = (caller(request.headers()), &endless, &busy);
        async move {
            let in_hand = busy.begin();
            let response = api::respond(request, &caller, handle).await;
            handle.counts.answered(way, response.status());
            let goes_on = matches!(response.body(), Either::Right(_));
            endless.store(goes_on, Relaxed);
            if goes_on {
                in_hand.keep();
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        outcome = connection => match outcome {
            Ok(()) => {}
            // The client's affair: it hung up, was too slow or did not speak HTTP.
            Err(error) => debug!("admin interface: {error}"),
        },
        () = too_long(&endless, still) => debug!("admin interface: connection cut after {CONNECTION_TIMEOUT:?}"),
    }
}

/// Until a connection has lived for long enough; one that is being told of packets may, as long as it may be told.
async fn too_long(endless: &AtomicBool, still: impl Fn() -> bool) {
    let begin = Instant::now();
    loop {
        sleep(LOOK_EVERY).await;
        let over = if endless.load(Relaxed) { !still() } else { begin.elapsed() >= CONNECTION_TIMEOUT };
        if over {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
