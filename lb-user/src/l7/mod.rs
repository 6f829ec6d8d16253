//! Looks after l7-proxy, which serves the VIPs of proxied modes.
//!
//! The proxy has no privileges. What takes some is done here: listening sockets are opened, files with keys are read, and
//! both are handed over ([`l7_spec::Ask`]). It outlives this process, as the program in the kernel does: the next start finds
//! it by its socket ([`find`]) and goes on with it, or has another version take its place.
//!
//! ```text
//! loop ─ plan::proxied ─ Wish::Serve ─┐
//! reload ─────────────── Wish::Check ─┼─ keeper (a thread) ─ sockets, files, process ─ l7-proxy
//! metrics ────────────── Wish::Metrics┘        └─ Report ─ picture
//! ```

mod check;
#[cfg(test)]
mod fake;
mod files;
mod found;
mod keeper;
mod lifecycle;
mod process;
mod proxy;
mod sockets;
mod supply;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use l7_spec::{Ask, ClientConnection, ConnectionFilter, Problem, Reply, ServerStatus, Span, Spec, Status};
use tokio::sync::{oneshot, watch};

use crate::{
    config::{Checked, Diagnostic, Severity},
    plan::select::vip_in,
};

pub use check::check;
pub use found::{Found, end_left, find, kill_holders, sockets_at};
pub use keeper::Keeper;

/// Where the proxy is found, and how it is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The socket by which it is spoken to; its folder exists.
    pub socket: PathBuf,
    /// The program; `None` where none was found.
    pub program: Option<PathBuf>,
    /// Name or number of the user that it runs as.
    pub user: String,
    /// Where relative paths in the configuration start.
    pub folder: PathBuf,
}

impl Options {
    /// The socket beside that of lbctl.
    #[must_use]
    pub fn socket_beside(admin: &Path) -> PathBuf {
        admin.with_extension("l7.sock")
    }

    /// The program beside this one, or else in one of the folders where programs are.
    #[must_use]
    pub fn usual_program() -> Option<PathBuf> {
        const NAME: &str = "l7-proxy";
        let beside = std::env::current_exe().ok().map(|own| own.with_file_name(NAME));
        let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/usr/libexec/lb"];
        let others = folders.iter().map(|folder| Path::new(folder).join(NAME));
        beside.into_iter().chain(others).find(|path| path.is_file())
    }
}

/// What is wanted of the keeper.
#[derive(Debug)]
pub enum Wish {
    /// Have this served from now on.
    Serve(Box<Spec>),
    /// What would be wrong with this?
    Check(Box<Spec>, oneshot::Sender<Result<(), Vec<Objection>>>),
    /// The program may have been replaced: have a new one take over.
    Renew,
    /// The proxy's metrics; empty without a proxy.
    Metrics(oneshot::Sender<String>),
    /// Ask all proxies about connections of clients, or have them end some: those too that let their last clients finish.
    Clients(Box<Ask>, oneshot::Sender<Vec<Reply>>),
    /// The end is near; for how long that is to be said before it comes.
    Announce(oneshot::Sender<Span>),
    /// This process ends; what is to become of the proxy.
    End(Ending, oneshot::Sender<()>),
}

/// What becomes of the proxy when this process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is left to the next start.
    GoesOn,
    /// It ends too, and what is open has the time that the configuration says.
    Soon,
    /// It ends at once.
    Now,
}

/// What is known of the proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Its number among the system's processes, while it runs.
    pub pid: Option<u32>,
    /// Why it does not serve what it should.
    pub problem: Option<String>,
    /// Why a VIP is not served, by name.
    pub problems: BTreeMap<String, String>,
    /// The kernel's numbers of the sockets through which VIPs are served.
    pub sockets: HashSet<u64>,
    /// Servers that proxies may connect to from addresses of clients (`source = "client"`); `None` while that is not known: one
    /// has yet to hear what is wanted, or lets its last clients finish by what was wanted before.
    pub seen_clients: Option<Arc<BTreeSet<SocketAddr>>>,
    /// How everything is; as of the last time it was asked.
    pub status: Status,
}

