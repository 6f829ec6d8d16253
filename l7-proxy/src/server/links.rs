//! Connections of HTTP/2 to servers: each carries many requests at once, and lasts until the server ends it or
//! nobody has needed it for a while.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{Ping, client::SendRequest};

use super::{ConnectError, Connection, now};

/// A connection that takes requests.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) server: SocketAddr,
    pub(super) source: Option<IpAddr>,
    requests: SendRequest<Bytes>,
    /// Shared by the requests under way: how many there are is how many hold it.
    active: Arc<()>,
    used_at: u64,
}

/// Leave to make one request over a connection of HTTP/2; it counts until this is dropped.
#[derive(Debug)]
pub struct Leave {
    /// What makes it.
    pub requests: SendRequest<Bytes>,
    /// The connection's number.
    pub number: u64,
    _active: Arc<()>,
}

/// The widest window there is (RFC 9113 §6.9.1).
const MOST_WINDOW: u32 = (1 << 31) - 1;

impl Link {
    /// Begins HTTP/2 on a connection that was just made, and waits until the server has said what it takes.
    pub(super) async fn begin(connection: Connection, number: u64) -> Result<Self, ConnectError> {
        let wrong = |error: h2::Error| ConnectError::Refused(io::Error::other(error));
        let Connection { stream, server, source, .. } = connection;
        let (requests, mut driver) = h2::client::Builder::new()
            .initial_window_size(128 * 1024)
            // Each stream has a window of its own: clients that take nothing hold up no others that share the connection.
            .initial_connection_window_size(MOST_WINDOW)
            // Tiny frames are taken whether anybody wants them or not (`io::Inbox`). Of streams that were given up none ever is,
            // and by the h2 crate's own bound those would end the connection of all others sooner or later. That of empty ones, a
            // hundred in its life, stays.
            .data_frame_budget(usize::MAX)
            .max_send_buffer_size(64 * 1024)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(wrong)?;
        let ping = driver.ping_pong();
        tokio::spawn(Box::pin(async move {
            // How it ended is seen by each of its requests.
            let _ = driver.await;
        }));
        // Its settings come before the answer to this.
        if let Some(mut ping) = ping {
            ping.ping(Ping::opaque()).await.map_err(wrong)?;
        }
        Ok(Self { number, server, source, requests, active: Arc::default(), used_at: now() })
    }

    /// Leave for one more request; `None` where it takes none at the moment.
    pub(super) fn request(&mut self) -> Option<Leave> {
        let has_room = self.active() < self.requests.current_max_send_streams();
        has_room.then(|| {
            self.used_at = now();
            Leave { requests: self.requests.clone(), number: self.number, _active: Arc::clone(&self.active) }
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
        !matches!(self.requests.poll_ready(&mut context), Poll::Ready(Err(_)))
            && now().saturating_sub(self.used_at) < most
    }
}
