//! Sockets for connections that come from the client's own address (`IP_TRANSPARENT`, ip(7)): made here, or by `lb-user`
//! for a process that may not.
//!
//! The kernel wants privileges for the option alone, not for the address that such a socket gets later. So a small stock of
//! them is kept, and filled up again while it lasts. Where there is none, a connection waits for a moment and then fails.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Notify;
use tracing::warn;

use super::shortage;
use crate::spec::{Channel, MOST_FILES, SocketsGiven, SocketsWanted};

/// Sockets that are kept of each family: what a second of a thousand connections needs twice as long as it takes to ask.
const STOCK: usize = 2 * MOST_FILES;

/// How long a connection waits for a socket.
const WAIT: Duration = Duration::from_secs(1);

/// How often one that waits has them asked for again, and how long nobody is asked after none came.
const PAUSE: Duration = Duration::from_millis(100);

/// How long `lb-user` may take to make some.
const PATIENCE: Duration = Duration::from_secs(5);

/// No two complaints come within this time.
const QUIET: Duration = Duration::from_secs(10);

/// Where sockets come from that are not made here.
static SUPPLY: OnceLock<Arc<Supply>> = OnceLock::new();

#[derive(Debug)]
struct Supply {
    shelves: [Shelf; 2],
    /// Wakes the thread that fills them.
    orders: mpsc::SyncSender<()>,
    /// Whom it is to ask from now on.
    source: Mutex<Option<UnixStream>>,
    complained: Mutex<Option<Instant>>,
    /// Whether some were lost on their way, for this process may have no more files open.
    short: AtomicBool,
}

/// Sockets of a family.
#[derive(Debug, Default)]
struct Shelf {
    sockets: Mutex<Vec<Socket>>,
    /// Whether any was ever asked for.
    wanted: AtomicBool,
    came: Notify,
}

/// From now on there are only sockets that others make ([`give`]).
///
/// # Errors
/// When there can be no thread that asks for them.
pub fn only_given() -> io::Result<()> {
    // Whoever was first has done the same.
    let _ = SUPPLY.set(Supply::start()?);
    Ok(())
}

/// Has sockets asked for here from now on. Without [`only_given`] they are made by this process, and nobody is asked.
pub fn give(source: UnixStream) {
    if let Some(supply) = SUPPLY.get() {
        supply.ask_of(source);
    }
}

/// Open files that the stock takes.
#[must_use]
pub fn most_kept() -> usize {
    if SUPPLY.get().is_some() { 2 * STOCK } else { 0 }
}

/// Whether this process can have such sockets.
///
/// # Errors
/// Why not, and what would help.
pub fn possible() -> Result<(), String> {
    if SUPPLY.get().is_some() {
        return Ok(());
    }
    let attempt = make(false).map(drop);
    attempt.map_err(|error| {
        format!(
            "source \"client\" takes the capability CAP_NET_ADMIN or CAP_NET_RAW, which this process does not have ({error})"
        )
    })
}

/// A socket that may have the address of a client, for a connection to a server.
///
/// # Errors
/// When none can be made, or none has come in time.
pub async fn socket(ipv6: bool) -> io::Result<Socket> {
    match SUPPLY.get() {
        None => make(ipv6),
        Some(supply) => supply.take(ipv6).await,
    }
}

fn make(ipv6: bool) -> io::Result<Socket> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if ipv6 {
        socket.set_ip_transparent_v6(true)?
    } else {
        socket.set_ip_transparent_v4(true)?
    }
    Ok(socket)
}

