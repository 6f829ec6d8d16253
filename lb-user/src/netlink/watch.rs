//! Notices when interfaces, addresses, routes or neighbours change.
//!
//! Notices say what kind of thing changed, not how: whoever gets one looks for itself. A burst of changes
//! makes one notice. When the kernel had to drop messages the notice says that everything may have changed.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use rtnetlink::{MulticastGroup, packet_core::NetlinkPayload, packet_route::RouteNetlinkMessage};
use tokio::{sync::Notify, task::AbortHandle, time::sleep};
use tracing::warn;

use super::Error;

/// Changes within this time after the first one belong to the same notice.
const GATHER: Duration = Duration::from_millis(50);

/// Pause before a broken netlink socket is opened anew.
const REOPEN: Duration = Duration::from_secs(1);

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// What changed since the last notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Interfaces: came, went, switched on or off, another program on them.
    pub links: bool,
    /// Addresses of this host.
    pub addresses: bool,
    /// Routes, rules that choose among routing tables, or next-hop objects.
    pub routes: bool,
    /// MACs of neighbours, or how sure the kernel is of them.
    pub neighbours: bool,
}

impl Changed {
    const ALL: Self = Self { links: true, addresses: true, routes: true, neighbours: true };
    const NOTHING: Self = Self { links: false, addresses: false, routes: false, neighbours: false };

    /// Whether addresses of this host may have come or gone.
    #[must_use]
    pub fn concerns_addresses(self) -> bool {
        self.addresses || self.links
    }

    fn add(&mut self, message: &NetlinkPayload<RouteNetlinkMessage>) {
        use RouteNetlinkMessage as Message;
        match message {
            NetlinkPayload::InnerMessage(message) => match message {
                Message::NewLink(_) | Message::DelLink(_) => self.links = true,
                Message::NewAddress(_) | Message::DelAddress(_) => self.addresses = true,
                Message::NewNeighbour(_) | Message::DelNeighbour(_) => self.neighbours = true,
                _ => self.routes = true,
            },
            NetlinkPayload::Overrun(_) => *self = Self::ALL,
            _ => {}
        }
    }
}

#[derive(Default)]
struct Shared {
    changed: Mutex<Changed>,
    notify: Notify,
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Changed)) {
        change(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }

    fn take(&self) -> Changed {
        mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A subscription to the kernel's notices. Dropping it ends it.
pub struct Watch {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Subscribes, from within a tokio runtime. Changes from now on are noticed.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn start() -> Result<Self, Error> {
        let mut feed = Feed::open()?;
        let shared = Arc::new(Shared::default());
        let sink = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                feed.forward(&sink).await;
                warn!("the netlink socket for notices broke; opening it anew");
                feed = loop {
                    sleep(REOPEN).await;
                    match Feed::open() {
                        Ok(feed) => break feed,
                        Err(error) => warn!("{error}; trying again"),
                    }
                };
                sink.update(|changed| *changed = Changed::ALL);
            }
        });
        Ok(Self { shared, task: task.abort_handle() })
    }

    /// Waits for the next change and a moment longer, then says what changed. Dropping the future loses
    /// nothing.
    pub async fn changed(&mut self) -> Changed {
        loop {
            self.shared.notify.notified().await;
            let guard = Renotify(&self.shared.notify);
            sleep(GATHER).await;
            mem::forget(guard);
            let changed = self.shared.take();
            if changed != Changed::NOTHING {
                return changed;
            }
        }
    }
}

/// Gives back the wake-up of a wait that was given up half-way.
struct Renotify<'a>(&'a Notify);

impl Drop for Renotify<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

type Messages = futures_util::stream::BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>;

/// One netlink socket with its messages.
struct Feed {
    messages: Messages,
    connection: AbortHandle,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Feed {
    fn open() -> Result<Self, Error> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&GROUPS)
            .map_err(|error| Error::new("cannot subscribe to netlink notices", error))?;
        Ok(Self {
            messages: messages.map(|(message, _)| message.payload).boxed(),
            connection: tokio::spawn(connection).abort_handle(),
        })
    }

    /// Passes on changes until the socket breaks.
    async fn forward(&mut self, sink: &Shared) {
        while let Some(message) = self.messages.next().await {
            sink.update(|changed| changed.add(&message));
        }
    }
}
