//! One request of an HTTP/2 connection.

use std::{future::poll_fn, sync::Arc, task::Poll};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::request::Parts;

use super::{fields, load::Active, side::H2};
use crate::{
    front::{Door, report::Over},
    http::{Client, Decision, From, Intent, Job, Lines, Outcome, Report, Side, decide, serve as pass},
    io::{Deadline, Out},
    log::{Asked, Stopwatch},
    model::{Page, Service},
    server::{Connection, Pool, Slot, now},
    state::{By, Refusal},
    tcp::{Ended, Party, Times, relay},
    wire::{Answer, Fault, Framing, Method, Request},
};

/// Serves a request, which is one of those under way until it ends.
pub(super) async fn serve(
    door: Door,
    client: Arc<Client>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    active: Active,
) {
    let _counted = door.crowd.serve();
    let service = Arc::clone(&door.entry.service());
    let trusted = service.trusts(client.ip());
    let client = if trusted == client.trusted {
        client
    } else {
        Arc::new(Client { trusted, ..Client::clone(&client) })
    };
    let (mut parts, body) = request.into_parts();
    let ended = body.is_end_stream();
    let mut stream = Stream {
        door: &door,
        service: &service,
        client: &client,
        side: H2::new(body, ended, respond, Arc::clone(active.load())),
        deadline: Deadline::default(),
        times: Stopwatch::start(),
    };
    stream.request(&mut parts, ended).await;
}

/// What serves it. Its methods take it as it lies: it is large, and whatever takes it by value moves it.
struct Stream<'a> {
    door: &'a Door,
    service: &'a Service,
    client: &'a Client,
    side: H2,
    deadline: Deadline,
    times: Stopwatch,
}

