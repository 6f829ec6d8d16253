//! Tells the service manager how things are, by the protocol of systemd (sd_notify(3)): a datagram to the socket that it
//! names in the environment. Without one, nothing is told.

use std::{
    convert::Infallible,
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::atomic::{AtomicU8, Ordering::SeqCst},
    time::Duration,
};

use tracing::warn;

/// Who is told.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    /// Who has come round since it was told, a bit for each.
    came_round: AtomicU8,
}

/// The threads without which nothing works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    /// That of the loop that decides and writes.
    Loop,
    /// That of everybody else: health checks, the network, commands.
    Others,
}

/// All of [`Worker`].
const ALL: u8 = 1 << Worker::Loop as u8 | 1 << Worker::Others as u8;

impl Manager {
    /// The one that the environment names, if it names one.
    #[must_use]
    pub fn of_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&time| ours && time > 0).map(Duration::from_micros);
        match connect(&address) {
            Ok(socket) => Self { socket: Some(socket), watchdog, ..Self::default() },
            Err(error) => {
                warn!("cannot tell the service manager anything: NOTIFY_SOCKET {address:?}: {error}");
                Self::default()
            }
        }
    }

    /// How often it wants to be told that we are alive, if at all: twice as often as it asks for.
    #[must_use]
    pub fn beat(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// We serve. Also a line for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// We are going to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// A thread has come round. It is told when all of [`Worker`] have since it was told last: one that hangs is as bad as
    /// all.
    pub fn alive(&self, worker: Worker) {
        let bit = 1 << worker as u8;
        let others = self.came_round.fetch_or(bit, SeqCst);
        if others | bit == ALL {
            self.came_round.store(0, SeqCst);
            self.tell("WATCHDOG=1");
        }
    }

    /// Says of a thread that it comes round, for as long as it is polled there.
    pub async fn watch(&self, worker: Worker) -> Infallible {
        let Some(beat) = self.beat() else { return std::future::pending().await };
        loop {
            self.alive(worker);
            tokio::time::sleep(beat).await;
        }
    }

    fn tell(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        // A manager that does not listen is no reason to wait, or to end.
        let _ = socket.send(text.as_bytes());
    }
}

/// A socket in the file system, or an abstract one, whose name begins with `@`.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(address)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("lb-notify-test-{}", process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (listener, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
        ] {
            let manager = Manager {
                socket: Some(connect(&address).unwrap()),
                watchdog: Some(Duration::from_secs(30)),
                ..Manager::default()
            };
            manager.ready("3 VIPs");
            manager.alive(Worker::Loop);
            manager.alive(Worker::Loop);
            manager.alive(Worker::Others);
            // The loop hangs.
            manager.alive(Worker::Others);
            manager.stopping();
            let mut told = Vec::new();
            let mut bytes = [0; 64];
            for _ in 0..3 {
                let length = listener.recv(&mut bytes).unwrap();
                told.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
            assert_eq!(told, ["READY=1\nSTATUS=3 VIPs", "WATCHDOG=1", "STOPPING=1"]);
            assert_eq!(manager.beat(), Some(Duration::from_secs(15)));
        }
        assert!(connect(OsStr::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        let nobody = Manager::default();
        nobody.ready("");
        assert_eq!(nobody.beat(), None);
    }
}
