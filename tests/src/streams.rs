//! Traffic that goes on in the background while something happens: long streams, and steady requests.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    client::{self, at},
    netns::Netns,
    wait,
};

/// Pause between two messages of a stream, unless told otherwise.
const PAUSE: Duration = Duration::from_millis(50);
/// A message that has no echo after this time: the stream is broken.
const ECHO: Duration = Duration::from_secs(10);
/// Time to connect and for the first echo: where hundreds connect at once, some are told to try again, later
/// each time.
const CONNECT: Duration = Duration::from_secs(20);
/// A steady request without an answer after this time has failed.
const STEADY: Duration = Duration::from_secs(1);

/// Time for as many requests as a test wants to have seen.
const ENOUGH: Duration = Duration::from_secs(60);

/// A long stream's life so far.
#[derive(Clone, Debug, Default)]
pub struct StreamReport {
    /// The server at the other end; empty when it never connected.
    pub server: String,
    /// Messages that came back.
    pub echoes: usize,
    /// Why it broke, if it did.
    pub broken: Option<String>,
}

/// Long streams running in the background; they end on drop.
#[derive(Debug)]
pub struct Streams {
    reports: Vec<Arc<Mutex<StreamReport>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    /// Opens `count` streams from a namespace and waits until each has had an echo.
    ///
    /// # Panics
    /// When one does not come to life.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &Netns, target: SocketAddr, count: usize) -> Self {
        Self::start_with(ns, target, count, PAUSE)
    }

    /// [`Self::start`] with another pause between the messages of a stream.
    ///
    /// # Panics
    /// When one does not come to life.
    #[track_caller]
    #[must_use]
    pub fn start_with(ns: &Netns, target: SocketAddr, count: usize, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let reports: Vec<_> = (0..count).map(|_| Arc::<Mutex<StreamReport>>::default()).collect();
        let start_one = |report: &Arc<Mutex<StreamReport>>| {
            let (report, stop) = (Arc::clone(report), Arc::clone(&stop));
            ns.spawn(move || {
                let end = run_stream(target, pause, &report, &stop);
                report.lock().expect("report").broken = end.err();
            })
        };
        let threads = reports.iter().map(start_one).collect();
        let streams = Self { reports, stop, threads };
        streams.wait_for_echoes(1);
        streams
    }

    /// All streams as they are now.
    #[must_use]
    pub fn reports(&self) -> Vec<StreamReport> {
        self.reports.iter().map(|report| report.lock().expect("report").clone()).collect()
    }

    /// Number of streams per server.
    #[must_use]
    pub fn by_server(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for report in self.reports() {
            *count.entry(report.server).or_default() += 1;
        }
        count
    }

    /// Waits until every stream that is not broken has had `more` further echoes.
    ///
    /// # Panics
    /// When one has not: it neither lives nor breaks.
    #[track_caller]
    pub fn wait_for_echoes(&self, more: usize) {
        let before: Vec<_> = self.reports().iter().map(|report| report.echoes).collect();
        wait::until(CONNECT + ECHO, "every stream to echo or break", || {
            let reports = self.reports();
            let late = |(report, before): &(&StreamReport, &usize)| {
                report.broken.is_none() && report.echoes < *before + more
            };
            let late = reports.iter().zip(&before).filter(late).count();
            if late == 0 { Ok(()) } else { Err(format!("{late} streams stand still")) }
        });
    }

    /// Insists that nothing broke but streams of the server `dead`, if one is named.
    ///
    /// # Panics
    /// When another stream broke.
    #[track_caller]
    pub fn unbroken_except(&self, dead: Option<&str>) {
        for report in self.reports() {
            if let Some(why) = &report.broken
                && Some(report.server.as_str()) != dead
            {
                panic!("a stream to {} broke after {} echoes: {why}", report.server, report.echoes);
            }
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run_stream(
    target: SocketAddr,
    pause: Duration,
    report: &Mutex<StreamReport>,
    stop: &AtomicBool,
) -> Result<(), String> {
    let stream = client::connect(target, None, CONNECT)?;
    stream.set_nodelay(true).map_err(at("set up"))?;
    (&stream).write_all(b"ECHO\n").map_err(at("send"))?;
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line).map_err(at("receive"))?;
    line.trim().clone_into(&mut report.lock().expect("report").server);
    stream.set_read_timeout(Some(ECHO)).map_err(at("set up"))?;
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let message = format!("message {number}\n");
        (&stream).write_all(message.as_bytes()).map_err(at("send"))?;
        line.clear();
        reader.read_line(&mut line).map_err(at("receive"))?;
        if line != message {
            return Err(format!("{line:?} came back for {message:?}"));
        }
        report.lock().expect("report").echoes += 1;
        number += 1;
        thread::sleep(pause);
    }
    Ok(())
}