impl Stream<'_> {
    async fn request(&mut self, parts: &mut Parts, ended: bool) {
        let (service, client) = (self.service, self.client);
        let counters = service.state.counters(self.door.worker);
        self.side.is_head = parts.method == http::Method::HEAD;
        let mut head = Request::default();
        let read = fields::read(parts, &mut head, &service.head);
        let malformed = read.is_err().then(|| fields::malformed(parts).map(ToOwned::to_owned)).flatten();
        // They are in the head by now. What is not held twice is not held a hundred times on a connection.
        parts.headers = http::HeaderMap::new();
        let understood = read.and_then(|()| fields::understand(parts, &head, client.secure, ended));
        let intent = match understood {
            Ok(intent) => intent,
            Err(fault) => {
                counters.refused(match fault {
                    Fault::HeadTooLarge | Fault::TargetTooLong => Refusal::Size,
                    _ => Refusal::Malformed,
                });
                if fault == Fault::Field {
                    self.side.refuse();
                    let report = Report { ended: *b"PR", ..Report::of_none(self.times) };
                    // The client is told nothing of it: whoever looks into it has the log.
                    let (door, pool, report, status) = (self.door, None, &report, fault.status());
                    let (request, malformed) = (Some(fields::asked(parts)), malformed.as_deref());
                    return Over { door, service, client, request, malformed, pool, report, status, sent: 0 }
                        .tell();
                }
                // A client may take its time for the answer.
                drop((std::mem::take(&mut parts.uri), head));
                return Box::pin(self.own(None, &service.pages.get(fault.status()), *b"PR")).await;
            }
        };
        self.side.is_tunnel = intent.upgrade.is_some();
        self.side.is_connect = intent.method == Method::Connect;
        if intent.upgrade.is_some_and(|protocol| !protocol.eq_ignore_ascii_case(b"websocket")) {
            // RFC 9220 §3: nothing is known of what it would be towards a server.
            return Box::pin(self.own(Some(&intent), &service.pages.get(501), *b"PR")).await;
        }
        if !service.state.clients.may_ask(client.ip(), &service.limits, now()) {
            counters.refused(Refusal::Rate);
            return Box::pin(self.own(Some(&intent), &service.pages.get(429), *b"PR")).await;
        }
        match decide(service, client, &intent) {
            Decision::Page(page) => {
                if page.status == 413 {
                    counters.refused(Refusal::Size);
                }
                Box::pin(self.own(Some(&intent), &page, *b"LR")).await;
            }
            Decision::Pool(pool) => self.pass(pool, &intent).await,
        }
    }

    /// Passes the request to a server.
    async fn pass(&mut self, pool: &Pool, intent: &Intent<'_>) {
        // What was taken back as soon as it was asked for costs no server anything ("rapid reset").
        let is_gone = poll_fn(|context| Poll::Ready(self.side.poll_idle(context).is_ready())).await;
        let mut report = if is_gone {
            Report { ended: *b"CC", ..Report::of_none(self.times) }
        } else {
            pass(Job {
                side: &mut self.side,
                intent,
                client: self.client,
                service: self.service,
                pool,
                worker: self.door.worker,
                answer: &mut Answer::default(),
                deadline: &mut self.deadline,
                times: self.times,
            })
            .await
        };
        let counters = self.service.state.counters(self.door.worker);
        counters.retried(u64::from(report.retries));
        match std::mem::replace(&mut report.outcome, Outcome::Gone) {
            Outcome::Answered { .. } => {
                let first = report.times.answered.map_or_else(Default::default, |at| at - self.times.start);
                counters.first.add(first);
            }
            Outcome::Switched(reached) => {
                counters.request(report.told.status, false);
                return Box::pin(self.tunnel(pool, intent, report, *reached)).await;
            }
            Outcome::Status(status) => {
                if status == 413 {
                    counters.refused(Refusal::Size);
                }
                let page = self.service.pages.get(status);
                return Box::pin(self.told(Some(intent), &page, &report, Some(pool))).await;
            }
            // For the whole connection that is counted once.
            Outcome::Broken | Outcome::Gone if self.client.guest.is_killed() => {}
            Outcome::Broken => {
                counters.broke(By::of(report.ended));
                self.side.reset();
            }
            Outcome::Gone => counters.broke(By::Client),
        }
        counters.request(report.told.status, false);
        counters.whole.add(self.times.start.elapsed());
        self.tell(Some(intent), Some(pool), &report, report.told.status);
    }

    /// Answers ourselves.
    async fn own(&mut self, intent: Option<&Intent<'_>>, page: &Page, ended: [u8; 2]) {
        let report = Report { ended, ..Report::of_none(self.times) };
        self.told(intent, page, &report, None).await;
    }

    async fn told(&mut self, intent: Option<&Intent<'_>>, page: &Page, report: &Report, pool: Option<&Pool>) {
        let lines = Lines {
            from: From::Page(page),
            service: self.service,
            client: self.client,
            intent,
            set_cookie: None,
            server: None,
        };
        let has_body = !page.body.is_empty() && !matches!(page.status, 204 | 304);
        (self.side.is_tunnel, self.side.is_connect) = (false, false);
        self.side
            .head(&lines, if has_body { Framing::Length(page.body.len() as u64) } else { Framing::None });
        if has_body {
            self.side.data(page.body.clone());
            self.side.end(None);
        }
        let flushing = poll_fn(|context| {
            // What it has to say is of no interest, that it has gone is seen below.
            let _ = self.side.poll_idle(context);
            self.side.poll_flush(context)
        });
        let flushed = tokio::time::timeout(self.service.timeouts.client_write.get(), flushing).await;
        if flushed.is_err() {
            self.side.reset();
        }
        self.service.state.counters(self.door.worker).request(page.status, true);
        self.tell(intent, pool, report, page.status);
    }

    /// Passes on what another protocol says (RFC 8441, towards a server that speaks HTTP/1.1).
    async fn tunnel(
        &mut self,
        pool: &Pool,
        intent: &Intent<'_>,
        report: Report,
        (connection, slot): (Connection, Slot),
    ) {
        let Stream { door, service, client, .. } = *self;
        let counters = service.state.counters(door.worker);
        counters.tunnel();
        let Some(channel) = self.side.take_channel() else { return drop(slot) };
        let mut client_side = Party { stream: channel, input: BytesMut::new(), output: Out::default() };
        let mut server_side =
            Party { stream: connection.stream, input: connection.input, output: connection.output };
        let times = Times { idle: service.timeouts.tunnel.get(), until: None };
        let halted = pool.servers[report.server.unwrap_or_default()].live.until_halted(door.worker);
        let told = client.guest.told(halted);
        let (ended, passed) =
            relay(&mut client_side, &mut server_side, times, told, &mut self.deadline).await;
        drop(slot);
        let killed = client.guest.is_killed();
        if passed.reset || killed {
            server_side.stream.break_off();
        }
        let ended = if killed { Ended::Told } else { ended };
        let mut report = Report { ended: ended.letters(), ..report };
        report.told.received += passed.up;
        let status = report.told.status;
        Over {
            door,
            service,
            client,
            request: Some(Asked::of(intent)),
            malformed: None,
            pool: Some(pool),
            report: &report,
            status,
            sent: passed.down,
        }
        .tell();
    }

    fn tell(&self, intent: Option<&Intent<'_>>, pool: Option<&Pool>, report: &Report, status: u16) {
        let (door, service, client) = (self.door, self.service, self.client);
        let (request, sent) = (intent.map(Asked::of), self.side.written());
        Over { door, service, client, request, malformed: None, pool, report, status, sent }.tell();
    }
}
