//! A client's connection of HTTP/1.x, from its first request to its last.

mod h1;
mod side;

use std::sync::Arc;

use bytes::BytesMut;
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use self::h1::{Came, H1};
use super::{Closing, Door, report::Over};
use crate::{
    http::{Client, Decision, From, Intent, Job, Lines, Outcome, Report, decide, serve as pass},
    io::{Deadline, LINGERING, Stream},
    log::{Asked, Stopwatch},
    model::{Page, Service},
    server::{Connection, Pool, Slot, now},
    state::{By, Refusal},
    tcp::{Ended, Party, Times, relay},
    wire::{Answer, Body, Fault, Framing, Method, Request, Version},
};

/// A rest of a request's body that is read and thrown away after an answer of our own, so that the connection
/// can go on.
const MOST_SKIPPED: u64 = 64 * 1024;

/// Requests that came together and are dealt with before those of others have their turn.
const AT_ONCE: u32 = 8;

/// What happens with the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next request.
    Request,
    /// It ends, with the answer safely delivered.
    Close,
    /// It ends without another word: nothing is under way.
    End,
    /// It ends at once: the client has gone, or must be shown that the answer is not whole.
    Drop,
}

/// A connection and what it keeps from one request to the next.
struct Session {
    door: Door,
    service: Arc<Service>,
    client: Client,
    h1: H1,
    answer: Answer,
    deadline: Deadline,
    until: Option<Instant>,
    /// The request that is under way, of which nothing was told yet; and the bytes that were written before it.
    under_way: Option<(Stopwatch, u64)>,
}

impl Drop for Session {
    /// An operator may end it at any moment: then the client must not take what it got for the whole. What was passed to a
    /// server has been told by then.
    fn drop(&mut self) {
        if !self.client.guest.is_killed() {
            return;
        }
        self.h1.stream.break_off();
        if let Some((times, before)) = self.under_way {
            let report = Report { ended: *b"KD", ..Report::of_none(times) };
            self.log(None, None, &report, 0, before);
        }
    }
}

/// Serves a connection until it ends. `input` is what was read of it already.
pub(super) async fn serve(
    door: Door,
    service: Arc<Service>,
    stream: Stream,
    input: BytesMut,
    client: Client,
) {
    let until = service.timeouts.lifetime.map(|lifetime| Instant::now() + lifetime.get());
    let mut closing = door.entry.closing();
    let h1 = H1::new(stream, input, Arc::clone(&door.entry));
    let mut session = Session {
        door,
        service,
        client,
        h1,
        answer: Answer::default(),
        deadline: Deadline::default(),
        until,
        under_way: None,
    };
    let mut request = Request::default();
    let mut served = 0_u32;
    let next = loop {
        let came = {
            let Session { h1, service, deadline, .. } = &mut session;
            let more = h1.has_more();
            let first = service.timeouts.request_header.get();
            let head = h1.read_head(&mut request, service, deadline);
            tokio::select! {
                biased;
                came = head => came,
                // A client that has begun a request gets its answer, and one that has just come may begin one.
                () = async {
                    let _ = closing.wait_for(|closing| *closing == Closing::Soon).await;
                    if served == 0 {
                        sleep(first).await;
                    }
                }, if !more => Came::Closing,
            }
        };
        if came == Came::Closing && session.h1.has_more() {
            continue;
        }
        session.refresh();
        served += 1;
        match session.request(&request, came, served).await {
            Next::Request => {}
            next => break next,
        }
        // What is answered without a server never waits for anything.
        if served.is_multiple_of(AT_ONCE) && session.h1.has_more() {
            yield_now().await;
        }
    };
    match next {
        Next::Close => session.h1.close().await,
        Next::End => session.h1.shut().await,
        Next::Request | Next::Drop => {}
    }
}

impl Session {
    /// Follows a change of the service.
    fn refresh(&mut self) {
        let current = self.door.entry.service();
        if !Arc::ptr_eq(&current, &self.service) {
            self.service = Arc::clone(&current);
            self.client.trusted = self.service.trusts(self.client.ip());
        }
    }