impl Supply {
    fn start() -> io::Result<Arc<Self>> {
        // One order is as good as many.
        let (orders, told) = mpsc::sync_channel(1);
        let supply = Arc::new(Self {
            shelves: Default::default(),
            orders,
            source: Mutex::default(),
            complained: Mutex::default(),
            short: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&supply);
        thread::Builder::new().name("sockets".into()).spawn(move || of_thread.keep_filled(&told))?;
        Ok(supply)
    }

    fn ask_of(&self, source: UnixStream) {
        *lock(&self.source) = Some(source);
        self.order();
    }

    async fn take(&self, ipv6: bool) -> io::Result<Socket> {
        let shelf = &self.shelves[usize::from(ipv6)];
        shelf.wanted.store(true, Relaxed);
        let taken = tokio::time::timeout(WAIT, async {
            loop {
                let came = shelf.came.notified();
                tokio::pin!(came);
                // Before the look, or what comes right behind it would wake nobody.
                came.as_mut().enable();
                let (socket, left) = shelf.take();
                if left < STOCK / 2 {
                    self.order();
                }
                match socket {
                    Some(socket) => return socket,
                    None => {
                        if self.short.swap(false, Relaxed) && shortage::relieve() {
                            self.order();
                        }
                        let _ = tokio::time::timeout(PAUSE, came).await;
                    }
                }
            }
        });
        taken.await.map_err(|_| {
            let problem = "lb-user, which makes the sockets for source \"client\", has given none in time";
            self.complain(problem);
            io::Error::other(problem)
        })
    }

    fn order(&self) {
        // Full: there is one already.
        let _ = self.orders.try_send(());
    }

    fn complain(&self, problem: &str) {
        let mut last = lock(&self.complained);
        if last.is_none_or(|last| last.elapsed() >= QUIET) {
            *last = Some(Instant::now());
            warn!("{problem}: connections to servers fail");
        }
    }

    /// The thread: fills what is not full whenever it is told to.
    fn keep_filled(&self, told: &mpsc::Receiver<()>) {
        let mut asked: Option<Channel> = None;
        while told.recv().is_ok() {
            if let Some(source) = lock(&self.source).take() {
                asked = Channel::new(source, Some(PATIENCE)).ok();
            }
            let Some(channel) = &mut asked else { continue };
            match self.fill(channel) {
                // Those that wait ask again and again.
                Ok(true) => thread::sleep(PAUSE),
                Ok(false) => {}
                Err(error) => {
                    self.complain(&format!(
                        "sockets for source \"client\" cannot be had from lb-user ({error})"
                    ));
                    // Whoever was there is gone; the next one says so.
                    asked = None;
                }
            }
        }
    }

    /// Whether there were none to be had.
    fn fill(&self, channel: &mut Channel) -> io::Result<bool> {
        let mut lacking = false;
        for (ipv6, shelf) in [(false, &self.shelves[0]), (true, &self.shelves[1])] {
            // Another source is turned to at once.
            while shelf.wanted.load(Relaxed) && shelf.room() > 0 && lock(&self.source).is_none() {
                channel.send(&SocketsWanted { ipv6, count: shelf.room().min(MOST_FILES) }, &[])?;
                let (given, files) =
                    channel.receive::<SocketsGiven>()?.ok_or(io::ErrorKind::UnexpectedEof)?;
                if channel.lost_files() {
                    self.short.store(true, Relaxed);
                    self.complain("sockets for source \"client\": this process may open no more files");
                }
                if let Some(problem) = given.problem {
                    self.complain(&format!("sockets for source \"client\" cannot be made: {problem}"));
                }
                if files.is_empty() {
                    lacking = true;
                    break;
                }
                lock(&shelf.sockets).extend(files.into_iter().map(Socket::from));
                shelf.came.notify_waiters();
            }
        }
        Ok(lacking)
    }
}

impl Shelf {
    /// A socket, and how many are left.
    fn take(&self) -> (Option<Socket>, usize) {
        let mut sockets = lock(&self.sockets);
        (sockets.pop(), sockets.len())
    }

    fn room(&self) -> usize {
        STOCK.saturating_sub(lock(&self.sockets).len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    /// Gives sockets, so many for each question at most, until the other side ends.
    fn giver(most: usize) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut channel = Channel::new(ours, None).unwrap();
            while let Ok(Some((SocketsWanted { count, .. }, _))) = channel.receive() {
                let new = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                let sockets: Vec<_> = (0..count.min(most)).map(|_| new()).collect();
                let files: Vec<_> = sockets.iter().map(Socket::as_fd).collect();
                let problem = (most == 0).then(|| "not today".to_owned());
                channel.send(&SocketsGiven { problem }, &files).unwrap();
            }
        });
        theirs
    }

    #[tokio::test]
    async fn the_stock_is_filled_again_and_whoever_finds_none_waits_only_for_a_moment() {
        let supply = Supply::start().unwrap();
        let relieved = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = std::rc::Rc::clone(&relieved);
        shortage::relieve_by(move || {
            count.set(count.get() + 1);
            true
        });
        supply.short.store(true, Relaxed);
        assert!(supply.take(false).await.is_err(), "there is nobody to ask");
        assert_eq!(relieved.get(), 1, "what was lost for want of files has room made for it, once");
        supply.ask_of(giver(MOST_FILES));
        let mut taken = Vec::new();
        for _ in 0..3 * STOCK {
            taken.push(supply.take(false).await.unwrap());
        }
        assert!(supply.shelves[1].take().0.is_none(), "nobody wants the other family");
        drop(taken);
        supply.ask_of(giver(0));
        let mut got = 0;
        while supply.take(false).await.is_ok() {
            got += 1;
        }
        assert!(got <= STOCK + MOST_FILES, "what was there, and what was under way");
        supply.ask_of(giver(1));
        supply.take(true).await.unwrap();
    }
}
