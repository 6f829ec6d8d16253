//! What clients do. Runs in the clients' namespace.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process, thread,
    time::{Duration, Instant},
};

use super::{
    affinity::OnOne,
    cpu::Cpu,
    server::{BULK, MESSAGE, MESSAGES, ONCE},
};

/// Threads that open connections, or send requests.
const THREADS: usize = 4;

/// Connections of a thread that sends requests.
const CONNECTIONS: usize = 8;

/// Longer than anything takes that goes well.
const LIMIT: Duration = Duration::from_secs(10);

/// What was measured with one balancer.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Connections per second, each with one byte to and fro.
    pub connections: Rate,
    /// Requests per second, over connections that stay.
    pub requests: Rate,
    /// Megabytes per second, over one connection from a server to a client.
    pub megabytes: Rate,
    /// Time from a request to its answer, when nothing else is going on and everybody is on one processor.
    pub latency: Latency,
}

/// How often something was done, and what that cost.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Per second.
    pub per_second: f64,
    /// Time of processors for one, in microseconds, all of the machine.
    pub busy: f64,
    /// Of that, in soft interrupts.
    pub softirq: f64,
}

/// How long something took, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Half of them took longer.
    pub p50: f64,
    /// One in a hundred took longer.
    pub p99: f64,
}

/// Does everything, each for about this time; `processes` are those that packets pass through.
///
/// # Panics
/// When a connection fails.
#[must_use]
pub fn measure(targets: &[SocketAddr], time: Duration, processes: Vec<u32>) -> Measured {
    Measured {
        connections: rate(|| in_threads(|number| connections(target(targets, number), time))),
        requests: rate(|| in_threads(|number| requests(targets, number, time))),
        megabytes: rate(|| bulk(targets[0], time)),
        latency: latency(targets[0], time, processes),
    }
}

fn rate(work: impl FnOnce() -> f64) -> Rate {
    let (before, begin) = (Cpu::now(), Instant::now());
    let done = work();
    let (seconds, spent) = (begin.elapsed().as_secs_f64(), Cpu::now().since(before));
    let each = |hundredths: u64| hundredths as f64 * 10_000.0 / done;
    Rate { per_second: done / seconds, busy: each(spent.busy), softirq: each(spent.softirq) }
}

fn in_threads(work: impl Fn(usize) -> f64 + Sync) -> f64 {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client that gets through")).sum()
    })
}

fn target(targets: &[SocketAddr], number: usize) -> SocketAddr {
    targets[number % targets.len()]
}

fn connect(target: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&target, LIMIT).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream
}

/// The server closes first: it has the port that waits out late segments, and we have ours back at once.
fn connections(target: SocketAddr, time: Duration) -> f64 {
    let begin = Instant::now();
    let mut done = 0.0;
    let mut answer = Vec::new();
    while begin.elapsed() < time {
        let mut stream = connect(target);
        stream.write_all(&[ONCE]).expect("to send a byte");
        answer.clear();
        stream.read_to_end(&mut answer).expect("an answer");
        assert_eq!(answer, [ONCE], "what the server answers");
        done += 1.0;
    }
    done
}

fn requests(targets: &[SocketAddr], number: usize, time: Duration) -> f64 {
    let mut streams: Vec<_> = (0..CONNECTIONS).map(|n| connect(target(targets, number + n))).collect();
    let begin = Instant::now();
    let mut done = 0.0;
    let mut message = [MESSAGES; MESSAGE];
    while begin.elapsed() < time {
        for stream in &mut streams {
            stream.write_all(&message).expect("to send a request");
        }
        for stream in &mut streams {
            stream.read_exact(&mut message).expect("an answer");
        }
        done += CONNECTIONS as f64;
    }
    done
}

fn bulk(target: SocketAddr, time: Duration) -> f64 {
    let mut stream = connect(target);
    stream.write_all(&[BULK]).expect("to send a byte");
    let mut block = vec![0; 256 * 1024];
    let begin = Instant::now();
    let mut bytes = 0;
    while begin.elapsed() < time {
        let length = stream.read(&mut block).expect("bytes");
        assert!(length > 0, "the server closed in the middle");
        bytes += length;
    }
    bytes as f64 / 1e6
}

fn latency(target: SocketAddr, time: Duration, mut processes: Vec<u32>) -> Latency {
    processes.push(process::id());
    let _on_one = OnOne::new(processes);
    let mut stream = connect(target);
    let mut message = [MESSAGES; MESSAGE];
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(&message).expect("to send a request");
        stream.read_exact(&mut message).expect("an answer");
        times.push(sent.elapsed());
    }
    // The first ones find nothing in any cache.
    times.drain(..times.len() / 10);
    times.sort_unstable();
    let at = |hundredth: usize| times[times.len() * hundredth / 100].as_nanos() as f64 / 1_000.0;
    Latency { p50: at(50), p99: at(99) }
}
