//! Talks with the `lb-user` that looks after this process: passes its questions on, and its answers back.
//!
//! The thread waits for the socket, so that whoever decides does not have to. When `lb-user` goes, everything goes on;
//! the next one is waited for.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::MetadataExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    sync::{Arc, mpsc as replies},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::warn;

use super::{Engine, Listeners, Phase};
use crate::{
    admin, files,
    front::Closing,
    model::check,
    server::{now, transparent},
    spec::{Ask, CONTROL_VERSION, Channel, MOST_FILES, Memory, Problem, Reply, Span, Status},
};

/// How long the other side may take to send the rest of a message, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Conversations that may wait to begin.
const MOST_WAITING: i32 = 128;

/// How long nobody is let in who could not be (this process has no file left for it, say), and how often that is told.
const PAUSE: Duration = Duration::from_millis(100);
const QUIET: Duration = Duration::from_secs(10);

/// Questions that come, to be answered one after the other.
#[derive(Debug)]
pub struct Control {
    questions: mpsc::Receiver<Question>,
    /// Sockets that came and are not used yet.
    listeners: Listeners,
    /// What was counted by the processes before this one.
    before: Status,
}

#[derive(Debug)]
struct Question {
    ask: Ask,
    files: Vec<OwnedFd>,
    answer: replies::Sender<Answered>,
}

/// An answer: one reply, or for [`Ask::HandBack`] sockets as well.
#[derive(Debug)]
enum Answered {
    Reply(Reply),
    Sockets(Vec<(SocketAddr, Arc<TcpListener>)>),
}

impl Control {
    /// Answers who connects to `listener`, one at a time.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(false)?;
        // Made by lb-user; whoever connects is told by the kernel (`SO_PEERCRED`, unix(7)) who was the last to listen.
        rustix::net::listen(&listener, MOST_WAITING)?;
        let (ask, questions) = mpsc::channel(1);
        thread::Builder::new().name("control".into()).spawn(move || {
            let mut told: Option<Instant> = None;
            while !ask.is_closed() {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if let Err(error) = converse(stream, &ask) {
                            warn!("lb-user: {error}");
                        }
                    }
                    Err(error) => {
                        if told.is_none_or(|told| told.elapsed() >= QUIET) {
                            told = Some(Instant::now());
                            warn!("lb-user cannot be let in: {error}; trying again");
                        }
                        thread::sleep(PAUSE);
                    }
                }
            }
        })?;
        Ok(Self { questions, listeners: Listeners::none(), before: Status::default() })
    }

    /// Waits for a question and answers it. Gives how to end when it is to end: within this time, and
    /// whether gently.
    pub async fn answer(&mut self, engine: &Engine) -> Option<(Span, Closing)> {
        let Some(Question { ask, files, answer }) = self.questions.recv().await else {
            // Without its thread nobody can ask any more; signals still can.
            return std::future::pending().await;
        };
        let end = if let Ask::End { within, gently } = ask {
            Some((within, if gently { Closing::Gently } else { Closing::Soon }))
        } else {
            None
        };
        // Whoever asked may be gone.
        let _ = answer.send(self.reply(ask, files, engine));
        end
    }

    fn reply(&mut self, ask: Ask, files: Vec<OwnedFd>, engine: &Engine) -> Answered {
        let current = engine.current();
        let serves = matches!(ask, Ask::Serve(_) | Ask::Announce | Ask::Remember(_));
        if serves && current.phase() == Phase::Draining {
            // Sockets that came for it would let clients in to nobody.
            self.listeners = Listeners::none();
            return Answered::Reply(Reply::Wrong(vec![Problem::new("", "it is about to end")]));
        }
        Answered::Reply(match ask {
            Ask::Hello => {
                // Whoever was there before has left sockets behind that nobody will use.
                self.listeners = Listeners::none();
                Reply::Hello {
                    control: CONTROL_VERSION,
                    version: env!("CARGO_PKG_VERSION").into(),
                    pid: std::process::id(),
                    program: fs::metadata("/proc/self/exe").ok().map(|file| (file.dev(), file.ino())),
                    workers: engine.workers(),
                }
            }
            Ask::File { .. } | Ask::End { .. } => Reply::Done,
            Ask::Connections { which, limit } => {
                let (connections, matching) = engine.clients(&which, limit);
                Reply::Connections { connections, matching }
            }
            Ask::EndConnections(which) => Reply::Ended(engine.end_clients(&which)),
            Ask::Announce => {
                engine.announce();
                Reply::Done
            }
            Ask::Listeners(_) => match self.take(files) {
                Ok(()) => Reply::Done,
                Err(error) => {
                    Reply::Wrong(vec![Problem::new("", format!("sockets cannot be used: {error}"))])
                }
            },
            Ask::Supply => {
                files.into_iter().take(1).map(UnixStream::from).for_each(transparent::give);
                Reply::Done
            }
            Ask::Check(spec) => outcome(check(&spec, Some(&current.ready())).map(drop)),
            Ask::Serve(spec) => {
                let served = engine.apply(&spec, std::mem::take(&mut self.listeners));
                if served.is_ok() {
                    files::keep(&spec.files());
                }
                outcome(served)
            }
            Ask::Servers(changes) => {
                let wrong = changes.into_iter().filter_map(|change| {
                    engine.set_server_state(&change.pool, &change.server, change.state).err()
                });
                let wrong: Vec<_> = wrong.collect();
                outcome(if wrong.is_empty() { Ok(()) } else { Err(wrong) })
            }
            Ask::Status => Reply::Status(self.status(engine)),
            Ask::Metrics => Reply::Metrics(admin::metrics(&current.ready(), current.phase(), &engine.log())),
            Ask::HandBack => return Answered::Sockets(engine.sockets()),
            Ask::Memory => Reply::Memory(memory(engine)),
            Ask::Remember(memory) => {
                remember(engine, &memory);
                self.before = memory.counted.unwrap_or_default();
                Reply::Done
            }
        })
    }

    /// How everything is, with what was counted before this process.
    fn status(&self, engine: &Engine) -> Status {
        let current = engine.current();
        let mut status = admin::status(&current.ready(), current.phase());
        for service in &mut status.services {
            let Some(before) = self.before.services.iter().find(|before| before.name == service.name) else {
                continue;
            };
            service.accepted += before.accepted;
            service.requests += before.requests;
            service.received += before.received;
            service.sent += before.sent;
            let totals: BTreeMap<_, _> = before
                .pools
                .iter()
                .flat_map(|pool| {
                    pool.servers.iter().map(|server| ((&*pool.name, &*server.name), server.total))
                })
                .collect();
            for pool in &mut service.pools {
                for server in &mut pool.servers {
                    server.total += totals.get(&(&*pool.name, &*server.name)).copied().unwrap_or_default();
                }
            }
        }
        status
    }

    fn take(&mut self, files: Vec<OwnedFd>) -> io::Result<()> {
        files.into_iter().try_for_each(|file| self.listeners.hand_over(TcpListener::from(file)))
    }
}

