//! Finds a server for a request and a connection to it.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Instant,
};

use crate::{
    front::Guest,
    model::Service,
    server::{ConnectError, Connection, Leave, NoPlace, Pool, Slot, Way, Wish, now},
    spec::ServerState,
};

/// What a request goes over.
#[derive(Debug)]
pub enum Line {
    /// A connection of its own for as long as it lasts.
    Http1(Connection),
    /// A stream of a connection that others share.
    Http2(Leave),
}

/// A way to a server.
#[derive(Debug)]
pub struct Reached {
    /// Which of the pool's servers.
    pub index: usize,
    /// The place that is taken there.
    pub slot: Slot,
    /// The connection.
    pub line: Line,
    /// How many servers were tried in vain before.
    pub tries: u8,
}

/// Why there is none.
#[derive(Debug)]
pub enum Unreached {
    /// The pool has no server that can be used.
    NoServer,
    /// All had reached their maximum for too long, or too many waited.
    Queue,
    /// No connection could be made.
    Connect(ConnectError),
    /// An operator has ended the client's connection meanwhile.
    Killed,
    /// The client has gone: while it waited for a place at a server, or else for a connection.
    Gone {
        /// Whether it had a place.
        placed: bool,
    },
}

impl Unreached {
    /// Who is to blame and when it was, as the log has it.
    #[must_use]
    pub fn letters(&self) -> [u8; 2] {
        match self {
            Self::NoServer | Self::Connect(_) => *b"SC",
            Self::Queue => *b"sQ",
            Self::Killed => *b"KD",
            Self::Gone { placed: false } => *b"CQ",
            Self::Gone { placed: true } => *b"CC",
        }
    }
}

/// Which connections will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// One that waits, if there is any.
    Any,
    /// One that waits if the server is not likely to end it just now: what is sent cannot be sent again.
    Sure,
    /// A new one.
    Fresh,
}

/// How it is tried.
#[derive(Debug)]
pub struct Try {
    /// Over which connections.
    pub which: Which,
    /// The place of who has one already; there it is tried first, if it may be still.
    pub place: Option<(usize, Slot)>,
}

/// Chooses a server and connects to it: with a connection that waits if there is one that will do, and to
/// other servers where one does not answer (R14: nothing of the request was sent). Whose client has been told to end, or
/// has `gone`, waits no longer: its place is another's. (A client whose body is longer than what is read ahead is not seen
/// to go as long as nobody reads it.)
///
/// # Errors
/// Why none was reached.
pub async fn reach(
    pool: &Pool,
    service: &Service,
    way: &Way<'_>,
    wish: &mut Wish<'_>,
    first: Try,
    guest: &Guest,
    gone: impl Future<Output = ()>,
) -> Result<Reached, Unreached> {
    let placed = AtomicBool::new(false);
    let reached = tokio::select! {
        biased;
        reached = try_all(pool, service, way, wish, first, &placed) => reached,
        () = guest.killed() => Err(Unreached::Killed),
        () = gone => Err(Unreached::Gone { placed: placed.load(Relaxed) }),
    };
    reached
}

async fn try_all(
    pool: &Pool,
    service: &Service,
    way: &Way<'_>,
    wish: &mut Wish<'_>,
    Try { which, place }: Try,
    placed: &AtomicBool,
) -> Result<Reached, Unreached> {
    let mut place = place.filter(|&(index, _)| {
        matches!(pool.servers[index].live.state(), ServerState::Up | ServerState::Drain)
    });
    let mut tries = 0;
    loop {
        placed.store(place.is_some(), Relaxed);
        let until = || Instant::now() + service.timeouts.queue.get();
        let (index, slot) = match place.take() {
            Some(place) => place,
            None => pool.place(wish, until).await.map_err(|none| match none {
                NoPlace::NoServer => Unreached::NoServer,
                NoPlace::Queue => Unreached::Queue,
            })?,
        };
        placed.store(true, Relaxed);
        if which != Which::Fresh
            && !way.http2
            && let Some(connection) = pool.take_idle(index, way, which == Which::Sure)
        {
            return Ok(Reached { index, slot, line: Line::Http1(connection), tries });
        }
        let line = if way.http2 {
            pool.link(index, way).await.map(Line::Http2)
        } else {
            pool.connect(index, way).await.map(Line::Http1)
        };
        let error = match line {
            Ok(line) => return Ok(Reached { index, slot, line, tries }),
            Err(error @ ConnectError::Here(_)) => return Err(Unreached::Connect(error)),
            Err(error) => error,
        };
        drop(slot);
        let live = &pool.servers[index].live;
        live.count_unreached(way.worker);
        if let Some(outliers) = &pool.outliers {
            live.failed(outliers, now());
        }
        wish.tried |= 1_u64.checked_shl(u32::try_from(index).unwrap_or(64)).unwrap_or(0);
        if tries >= pool.retries.connect {
            return Err(Unreached::Connect(error));
        }
        tries += 1;
    }
}
