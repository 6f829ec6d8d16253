//! Talks to the kernel about addresses, routes, neighbours and interfaces (rtnetlink, RFC 3549). The
//! only room that does; attaching XDP programs is left to [`crate::datapath`].
//!
//! A [`Netlink`] belongs to the network namespace of the thread that opened it.

pub mod addresses;
pub mod links;
pub mod routes;
pub mod rules;
pub mod sysctl;
pub mod watch;

use std::{fmt, io, time::Duration};

use futures_util::{StreamExt as _, stream};
use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
};
use tokio::{task::AbortHandle, time::timeout};

/// The kernel answers in microseconds; only an answer that could not be decoded takes this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions that are put to the kernel before the first is answered. All answers fit into the smallest buffer that sockets
/// have by default.
const AT_ONCE: usize = 64;

/// Has many questions asked. One after the other, each would wait for everything else that this thread does.
pub async fn ask_all<Q, A>(questions: impl IntoIterator<Item = Q>, ask: impl AsyncFn(Q) -> A) -> Vec<A> {
    stream::iter(questions).map(|question| ask(question)).buffer_unordered(AT_ONCE).collect().await
}

/// Something the kernel refused, or an answer it did not give.
#[derive(Debug)]
pub struct Error {
    attempt: String,
    cause: io::Error,
}

impl Error {
    fn new(attempt: impl Into<String>, cause: io::Error) -> Self {
        Self { attempt: attempt.into(), cause }
    }

    /// The kernel's `errno`, where it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.cause.raw_os_error()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.attempt, self.cause)?;
        if self.errno() == Some(errno::EPERM) {
            f.write_str("; it takes root or the capability CAP_NET_ADMIN")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// `errno` values that rtnetlink answers carry; the same on all Linux machines.
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const ESRCH: i32 = 3;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ERANGE: i32 = 34;
    pub(super) const EOPNOTSUPP: i32 = 95;
    pub(super) const EAFNOSUPPORT: i32 = 97;
    pub(super) const EADDRNOTAVAIL: i32 = 99;
    pub(super) const ENETUNREACH: i32 = 101;
    pub(super) const EHOSTUNREACH: i32 = 113;
}

/// An open netlink socket and the task that serves it. Dropping it ends both.
#[derive(Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    connection: AbortHandle,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Opens a netlink socket, from within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| Error::new("cannot open a netlink socket", error))?;
        Ok(Self { handle, connection: tokio::spawn(connection).abort_handle() })
    }

    /// Sends a request and collects what the kernel answers until it is done.
    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.handle.clone().request(message).map_err(io::Error::other)?;
        let collect = async {
            let mut messages = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => messages.push(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::other("the kernel's answer was lost on the way"));
                    }
                    _ => {}
                }
            }
            Ok(messages)
        };
        match timeout(PATIENCE, collect).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::other(format!("no answer from the kernel within {PATIENCE:?}"))),
        }
    }
}
