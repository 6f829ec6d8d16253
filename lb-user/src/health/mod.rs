//! Which servers are well. Health belongs to a pair of VIP and server: a machine may be down in one VIP
//! and up in twenty-two others.
//!
//! Targets that are probed alike share their probes: each is a member of a *series* with one subject, one
//! [`schedule`] and one probe under way at most. One `runner` starts what is due, takes in the results, decides for
//! each member with [`state`], logs each change once and tells the rest of the daemon through a channel. Nobody waits
//! for anybody: results and new targets reach the runner as messages.

pub mod probe;
mod runner;
pub mod schedule;
pub mod state;
mod target_id;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use self::{
    probe::{Network, Prober},
    runner::Runner,
};
pub use self::{
    state::{Outcome, Transition},
    target_id::{Pair, TargetId},
};
use crate::{
    model::{Check, HealthCheck},
    snapshot::Health,
};

/// How many probes may run at once, each with one file descriptor, if this process may open enough files. Even if
/// this many servers hang, the others are probed on time; beyond it probes wait for each other.
const MAX_AT_ONCE: usize = 4_096;

/// What is probed, where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name; unique among the targets.
    pub id: TargetId,
    /// Where to probe.
    pub place: Place,
    /// How to judge it.
    pub check: HealthCheck,
}

/// Where a target is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this address and port. `server` is the server's own address, which makes it the server it is.
    At {
        /// Address of the server.
        server: IpAddr,
        /// Where the probe goes; most often the same address.
        probe: SocketAddr,
    },
    /// That is still being found out.
    Sought,
    /// Nowhere, for this reason: it is down.
    Nowhere(String),
}

impl Place {
    fn server(&self) -> Option<IpAddr> {
        match self {
            Self::At { server, .. } => Some(*server),
            Self::Sought | Self::Nowhere(_) => None,
        }
    }
}

/// What is probed, how and how often. Targets that agree in it share their probes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Address and port.
    pub address: SocketAddr,
    /// What a probe does.
    pub check: Check,
    /// A probe without an answer fails after this long.
    pub timeout: Duration,
    /// Time between probes.
    interval: Duration,
    /// The same while results speak for a change.
    fast_interval: Duration,
    /// The same while the server is down for everybody.
    down_interval: Duration,
}

impl Target {
    /// What is to be probed for it, if anything.
    fn subject(&self) -> Option<Subject> {
        let Place::At { probe: address, .. } = self.place else { return None };
        let HealthCheck { check, timeout, interval, fast_interval, down_interval, .. } = &self.check;
        let (interval, timeout) = (*interval, *timeout);
        let [fast_interval, down_interval] =
            [fast_interval, down_interval].map(|own| own.unwrap_or(interval));
        let check = check.clone();
        (check != Check::None).then_some(Subject {
            address,
            check,
            timeout,
            interval,
            fast_interval,
            down_interval,
        })
    }
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
    /// None until the first are named: none at all is something else.
    targets: watch::Sender<Option<Arc<[Target]>>>,
}

impl Checker {
    /// Starts checking, from within a tokio runtime, for a configuration in `folder`. There are no targets until
    /// [`Self::set_targets`]; those of which something is `known` from before go on from there.
    #[must_use]
    pub fn spawn(known: Vec<HealthEvent>, events: mpsc::Sender<HealthEvent>, folder: &Path) -> Self {
        Self::start(Network::new(folder), known, events, at_once())
    }

    /// Like [`Self::spawn`], with another way to probe.
    #[must_use]
    pub fn spawn_with(
        prober: impl Prober,
        known: Vec<HealthEvent>,
        events: mpsc::Sender<HealthEvent>,
    ) -> Self {
        Self::start(prober, known, events, MAX_AT_ONCE)
    }

    fn start(
        prober: impl Prober,
        known: Vec<HealthEvent>,
        events: mpsc::Sender<HealthEvent>,
        at_once: usize,
    ) -> Self {
        let (targets, receiver) = watch::channel(None);
        tokio::spawn(Runner::new(prober, known, events, at_once).run(receiver));
        Self { targets }
    }

    /// Replaces all targets. A target that stays the same keeps its health and its rhythm; one whose check
    /// changed keeps its health; one whose address changed starts as unknown. Returns at once.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.targets.send_if_modified(|before| {
            let changed = before.as_deref() != Some(&*targets);
            if changed {
                *before = Some(targets.into());
            }
            changed
        });
    }
}

/// How many probes may run at once. A process is often started with far fewer files than it may have.
fn at_once() -> usize {
    let files = MAX_AT_ONCE as u64 * 2;
    let limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.map_or(files, |most| most.min(files));
    let current = match limit.current {
        Some(current) if current < raised => {
            let wanted = Rlimit { current: Some(raised), ..limit };
            setrlimit(Resource::Nofile, wanted).map_or(current, |()| raised)
        }
        current => current.unwrap_or(files),
    };
    // Half of them are for everything else.
    usize::try_from(current / 2).unwrap_or(MAX_AT_ONCE).clamp(1, MAX_AT_ONCE)
}

#[cfg(test)]
mod tests;