/// What became of one steady request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When it was sent.
    pub sent: Instant,
    /// When its fate was known.
    pub done: Instant,
    /// The answering server, or why there was none.
    pub answer: Result<String, String>,
}

/// Requests at a steady rate in the background; they end on drop.
#[derive(Debug)]
pub struct Steady {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Steady {
    /// Sends `rate` requests per second (1..=1000) from a namespace. A request that hangs delays no other
    /// one unless more hang at the same time than fall into its time limit.
    #[must_use]
    pub fn start(ns: &Netns, target: SocketAddr, rate: u32) -> Self {
        Self::start_with(ns, target, rate, STEADY)
    }

    /// [`Self::start`] with another limit for an answer.
    #[must_use]
    pub fn start_with(ns: &Netns, target: SocketAddr, rate: u32, limit: Duration) -> Self {
        let outcomes = Arc::<Mutex<Vec<Outcome>>>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let begin = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let period = Duration::from_secs(1) / rate;
        let threads = (0..rate)
            .map(|_| {
                let (outcomes, stop, next) = (Arc::clone(&outcomes), Arc::clone(&stop), Arc::clone(&next));
                ns.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let number = u32::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX);
                        thread::sleep((begin + period * number).saturating_duration_since(Instant::now()));
                        let sent = Instant::now();
                        let answer = client::request(target, limit);
                        let done = Instant::now();
                        outcomes.lock().expect("outcomes").push(Outcome { sent, done, answer });
                    }
                })
            })
            .collect();
        Self { outcomes, stop, threads }
    }

    /// Everything that has been answered or has failed so far, in the order it was sent.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut outcomes = self.outcomes.lock().expect("outcomes").clone();
        outcomes.sort_by_key(|outcome| outcome.sent);
        outcomes
    }

    /// Goes on until at least `count` requests have had their answers, however little time what it ran beside took.
    ///
    /// # Panics
    /// When they have not within [`ENOUGH`].
    #[track_caller]
    pub fn wait_for_outcomes(&self, count: usize) {
        wait::until(ENOUGH, "enough requests", || {
            let done = self.outcomes.lock().expect("outcomes").len();
            if done >= count { Ok(()) } else { Err(format!("{done} of {count}")) }
        });
    }

    /// Stops and waits for the last answers.
    #[must_use]
    pub fn finish(mut self) -> Vec<Outcome> {
        self.join();
        self.outcomes()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.join();
    }
}

/// A datagram that has no answer by then is lost.
const LOST: Duration = Duration::from_secs(2);

/// Questions and answers by UDP in the background, one after the other over one socket.
#[derive(Debug)]
pub struct Chat {
    stop: Arc<AtomicBool>,
    /// Answered and lost so far.
    counts: Arc<[AtomicUsize; 2]>,
    thread: JoinHandle<()>,
}

impl Chat {
    /// Begins to ask from a namespace, some hundred times in a second.
    #[must_use]
    pub fn start(ns: &Netns, target: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::<[AtomicUsize; 2]>::default();
        let (until, count) = (Arc::clone(&stop), Arc::clone(&counts));
        let thread = ns.spawn(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect(target).expect("a way to the VIP");
            socket.set_read_timeout(Some(LOST)).expect("a time limit");
            let mut answer = [0; 64];
            while !until.load(Ordering::Relaxed) {
                let fate = socket.send(b"who\n").and_then(|_| socket.recv(&mut answer));
                count[usize::from(fate.is_err())].fetch_add(1, Ordering::Relaxed);
                // Some thousand in a second are enough.
                thread::sleep(Duration::from_micros(500));
            }
        });
        Self { stop, counts, thread }
    }

    /// Goes on until at least `count` datagrams were answered, then ends it and tells how many were lost.
    ///
    /// # Panics
    /// When they were not within [`ENOUGH`], or it could not begin.
    #[track_caller]
    #[must_use]
    pub fn finish_after(self, count: usize) -> usize {
        let [answered, lost] = &*self.counts;
        wait::until(ENOUGH, "enough datagrams", || {
            let (answered, lost) = (answered.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
            if answered >= count { Ok(()) } else { Err(format!("{answered} of {count}, {lost} lost")) }
        });
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the chat");
        lost.load(Ordering::Relaxed)
    }
}
