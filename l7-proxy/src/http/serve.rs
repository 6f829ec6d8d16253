//! Passes a request to a server of a pool: chooses one, writes the head, exchanges, and tries again where that
//! cannot do a thing twice (R14).

use std::{future::poll_fn, time::Instant};

use super::{
    Client, End, Exchange, Failure, Intent, Line, Side, Told, Try, Unreached, Which, find_cookie,
    over2::Over2, reach, write_request,
};
use crate::{
    io::{Deadline, Stream},
    log::Stopwatch,
    model::Service,
    server::{Connection, Pool, Slot, Way, Wish, hash, now},
    spec::{Algorithm, HashBy, Persistence},
    wire::{Answer, Framing},
};

/// A request that goes to a server.
#[derive(Debug)]
pub struct Job<'a, S> {
    /// The client's side.
    pub side: &'a mut S,
    /// What it asks for.
    pub intent: &'a Intent<'a>,
    /// The client.
    pub client: &'a Client,
    /// The service.
    pub service: &'a Service,
    /// Where it goes.
    pub pool: &'a Pool,
    /// Which worker serves it.
    pub worker: usize,
    /// Memory for the answer's head.
    pub answer: &'a mut Answer,
    /// The timer of the client's connection.
    pub deadline: &'a mut Deadline,
    /// When it began.
    pub times: Stopwatch,
}

/// What became of it.
#[derive(Debug)]
pub enum Outcome {
    /// It was answered; whether all of its body was read.
    Answered {
        /// Whether the next request may follow.
        request_done: bool,
    },
    /// The connection is another protocol's now.
    Switched(Box<(Connection, Slot)>),
    /// It is to be answered by ourselves with this status.
    Status(u16),
    /// The answer broke off: the client must be shown that.
    Broken,
    /// The client has gone.
    Gone,
}

/// What is told about it.
#[derive(Debug)]
pub struct Report {
    /// What became of it.
    pub outcome: Outcome,
    /// The server.
    pub server: Option<usize>,
    /// Servers that were tried in vain.
    pub retries: u8,
    /// What was seen.
    pub told: Told,
    /// When things happened.
    pub times: Stopwatch,
    /// Who ended it and when, as the log has it.
    pub ended: [u8; 2],
}