impl Report {
    /// Why a VIP is not served, if it is not.
    #[must_use]
    pub fn why_not(&self, vip: &str) -> Option<String> {
        let of_all = self.pid.is_none().then(|| "l7-proxy does not run yet".to_owned());
        self.problems.get(vip).or(self.problem.as_ref()).cloned().or(of_all)
    }

    /// A server of a pool that a VIP leads to; the pool by its [`key`](crate::plan::select::key).
    #[must_use]
    pub fn server(&self, vip: &str, pool: &str, server: &str) -> Option<&ServerStatus> {
        let service = self.status.services.iter().find(|service| service.name == vip)?;
        let pool = service.pools.iter().find(|one| one.name == pool)?;
        pool.servers.iter().find(|one| one.name == server)
    }
}

/// Reaches the keeper; without one (there is nothing to keep) wishes for nothing are granted.
#[derive(Clone, Debug)]
pub struct Handle {
    wishes: mpsc::Sender<Wish>,
    report: watch::Receiver<Arc<Report>>,
}

impl Handle {
    /// Leads to no keeper.
    #[must_use]
    pub fn of_nobody() -> Self {
        Self { wishes: mpsc::channel().0, report: watch::channel(Arc::default()).1 }
    }

    /// What is known of the proxy.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report.borrow())
    }

    /// What is known of the proxy once everything is done that was wished for before.
    pub async fn settled(&self) -> Arc<Report> {
        // Answered in its turn; to serve nothing is never wrong.
        let _ = self.check(Spec::default()).await;
        self.report()
    }

    /// Has this served from now on.
    pub fn serve(&self, spec: Spec) {
        // Without a keeper this process is about to end.
        let _ = self.wishes.send(Wish::Serve(Box::new(spec)));
    }

    /// Has another program take over, should there be one by now.
    pub fn renew(&self) {
        let _ = self.wishes.send(Wish::Renew);
    }

    /// What the proxy would have to say against a specification.
    ///
    /// # Errors
    /// That.
    pub async fn check(&self, spec: Spec) -> Result<(), Vec<Objection>> {
        let (answer, answered) = oneshot::channel();
        let _ = self.wishes.send(Wish::Check(Box::new(spec), answer));
        answered.await.unwrap_or_else(|_| Err(vec![Objection::of_all("lb-user is about to end")]))
    }

    /// The proxy's metrics, without the closing line.
    pub async fn metrics(&self) -> String {
        let (answer, answered) = oneshot::channel();
        let _ = self.wishes.send(Wish::Metrics(answer));
        answered.await.unwrap_or_default()
    }

    /// Connections of clients, `limit` at most of each proxy, and how many there are; none without a proxy.
    pub async fn clients(&self, which: ConnectionFilter, limit: usize) -> (Vec<ClientConnection>, u64) {
        let (mut all, mut count) = (Vec::new(), 0);
        for reply in self.ask_of_clients(Ask::Connections { which, limit }).await {
            if let Reply::Connections { connections, matching } = reply {
                all.extend(connections);
                count += matching;
            }
        }
        (all, count)
    }

    /// Ends such connections; gives how many.
    pub async fn end_clients(&self, which: ConnectionFilter) -> u64 {
        let replies = self.ask_of_clients(Ask::EndConnections(which)).await;
        replies.iter().map(|reply| if let Reply::Ended(ended) = reply { *ended } else { 0 }).sum()
    }

    async fn ask_of_clients(&self, ask: Ask) -> Vec<Reply> {
        let (answer, answered) = oneshot::channel();
        let _ = self.wishes.send(Wish::Clients(Box::new(ask), answer));
        answered.await.unwrap_or_default()
    }

    /// Has `/health` say that the end is near; gives for how long the configuration wants that to be said.
    pub async fn announce(&self) -> Span {
        let (answer, answered) = oneshot::channel();
        let _ = self.wishes.send(Wish::Announce(answer));
        answered.await.unwrap_or_default()
    }

    /// This process ends; returns when the proxy has too, if it is to.
    pub async fn end(&self, ending: Ending) {
        let (answer, answered) = oneshot::channel();
        let _ = self.wishes.send(Wish::End(ending, answer));
        let _ = answered.await;
    }
}

