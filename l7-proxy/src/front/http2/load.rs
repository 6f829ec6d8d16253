//! What the streams of a connection amount to: those under way, and what they cost us that no client should.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

use h2::RecvStream;

use crate::{io::Windows, spec::Http2Limits};

/// What all streams of a connection amount to.
#[derive(Debug)]
pub(super) struct Load {
    /// Streams under way.
    streams: AtomicUsize,
    /// Bytes of the heads of their requests.
    heads: AtomicUsize,
    /// Streams that were malformed in ways that the h2 crate does not see.
    malformed: AtomicU32,
    /// The windows that the client opens.
    windows: Arc<Windows>,
}

impl Load {
    /// No streams.
    pub(super) fn new(limits: &Http2Limits) -> Self {
        Self {
            streams: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
            malformed: AtomicU32::new(0),
            windows: Arc::new(Windows::new(limits.dribbles)),
        }
    }

    /// The windows that the client opens.
    pub(super) fn windows(&self) -> &Arc<Windows> {
        &self.windows
    }

    /// Streams under way.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Relaxed)
    }

    /// A stream had to be ended for what the client did.
    pub(super) fn add_malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    /// Streams that had to be ended so far.
    pub(super) fn malformed(&self) -> u32 {
        self.malformed.load(Relaxed)
    }
}

/// A stream under way; it counts until it is dropped.
pub(super) struct Active {
    load: Arc<Load>,
    head: usize,
}

impl Active {
    /// Counts it. None where the heads of others leave no room for its own among `most` bytes: a hundred that just fit,
    /// each, are ten megabytes, which a few bytes can unfold to (RFC 7541).
    pub(super) fn enter(load: &Arc<Load>, request: &http::Request<RecvStream>, most: usize) -> Option<Self> {
        let head = bytes(request);
        let others = load.heads.load(Relaxed);
        if others > 0 && others + head > most {
            return None;
        }
        load.streams.fetch_add(1, Relaxed);
        load.heads.fetch_add(head, Relaxed);
        Some(Self { load: Arc::clone(load), head })
    }

    /// What all of them amount to.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.load.streams.fetch_sub(1, Relaxed);
        self.load.heads.fetch_sub(self.head, Relaxed);
    }
}

/// Bytes of a head: of its fields as RFC 9113 §6.5.2 counts them, and of what is asked for.
fn bytes(request: &http::Request<RecvStream>) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    fields.sum::<usize>() + target + uri.authority().map_or(0, |authority| authority.as_str().len())
}