    /// One request.
    async fn request(&mut self, request: &Request, came: Came, served: u32) -> Next {
        let service = Arc::clone(&self.service);
        let counters = service.state.counters(self.door.worker);
        let times = Stopwatch::start();
        self.under_way = Some((times, self.h1.output.total()));
        // Whatever comes of it, HTTP/1.1 is what a malformed request is answered with.
        self.h1.body = Body::Done;
        self.h1.keeps = false;
        self.h1.version = Version::V1_1;
        self.h1.method = if came == Came::Head { request.method } else { Method::Get };
        let understood = match came {
            Came::Nothing | Came::Closing => {
                self.under_way = None;
                return Next::End;
            }
            Came::Slow => {
                counters.refused(Refusal::Slow);
                return Box::pin(self.own(None, &service.pages.get(408), times, *b"cR")).await;
            }
            Came::Fault(fault) => Err(fault),
            Came::Head => Intent::of(request, self.client.secure),
        };
        let intent = match understood {
            Ok(intent) => intent,
            Err(fault) => {
                counters.refused(if fault == Fault::HeadTooLarge || fault == Fault::TargetTooLong {
                    Refusal::Size
                } else {
                    Refusal::Malformed
                });
                if fault == Fault::Protocol && served == 1 && service.h2c && !self.client.secure {
                    // Who may begin in HTTP/2 and begins in neither of both would not know either's answer (RFC 9113 §3.4).
                    let before = self.h1.output.total();
                    self.log(None, None, &Report { ended: *b"PR", ..Report::of_none(times) }, 0, before);
                    return Next::Close;
                }
                return Box::pin(self.own(None, &service.pages.get(fault.status()), times, *b"PR")).await;
            }
        };
        let h1 = &mut self.h1;
        h1.body = Body::from(intent.framing);
        h1.continued = !intent.waits;
        h1.version = intent.version;
        h1.keeps = intent.keeps
            && !self.door.entry.is_closing()
            && service.limits.requests_per_connection.is_none_or(|most| served < most)
            && self.until.is_none_or(|until| Instant::now() < until);
        if !service.state.clients.may_ask(self.client.ip(), &service.limits, now()) {
            counters.refused(Refusal::Rate);
            return Box::pin(self.own(Some(&intent), &service.pages.get(429), times, *b"PR")).await;
        }
        match decide(&service, &self.client, &intent) {
            Decision::Page(page) => {
                if page.status == 413 {
                    counters.refused(Refusal::Size);
                }
                Box::pin(self.own(Some(&intent), &page, times, *b"LR")).await
            }
            Decision::Pool(pool) => self.pass(&service, pool, &intent, times).await,
        }
    }

    /// Passes a request to a server.
    async fn pass(&mut self, service: &Service, pool: &Pool, intent: &Intent<'_>, times: Stopwatch) -> Next {
        let before = self.h1.output.total();
        let mut report = pass(Job {
            side: &mut self.h1,
            intent,
            client: &self.client,
            service,
            pool,
            worker: self.door.worker,
            answer: &mut self.answer,
            deadline: &mut self.deadline,
            times,
        })
        .await;
        let counters = service.state.counters(self.door.worker);
        counters.retried(u64::from(report.retries));
        let outcome = std::mem::replace(&mut report.outcome, Outcome::Gone);
        let (status, next) = match outcome {
            Outcome::Answered { request_done } => {
                counters
                    .first
                    .add(report.times.answered.map_or_else(Default::default, |at| at - times.start));
                let keeps = self.h1.keeps && request_done;
                (report.told.status, if keeps { Next::Request } else { Next::Close })
            }
            Outcome::Switched(reached) => {
                counters.request(report.told.status, false);
                return Box::pin(self.tunnel(service, pool, intent, report, *reached)).await;
            }
            Outcome::Status(status) => {
                if status == 413 {
                    counters.refused(Refusal::Size);
                }
                // The connection to the server is gone, and with it what it got of the body; and who did not
                // send it in time is not waited for again (RFC 9110 §15.5.9).
                self.h1.keeps &= status != 408 && (self.h1.body.is_done() || report.told.received == 0);
                let page = service.pages.get(status);
                return Box::pin(self.told(Some(intent), &page, &report, Some(pool))).await;
            }
            Outcome::Broken | Outcome::Gone => {
                let by = By::of(report.ended);
                // An operator ends the whole connection: that is counted once.
                if !self.client.guest.is_killed() {
                    counters.broke(by);
                }
                if by == By::Server {
                    // The client is shown how far it came.
                    let _ = self.h1.flush(LINGERING, &mut self.deadline).await;
                }
                self.h1.break_off();
                (report.told.status, Next::Drop)
            }
        };
        counters.request(status, false);
        counters.whole.add(times.start.elapsed());
        self.log(Some(intent), Some(pool), &report, status, before);
        next
    }

