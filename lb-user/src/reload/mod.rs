//! Reads the configuration file again: when asked to, on SIGHUP, or when it changes. A file that cannot be used changes
//! nothing. What was in use is kept, and can be gone back to.

pub mod changes;
pub mod edit;
pub mod history;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::OFlags;
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{error, info, warn};

use self::{edit::Edit, history::History};
use crate::{
    admin::{Adoption, Denial, Handle, How, ReloadRequest, Reloaded, Terms, Wish},
    config::{self, Checked, Diagnostic, Severity, Written},
    health::{Checker, Place, Target, TargetId},
    l7,
    model::{Address, Config, Found, HealthCheck, Member, PortRange, Server, Vip},
    names::{Findings, Wanted},
    netlink::{self, Netlink, links::Link},
    plan::{proxied, snat},
    premises,
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
    pub written: Written,
    /// Whether the file is read again when it changes.
    pub watch: bool,
    /// Those that were in use.
    pub history: History,
}

/// Far more than thousands of VIPs and servers take, in bytes.
const LARGEST: u64 = 16 << 20;

/// The text of a configuration file. What may let its reader wait, as a pipe does, is refused: nothing else would be done
/// meanwhile.
///
/// # Errors
/// When it cannot be read, is too large, or no file.
pub fn read_file(path: &Path) -> io::Result<String> {
    let no_waiting = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(no_waiting).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    read(file)
}

/// The same of whatever can be read, as a pipe can: for who has nothing else to do.
///
/// # Errors
/// When it cannot be read, or is too large.
pub fn read_text(path: &Path) -> io::Result<String> {
    read(File::open(path)?)
}

