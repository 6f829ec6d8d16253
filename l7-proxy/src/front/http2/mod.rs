//! A client's connection of HTTP/2 (RFC 9113): each stream is a request like any other, in a task of its own.
//! Frames, flow control and header compression are the h2 crate's, within limits that a client cannot exceed
//! without losing its connection.

mod block;
mod fields;
mod frame;
mod guard;
mod load;
mod side;
mod stream;

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use h2::{
    Reason,
    server::{Builder, Connection},
};
use tokio::time::{Instant, sleep};

use self::{
    guard::Guard,
    load::{Active, Load},
};
use super::{Closing, Door, Guest};
use crate::{
    http::Client,
    io::{Deadline, Gather, Stream, WriteOut},
    model::Service,
    state::Refusal,
};

/// How long a connection stays at least that was ended for abuse: it counts against the client's limits, and the client does
/// not come back at once.
const PENALTY: Duration = Duration::from_secs(1);

/// How often `client_write` may pass for what answers have left to be written, however little goes out at a time.
const MOST_PERIODS: u32 = 10;

/// How long a client may take to hear that its connection ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves a connection until it ends. `input` is what was read of it already.
pub(super) async fn serve(
    door: Door,
    service: Arc<Service>,
    stream: Stream,
    input: BytesMut,
    client: Client,
) {
    let counters = service.state.counters(door.worker);
    let (most_fields, most_bytes) = (service.limits.header_count as usize, service.head.bytes);
    let guard = Guard::new(service.limits.http2.control_frames, most_fields, most_bytes);
    let (stream, out) = Gather::new(stream, input, guard);
    out.keep_open();
    let _cut = Cut { out: &out, guest: Arc::clone(&client.guest) };
    let handshake = builder(&service).handshake::<_, Bytes>(stream);
    let connection = match tokio::time::timeout(service.timeouts.request_header.get(), handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return counters.refused(Refusal::Malformed),
        Err(_) => return counters.refused(Refusal::Slow),
    };
    let session = Session {
        client: Arc::new(client),
        until: service.timeouts.lifetime.map(|lifetime| Instant::now() + lifetime.get()),
        load: Arc::new(Load::new(&service.limits.http2)),
        door,
    };
    let is_abuse = match session.run(connection, &out, &service).await {
        Ok(ended) => ended == Some(Reason::ENHANCE_YOUR_CALM),
        // Only what we have ended for good reason is the client's abuse; the rest is how connections end.
        Err(error) if error.is_remote() || error.is_io() => false,
        Err(error) => {
            let is_abuse = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
            counters.refused(if is_abuse { Refusal::Http2 } else { Refusal::Malformed });
            is_abuse
        }
    };
    if is_abuse {
        sleep(session.penalty()).await;
    }
    let mut left = service.limits.http2.connection_window as usize;
    let ended = tokio::time::timeout(GOODBYE, poll_fn(|context| out.poll_end(context))).await;
    if !matches!(ended, Ok(Ok(()))) || session.client.guest.is_killed() {
        return;
    }
    // A client that still says that it goes on reading has not got all yet. For abuse nobody has that time.
    let most = if is_abuse { GOODBYE } else { service.timeouts.client_write.get() };
    let until = Instant::now() + most;
    while Instant::now() < until {
        let rest = poll_fn(|context| out.poll_rest(&mut left, context));
        if !matches!(tokio::time::timeout(GOODBYE, rest).await, Ok(true)) {
            return;
        }
    }
}

/// What a client may do (trap 9).
fn builder(service: &Service) -> Builder {
    let limits = &service.limits.http2;
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        // By the 256 bytes as which the h2 crate counts each tiny frame that waits, or comes for a stream that has ended.
        .data_frame_budget(4 * limits.connection_window as usize)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(service.limits.header_bytes)
        .max_send_buffer_size(limits.send_buffer as usize)
        .max_pending_accept_reset_streams(limits.pending_resets as usize)
        .max_local_error_reset_streams(Some(limits.own_resets as usize))
        .max_concurrent_reset_streams(limits.pending_resets as usize)
        .reset_stream_duration(Duration::from_secs(5))
        .enable_connect_protocol();
    builder
}

/// An operator may end a connection at any moment: then the client must not take what it got for the whole.
struct Cut<'a> {
    out: &'a WriteOut<Stream, Guard>,
    guest: Arc<Guest>,
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if self.guest.is_killed() {
            self.out.break_off();
        }
    }
}

/// What is written out at the end.
#[derive(Default)]
struct Rest {
    begun: Option<Instant>,
    written: Option<(u64, Instant)>,
}

impl Rest {
    /// How long as much has been written as is now, and how long it has been looked at.
    fn since(&mut self, written: u64) -> (Duration, Duration) {
        let now = Instant::now();
        let same = self.written.filter(|&(before, _)| before == written);
        let (_, since) = *self.written.insert(same.unwrap_or((written, now)));
        (now - since, now - *self.begun.get_or_insert(now))
    }
}

/// A connection.
struct Session {
    door: Door,
    client: Arc<Client>,
    until: Option<Instant>,
    load: Arc<Load>,
}

