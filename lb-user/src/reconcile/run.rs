//! The loop: takes messages as they come, several at once if they came meanwhile, and makes one plan of them.

use std::{sync::Arc, time::Duration};

use l7_spec::Spec;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tracing::{debug, error};

use super::Reconciler;
use crate::{
    admin::{Command, Done, StatusRequest},
    datapath::{Datapath, Error},
    health::HealthEvent,
    hops::Surroundings,
    memory::Notebook,
    notify::{Manager, Worker},
    picture::{self, About},
    plan::{Census, Orders},
    snapshot::Snapshot,
    trace,
};

/// After the kernel refused a change, try again this much later.
const RETRY: Duration = Duration::from_secs(1);

/// Slots that may move soon after each other move together.
const BREATH: Duration = Duration::from_millis(50);

/// After a step there is as much rest as it took, up to this, before the next one that nobody waits for: a thousand VIPs
/// whose servers turn out to be well one after the other need not have their rings made for each of them, and who else
/// is on this thread gets on.
const MOST_REST: Duration = Duration::from_millis(500);

/// Without any message, the loop wakes this often.
const IDLE: Duration = Duration::from_secs(3600);

/// A snapshot that nobody asked for is at most this often worth the many counters it takes.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// And at most this part of the time.
const PUBLISH_PART: u32 = 100;

/// But this often, if one took long because the machine had other things to do.
const PUBLISH_AT_LEAST: Duration = Duration::from_secs(5);

/// What reaches the loop.
#[derive(Debug)]
pub struct Inbox {
    /// From the health checks.
    pub health: mpsc::Receiver<HealthEvent>,
    /// From the watch over the network.
    pub surroundings: mpsc::Receiver<Surroundings>,
    /// From the sweep: what it found.
    pub census: mpsc::Receiver<Census>,
    /// From the admin interface: who wants to see the state.
    pub status: mpsc::Receiver<StatusRequest>,
    /// From the admin interface and who reads the configuration: what is to change.
    pub commands: mpsc::Receiver<Command>,
    /// From those who look into packets.
    pub eyes: mpsc::UnboundedReceiver<trace::Question>,
}