/// Passes a request to a server and its answer to the client.
pub async fn serve<S: Side>(job: Job<'_, S>) -> Report {
    let Job { side, intent, client, service, pool, worker, answer, deadline, times } = job;
    let mut report = Report {
        outcome: Outcome::Status(503),
        server: None,
        retries: 0,
        told: Told::default(),
        times,
        ended: *b"--",
    };
    let kept = service.state.server_of(service.persistence.as_ref(), &pool.name, client.ip(), now());
    let mut wish = Wish {
        cookie: service.cookie.as_ref().and_then(|cookie| find_cookie(intent.asked.fields, &cookie.name)),
        server: kept.and_then(|name| pool.servers.iter().position(|server| server.name == name)),
        hash: hash_of(pool, intent, client),
        tried: 0,
    };
    let mut way = Way {
        source: service.source,
        ends: &client.ends,
        timeout: service.timeouts.connect.get(),
        worker,
        http2: pool.http2,
    };
    // What cannot be sent again is not sent over a connection that may be about to end.
    let repeats = pool.retries.idempotent
        && intent.method.is_idempotent()
        && intent.framing == Framing::None
        && intent.upgrade.is_none();
    // There are no other upgrades in HTTP/2 (RFC 9113 §8.6): a server may disregard them (RFC 9110 §7.8), and does.
    let opens = intent.opens_websocket();
    let mut which = if repeats { Which::Any } else { Which::Sure };
    // Who tries again has waited for its place.
    let mut place = None;
    loop {
        let gone = poll_fn(|context| side.poll_idle(context));
        let first = Try { which, place };
        let reached = match reach(pool, service, &way, &mut wish, first, &client.guest, gone).await {
            Ok(reached) => reached,
            Err(unreached) => {
                report.ended = unreached.letters();
                if matches!(unreached, Unreached::Gone { .. }) {
                    report.outcome = Outcome::Gone;
                }
                return report.unless_killed(client);
            }
        };
        let (index, slot, mut line) = (reached.index, reached.slot, reached.line);
        let server = &pool.servers[index];
        // A server of HTTP/2 that opens no tunnels in it may do so in HTTP/1.1 (RFC 8441 §3).
        if let Line::Http2(leave) = &line
            && opens
            && !leave.requests.is_extended_connect_protocol_enabled()
        {
            way.http2 = false;
            place = Some((index, slot));
            continue;
        }
        client.guest.is_with(&server.live);
        report.server = Some(index);
        report.retries = report.retries.saturating_add(reached.tries);
        report.times.reached = Some(Instant::now());
        let is_named = wish.cookie.is_some_and(|cookie| pool.named_by(cookie) == Some(index));
        let cookie = service.cookie.as_ref().filter(|_| !is_named);
        let cookie = cookie.map(|line| (line, cookie_value(service, pool, wish.cookie, index)));
        let cookie = cookie.as_ref().map(|(line, value)| (*line, value.as_str()));
        let mut told = Told::default();
        let (end, was_used) = match &mut line {
            Line::Http1(connection) => {
                let was_used = connection.used > 0;
                let text = connection.output.text();
                write_request(text, intent, client, &service.edits, service.cookie.as_ref());
                let exchange = Exchange {
                    side: &mut *side,
                    connection,
                    live: &server.live,
                    worker,
                    answer: &mut *answer,
                    deadline: &mut *deadline,
                    service,
                    client,
                    intent,
                    cookie,
                    told: &mut told,
                };
                let end = exchange.run().await;
                // What the kernel still has of a request that is given up would wait for a server that takes nothing, for minutes.
                if !told.passed && end != End::Switched {
                    connection.stream.break_off();
                }
                (end, was_used)
            }
            Line::Http2(leave) => {
                let was_used = leave.was_used;
                let mut text = Vec::new();
                write_request(&mut text, intent, client, &service.edits, service.cookie.as_ref());
                let exchange = Over2 {
                    side: &mut *side,
                    live: &server.live,
                    worker,
                    answer: &mut *answer,
                    deadline: &mut *deadline,
                    service,
                    client,
                    intent,
                    cookie,
                    server: server.at(client.ends.local.port()),
                    told: &mut told,
                };
                let running = exchange.run(leave.requests.clone(), &text, pool.tls.is_some(), opens);
                let (end, channel) = Box::pin(running).await;
                if !matches!(end, End::Complete { server_keeps: true, .. }) {
                    leave.give_up();
                }
                let is_silent = matches!(end, End::Failed(Failure::ServerSlow));
                if is_silent || (matches!(end, End::Failed(Failure::ServerGone)) && !told.answered) {
                    // What ails the stream may ail them all.
                    server.live.leave_link(worker, leave.number);
                }
                if let Some(channel) = channel {
                    let stream = Stream::Channel(Box::new(channel.holding(leave.hold())));
                    line = Line::Http1(Connection::new(stream, server.at(client.ends.local.port()), None));
                }
                (end, was_used)
            }
        };
        report.told = told;
        report.times.answered = told.head_at;
        if let End::Failed(Failure::ServerGone) = end
            && which != Which::Fresh
            && !told.answered
            && !told.taken
            && (!told.sent || (repeats && was_used))
        {
            place = Some((index, slot));
            which = Which::Fresh;
            report.retries = report.retries.saturating_add(1);
            continue;
        }
        // What speaks another version than the pool's may not be what the pool is about.
        let is_own = way.http2 == pool.http2;
        judge(pool, index, worker, &report, end, is_own);
        let outcome = match end {
            End::Complete { server_keeps, request_done } => {
                if let (true, Line::Http1(connection)) = (server_keeps, line) {
                    pool.put_idle(index, worker, connection);
                }
                Outcome::Answered { request_done }
            }
            End::Switched => {
                if let Line::Http1(connection) = line {
                    report.outcome = Outcome::Switched(Box::new((connection, slot)));
                    remember(service, pool, index, client);
                    return report;
                }
                Outcome::Broken
            }
            End::Failed(Failure::ClientGone) => Outcome::Gone,
            End::Failed(failure) => Outcome::Status(failure.status()),
            End::Broken(_) => Outcome::Broken,
        };
        if matches!(outcome, Outcome::Answered { .. }) {
            remember(service, pool, index, client);
        }
        drop(slot);
        report.ended = ended(end);
        report.outcome = outcome;
        return report.unless_killed(client);
    }
}