/// Not of a device that never ends.
fn read(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(text)
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

/// The addresses of all servers.
#[must_use]
pub fn servers(config: &Config) -> Arc<[IpAddr]> {
    config.pools.iter().flat_map(|pool| &pool.servers).filter_map(Server::address).collect()
}

/// The configuration in use, and what a new one goes through.
pub struct Reloader<'a> {
    /// The file; `None` when the start found none.
    pub file: Option<PathBuf>,
    /// What it said last.
    pub config: Config,
    /// The same with what was found of the names of servers.
    pub placed: Config,
    /// Where it is told which names are to be looked up.
    pub names: watch::Sender<Arc<Wanted>>,
    /// What was found of them.
    pub findings: watch::Receiver<Arc<Findings>>,
    /// The same as text.
    pub text: String,
    /// What is written there.
    pub written: Written,
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

/// A configuration that can be used.
struct Candidate {
    file: String,
    text: String,
    written: Written,
    config: Config,
    warnings: Vec<String>,
}

/// What is to be confirmed, and until when.
struct Trial {
    until: Instant,
    /// The number to go back to.
    before: u32,
}

/// How long a new configuration waits for the names in it.
const FIND_NAMES: Duration = Duration::from_secs(2);

/// Why a confirmation is refused.
const NOTHING_TO_CONFIRM: &str = "nothing waits to be confirmed";

/// How often a file that is watched is looked at. It is read once it has not changed between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often what this host has is looked at again because sockets of VIPs were opened meanwhile.
const LOOKS: usize = 3;

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
        // Early, so that nothing is written for nothing. The loop looks again when it goes over.
        let in_use = self.handle.in_use(terms.clone()).await?;
        if trial.is_some() && !terms.dry_run && !matches!(wish, Wish::Confirm | Wish::GoBack(_)) {
            return Err(
                "the last commit has yet to be confirmed; confirm it (lbctl confirm) or go back (lbctl \
                        rollback) first"
                    .into(),
            );
        }
        if terms.dry_run {
            let told = self.foresee(wish, trial.is_some()).await?;
            return Ok(Reloaded { etag: in_use.version.to_string(), ..told });
        }
        let told = self.obey(wish, terms, trial).await?;
        // What brings another configuration knows the version that came with it.
        let etag = if told.etag.is_empty() { in_use.version.to_string() } else { told.etag };
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
        Ok(self.report(&candidate))
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

    /// What the file says now, if it can be used.
    async fn look(&self) -> Result<Candidate, String> {
        let (file, text) = self.file_text()?;
        self.judge(file, text).await
    }

    /// What this host has that a configuration cannot be beside. A socket that was opened for a VIP while it was looked at
    /// is no stranger.
    async fn conflicts(&self, checked: &Checked) -> anyhow::Result<Vec<Diagnostic>> {
        let mut ours = self.proxy.report();
        for _ in 0..LOOKS {
            let (netlink, ports) = (self.followers.netlink, self.own_ports);
            let found = premises::conflicts(checked, netlink, ports, &ours.sockets).await?;
            if found.iter().all(|finding| finding.severity != Severity::Error) {
                return Ok(found);
            }
            let now = self.proxy.settled().await;
            if now.sockets == ours.sockets {
                return Ok(found);
            }
            ours = now;
        }
        premises::conflicts(checked, self.followers.netlink, self.own_ports, &ours.sockets).await
    }

    async fn judge(&self, file: String, text: String) -> Result<Candidate, String> {
        let checked = config::check_after(&file, &text, &self.written).map_err(|wrong| wrong.to_string())?;
        snat::ports(checked.config.snat_ports, self.own_ports)?;
        let mut findings = premises::files_aside(&checked, PathBuf::from(&file), unix_time()).await;
        let netlink = self.followers.netlink;
        let conflicts = self.conflicts(&checked).await;
        findings.extend(conflicts.map_err(|error| format!("{error:#}"))?);
        let lines = |findings: &[Diagnostic]| findings.iter().map(ToString::to_string).collect::<Vec<_>>();
        if findings.iter().all(|finding| finding.severity != Severity::Error)
            && let Err(objections) = self.proxy.check(proxied::of_config(&checked.config)).await
        {
            findings.extend(objections.iter().map(|objection| objection.about(&checked)));
        }
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(lines(&findings).join("\n"));
        }
        // The ways to those that are in use are watched.
        let known = servers(&self.placed).iter().copied().collect();
        findings.extend(premises::unreachable(&checked, netlink, &known).await);
        let (config, written, mut warnings) = (checked.config, checked.written, lines(&checked.warnings));
        warnings.extend(lines(&findings));
        warnings.extend(
            at_next_start(&self.config, &config)
                .map(|what| format!("{file}: {what} takes effect when lb-user is started the next time")),
        );
        if self.config.proxy.workers.is_some() && config.proxy.workers.is_none() {
            let problem = "without workers in [proxy], l7-proxy keeps as many threads as it has until another one takes its place";
            warnings.push(format!("{file}: {problem}"));
        }
        Ok(Candidate { file, text, written, config, warnings })
    }

    /// What a candidate would bring.
    fn report(&self, candidate: &Candidate) -> Reloaded {
        Reloaded {
            file: candidate.file.clone(),
            vips: candidate.config.vips.len(),
            warnings: candidate.warnings.clone(),
            changes: changes::changes(&self.written, &candidate.written),
            ..Reloaded::default()
        }
    }

    async fn apply(&mut self, candidate: Candidate, terms: Terms) -> Result<Reloaded, Denial> {
        let mut told = self.report(&candidate);
        let Candidate { text, written, config, .. } = candidate;
        let placed = self.look_up(&config).await;
        let adoption = Adoption { text: text.as_str().into(), what: in_a_line(&told), terms };
        // Before anybody connects to a server whose answer would not come back.
        if let Err(error) = self.followers.lead_back(&placed).await {
            told.warnings.push(error.to_string());
        }
        let in_use = match self.handle.configure(placed.clone(), Some(adoption)).await {
            Ok(in_use) => in_use,
            Err(denial) => {
                let _ = self.followers.lead_back(&self.placed).await;
                self.want(Wanted::of(&self.config));
                return Err(denial);
            }
        };
        told.etag = in_use.version.to_string();
        self.want(Wanted::of(&config));
        self.followers.follow(&placed);
        self.placed = placed;
        match self.history.keep(&text) {
            Ok(number) => told.number = Some(number),
            Err(error) => told.warnings.push(format!("it is not kept for rollback: {error}")),
        }
        // Nothing is sent.
        let _ = in_use.what.await;
        self.proxy.renew();
        // While the program does not know a VIP, the host would refuse its clients.
        let mut addresses = self.followers.addresses.lock().await;
        // As with a start, but what the kernel refuses is no reason to give up now.
        if let Err(error) = addresses.follow(self.followers.netlink, &config, self.followers.links).await {
            told.warnings.push(format!("{error:#}"));
        }
        let old =
            (std::mem::replace(&mut self.config, config), std::mem::replace(&mut self.written, written));
        self.text = text;
        // Who asked does not wait for thousands of small things to be put away.
        drop(spawn_blocking(|| drop(old)));
        Ok(Reloaded { applied: true, ..told })
    }

    /// A configuration with what its names stand for. New ones are waited for, for a moment: a server that was given a
    /// name instead of its address is the same server.
    async fn look_up(&mut self, config: &Config) -> Config {
        let wanted = Wanted::of(config);
        let both = wanted.names.union(&self.config.names()).cloned().collect();
        self.want(Wanted { names: both, ..wanted.clone() });
        let known = |found: &Arc<Findings>| wanted.names.iter().all(|name| found.contains_key(name));
        // Whether they are all known by then or not.
        let _ = timeout(FIND_NAMES, self.findings.wait_for(known)).await;
        config.with_addresses(&self.findings.borrow())
    }

    fn want(&self, wanted: Wanted) {
        self.names.send_if_modified(|before| {
            let changed = **before != wanted;
            if changed {
                *before = Arc::new(wanted);
            }
            changed
        });
    }

    /// Names stand for other addresses than before: as with a reload, but the file is the same.
    async fn follow_names(&mut self) {
        let placed = self.config.with_addresses(&self.findings.borrow_and_update());
        if placed == self.placed {
            return;
        }
        if let Err(error) = self.followers.lead_back(&placed).await {
            error!("{error}");
        }
        match self.handle.configure(placed.clone(), None).await {
            Ok(_) => {
                self.followers.follow(&placed);
                self.placed = placed;
            }
            Err(error) => {
                error!("servers stay where they were: {error}");
                let _ = self.followers.lead_back(&self.placed).await;
            }
        }
    }

    /// Writes what was kept under a number into the file, and uses it. What is not in use would be lost: so the file must
    /// be as it was read.
    async fn go_back(&mut self, number: u32, terms: Terms) -> Result<Reloaded, Denial> {
        let candidate = self.kept(number).await?;
        self.write_and_apply(candidate, terms).await
    }

    /// What was kept under a number, if it can be used.
    async fn kept(&self, number: u32) -> Result<Candidate, String> {
        let (file, path) = (self.file_name()?, self.file.clone().unwrap_or_default());
        let candidate = self.judge(file.clone(), self.history.text(number)?).await?;
        if read_file(&path).is_ok_and(|now| now != self.text && now != candidate.text) {
            return Err(changed(&file));
        }
        Ok(candidate)
    }

    /// The file with a change, if it can be used then. What was changed otherwise and is not in use must not come into
    /// use by the way: so the file must be as it was read.
    async fn edited(&self, edit: &Edit) -> Result<Candidate, String> {
        let (file, text) = self.file_text()?;
        if text != self.text {
            return Err(changed(&file));
        }
        self.judge(file, edit.apply(&text)?).await
    }

    /// The file as it is with a change, if it can be used then.
    async fn edited_further(&self, edit: &Edit) -> Result<Candidate, String> {
        let (file, text) = self.file_text()?;
        self.judge(file, edit.apply(&text)?).await
    }

    /// Changes the file, whatever has been changed in it before, and leaves it at that. What comes out must be usable.
    async fn stage(&self, edit: &Edit) -> Result<Reloaded, String> {
        let candidate = self.edited_further(edit).await?;
        let (file, path) = (&candidate.file, self.file.as_deref().unwrap_or(Path::new("")));
        history::write(path, &candidate.text).map_err(|error| format!("cannot write {file}: {error}"))?;
        info!("{file} was changed by command; it is not in use yet");
        Ok(self.report(&candidate))
    }

    /// Puts the file back as it is in use. What it said is kept aside.
    fn discard(&self) -> Result<Reloaded, String> {
        let (file, text) = self.file_text()?;
        let path = self.file.as_deref().unwrap_or(Path::new(""));
        let told = Reloaded { file: file.clone(), vips: self.config.vips.len(), ..Reloaded::default() };
        if text == self.text {
            return Ok(told);
        }
        let kept =
            self.history.set_aside(&text).map_err(|error| format!("cannot keep what it says: {error}"))?;
        history::write(path, &self.text).map_err(|error| format!("cannot write {file}: {error}"))?;
        info!("{file} is as it is in use again; what it said is in {}", kept.display());
        let warnings = vec![format!("what it said is in {}", kept.display())];
        Ok(Reloaded { warnings, changes: changes::between(&text, &self.text), ..told })
    }

    /// Writes a candidate into the file and uses it; if that fails, the file is as before.
    async fn write_and_apply(&mut self, candidate: Candidate, terms: Terms) -> Result<Reloaded, Denial> {
        let (file, path) = (candidate.file.clone(), self.file.clone().unwrap_or_default());
        // As it is on disk: of a file that says already what is to be gone back to, too.
        let (in_use, cannot) = (self.text.clone(), |error| format!("cannot write {file}: {error}"));
        // What was in use is to be found again.
        let kept = self.history.keep(&in_use);
        let before = read_file(&path).unwrap_or(in_use);
        history::write(&path, &candidate.text).map_err(cannot)?;
        match self.apply(candidate, terms).await {
            Ok(mut told) => {
                if let Err(error) = kept {
                    told.warnings.push(format!("what was in use before is not kept for rollback: {error}"));
                }
                Ok(told)
            }
            Err(error) => {
                let back = history::write(&path, &before).map_err(cannot);
                Err(back.err().map_or_else(|| error.clone(), |also| format!("{error}\n{also}").into()))
            }
        }
    }
}