/// Runs until one of those who report to it has ended, publishing the state when asked and now and then.
pub async fn run<D: Datapath>(
    mut reconciler: Reconciler<D>,
    about: About,
    mut notebook: Option<Notebook>,
    manager: Arc<Manager>,
    mut inbox: Inbox,
    orders: std::sync::mpsc::Sender<Orders>,
    publish: watch::Sender<Arc<Snapshot>>,
) {
    // Also if it is nothing: a proxy that was left may serve what is not configured any more.
    let mut served: Option<Spec> = None;
    let began = Instant::now();
    let mut stale = true;
    let mut refused: Option<(Instant, Error)> = None;
    let (mut publish_at, mut rests_until) = (Instant::now(), Instant::now());
    let beat = manager.beat().unwrap_or(IDLE);
    let mut next_beat = Instant::now();
    loop {
        let due = reconciler.due().map_or(IDLE, |due| due.saturating_sub(began.elapsed()).max(BREATH));
        let again = refused.as_ref().map_or_else(|| Instant::now() + due, |(at, _)| *at + RETRY);
        let again = if stale && refused.is_none() { again.min(rests_until) } else { again };
        let (mut asked, mut answer): (_, Option<Box<dyn FnOnce() + Send>>) = (None, None);
        // Dropped at the end of this round, by which those who want to watch know that they do.
        let mut switched = None;
        tokio::select! {
            event = inbox.health.recv() => {
                let Some(event) = event else { return };
                stale |= reconciler.on_health(event);
                // What else came meanwhile goes into the same plan.
                while let Ok(event) = inbox.health.try_recv() {
                    stale |= reconciler.on_health(event);
                }
            }
            surroundings = inbox.surroundings.recv() => {
                let Some(surroundings) = surroundings else { return };
                reconciler.on_surroundings(surroundings);
                stale = true;
            }
            census = inbox.census.recv() => {
                let Some(census) = census else { return };
                stale |= reconciler.on_census(census);
            }
            request = inbox.status.recv() => asked = request,
            Some(command) = inbox.commands.recv() => {
                // A question calls for no plan.
                stale |= !matches!(command, Command::InUse(..));
                answer = Some(obey(&mut reconciler, command));
            }
            Some(question) = inbox.eyes.recv() => match question {
                trace::Question::Insight(answer) => {
                    // Whoever asked may be gone.
                    let _ = answer.send(Arc::new(trace::Insight::of(&reconciler, &about)));
                }
                trace::Question::Watch(on, done) => {
                    reconciler.on_watch(on);
                    (stale, switched) = (true, Some(done));
                }
            },
            () = sleep_until(again) => stale |= reconciler.due().is_some(),
            () = sleep_until(next_beat) => {}
        }
        if next_beat <= Instant::now() {
            manager.alive(Worker::Loop);
            next_beat = Instant::now() + beat;
        }
        let wait = refused.as_ref().is_some_and(|(at, _)| at.elapsed() < RETRY);
        // Who looks is to see what holds in the maps.
        let waited_for = answer.is_some() || asked.is_some() || switched.is_some();
        let rests = !waited_for && Instant::now() < rests_until;
        if stale && !wait && !rests {
            let (now, set_out) = (began.elapsed(), Instant::now());
            let operations = reconciler.plan(now);
            // First, so that it knows of everything that the maps may name.
            if let Some(notebook) = &mut notebook {
                notebook.write(reconciler.edition(), || reconciler.facts());
            }
            let mut outcome = reconciler.carry_out(operations, now);
            if outcome.is_ok() {
                if served.as_ref() != Some(&reconciler.proxied.0) {
                    about.proxy.serve(reconciler.proxied.0.clone());
                    served = Some(reconciler.proxied.0.clone());
                }
                // All new packets go by it.
                if let Some(answer) = answer.take() {
                    answer();
                }
                outcome = reconciler.settle().and(outcome);
            }
            match outcome {
                Ok(operations) => {
                    debug!("{operations} map operations");
                    // Without a sweep there is nobody to go by them, and the census ends this loop.
                    let _ = orders.send(reconciler.orders());
                    (stale, refused) = (false, None);
                }
                Err(error) => {
                    if refused.as_ref().is_none_or(|(_, last)| *last != error) {
                        error!("{error}; trying again every {RETRY:?}");
                    }
                    refused = Some((Instant::now(), error));
                }
            }
            rests_until = Instant::now() + set_out.elapsed().min(MOST_REST);
        }
        // Who waits for an answer does not wait for a snapshot that nobody asked for.
        let due = !waited_for && publish_at <= Instant::now();
        if let Some(answer) = answer {
            answer();
        }
        if asked.is_some() || due {
            let set_out = Instant::now();
            let snapshot = Arc::new(picture::snapshot(&reconciler, &about));
            if let Some(request) = asked {
                request.answer(Arc::clone(&snapshot));
            }
            publish.send_replace(snapshot);
            let pause = (set_out.elapsed() * PUBLISH_PART).clamp(PUBLISH_EVERY, PUBLISH_AT_LEAST);
            publish_at = Instant::now() + pause;
        }
    }
}

/// Does what a command says, as far as the plan goes; gives what is to be done when the kernel knows.
fn obey<D: Datapath>(reconciler: &mut Reconciler<D>, command: Command) -> Box<dyn FnOnce() + Send> {
    // Who asked may have given up.
    match command {
        Command::Server(request, terms, answer) => {
            let outcome = reconciler.on_server_request(&request, &terms);
            Box::new(move || drop(answer.send(outcome)))
        }
        Command::Vip(request, terms, answer) => {
            let outcome = reconciler.on_vip_request(&request, &terms);
            Box::new(move || drop(answer.send(outcome)))
        }
        Command::Configure(config, adoption, answer) => {
            let outcome = reconciler.adopt(config, adoption);
            let (carried_out, told) = oneshot::channel();
            drop(answer.send(outcome.map(|Done { version, .. }| Done { what: told, version })));
            Box::new(move || drop::<oneshot::Sender<()>>(carried_out))
        }
        Command::InUse(terms, answer) => {
            let outcome = reconciler.in_use(&terms);
            Box::new(move || drop(answer.send(outcome)))
        }
    }
}
