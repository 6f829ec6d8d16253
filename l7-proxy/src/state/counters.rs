//! Counters of a service on one worker: nobody else writes to them, so that counting costs no more than adding.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Why something was refused by a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// The service has as many connections as it may.
    Connections,
    /// The client has as many connections as it may.
    ClientConnections,
    /// The client sends more requests than it may.
    Rate,
    /// The request is larger than it may be.
    Size,
    /// The request is malformed.
    Malformed,
    /// The client was too slow.
    Slow,
    /// TLS could not be agreed upon, or took too long.
    Handshake,
    /// The PROXY protocol was not spoken as it should be.
    ProxyProtocol,
    /// An HTTP/2 client did what exhausts others.
    Http2,
    /// The whole process has as many connections as it may.
    Process,
}

impl Refusal {
    /// All of them with their names in metrics.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Connections, "connections"),
        (Self::ClientConnections, "client-connections"),
        (Self::Rate, "rate"),
        (Self::Size, "size"),
        (Self::Malformed, "malformed"),
        (Self::Slow, "slow"),
        (Self::Handshake, "handshake"),
        (Self::ProxyProtocol, "proxy-protocol"),
        (Self::Http2, "http2"),
        (Self::Process, "process"),
    ];
}

/// Upper ends of the buckets in which times are counted, in microseconds; the last bucket has none.
const ENDS: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// How long something took, counted in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; ENDS.len() + 1],
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = ENDS.partition_point(|&end| end < microseconds);
        add(&self.buckets[bucket], 1);
        add(&self.sum, microseconds);
    }

    /// For each bucket its upper end in microseconds (none for the last) and how many are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let ends = ENDS.iter().copied().map(Some).chain([None]);
        ends.zip(self.buckets.iter().map(|count| count.load(Relaxed)))
    }

    /// All times together, in microseconds.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }
}

/// Adds without the cost of an atomic addition: only one thread writes.
fn add(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(number), Relaxed);
}

/// Who broke an exchange or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The client, or nobody else: it has gone, was too slow, or sent what makes no sense.
    Client,
    /// The server.
    Server,
    /// An operator: the server was halted.
    Operator,
}

impl By {
    /// Who it was, by the letters of the log (see [`Record::ended`](crate::log::Record::ended)).
    #[must_use]
    pub fn of(ended: [u8; 2]) -> Self {
        match ended[0] {
            b'S' | b's' => Self::Server,
            b'K' => Self::Operator,
            _ => Self::Client,
        }
    }
}

/// Counters of a service on one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    connections: AtomicU64,
    requests: AtomicU64,
    /// Answers by the first digit of their status.
    answers: [AtomicU64; 6],
    own_answers: AtomicU64,
    tunnels: AtomicU64,
    retries: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    put_behind: AtomicU64,
    refusals: [AtomicU64; Refusal::ALL.len()],
    /// Exchanges and connections that broke, by who broke them: see [`By`].
    broken: [AtomicU64; 3],
    /// From the request's head to the last byte of the answer.
    pub whole: Histogram,
    /// From the request's head to the head of the server's answer.
    pub first: Histogram,
}

impl Counters {
    /// A connection was accepted.
    pub fn connection(&self) {
        add(&self.connections, 1);
    }

    /// A request was answered: with this status (0 where it got none), by ourselves or by a server.
    pub fn request(&self, status: u16, own: bool) {
        add(&self.requests, 1);
        add(&self.answers[usize::from(status / 100).min(5)], 1);
        if own {
            add(&self.own_answers, 1);
        }
    }

    /// A connection became another protocol's, or is of mode `tcp`.
    pub fn tunnel(&self) {
        add(&self.tunnels, 1);
    }

    /// Other servers were tried, or the same again.
    pub fn retried(&self, times: u64) {
        add(&self.retries, times);
    }

    /// Bytes came from and went to a client.
    pub fn bytes(&self, received: u64, sent: u64) {
        add(&self.received, received);
        add(&self.sent, sent);
    }

    /// A connection was put behind others.
    pub fn put_behind(&self) {
        add(&self.put_behind, 1);
    }

    /// Something was refused.
    pub fn refused(&self, refusal: Refusal) {
        add(&self.refusals[refusal as usize], 1);
    }

    /// An answer or connection broke off.
    pub fn broke(&self, by: By) {
        add(&self.broken[by as usize], 1);
    }

    /// All plain counters: their names, a label with its value, and the count.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, Option<(&'static str, &'static str)>, u64)> {
        let plain = [
            ("connections", &self.connections),
            ("requests", &self.requests),
            ("own_answers", &self.own_answers),
            ("tunnels", &self.tunnels),
            ("retries", &self.retries),
            ("received_bytes", &self.received),
            ("sent_bytes", &self.sent),
            ("put_behind", &self.put_behind),
        ];
        let classes = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        let answers = classes.into_iter().zip(&self.answers);
        let refusals =
            Refusal::ALL.into_iter().map(|(refusal, name)| (name, &self.refusals[refusal as usize]));
        let broken = ["client", "server", "operator"].into_iter().zip(&self.broken);
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        plain
            .into_iter()
            .map(move |(name, counter)| (name, None, count(counter)))
            .chain(answers.map(move |(class, counter)| ("answers", Some(("status", class)), count(counter))))
            .chain(refusals.map(move |(name, counter)| ("refused", Some(("limit", name)), count(counter))))
            .chain(broken.map(move |(name, counter)| ("broken", Some(("by", name)), count(counter))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_where_they_belong() {
        let histogram = Histogram::default();
        for microseconds in [0, 250, 251, 20_000_000] {
            histogram.add(Duration::from_micros(microseconds));
        }
        let counts: Vec<u64> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[1], counts[15], counts.len()), (2, 1, 1, 16));
        assert_eq!(histogram.sum(), 20_000_501);
    }

    #[test]
    fn whoever_broke_it_is_told_by_the_letters_of_the_log() {
        let by = |letters: &[u8; 2]| By::of(*letters);
        for servers in [b"SH", b"sH", b"SD", b"sD", b"SC", b"sQ"] {
            assert_eq!(by(servers), By::Server);
        }
        for clients in [b"CH", b"CD", b"cD", b"PR", b"PD", b"LD"] {
            assert_eq!(by(clients), By::Client);
        }
        assert_eq!((by(b"KD"), by(b"KH")), (By::Operator, By::Operator));
        let counters = Counters::default();
        [By::Client, By::Server, By::Operator, By::Operator].into_iter().for_each(|by| counters.broke(by));
        let counts: Vec<_> = counters.all().filter(|(name, ..)| *name == "broken").collect();
        let expected = [("client", 1), ("server", 1), ("operator", 2)];
        assert_eq!(counts, expected.map(|(by, count)| ("broken", Some(("by", by)), count)));
    }

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let counters = Counters::default();
        counters.request(200, false);
        counters.refused(Refusal::Http2);
        let mut names: Vec<_> = counters.all().map(|(name, label, _)| (name, label)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let found = |wanted| counters.all().find(|(name, label, _)| (*name, *label) == wanted).unwrap().2;
        assert_eq!(found(("answers", Some(("status", "2xx")))), 1);
        assert_eq!(found(("refused", Some(("limit", "http2")))), 1);
    }
}
