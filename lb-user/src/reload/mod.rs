//! Reads the configuration file again: when asked to, on SIGHUP, or when it changes. A file that cannot be used changes
//! nothing. What was in use is kept, and can be gone back to.

mod apply;
mod candidate;
pub mod changes;
pub mod edit;
pub mod history;
mod targets;
mod text;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

pub(crate) use self::targets::probe_port;
use self::{history::History, text::Watched};
pub use self::{
    targets::{servers, targets},
    text::{read_file, read_text},
};
use crate::{
    admin::{Denial, Handle, How, ReloadRequest, Reloaded, Terms, Wish},
    config::Written,
    health::Checker,
    l7,
    model::{Config, PortRange},
    names::{Findings, Wanted},
    netlink::{self, Netlink, links::Link},
    snapshot::LastReload,
    vip_addresses::VipAddresses,
    ways_back::WaysBack,
};

/// What becomes of other configurations.
#[derive(Clone, Debug)]
pub struct Options {
    /// The text of the one in use.
    pub text: String,
    /// What is written in it.
    pub written: Arc<Written>,
    /// Whether the file is read again when it changes.
    pub watch: bool,
    /// Those that were in use.
    pub history: History,
}

/// Who follows a configuration beside the reconcile loop.
pub struct Followers<'a> {
    /// Health checks.
    pub checker: Checker,
    /// The watch over the ways to the servers.
    pub servers: watch::Sender<Arc<[IpAddr]>>,
    /// Addresses of VIPs.
    pub addresses: &'a Mutex<VipAddresses>,
    /// Ways back of servers that see clients' addresses.
    pub ways: &'a Mutex<WaysBack>,
    /// To put them up.
    pub netlink: &'a Netlink,
    /// Where.
    pub links: &'a [Link],
}

impl Followers<'_> {
    /// Has the servers checked and looked for.
    pub fn follow(&self, config: &Config) {
        let servers = servers(config);
        // The kernel is not asked for thousands of ways again because something else has changed.
        self.servers.send_if_modified(|before| {
            let changed = *before != servers;
            *before = servers;
            changed
        });
        self.checker.set_targets(targets(config));
    }

    /// Has answers to clients' addresses come back.
    ///
    /// # Errors
    /// What the kernel refuses; the rest is done all the same.
    async fn lead_back(&self, config: &Config) -> Result<(), netlink::Error> {
        self.ways.lock().await.follow(self.netlink, config).await
    }
}

/// The configuration in use, and what a new one goes through.
pub struct Reloader<'a> {
    /// The file; `None` when the start found none.
    pub file: Option<PathBuf>,
    /// What it said last.
    pub config: Arc<Config>,
    /// The same with what was found of the names of servers.
    pub placed: Arc<Config>,
    /// Where it is told which names are to be looked up.
    pub names: watch::Sender<Arc<Wanted>>,
    /// What was found of them.
    pub findings: watch::Receiver<Arc<Findings>>,
    /// The same as text.
    pub text: String,
    /// What is written there.
    pub written: Arc<Written>,
    /// Whether a file that changes is read again without being asked.
    pub watch: bool,
    /// What was in use before.
    pub history: History,
    /// Where it is told how the last reload went.
    pub outcome: watch::Sender<Option<LastReload>>,
    /// Ports that this host uses for itself.
    pub own_ports: PortRange,
    /// Leads to the reconcile loop.
    pub handle: Handle,
    /// Leads to who looks after l7-proxy.
    pub proxy: l7::Handle,
    /// Who follows.
    pub followers: Followers<'a>,
}

/// What is to be confirmed, and until when.
struct Trial {
    until: Instant,
    /// The number to go back to.
    before: u32,
}

/// Why a confirmation is refused.
const NOTHING_TO_CONFIRM: &str = "nothing waits to be confirmed";

