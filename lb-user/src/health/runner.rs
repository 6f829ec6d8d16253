//! The task that has servers probed and judges them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    HealthEvent, Outcome, Place, Subject, Target, TargetId, Transition, probe::Prober, schedule::Schedule,
    state::State,
};
use crate::{model::Check, snapshot::Health};

/// "This host cannot probe" is logged at most this often: it tends to hit every target at once.
const LOCAL_TROUBLE_EVERY: Duration = Duration::from_secs(10);

/// When all probes that may run are under way, look again after this long at the latest.
const CROWDED: Duration = Duration::from_millis(50);

/// Without anything to probe, the runner wakes this often.
const IDLE: Duration = Duration::from_secs(3_600);

/// A target with what is known about it.
struct Member {
    target: Target,
    state: State,
}

/// Probes of one subject, and whom they are for.
struct Series {
    subject: Arc<Subject>,
    schedule: Schedule,
    members: Vec<Member>,
    /// What the last probe found.
    last: Option<Outcome>,
    under_way: Option<Task>,
}

/// A task that ends when its handle is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a probe of the series of this number found.
struct Finding(u64, Outcome);

pub(super) struct Runner<P> {
    prober: Arc<P>,
    permits: Arc<Semaphore>,
    /// By a number that is never used again, so that a late finding is nobody else's.
    series: HashMap<u64, Series>,
    numbers: HashMap<Arc<Subject>, u64>,
    next_number: u64,
    /// What was known of targets before the first of them came.
    known: HashMap<TargetId, HealthEvent>,
    /// Targets that are not probed.
    unprobed: Vec<Member>,
    /// When which series is due, soonest first; those that have changed their mind since are still in it.
    agenda: BinaryHeap<Reverse<(std::time::Instant, u64)>>,
    findings: (mpsc::UnboundedSender<Finding>, mpsc::UnboundedReceiver<Finding>),
    events: mpsc::Sender<HealthEvent>,
    local_trouble_logged: Option<Instant>,
}

impl<P: Prober> Runner<P> {
    pub(super) fn new(
        prober: P,
        known: Vec<HealthEvent>,
        events: mpsc::Sender<HealthEvent>,
        at_once: usize,
    ) -> Self {
        Self {
            prober: Arc::new(prober),
            permits: Arc::new(Semaphore::new(at_once)),
            series: HashMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            known: known.into_iter().map(|event| (event.id.clone(), event)).collect(),
            unprobed: Vec::new(),
            agenda: BinaryHeap::new(),
            findings: mpsc::unbounded_channel(),
            events,
            local_trouble_logged: None,
        }
    }