    /// Answers a request ourselves.
    async fn own(
        &mut self,
        intent: Option<&Intent<'_>>,
        page: &Page,
        times: Stopwatch,
        ended: [u8; 2],
    ) -> Next {
        let report = Report { ended, ..Report::of_none(times) };
        self.told(intent, page, &report, None).await
    }

    async fn told(
        &mut self,
        intent: Option<&Intent<'_>>,
        page: &Page,
        report: &Report,
        pool: Option<&Pool>,
    ) -> Next {
        let service = Arc::clone(&self.service);
        let before = self.h1.output.total();
        // A body that is short, or there already, is skipped; a client that waits for leave to send it, or
        // sends too much of it, is better told that the connection ends.
        if self.h1.keeps && !self.h1.body.is_done() {
            let waits = intent.is_some_and(|intent| intent.waits);
            let short = match intent.map(|intent| intent.framing) {
                Some(Framing::Length(length)) => length <= MOST_SKIPPED,
                _ => false,
            };
            self.h1.keeps = short && !waits && page.status != 413;
        }
        let lines = Lines {
            from: From::Page(page),
            service: &service,
            client: &self.client,
            intent,
            set_cookie: None,
            server: None,
        };
        self.h1.put_page(&lines, &page.body);
        let flushed = self.h1.flush(service.timeouts.client_write.get(), &mut self.deadline).await;
        let counters = service.state.counters(self.door.worker);
        counters.request(page.status, true);
        self.log(intent, pool, report, page.status, before);
        if flushed.is_err() {
            return Next::Drop;
        }
        if !self.h1.keeps {
            return Next::Close;
        }
        let timeout = service.timeouts.request_body.get();
        let skipped =
            self.h1.body.is_done() || self.h1.skip_body(MOST_SKIPPED, timeout, &mut self.deadline).await;
        if skipped { Next::Request } else { Next::Close }
    }

    /// Passes on what another protocol says (R33): nothing of it is looked at.
    async fn tunnel(
        &mut self,
        service: &Service,
        pool: &Pool,
        intent: &Intent<'_>,
        report: Report,
        (connection, slot): (Connection, Slot),
    ) -> Next {
        let counters = service.state.counters(self.door.worker);
        counters.tunnel();
        let index = report.server.unwrap_or_default();
        // What is held back by neither side: nothing of HTTP/1.1 is left in the client's connection.
        let taken = std::mem::take(&mut self.h1.output);
        let input = std::mem::take(&mut self.h1.input);
        let mut client = Party { stream: &mut self.h1.stream, input, output: taken };
        let mut server =
            Party { stream: connection.stream, input: connection.input, output: connection.output };
        let times = Times { idle: service.timeouts.tunnel.get(), until: self.until };
        let told = self.client.guest.told(pool.servers[index].live.until_halted(self.door.worker));
        let (ended, passed) = relay(&mut client, &mut server, times, told, &mut self.deadline).await;
        drop(slot);
        if passed.reset || self.client.guest.is_killed() {
            client.stream.break_off();
            server.stream.break_off();
        }
        let mut report = Report { ended: ended.letters(), ..report };
        report.told.received += passed.up;
        let status = report.told.status;
        let (door, client) = (&self.door, &self.client);
        let (request, pool, sent) = (Some(Asked::of(intent)), Some(pool), passed.down);
        Over { door, service, client, request, malformed: None, pool, report: &report, status, sent }.tell();
        self.under_way = None;
        // Where the server had no more to say, the client may still be speaking: what it was told last is to arrive.
        if ended == Ended::Both { Next::Close } else { Next::Drop }
    }

    fn log(
        &mut self,
        intent: Option<&Intent<'_>>,
        pool: Option<&Pool>,
        report: &Report,
        status: u16,
        before: u64,
    ) {
        self.under_way = None;
        // A tunnel has taken the output: what it sent is then not known here.
        let sent = self.h1.output.total().saturating_sub(before);
        let (door, service, client) = (&self.door, &*self.service, &self.client);
        let request = intent.map(Asked::of);
        Over { door, service, client, request, malformed: None, pool, report, status, sent }.tell();
    }
}