fn outcome(result: Result<(), Vec<Problem>>) -> Reply {
    result.map_or_else(Reply::Wrong, |()| Reply::Done)
}

fn memory(engine: &Engine) -> Memory {
    let ready = engine.current().ready();
    let tables = ready.services.iter().flat_map(|service| {
        let tables = service.state.sticky.tables(now());
        tables.into_iter().map(|mut table| {
            table.service.clone_from(&service.name);
            table
        })
    });
    Memory { sticky: tables.collect(), counted: None }
}

fn remember(engine: &Engine, memory: &Memory) {
    let ready = engine.current().ready();
    for table in &memory.sticky {
        for service in ready.services.iter().filter(|service| service.name == table.service) {
            service.state.sticky.remember(table, now());
        }
    }
}

/// One conversation, to its end.
fn converse(stream: UnixStream, ask: &mpsc::Sender<Question>) -> io::Result<()> {
    let mut channel = Channel::new(stream, Some(PATIENCE))?;
    loop {
        // Between two questions there may be any time.
        channel.wait_for(None)?;
        let Some((question, files)) = channel.receive::<Ask>()? else { return Ok(()) };
        channel.wait_for(Some(PATIENCE))?;
        if let Ask::File { path, contents } = &question {
            let contents = match contents {
                Ok(length) => Ok(channel.receive_bytes(*length)?),
                Err(why) => Err(why.clone()),
            };
            files::give(path.clone(), contents);
        }
        let (answer, answered) = replies::channel();
        if ask.blocking_send(Question { ask: question, files, answer }).is_err() {
            return Ok(());
        }
        match answered.recv() {
            Ok(Answered::Reply(reply)) => channel.send(&reply, &[])?,
            Ok(Answered::Sockets(sockets)) => send_sockets(&mut channel, &sockets)?,
            Err(_) => return Ok(()),
        }
    }
}

fn send_sockets(channel: &mut Channel, sockets: &[(SocketAddr, Arc<TcpListener>)]) -> io::Result<()> {
    let mut rest = sockets;
    loop {
        let (some, more) = rest.split_at(rest.len().min(MOST_FILES));
        let addresses = some.iter().map(|(address, _)| *address).collect();
        let files: Vec<_> = some.iter().map(|(_, socket)| socket.as_fd()).collect();
        channel.send(&Reply::Listeners { addresses, last: more.is_empty() }, &files)?;
        rest = more;
        if rest.is_empty() {
            return Ok(());
        }
    }
}
