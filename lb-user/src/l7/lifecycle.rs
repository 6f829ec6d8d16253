//! The life of a proxy in the keeper's hands: begun, watched, lost, replaced by another one, ended.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use l7_spec::{Ask, Memory, Reply, Span, Spec};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{
    Ending, Keeper, Options,
    found::{leaving_socket, other_sockets},
    process,
    proxy::Proxy,
};

/// After a proxy has ended by itself, another is started at once; if that ends too, after this time, doubled each time.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest such time.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How long connections may stay with a proxy that another has taken over from: as long as an idle WebSocket may.
const FAREWELL: Span = Span::from_secs(3_600);

impl Keeper {
    /// Sees whether the proxy is still there, and those that are leaving.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        self.leaving.retain_mut(|proxy| {
            let stays = proxy.ended().is_none();
            if stays {
                // One that does not take it is not asked again, and ends in its time.
                let _ = proxy.keep_supplied(now);
            } else {
                let _ = fs::remove_file(leaving_socket(&self.options.socket, proxy.pid));
                self.news = true;
            }
            stays
        });
        if let Some(how) = self.proxy.as_mut().and_then(Proxy::ended) {
            error!("l7-proxy has ended ({how}); clients wait until the next one is there");
            self.lose();
        } else if let Some(Err(error)) = self.proxy.as_mut().map(|proxy| proxy.keep_supplied(now)) {
            self.give_up(&error);
        }
    }

    /// There is no proxy any more.
    pub(super) fn lose(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            proxy.kill();
        }
        self.news = true;
        self.forget_proxy();
        if self.began.elapsed() > LONGEST_PAUSE {
            self.failures = 0;
        }
        let pause = PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        if self.failures > 0 {
            self.not_before = Some(Instant::now() + pause);
        }
        self.failures += 1;
    }

    pub(super) fn forget_proxy(&mut self) {
        self.now_serves(None);
        (self.asked, self.remembers) = (None, false);
        self.handed.clear();
        self.files.forget();
    }

    pub(super) fn is_outdated(&self, proxy: &Proxy) -> bool {
        let program = self.options.program.as_deref();
        program.is_some_and(|program| !process::lies_at(proxy.program, program))
            || !proxy.understands
            || self.has_other_workers(proxy)
    }

    pub(super) fn has_other_workers(&self, proxy: &Proxy) -> bool {
        self.workers.is_some_and(|workers| workers != proxy.workers)
    }

    /// Starts a proxy, which serves nothing yet.
    pub(super) fn begin(&mut self) -> Result<(), String> {
        self.began = Instant::now();
        let socket = self.options.socket.clone();
        let proxy = self.begin_at(socket)?;
        self.proxy = Some(proxy);
        self.forget_proxy();
        self.now_serves(Some(Spec::default()));
        Ok(())
    }

    pub(super) fn begin_at(&self, socket: PathBuf) -> Result<Proxy, String> {
        let options = Options { socket, ..self.options.clone() };
        let child = process::start(&options, self.workers)?;
        let proxy = Proxy::reach(&options.socket, child);
        let mut proxy =
            proxy.map_err(|error| format!("l7-proxy was started and does not answer: {error}"))?;
        if self.announced {
            let _ = proxy.ask(&Ask::Announce);
        }
        info!("started l7-proxy (pid {})", proxy.pid);
        Ok(proxy)
    }

    /// Has another proxy take the place of the one that serves; it lets its clients finish.
    pub(super) fn replace(&mut self) {
        let [next_socket, _] = other_sockets(&self.options.socket);
        match self.begin_at(next_socket) {
            Ok(next) => self.put_in_place(next),
            Err(problem) => warn!("l7-proxy stays as it is: {problem}"),
        }
    }

    /// Has `next` serve what is wanted, and the proxy that serves let its clients finish; if it does not, that one stays.
    pub(super) fn put_in_place(&mut self, next: Proxy) {
        let [next_socket, former_socket] = other_sockets(&self.options.socket);
        let (memory, status) = (self.ask(&Ask::Memory), self.ask(&Ask::Status));
        if let (Some(Reply::Memory(memory)), Some(Reply::Status(status))) = (memory, status) {
            self.memory = Memory { counted: Some(status), ..memory };
        }
        let former = self.proxy.replace(next);
        let (asked, served) = (self.asked.take(), self.served.take());
        self.forget_proxy();
        self.now_serves(Some(Spec::default()));
        // Whoever is killed between these steps leaves both to be found (`found`).
        let _ = fs::rename(&self.options.socket, &former_socket);
        self.serve();
        let serves = self.proxy.is_some() && self.problem.is_none();
        if !serves {
            warn!("the new l7-proxy does not serve; the one before it stays");
            if let Some(mut next) = std::mem::replace(&mut self.proxy, former) {
                next.kill();
            }
            self.forget_proxy();
            self.now_serves(served);
            (self.asked, self.remembers) = (asked, true);
            let _ = fs::rename(&former_socket, &self.options.socket);
            let _ = fs::remove_file(&next_socket);
            return self.go_on_with_former();
        }
        if let Err(error) = fs::rename(&next_socket, &self.options.socket) {
            warn!("the next lb-user will not find l7-proxy: {}: {error}", self.options.socket.display());
        }
        if let Some(former) = former {
            info!("l7-proxy (pid {}) lets its clients finish", former.pid);
            self.part_with(former, &former_socket);
        }
    }

    /// The proxy that was to be replaced serves on: it is to hear what is wanted, which only the other one has heard.
    fn go_on_with_former(&mut self) {
        self.settled = false;
        let Some(proxy) = &mut self.proxy else { return };
        match proxy.sockets() {
            Ok(sockets) => {
                // Those that were opened for the other one let clients in to nobody.
                self.sockets.keep(&BTreeSet::new());
                self.handed = sockets.iter().map(|(address, _)| *address).collect();
                self.sockets.adopt(sockets);
            }
            Err(error) => self.give_up(&error),
        }
    }

    /// Has a proxy let its last clients finish. It goes on answering, by another socket than the one that serves.
    pub(super) fn part_with(&mut self, mut proxy: Proxy, socket: &Path) {
        let _ = proxy.ask(&Ask::End { within: FAREWELL, gently: true });
        let _ = fs::rename(socket, leaving_socket(&self.options.socket, proxy.pid));
        self.leaving.push(proxy);
    }

    /// Nothing is to be served: the proxy may go.
    pub(super) fn dismiss(&mut self) {
        if self.proxy.is_some() {
            self.leave();
            self.sockets.keep(&BTreeSet::new());
        }
    }

    /// Somebody else has told the proxy to end, and it lets nobody in any more: another one is to.
    pub(super) fn follow(&mut self) {
        if let Some(Reply::Memory(memory)) = self.ask(&Ask::Memory) {
            self.memory.sticky = memory.sticky;
        }
        if let Some(proxy) = &self.proxy {
            warn!("l7-proxy (pid {}) was told to end, and not by lb-user; another one is started", proxy.pid);
            self.leave();
        }
    }

    /// Parts with the proxy; there is no other yet.
    fn leave(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            let socket = self.options.socket.clone();
            self.part_with(proxy, &socket);
            self.news = true;
            self.forget_proxy();
        }
    }

    /// Ends the proxy in good time, or leaves it to the next start.
    pub(super) fn end(mut self, ending: Ending, answer: oneshot::Sender<()>) {
        let within = match ending {
            Ending::GoesOn => None,
            Ending::Soon => Some(self.wanted.drain.timeout),
            Ending::Now => Some(Span::ZERO),
        };
        if let Some(within) = within {
            let mut all: Vec<_> = self.proxy.take().into_iter().collect();
            // A start that was refused has found those that are leaving, and leaves them.
            if ending == Ending::Soon {
                all.append(&mut self.leaving);
            }
            let until = Instant::now() + within.get() + Duration::from_secs(1);
            // Those that are leaving were given far longer.
            for proxy in &mut all {
                let _ = proxy.ask(&Ask::End { within, gently: false });
            }
            self.sockets.keep(&BTreeSet::new());
            for proxy in &mut all {
                if !proxy.wait(until) {
                    proxy.kill();
                }
                let _ = fs::remove_file(leaving_socket(&self.options.socket, proxy.pid));
            }
            let _ = fs::remove_file(&self.options.socket);
        }
        let _ = answer.send(());
    }
}
