//! Connections of HTTP/2 to servers: each carries many requests at once, and lasts until the server ends it or
//! nobody has needed it for a while.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::{Ping, client::SendRequest};
use tokio::{sync::oneshot, time::timeout};

use super::{ConnectError, Connection, empties::Empties, now};
use crate::io::Gather;

/// A connection that takes requests.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) server: SocketAddr,
    pub(super) source: Option<IpAddr>,
    requests: SendRequest<Bytes>,
    /// Shared by the requests and tunnels under way: how many there are is how many hold it.
    active: Arc<Use>,
    wear: Wear,
    was_used: bool,
    used_at: u64,
}

/// What has happened to a connection that the h2 crate counts for all its life, and ends it for with all streams. One that is worn
/// out gets no more requests, long before that.
#[derive(Clone, Debug, Default)]
pub(super) struct Wear(Arc<AtomicU32>);

impl Wear {
    /// Of an empty frame, of which it takes a hundred.
    pub(super) const EMPTY: u32 = 64;
    /// Of a stream that was given up: so many are remembered, and what comes late of others is a fault.
    const GIVEN_UP: u32 = 1;
    const MOST: u32 = 4_096;

    pub(super) fn add(&self, wear: u32) {
        self.0.fetch_add(wear, Relaxed);
    }

    pub(super) fn is(&self) -> u32 {
        self.0.load(Relaxed)
    }

    fn is_out(&self) -> bool {
        self.is() >= Self::MOST
    }
}

/// Tells who drives a connection that nobody uses it any more, by being dropped.
#[derive(Debug)]
struct Use(#[expect(dead_code, reason = "it is there to be dropped")] oneshot::Sender<Infallible>);

/// Leave to make one request over a connection of HTTP/2; it counts until this is dropped.
#[derive(Debug)]
pub struct Leave {
    /// What makes it.
    pub requests: SendRequest<Bytes>,
    /// The connection's number.
    pub number: u64,
    /// Whether others were made over it before.
    pub was_used: bool,
    active: Arc<Use>,
    wear: Wear,
}

impl Leave {
    /// The request was given up before it was answered in full.
    pub fn give_up(&self) {
        self.wear.add(Wear::GIVEN_UP);
    }

    /// What a tunnel holds that the request has become: it counts until that is dropped.
    #[must_use]
    pub fn hold(&self) -> Arc<dyn Debug + Send + Sync> {
        Arc::clone(&self.active) as Arc<_>
    }
}

/// The widest window there is (RFC 9113 §6.9.1).
const MOST_WINDOW: u32 = (1 << 31) - 1;

/// Bytes of a server's head, as HPACK counts them, whatever a service takes of it.
const MOST_HEAD: u32 = 256 * 1024;

/// What comes late of streams that were given up is nobody's fault as long as they are remembered: so many, for so long.
const REMEMBERED: usize = 8 * 1024;
const REMEMBERED_FOR: Duration = Duration::from_secs(10);

/// Frames that are faults, in the life of a connection, until all its streams end: each is answered, and who reads nothing has
/// the answers pile up.
const MOST_FAULTS: usize = 128 * 1024;

/// How long a server may take to hear that a connection ends.
const GOODBYE: Duration = Duration::from_secs(5);

impl Link {
    /// Begins HTTP/2 on a connection that was just made, and waits until the server has said what it takes.
    pub(super) async fn begin(connection: Connection, number: u64) -> Result<Self, ConnectError> {
        let wrong = |error: h2::Error| ConnectError::Refused(io::Error::other(error));
        let Connection { stream, server, source, .. } = connection;
        let wear = Wear::default();
        // A server that sends without a pause takes turns with everybody else, and what is sent to it goes out together.
        let (stream, out) = Gather::new(stream, BytesMut::new(), Empties::new(wear.clone()));
        let (requests, mut driver) = h2::client::Builder::new()
            .initial_window_size(128 * 1024)
            // Each stream has a window of its own: clients that take nothing hold up no others that share the connection.
            .initial_connection_window_size(MOST_WINDOW)
            // Tiny frames are taken whether anybody wants them or not (`io::Inbox`). Of streams that were given up none ever is,
            // and by the h2 crate's own bound those would end the connection of all others sooner or later.
            .data_frame_budget(usize::MAX)
            .max_concurrent_reset_streams(REMEMBERED)
            .reset_stream_duration(REMEMBERED_FOR)
            .max_local_error_reset_streams(Some(MOST_FAULTS))
            .max_header_list_size(MOST_HEAD)
            .max_send_buffer_size(64 * 1024)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(wrong)?;
        let ping = driver.ping_pong();
        let (in_use, unused) = oneshot::channel();
        let active = Arc::new(Use(in_use));
        tokio::spawn(Box::pin(async move {
            // How it ended is seen by each of its requests.
            let mut driven = pin!(poll_fn(|context| {
                let polled = Pin::new(&mut driver).poll(context).map(drop);
                match out.poll(context) {
                    Poll::Ready(Err(_)) => Poll::Ready(()),
                    _ => polled,
                }
            }));
            tokio::select! {
                biased;
                () = &mut driven => {}
                // A server that reads nothing would never hear of it.
                _ = unused => drop(timeout(GOODBYE, driven).await),
            }
        }));
        // Its settings come before the answer to this.
        if let Some(mut ping) = ping {
            ping.ping(Ping::opaque()).await.map_err(wrong)?;
        }
        Ok(Self { number, server, source, requests, active, wear, was_used: false, used_at: now() })
    }

    /// Leave for one more request; `None` where it takes none at the moment.
    pub(super) fn request(&mut self) -> Option<Leave> {
        let has_room = self.active() < self.requests.current_max_send_streams();
        has_room.then(|| {
            self.used_at = now();
            Leave {
                requests: self.requests.clone(),
                number: self.number,
                was_used: std::mem::replace(&mut self.was_used, true),
                active: Arc::clone(&self.active),
                wear: self.wear.clone(),
            }
        })
    }

    /// Grows with how late it was used; more than any that is not, where it is in use.
    pub(super) fn last_use(&self) -> (bool, u64) {
        (self.active() > 0, self.used_at)
    }

    fn active(&self) -> usize {
        Arc::strong_count(&self.active) - 1
    }

    /// Whether it goes on: the server has not ended it, and it is or was in use in the last `most` milliseconds.
    pub(super) fn goes_on(&mut self, most: u64) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        if self.active() > 0 {
            self.used_at = now();
        }
        !self.wear.is_out()
            && !matches!(self.requests.poll_ready(&mut context), Poll::Ready(Err(_)))
            && now().saturating_sub(self.used_at) < most
    }
}
