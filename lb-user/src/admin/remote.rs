//! The admin interface over TCP, with TLS and tokens ([`super::access`]). It has a thread and a runtime of its own: whatever
//! strangers make it compute, health checks and the loop do not wait for it.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::oneshot,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    Access, Handle,
    access::Files,
    api::Caller,
    audit::Who,
    counts::Way,
    crowd::{Busy, Crowd},
    server::exchange,
    token::Digest,
};

/// Connections served at once; for one more, one that asks nothing is closed.
const MAX_CONNECTIONS: usize = 64;

/// Of them, so many from one address.
const SHARE: usize = 16;

/// A client has this long to agree about TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after the kernel gave no connection, e.g. for want of file descriptors.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub address: SocketAddr,
    /// What protects it.
    pub files: Files,
}

/// A listener that is protected.
#[derive(Debug)]
pub struct Api {
    listener: TcpListener,
    access: Arc<Access>,
}

impl Api {
    /// Listens, so that what cannot be had is known at the start.
    ///
    /// # Errors
    /// When it would not be protected, or the system refuses.
    pub fn open(options: &Options) -> Result<Self, String> {
        let access = Access::open(options.files.clone()).map_err(|why| format!("--api: {why}"))?;
        let address = options.address;
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = bound.map_err(|error| format!("cannot listen on {address} for --api: {error}"))?;
        Ok(Self { listener, access: Arc::new(access) })
    }

    /// Its tokens and certificate.
    #[must_use]
    pub fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves until the future is dropped, which cuts all connections. Without a listener there is nothing to do.
pub async fn serve(api: Option<Api>, handle: Handle) {
    let Some(api) = api else { return std::future::pending().await };
    let (stop, stopped) = oneshot::channel::<Infallible>();
    let (end, ended) = oneshot::channel::<Infallible>();
    let work = move || {
        let _end = end;
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                runtime.block_on(async {
                    tokio::select! {
                        () = listen(api, handle) => {}
                        _ = stopped => {}
                    }
                });
                // A look into the flow tables may be under way; nobody waits for it.
                runtime.shutdown_background();
            }
            Err(error) => warn!("API: cannot start: {error}"),
        }
    };
    let thread = match thread::Builder::new().name("api".into()).spawn(work) {
        Ok(thread) => thread,
        Err(error) => return warn!("API: cannot start a thread: {error}"),
    };
    let _running = Running { stop: Some(stop), thread: Some(thread) };
    let _ = ended.await;
}

/// The thread, which ends with it.
struct Running {
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has said what there was to say.
            let _ = thread.join();
        }
    }
}

async fn listen(Api { listener, access }: Api, handle: Handle) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!("API: cannot listen: {error}"),
    };
    let mut connections = Crowd::new(MAX_CONNECTIONS);
    loop {
        connections.admit().await;
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    handle.counts.connected(Way::Tcp);
                    let (access, handle) = (Arc::clone(&access), handle.clone());
                    let begin = |busy| connection(stream, from, busy, access, handle);
                    if !connections.spawn_from(from.ip(), SHARE, begin) {
                        debug!("API: {from} has too many connections");
                    }
                }
                Err(error) => {
                    warn!("API: cannot accept a connection: {error}");
                    sleep(AFTER_FAILURE).await;
                }
            },
            () = connections.gone() => {}
        }
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, busy: Busy, access: Arc<Access>, handle: Handle) {
    let stream = match timeout(HANDSHAKE_TIMEOUT, access.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => stream,
        outcome => {
            handle.counts.handshake_failed();
            let why =
                outcome.map_or_else(|_| "it takes too long".into(), |failed| format!("{:?}", failed.err()));
            return debug!("API: no TLS with {from}: {why}");
        }
    };
    // By which token it was asked last.
    let shown: Mutex<Option<Digest>> = Mutex::new(None);
    let last = || shown.lock().unwrap_or_else(PoisonError::into_inner);
    let caller = |headers: &_| {
        let admitted = access.admit(headers, from.ip());
        *last() = admitted.as_ref().ok().map(|token| token.digest);
        let who = match &admitted {
            Ok(token) => Who::Token { token: token.name.clone(), role: token.role },
            Err(_) => Who::Nobody {},
        };
        Caller { who, from: from.to_string(), standing: admitted.map(|token| token.role) }
    };
    let still = || last().is_some_and(|digest| access.has(&digest));
    exchange(stream, Way::Tcp, busy, &handle, caller, still).await;
}

#[cfg(test)]
mod tests;
