//! A connection of mode `tcp`: chooses a server, connects, and passes bytes on.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::time::Instant;

use super::{
    Ended, Party, Passed, Times,
    greeting::{self, Greeting},
    relay,
};
use crate::{
    front::Door,
    http::{Client, Line, Try, Unreached, Which, reach},
    io::{Deadline, Out, Stream, fill},
    log::{Record, Served, Stopwatch},
    model::Service,
    server::{Pool, Way, Wish, hash, now},
    state::{By, Refusal},
};

/// Serves a connection until it ends. `input` is what was read of it already.
pub async fn serve(
    door: &Door,
    service: &Arc<Service>,
    mut stream: Stream,
    mut input: BytesMut,
    mut client: Client,
) {
    let times = Stopwatch::start();
    let counters = service.state.counters(door.worker);
    let mut named = true;
    if !service.sni_routes.is_empty() {
        let timeout = service.timeouts.request_header.get();
        let name = tokio::select! {
            biased;
            name = read_name(&mut stream, &mut input, timeout) => name,
            () = client.guest.killed() => None,
        };
        named = name.is_some();
        client.server_name = name.flatten().map(Into::into);
    }
    let mut served = Connection { door, service, client: &client, times, retries: 0, server: None };
    if !named && client.guest.is_killed() {
        stream.break_off();
        return served.tell(None, Passed::default(), *b"KD");
    }
    if !named {
        return counters.refused(Refusal::Slow);
    }
    let Some(pool) = service.tcp_pool(client.server_name.as_deref()) else {
        return served.tell(None, Passed::default(), *b"SC");
    };
    let (ended, passed) = served.pass(pool, &mut stream, input).await;
    counters.tunnel();
    counters.bytes(passed.up, passed.down);
    // An operator ends the whole connection: that is counted once.
    if ended != *b"--" && !client.guest.is_killed() {
        counters.broke(By::of(ended));
    }
    served.tell(Some(pool), passed, ended);
    // Where the server had no more to say, the client may still be speaking: what it was told last is to arrive.
    if ended == *b"--" {
        stream.linger(&mut BytesMut::new()).await;
    }
}

/// The name in the client's greeting. What is no TLS has none; `None` where it does not come in time.
async fn read_name(stream: &mut Stream, input: &mut BytesMut, timeout: Duration) -> Option<Option<String>> {
    let read = async {
        loop {
            match greeting::greeting(input) {
                Greeting::Name(name) => return Some(name),
                Greeting::Other => return Some(None),
                Greeting::More => {}
            }
            let read = std::future::poll_fn(|context| fill(stream, input, 4 * 1024, context)).await;
            // A client that is silent from here on may be one that waits for the server to speak first.
            match read {
                Ok(0) if input.is_empty() => return Some(None),
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(timeout, read).await.ok().flatten()
}

/// A connection and what is to be told of it.
struct Connection<'a> {
    door: &'a Door,
    service: &'a Service,
    client: &'a Client,
    times: Stopwatch,
    retries: u8,
    server: Option<usize>,
}

impl Connection<'_> {
    async fn pass(&mut self, pool: &Pool, stream: &mut Stream, input: BytesMut) -> ([u8; 2], Passed) {
        let (service, client, worker) = (self.service, self.client, self.door.worker);
        let persistence = service.persistence.as_ref();
        let kept = service.state.server_of(persistence, &pool.name, client.ip(), now());
        let mut wish = Wish {
            cookie: None,
            server: kept.and_then(|name| pool.servers.iter().position(|server| server.name == name)),
            hash: hash(client.address.as_bytes()),
            tried: 0,
        };
        let timeout = service.timeouts.connect.get();
        let way = Way { source: service.source, ends: &client.ends, timeout, worker, http2: false };
        let first = Try { which: Which::Fresh, place: None };
        let reached = match reach(pool, service, &way, &mut wish, first, &client.guest, pending()).await {
            Ok(reached) => reached,
            Err(unreached) => {
                if matches!(unreached, Unreached::Killed) {
                    stream.break_off();
                }
                return (unreached.letters(), Passed::default());
            }
        };
        self.times.reached = Some(std::time::Instant::now());
        self.server = Some(reached.index);
        self.retries = reached.tries;
        let server = &pool.servers[reached.index];
        client.guest.is_with(&server.live);
        service.state.served(persistence, &pool.name, client.ip(), &server.name, now());
        let Line::Http1(connection) = reached.line else { return (*b"SC", Passed::default()) };
        let mut server_side =
            Party { stream: connection.stream, input: connection.input, output: connection.output };
        let mut client_side = Party { stream, input, output: Out::default() };
        let times = Times {
            idle: service.timeouts.tunnel.get(),
            until: service.timeouts.lifetime.map(|lifetime| Instant::now() + lifetime.get()),
        };
        let told = client.guest.told(server.live.until_halted(worker));
        let (ended, passed) =
            relay(&mut client_side, &mut server_side, times, told, &mut Deadline::default()).await;
        drop(reached.slot);
        if passed.reset || client.guest.is_killed() {
            client_side.stream.break_off();
            server_side.stream.break_off();
        }
        if ended == Ended::Server {
            server.live.count_broken(worker);
        }
        (ended.letters(), passed)
    }

    /// Writes the line of the log.
    fn tell(&self, pool: Option<&Pool>, passed: Passed, ended: [u8; 2]) {
        self.door.log.write(
            self.door.worker,
            &Record {
                service: self.service,
                client: self.client,
                request: None,
                malformed: None,
                served: pool.map(|pool| Served {
                    pool: &pool.title,
                    server: self.server.map(|index| pool.servers[index].name.as_str()),
                }),
                status: 0,
                received: passed.up,
                sent: passed.down,
                retries: self.retries,
                times: self.times,
                took: self.times.start.elapsed(),
                ended,
            },
        );
    }
}