/// Adds what happened to what is known of the server; only where it was asked in its own protocol (`is_own`) is it left out for that.
fn judge(pool: &Pool, index: usize, worker: usize, report: &Report, end: End, is_own: bool) {
    let live = &pool.servers[index].live;
    let told = &report.told;
    let (End::Failed(failure) | End::Broken(failure)) = end else {
        live.count_answer(worker, told.status);
        if let (Some(at), Some(from)) = (told.head_at, report.times.reached) {
            live.answered(u64::try_from((at - from).as_micros()).unwrap_or(u64::MAX));
        }
        if let Some(outliers) = &pool.outliers
            && outliers.statuses
            && matches!(told.status, 500 | 502 | 503 | 504)
        {
            live.failed(outliers, now());
        }
        return;
    };
    if failure.is_servers() {
        live.count_broken(worker);
        if let Some(outliers) = pool.outliers.as_ref().filter(|_| is_own) {
            live.failed(outliers, now());
        }
    }
}

/// The client is with this server from now on.
fn remember(service: &Service, pool: &Pool, index: usize, client: &Client) {
    if matches!(service.persistence, Some(Persistence::SourceIp { .. } | Persistence::LastSuccessful)) {
        let name = &pool.servers[index].name;
        service.state.served(service.persistence.as_ref(), &pool.name, client.ip(), name, now());
    }
}

/// What a client is to bring next time: the server it is with now, and those of other pools that it has been with.
fn cookie_value(service: &Service, pool: &Pool, before: Option<&[u8]>, index: usize) -> String {
    let mut value = pool.servers[index].cookie.clone();
    let Some(before) = before else { return value };
    for other in service.pools().into_iter().filter(|other| other.name != pool.name) {
        if let Some(server) = other.named_by(before) {
            value.push('.');
            value.push_str(&other.servers[server].cookie);
        }
    }
    value
}

/// What requests have in common that go to one server.
fn hash_of(pool: &Pool, intent: &Intent<'_>, client: &Client) -> u64 {
    let by_client = || hash(client.address.as_bytes());
    match (pool.algorithm, &pool.hash_by) {
        (Algorithm::Source, _) | (Algorithm::Maglev, HashBy::Client) => by_client(),
        (Algorithm::Maglev, HashBy::Uri) => hash(intent.asked.path),
        (Algorithm::Maglev, HashBy::Header(name)) => {
            intent.asked.fields.named(name.as_bytes()).next().map_or_else(by_client, hash)
        }
        (Algorithm::Maglev, HashBy::Cookie(name)) => {
            find_cookie(intent.asked.fields, name.as_bytes()).map_or_else(by_client, hash)
        }
        _ => 0,
    }
}

/// Who ended an exchange and when, as HAProxy's log has it.
fn ended(end: End) -> [u8; 2] {
    match end {
        End::Complete { .. } | End::Switched => *b"--",
        End::Failed(failure) => match failure {
            Failure::ClientGone => *b"CH",
            Failure::ClientFault(_) | Failure::TooLarge => *b"PR",
            Failure::ClientSlow => *b"cD",
            Failure::ServerGone => *b"SH",
            Failure::ServerFault(_) => *b"PH",
            Failure::ServerSlow | Failure::NoLeave => *b"sH",
            Failure::Halted => *b"KH",
        },
        End::Broken(failure) => match failure {
            Failure::ClientGone => *b"CD",
            Failure::ClientFault(_) | Failure::TooLarge => *b"PD",
            Failure::ClientSlow => *b"cD",
            Failure::ServerGone | Failure::ServerFault(_) => *b"SD",
            Failure::ServerSlow | Failure::NoLeave => *b"sD",
            Failure::Halted => *b"KD",
        },
    }
}

impl Report {
    /// Of a request that began then, and that no server was asked for.
    #[must_use]
    pub fn of_none(times: Stopwatch) -> Self {
        Self { outcome: Outcome::Gone, server: None, retries: 0, told: Told::default(), times, ended: *b"--" }
    }

    /// The same, or that an operator has ended the client's connection: it gets nothing more, no answer of ours either.
    fn unless_killed(mut self, client: &Client) -> Self {
        let over = matches!(self.outcome, Outcome::Answered { .. } | Outcome::Switched(_));
        if !over && client.guest.is_killed() {
            (self.outcome, self.ended) = (Outcome::Gone, *b"KD");
        }
        self
    }
}