/// What is told to those who come too late.
fn in_a_line(told: &Reloaded) -> String {
    const TOLD: usize = 5;
    let mut words: Vec<_> = told.changes.iter().take(TOLD).map(ToString::to_string).collect();
    if told.changes.len() > TOLD {
        words.push(format!("and {} more", told.changes.len() - TOLD));
    }
    if words.is_empty() { told.file.clone() } else { format!("{}: {}", told.file, words.join(", ")) }
}

/// Why a file is not overwritten.
fn changed(file: &str) -> String {
    format!(
        "{file} was changed and is not in use as it is; put it into use (lbctl reload) or out of the way (lbctl discard) first"
    )
}

/// A file that is looked at now and then.
struct Watched {
    file: Option<PathBuf>,
    /// When it was changed and how large it was, as of the last reading and of the last look.
    known: Option<(SystemTime, u64)>,
    seen: Option<(SystemTime, u64)>,
}

impl Watched {
    fn new(file: Option<PathBuf>) -> Self {
        let mut watched = Self { file, known: None, seen: None };
        watched.known = watched.look();
        watched.seen = watched.known;
        watched
    }

    fn look(&self) -> Option<(SystemTime, u64)> {
        let metadata = fs::metadata(self.file.as_ref()?).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    /// Waits until the file is another, and has stayed that for a while.
    async fn changed(&mut self) {
        if self.file.is_none() {
            return std::future::pending().await;
        }
        loop {
            sleep(LOOK_EVERY).await;
            let now = self.look();
            let still = now == self.seen;
            self.seen = now;
            if still && now.is_some() && now != self.known {
                self.known = now;
                return;
            }
        }
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

/// What is different and cannot be changed while the program runs.
fn at_next_start(old: &Config, new: &Config) -> impl Iterator<Item = &'static str> {
    let size = |config: &Config| (config.flows.translated, config.flows.tags);
    let different = [
        ("snat_ports", old.snat_ports != new.snat_ports),
        ("the size of the flow tables in [flows]", size(old) != size(new)),
    ];
    different.into_iter().filter(|(_, different)| *different).map(|(what, _)| what)
}

/// What is to be probed: every server of every VIP.
#[must_use]
pub fn targets(config: &Config) -> Vec<Target> {
    let target = |(vip, member): (&Vip, Member<'_>)| Target {
        place: place(vip, &member),
        check: member.lead.check.clone(),
        id: TargetId::new(&vip.name, member.name),
    };
    config.pairs().map(target).collect()
}

/// Where a server is probed: the check's own address, else the server's.
fn place(vip: &Vip, member: &Member<'_>) -> Place {
    let check = member.lead.check;
    match &member.server.address {
        Address::Named(_, Found::NotYet) => Place::Sought,
        Address::Named(_, Found::Nowhere(why)) => Place::Nowhere(why.clone()),
        Address::Fixed(server) | Address::Named(_, Found::At(server)) => {
            let address = check.address.unwrap_or(*server);
            let probe = SocketAddr::new(address, probe_port(vip, check, member.server.port));
            Place::At { server: *server, probe }
        }
    }
}

/// The port to probe: the check's own, else the one served, `of_server` or the VIP's, else the first of those served.
pub(crate) fn probe_port(vip: &Vip, check: &HealthCheck, of_server: Option<u16>) -> u16 {
    check.port.or(of_server).or(vip.server_port).unwrap_or_else(|| vip.ports.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn probed_at(place: &Place) -> SocketAddr {
        let Place::At { probe, .. } = place else { panic!("{place:?}") };
        *probe
    }

    #[test]
    fn every_server_of_every_vip_is_probed_where_it_serves() {
        let text = r#"
            [pool.p]
            servers = [{ name = "s", address = "10.0.0.1" }]
            [vip_defaults]
            address = "192.0.2.1"
            mode = "snat"
            pool = "p"
            [vip.plain]
            port = 80
            [vip.translated]
            port = 81
            server_port = 8080
            [vip.many]
            port = "443,1000-1010"
            [vip.elsewhere]
            port = 82
            health = { port = 9 }
        "#;
        let config = config::check("test.toml", text).unwrap().config;
        let probed: Vec<_> = targets(&config)
            .into_iter()
            .map(|target| (target.id.vip, probed_at(&target.place).port()))
            .collect();
        let expected = [("plain", 80), ("translated", 8080), ("many", 443), ("elsewhere", 9)];
        assert_eq!(probed, expected.map(|(vip, port)| (vip.to_owned(), port)));
    }

    #[test]
    fn only_files_are_read_and_nobody_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (file, pipe, link) =
            (folder.path().join("lb.toml"), folder.path().join("pipe"), folder.path().join("link"));
        fs::write(&file, "a = 1").unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_file(&file).unwrap(), "a = 1");
        assert_eq!(read_file(&link).unwrap(), "a = 1");
        for other in [&*pipe, folder.path(), Path::new("/dev/zero")] {
            assert_eq!(read_file(other).unwrap_err().to_string(), "it is no ordinary file", "{other:?}");
        }
        assert!(read_text(Path::new("/dev/zero")).unwrap_err().to_string().contains("larger than"));
    }
}