impl Session {
    /// How long a connection stays that was ended for abuse: up to twice as long as it has to, so that a crowd of them does not
    /// come back together.
    fn penalty(&self) -> Duration {
        PENALTY + PENALTY * u32::from(self.client.ends.client.port() % 64) / 64
    }

    /// Gives the reason for which it was ended, if it was.
    async fn run(
        &self,
        mut connection: Connection<Gather<Stream, Guard>, Bytes>,
        out: &WriteOut<Stream, Guard>,
        service: &Service,
    ) -> Result<Option<Reason>, h2::Error> {
        let mut closing = self.door.entry.closing();
        let idle = service.timeouts.client_idle.get();
        let mut deadline = Deadline::default();
        deadline.set(idle);
        let counters = service.state.counters(self.door.worker);
        let windows = self.load.windows();
        let (mut served, mut ending, mut was_behind) = (0_u32, false, false);
        let mut rest = Rest::default();
        let (mut cut, mut is_told, mut is_late) = (None, false, false);
        loop {
            tokio::select! {
                biased;
                accepted = poll_fn(|context| {
                    let price = windows.price();
                    was_behind |= price.is_some();
                    if was_behind && cut.is_none() && out.put_behind(price) {
                        counters.put_behind();
                    }
                    let polled = connection.poll_accept(context);
                    let (opened, end) = out.ask(|guard| (guard.take_opened(), guard.take_end()));
                    windows.opened(opened);
                    // All that streams had to say by now goes out together.
                    let is_lost = polled.is_pending() && matches!(out.poll(context), Poll::Ready(Err(_)));
                    // Each stream costs a server work, and none is a request at last ("made you reset").
                    let is_costly = self.load.malformed() > service.limits.http2.own_resets;
                    let calm = is_costly.then_some(Reason::ENHANCE_YOUR_CALM);
                    if let (None, Some(reason)) = (cut, end.map(Reason::from).or(calm)) {
                        counters.refused(match reason {
                            Reason::ENHANCE_YOUR_CALM => Refusal::Http2,
                            _ => Refusal::Malformed,
                        });
                        connection.abrupt_shutdown(reason);
                        out.leave_behind();
                        cut = Some(reason);
                        return Poll::Ready(Some(Err(reason.into())));
                    }
                    if is_lost { Poll::Ready(None) } else { polled }
                }) => {
                    let Some(accepted) = accepted else { return Ok(cut) };
                    let (request, mut respond) = match accepted {
                        // That was counted. What the client is told it has to take soon.
                        Err(_) if cut.is_some() && !is_told => {
                            (ending, is_told) = (true, true);
                            deadline.set(GOODBYE);
                            continue;
                        }
                        Err(_) if cut.is_some() => return Ok(cut),
                        // What came before it was seen is dropped, and so reset.
                        Ok(_) if cut.is_some() => continue,
                        accepted => accepted?,
                    };
                    served = served.saturating_add(1);
                    let most = service.limits.http2.connection_window as usize;
                    // Who goes on asking long after it was told that this ends may ask elsewhere.
                    let active = if is_late { None } else { Active::enter(&self.load, &request, most) };
                    if let Some(active) = active {
                        let (door, client) = (self.door.clone(), Arc::clone(&self.client));
                        // Boxed where it is made: it is kilobytes, and whatever takes it by value moves them.
                        tokio::spawn(Box::pin(stream::serve(door, client, request, respond, active)));
                        if !ending {
                            deadline.set(idle);
                        }
                    } else {
                        // Nothing was done for it: the client may ask again.
                        respond.send_reset(Reason::REFUSED_STREAM);
                        counters.refused(Refusal::Http2);
                        out.ask(Guard::add_refused);
                    }
                    let full = service.limits.requests_per_connection.is_some_and(|most| served >= most)
                        || self.until.is_some_and(|until| Instant::now() >= until);
                    if full && !ending {
                        connection.graceful_shutdown();
                        ending = true;
                        deadline.set(GOODBYE);
                    }
                }
                _ = closing.wait_for(|closing| *closing > Closing::No), if !ending => {
                    connection.graceful_shutdown();
                    ending = true;
                    deadline.set(GOODBYE);
                }
                () = poll_fn(|context| deadline.poll(context)) => {
                    if cut.is_some() {
                        return Ok(cut);
                    }
                    // Streams have timers of their own: a connection is idle when it has none.
                    if self.load.streams() > 0 {
                        is_late = ending;
                        deadline.set(if ending { GOODBYE } else { idle });
                    } else if ending {
                        // What they have said may not have gone out yet.
                        let (stood, all) = rest.since(out.written());
                        let most = service.timeouts.client_write.get();
                        let is_out = !connection.has_streams() && out.is_empty();
                        if is_out || stood >= most || all >= MOST_PERIODS * most {
                            return Ok(cut);
                        }
                        is_late = true;
                        deadline.set(GOODBYE);
                    } else {
                        connection.graceful_shutdown();
                        ending = true;
                        deadline.set(GOODBYE);
                    }
                }
            }
        }
    }
}