/// What l7-proxy has against a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The VIP that it is about, if it is about one.
    pub vip: Option<String>,
    /// What is wrong.
    pub problem: String,
}

impl Objection {
    fn of_all(problem: impl Into<String>) -> Self {
        Self { vip: None, problem: problem.into() }
    }

    /// The same with its place in the file.
    #[must_use]
    pub fn about(&self, checked: &Checked) -> Diagnostic {
        match &self.vip {
            Some(vip) => checked.about_vip(Severity::Error, vip, &self.problem),
            None => checked.about_file(Severity::Error, &self.problem),
        }
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.vip {
            Some(vip) => write!(f, "VIP {vip}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

/// Problems of a specification in the words of a configuration: each service and its pools are of one VIP. Each is told
/// once.
fn objections(problems: &[Problem]) -> Vec<Objection> {
    let mut objections = Vec::new();
    for problem in problems {
        let text = problem.to_string();
        let of_vip = ["service ", "pool "].iter().find_map(|kind| text.strip_prefix(kind)?.split_once(": "));
        let objection = match of_vip {
            Some((name, problem)) => {
                let vip = vip_in(name);
                let pool = name.strip_prefix(vip).and_then(|rest| rest.strip_prefix('/'));
                let of = pool.map(|pool| format!("pool {pool}: ")).unwrap_or_default();
                Objection { vip: Some(vip.to_owned()), problem: format!("{of}{problem}") }
            }
            None => Objection::of_all(text),
        };
        if !objections.contains(&objection) {
            objections.push(objection);
        }
    }
    objections
}

/// A line for each.
#[must_use]
pub fn lines(objections: &[Objection]) -> String {
    objections.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_service_is_said_of_its_vip() {
        let problems = [
            Problem::new("service web: tls.certificates[0]", "a.pem has no private key"),
            Problem::new("pool web", "is wrong: twice"),
            Problem::new("pool web", "is wrong: twice"),
            Problem::new("pool web/api", "is wrong"),
            Problem::new("workers", "must be 1 to 1024"),
        ];
        assert_eq!(
            lines(&objections(&problems)),
            "VIP web: tls.certificates[0]: a.pem has no private key\nVIP web: is wrong: twice\nVIP web: pool api: is wrong\nworkers: must be 1 to 1024"
        );
    }

    #[tokio::test]
    async fn what_is_known_when_all_is_done_knows_of_sockets_that_are_being_opened() {
        let (wishes, told) = mpsc::channel();
        let (report, reported) = watch::channel(Arc::default());
        let handle = Handle { wishes, report: reported };
        handle.serve(Spec::default());
        assert!(handle.report().sockets.is_empty());
        // A keeper opens a socket for what it is told first, and tells of it before it looks at the next wish.
        let keeper = std::thread::spawn(move || {
            let Ok(Wish::Serve(_)) = told.recv() else { panic!("the first wish") };
            report.send_replace(Arc::new(Report { sockets: HashSet::from([7]), ..Report::default() }));
            let Ok(Wish::Check(spec, answer)) = told.recv() else { panic!("the second") };
            answer.send(Ok(())).expect("somebody waits");
            *spec
        });
        assert_eq!(handle.settled().await.sockets, HashSet::from([7]));
        assert_eq!(keeper.join().expect("the keeper"), Spec::default(), "it asks for nothing");
        assert!(Handle::of_nobody().settled().await.sockets.is_empty(), "and nobody is waited for");
    }
}
