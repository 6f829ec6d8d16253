//! Which servers are well. Health belongs to a pair of VIP and server: a machine may be down in one VIP
//! and up in twenty-two others.
//!
//! Each target has a small task that probes it when its [`schedule`] says so. One runner takes in the
//! results, decides with [`state`], logs each change once and tells the rest of the daemon through a
//! channel. Nobody waits for anybody: results and new targets reach the runner as messages.

pub mod probe;
pub mod schedule;
pub mod state;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
    time::Instant,
};
use tracing::{info, warn};

pub use self::state::{Outcome, Transition};
use self::{
    probe::{Network, Prober},
    schedule::Schedule,
    state::State,
};
use crate::{
    model::{Check, HealthCheck},
    snapshot::Health,
};

/// How many probes may run at once, each with one file descriptor. Even if this many servers hang, the
/// others are probed on time; beyond it probes wait for each other.
const MAX_AT_ONCE: usize = 512;

/// "This host cannot probe" is logged at most this often: it tends to hit every target at once.
const LOCAL_TROUBLE_EVERY: Duration = Duration::from_secs(10);

/// Names what is probed: a server in the eyes of one VIP.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetId {
    /// Name of the VIP.
    pub vip: String,
    /// Name of the server within the VIP's pool.
    pub server: String,
}

/// What is probed, where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name; unique among the targets.
    pub id: TargetId,
    /// Server's address and the port to probe.
    pub address: SocketAddr,
    /// How to judge it.
    pub check: HealthCheck,
}

/// News about a target: sent when it is taken in, when its health changes and when its reason does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthEvent {
    /// Which target.
    pub id: TargetId,
    /// Its health now.
    pub state: Health,
    /// Why: the last probe's result in words.
    pub reason: String,
    /// Since when the health is what it is, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// Whether the health (and not only the reason) differs from the event before.
    #[serde(skip)]
    pub changed: bool,
}

/// The running health checks. Dropping it stops them.
#[derive(Debug)]
pub struct Checker {
    targets: watch::Sender<Arc<[Target]>>,
}

impl Checker {
    /// Starts checking, from within a tokio runtime. There are no targets until [`Self::set_targets`]; those of which
    /// something is `known` from before go on from there.
    #[must_use]
    pub fn spawn(known: Vec<HealthEvent>, events: mpsc::Sender<HealthEvent>) -> Self {
        Self::spawn_with(Network, known, events)
    }

    /// Like [`Self::spawn`], with another way to probe.
    #[must_use]
    pub fn spawn_with(
        prober: impl Prober,
        known: Vec<HealthEvent>,
        events: mpsc::Sender<HealthEvent>,
    ) -> Self {
        let (targets, receiver) = watch::channel(Arc::from([]));
        let known = known.into_iter().map(|event| (event.id.clone(), event)).collect();
        tokio::spawn(Runner { known, ..Runner::new(prober, events) }.run(receiver));
        Self { targets }
    }

    /// Replaces all targets. A target that stays the same keeps its health and its rhythm; one whose check
    /// changed keeps its health; one whose address changed starts as unknown. Returns at once.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.targets.send_replace(targets.into());
    }
}

/// A target with what is known about it.
struct Entry {
    target: Target,
    state: State,
    /// Tells results of this entry's task from those of one it replaced.
    generation: u64,
    /// Probes the target until the entry goes; `None` for a target that is not to be checked.
    _task: Option<Task>,
}

/// A task that ends when its handle is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a probe task found.
struct Finding {
    id: TargetId,
    generation: u64,
    outcome: Outcome,
}

struct Runner<P> {
    prober: Arc<P>,
    permits: Arc<Semaphore>,
    entries: HashMap<TargetId, Entry>,
    /// What was known of targets before the first of them came.
    known: HashMap<TargetId, HealthEvent>,
    generations: u64,
    findings: (mpsc::Sender<Finding>, mpsc::Receiver<Finding>),
    events: mpsc::Sender<HealthEvent>,
    local_trouble_logged: Option<Instant>,
}

impl<P: Prober> Runner<P> {
    fn new(prober: P, events: mpsc::Sender<HealthEvent>) -> Self {
        Self {
            prober: Arc::new(prober),
            permits: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            entries: HashMap::new(),
            known: HashMap::new(),
            generations: 0,
            findings: mpsc::channel(MAX_AT_ONCE),
            events,
            local_trouble_logged: None,
        }
    }