impl Reloader<'_> {
    /// Does what is asked for, until nobody can ask any more.
    pub async fn run(mut self, mut requests: mpsc::Receiver<ReloadRequest>, hangup: &Notify) {
        let mut trial: Option<Trial> = None;
        let mut watched = Watched::new(self.watch.then(|| self.file.clone()).flatten());
        if self.file.is_some()
            && let Err(error) = self.history.keep(&self.text)
        {
            warn!("the configuration is not kept for rollback: {error}");
        }
        loop {
            let until = trial.as_ref().map_or_else(far_away, |trial| trial.until);
            let (wish, terms, answer) = tokio::select! {
                request = requests.recv() => match request {
                    Some(ReloadRequest(wish, terms, answer)) => (wish, terms, Some(answer)),
                    None => return,
                },
                () = hangup.notified() => (Wish::Apply, Terms::default(), None),
                () = watched.changed() => {
                    // Written by us, or put back as it was.
                    if self.file.as_deref().is_some_and(|file| read_file(file).is_ok_and(|now| now == self.text)) {
                        continue;
                    }
                    (Wish::Apply, Terms::default(), None)
                }
                Ok(()) = self.findings.changed() => {
                    self.follow_names().await;
                    continue;
                }
                () = sleep_until(until) => {
                    error!("the configuration was not confirmed in time; going back");
                    (Wish::GoBack(trial.take().map_or(0, |trial| trial.before)), Terms::default(), None)
                }
            };
            // Those that leave the file as it is in use when they are refused.
            let harmless = terms.dry_run || matches!(wish, Wish::Confirm | Wish::Discard | Wish::Edit(..));
            // Whatever becomes of the configuration: who is not to be let in any more must not wait for it.
            let reads = matches!(wish, Wish::Apply | Wish::Commit(_)) && !terms.dry_run;
            let problems = if reads { self.handle.read_access_again() } else { Vec::new() };
            let outcome = self.fulfil(wish, terms, &mut trial).await;
            let outcome = outcome.map(|mut told| {
                told.warnings.extend(problems);
                told
            });
            self.tell(harmless, &outcome, trial.as_ref());
            if let Some(answer) = answer {
                // Who asked may have given up.
                let _ = answer.send(outcome);
            }
        }
    }

    async fn fulfil(
        &mut self,
        wish: Wish,
        terms: Terms,
        trial: &mut Option<Trial>,
    ) -> Result<Reloaded, Denial> {
        // Early, so that nothing is written for nothing. The loop looks again when it goes over, and tells the version then.
        let brings = matches!(
            wish,
            Wish::Apply | Wish::Commit(_) | Wish::GoBack(_) | Wish::Edit(_, How::Apply | How::Commit(_))
        );
        let before = if terms.seen.is_some() || terms.dry_run || !brings {
            Some(self.handle.in_use(terms.clone()).await?.version.to_string())
        } else {
            None
        };
        if trial.is_some() && !terms.dry_run && !matches!(wish, Wish::Confirm | Wish::GoBack(_)) {
            return Err(
                "the last commit has yet to be confirmed; confirm it (lbctl confirm) or go back (lbctl \
                        rollback) first"
                    .into(),
            );
        }
        if terms.dry_run {
            let told = self.foresee(wish, trial.is_some()).await?;
            return Ok(Reloaded { etag: before.unwrap_or_default(), ..told });
        }
        let told = self.obey(wish, terms, trial).await?;
        // What brings another configuration knows the version that came with it.
        let etag = if told.etag.is_empty() { before.unwrap_or_default() } else { told.etag };
        Ok(Reloaded { etag, ..told })
    }

    /// What would come of a wish.
    async fn foresee(&self, wish: Wish, unconfirmed: bool) -> Result<Reloaded, String> {
        let candidate = match wish {
            Wish::Apply | Wish::Commit(_) => self.look().await?,
            Wish::GoBack(number) => self.kept(number).await?,
            Wish::Edit(edit, How::Stage) => self.edited_further(&edit).await?,
            Wish::Edit(edit, How::Apply | How::Commit(_)) => self.edited(&edit).await?,
            Wish::Discard => {
                let (file, text) = self.file_text()?;
                let changes = changes::between(&text, &self.text);
                return Ok(Reloaded { file, vips: self.config.vips.len(), changes, ..Reloaded::default() });
            }
            Wish::Confirm if !unconfirmed => return Err(NOTHING_TO_CONFIRM.into()),
            Wish::Confirm => {
                let (file, vips) = (self.file_name()?, self.config.vips.len());
                return Ok(Reloaded { file, vips, ..Reloaded::default() });
            }
        };
        Ok(candidate.report())
    }

    async fn obey(
        &mut self,
        wish: Wish,
        terms: Terms,
        trial: &mut Option<Trial>,
    ) -> Result<Reloaded, Denial> {
        match wish {
            Wish::Apply => {
                let candidate = self.look().await?;
                self.apply(candidate, terms).await
            }
            Wish::Commit(patience) => {
                let candidate = self.look().await?;
                let before = self.begin_trial()?;
                let outcome = self.apply(candidate, terms).await;
                self.note_trial(outcome, patience, before, trial)
            }
            Wish::Edit(edit, How::Stage) => Ok(self.stage(&edit).await?),
            Wish::Discard => Ok(self.discard()?),
            Wish::Edit(edit, How::Apply) => {
                let candidate = self.edited(&edit).await?;
                self.write_and_apply(candidate, terms).await
            }
            Wish::Edit(edit, How::Commit(patience)) => {
                let candidate = self.edited(&edit).await?;
                let before = self.begin_trial()?;
                let outcome = self.write_and_apply(candidate, terms).await;
                self.note_trial(outcome, patience, before, trial)
            }
            Wish::Confirm => {
                trial.take().ok_or(NOTHING_TO_CONFIRM)?;
                self.history.confirmed();
                let (file, vips) = (self.file_name()?, self.config.vips.len());
                Ok(Reloaded { file, vips, applied: true, ..Reloaded::default() })
            }
            Wish::GoBack(number) => {
                let told = self.go_back(number, terms).await?;
                *trial = None;
                self.history.confirmed();
                Ok(told)
            }
        }
    }

    /// Notes that a confirmation will be waited for: first, so that a start after a kill knows. Gives the number to go
    /// back to.
    fn begin_trial(&self) -> Result<u32, String> {
        let refused = |error: io::Error| format!("cannot keep what is to be gone back to: {error}");
        let before = self.history.keep(&self.text).map_err(refused)?;
        self.history.wait_for_confirmation(before).map_err(refused)?;
        Ok(before)
    }

    /// Waits for the confirmation, or does not if nothing came of it.
    fn note_trial(
        &self,
        outcome: Result<Reloaded, Denial>,
        patience: Duration,
        before: u32,
        trial: &mut Option<Trial>,
    ) -> Result<Reloaded, Denial> {
        let told = outcome.inspect_err(|_| self.history.confirmed())?;
        *trial = Some(Trial { until: Instant::now() + patience, before });
        Ok(Reloaded { confirm_within: Some(patience.as_secs()), ..told })
    }

    /// Says in the log, and to those who look, how it went. A refusal that
    /// is `harmless` is the affair of who asked.
    fn tell(&self, harmless: bool, outcome: &Result<Reloaded, Denial>, trial: Option<&Trial>) {
        let problem = match outcome {
            Ok(Reloaded { applied: false, .. }) => return,
            Ok(Reloaded { file, vips, warnings, changes, .. }) => {
                warnings.iter().for_each(|warning| warn!("{warning}"));
                changes.iter().for_each(|change| info!("{change}"));
                info!("{file} is in use: {vips} VIPs, {} changes", changes.len());
                None
            }
            Err(findings) => {
                // Who was too late learns it; the file is as good as before.
                if harmless || matches!(findings, Denial::Changed { .. }) {
                    return;
                }
                let findings = findings.to_string();
                findings.lines().for_each(|line| error!("{line}"));
                error!("the configuration in use stays as it is");
                Some(findings)
            }
        };
        let confirm_until = trial.map(|trial| unix_time() + (trial.until - Instant::now()).as_secs());
        self.outcome.send_replace(Some(LastReload { time: unix_time(), problem, confirm_until }));
    }

    fn file_name(&self) -> Result<String, String> {
        let none = "lb-user was started without a configuration file; start it anew with --config";
        self.file.as_ref().map(|file| file.display().to_string()).ok_or_else(|| none.into())
    }

    /// The file's name, and what it says now.
    fn file_text(&self) -> Result<(String, String), String> {
        let (file, path) = (self.file_name()?, self.file.as_deref().unwrap_or(Path::new("")));
        let text =
            read_file(path).map_err(|error| format!("cannot read the configuration {file}: {error}"))?;
        Ok((file, text))
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 365)
}

/// Seconds since 1970.
#[must_use]
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