    /// Runs until the [`super::Checker`] or the receiver of the events is gone.
    pub(super) async fn run(mut self, mut targets: watch::Receiver<Option<Arc<[Target]>>>) {
        loop {
            let wake = self.start_due();
            let mut news = Vec::new();
            tokio::select! {
                changed = targets.changed() => match changed {
                    Ok(()) => {
                        let wanted = targets.borrow_and_update().clone().unwrap_or_default();
                        news = self.replace_targets(&wanted);
                    }
                    Err(_) => return,
                },
                Some(finding) = self.findings.1.recv() => {
                    self.take_in(finding, &mut news);
                    while let Ok(finding) = self.findings.1.try_recv() {
                        self.take_in(finding, &mut news);
                    }
                }
                () = sleep_until(wake) => {}
            }
            for event in news {
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Starts the probes that are due, as many as may run; gives when to look again.
    fn start_due(&mut self) -> Instant {
        let now = Instant::now();
        while let Some(&Reverse((due, number))) = self.agenda.peek() {
            if due > now.into_std() {
                return due.into();
            }
            let is_due = |series: &&mut Series| series.under_way.is_none() && series.schedule.due() == due;
            if let Some(series) = self.series.get_mut(&number).filter(is_due) {
                let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return now + CROWDED };
                let (prober, findings) = (Arc::clone(&self.prober), self.findings.0.clone());
                let subject = Arc::clone(&series.subject);
                let task = tokio::spawn(async move {
                    let outcome = prober.probe(&subject).await;
                    drop(permit);
                    // The runner may have ended.
                    let _ = findings.send(Finding(number, outcome));
                });
                series.under_way = Some(Task(task.abort_handle()));
            }
            self.agenda.pop();
        }
        now + IDLE
    }

    fn replace_targets(&mut self, wanted: &[Target]) -> Vec<HealthEvent> {
        let members = self.series.values_mut().flat_map(|series| series.members.drain(..));
        let members = members.chain(self.unprobed.drain(..));
        let mut old: HashMap<TargetId, Member> =
            members.map(|member| (member.target.id.clone(), member)).collect();
        let mut news = Vec::new();
        for target in wanted {
            let previous = old.remove(&target.id);
            let same = previous.as_ref().is_some_and(|member| member.target == *target);
            let mut member = match previous {
                Some(member) if same => member,
                previous => {
                    let (member, event) = begin(target.clone(), previous, &mut self.known);
                    news.push(event);
                    member
                }
            };
            let Some(subject) = target.subject() else {
                self.unprobed.push(member);
                continue;
            };
            let number = self.number_of(subject);
            let series = self.series.get_mut(&number).expect("every number has its series");
            if !same {
                let event = news.last_mut().expect("the one just sent");
                if let Some(due) = series.welcome(&mut member, event) {
                    self.agenda.push(Reverse((due, number)));
                }
            }
            series.members.push(member);
        }
        self.known.clear();
        self.series.retain(|_, series| !series.members.is_empty());
        self.numbers.retain(|_, number| self.series.contains_key(number));
        news
    }

    /// The number of the series of a subject, new or not.
    fn number_of(&mut self, subject: Subject) -> u64 {
        if let Some(&number) = self.numbers.get(&subject) {
            return number;
        }
        let number = self.next_number;
        self.next_number += 1;
        let subject = Arc::new(subject);
        let schedule = Schedule::new(Instant::now().into_std(), subject.address, subject.interval);
        self.agenda.push(Reverse((schedule.due(), number)));
        self.numbers.insert(Arc::clone(&subject), number);
        let series = Series { subject, schedule, members: Vec::new(), last: None, under_way: None };
        self.series.insert(number, series);
        number
    }

    /// Judges a result, for each member; puts what there is to tell to the news.
    fn take_in(&mut self, Finding(number, outcome): Finding, news: &mut Vec<HealthEvent>) {
        let Some(series) = self.series.get_mut(&number) else { return };
        series.under_way = None;
        if let (Outcome::Inconclusive(why), Some(member)) = (&outcome, series.members.first()) {
            let last = self.local_trouble_logged;
            if last.is_none_or(|last| last.elapsed() >= LOCAL_TROUBLE_EVERY) {
                self.local_trouble_logged = Some(Instant::now());
                let TargetId { vip, server } = &member.target.id;
                warn!("health checks: {why}; {server} of VIP {vip}, and maybe others, was not probed");
            }
        }
        let now = wall_clock();
        for member in &mut series.members {
            news.extend(member.take_in(now, &outcome));
        }
        series.last = Some(outcome);
        series.schedule.advance(Instant::now().into_std(), series.step());
        self.agenda.push(Reverse((series.schedule.due(), number)));
    }
}

impl Series {
    /// How long after the last probe the next one is to come.
    fn step(&self) -> Duration {
        let states = || self.members.iter().map(|member| &member.state);
        if states().any(State::is_changing) {
            self.subject.fast_interval
        } else if states().all(|state| state.health() == Health::Down) {
            self.subject.down_interval
        } else {
            self.subject.interval
        }
    }

    /// Tells a new member what is known; if that is nothing, a probe is to come at once: gives when.
    fn welcome(&mut self, member: &mut Member, event: &mut HealthEvent) -> Option<std::time::Instant> {
        if member.state.health() != Health::Unknown {
            return None;
        }
        if let Some(news) = self.last.as_ref().and_then(|last| member.take_in(wall_clock(), last)) {
            *event = news;
        }
        let waits =
            member.state.health() == Health::Unknown && self.last.is_some() && self.under_way.is_none();
        waits.then(|| {
            self.schedule.hurry(Instant::now().into_std());
            self.schedule.due()
        })
    }
}

impl Member {
    /// Takes in a result; gives what there is to tell, if anything.
    fn take_in(&mut self, now: u64, outcome: &Outcome) -> Option<HealthEvent> {
        let before = self.state.version();
        let change = self.state.on_result(now, outcome);
        if let Some(change) = &change {
            log(&self.target.id, change);
        }
        let news = change.is_some() || self.state.version() != before;
        news.then(|| event(&self.target.id, &self.state, change.is_some()))
    }
}

/// Takes in a new target, or one that changed.
fn begin(
    target: Target,
    previous: Option<Member>,
    before: &mut HashMap<TargetId, HealthEvent>,
) -> (Member, HealthEvent) {
    let now = wall_clock();
    let known = previous.as_ref().map(|member| member.state.health());
    let mut state = match previous {
        Some(member) if member.target.place.server() == target.place.server() => member.state,
        _ => match before.remove(&target.id) {
            Some(event) => State::resume(event.state, event.since, event.reason, &target.check),
            None => State::new(now, &target.check),
        },
    };
    state.set_check(&target.check);
    let change = match &target.place {
        Place::Nowhere(why) => state.on_nowhere(now, why),
        Place::At { .. } if target.check.check == Check::None => state.on_unchecked(now),
        Place::Sought => {
            state.on_wait("its name is being looked up");
            None
        }
        Place::At { .. } => None,
    };
    if let Some(change) = change {
        log(&target.id, &change);
    }
    let changed = known != Some(state.health());
    let event = event(&target.id, &state, changed);
    (Member { target, state }, event)
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