    /// Runs until the [`Checker`] or the receiver of the events is gone.
    async fn run(mut self, mut targets: watch::Receiver<Arc<[Target]>>) {
        loop {
            let news = tokio::select! {
                changed = targets.changed() => match changed {
                    Ok(()) => {
                        let wanted = Arc::clone(&targets.borrow_and_update());
                        self.replace_targets(&wanted)
                    }
                    Err(_) => return,
                },
                Some(finding) = self.findings.1.recv() => self.take_in(finding).into_iter().collect(),
            };
            for event in news {
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    fn replace_targets(&mut self, wanted: &[Target]) -> Vec<HealthEvent> {
        let mut old = std::mem::take(&mut self.entries);
        let mut news = Vec::new();
        for target in wanted {
            let entry = match old.remove(&target.id) {
                Some(entry) if entry.target == *target => entry,
                previous => {
                    let (entry, event) = self.begin(target.clone(), previous);
                    news.push(event);
                    entry
                }
            };
            self.entries.insert(target.id.clone(), entry);
        }
        self.known.clear();
        news
    }

    /// Takes in a new target, or one that changed.
    fn begin(&mut self, target: Target, previous: Option<Entry>) -> (Entry, HealthEvent) {
        let now = wall_clock();
        let known = previous.as_ref().map(|entry| entry.state.health());
        let mut state = match previous {
            Some(entry) if entry.target.address.ip() == target.address.ip() => entry.state,
            _ => match self.known.remove(&target.id) {
                Some(event) => State::resume(event.state, event.since, event.reason, &target.check),
                None => State::new(now, &target.check),
            },
        };
        state.set_check(&target.check);
        self.generations += 1;
        let generation = self.generations;
        let task = if target.check.check == Check::None {
            if let Some(change) = state.on_unchecked(now) {
                log(&target.id, &change);
            }
            None
        } else {
            Some(Task(tokio::spawn(self.task(target.clone(), generation)).abort_handle()))
        };
        let changed = known != Some(state.health());
        let event = event(&target.id, &state, changed);
        (Entry { target, state, generation, _task: task }, event)
    }

    /// Probes one target whenever it is due, for ever.
    fn task(&self, target: Target, generation: u64) -> impl Future<Output = ()> + Send + use<P> {
        let prober = Arc::clone(&self.prober);
        let permits = Arc::clone(&self.permits);
        let findings = self.findings.0.clone();
        let start = Instant::now().into_std();
        let mut schedule = Schedule::new(start, &target.id, target.check.interval);
        async move {
            loop {
                tokio::time::sleep_until(schedule.due().into()).await;
                let outcome = match permits.acquire().await {
                    Ok(_permit) => prober.probe(&target).await,
                    Err(_) => return,
                };
                let finding = Finding { id: target.id.clone(), generation, outcome };
                if findings.send(finding).await.is_err() {
                    return;
                }
                schedule.advance(Instant::now().into_std());
            }
        }
    }

    /// Judges a result; gives the event if there is anything to tell.
    fn take_in(&mut self, finding: Finding) -> Option<HealthEvent> {
        let entry = self.entries.get_mut(&finding.id)?;
        if entry.generation != finding.generation {
            return None;
        }
        if let Outcome::Inconclusive(why) = &finding.outcome {
            let last = self.local_trouble_logged;
            if last.is_none_or(|last| last.elapsed() >= LOCAL_TROUBLE_EVERY) {
                self.local_trouble_logged = Some(Instant::now());
                let TargetId { vip, server } = &finding.id;
                warn!("health checks: {why}; {server} of VIP {vip}, and maybe others, was not probed");
            }
        }
        let reason = entry.state.reason().to_owned();
        let change = entry.state.on_result(wall_clock(), finding.outcome);
        if let Some(change) = &change {
            log(&finding.id, change);
        }
        let news = change.is_some() || entry.state.reason() != reason;
        news.then(|| event(&finding.id, &entry.state, change.is_some()))
    }
}

fn event(id: &TargetId, state: &State, changed: bool) -> HealthEvent {
    HealthEvent {
        id: id.clone(),
        state: state.health(),
        reason: state.reason().to_owned(),
        since: state.since(),
        changed,
    }
}

fn log(id: &TargetId, change: &Transition) {
    let TargetId { vip, server } = id;
    let Transition { old, new, reason } = change;
    if *new == Health::Down {
        warn!("VIP {vip}: server {server} is {new}, was {old}: {reason}");
    } else {
        info!("VIP {vip}: server {server} is {new}, was {old}: {reason}");
    }
}

/// Seconds since 1970-01-01 UTC.
fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests;
