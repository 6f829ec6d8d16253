//! What a file says, if it can be used: in itself, with the files that it names, and on this host.

use std::{net::SocketAddr, path::Path, sync::Arc, thread};

use tokio::sync::oneshot;

use super::{Reloader, edit::Edit, read_file, servers, unix_time};
use crate::{
    admin::Reloaded,
    config::{self, Checked, Diagnostic, Severity, Written},
    l7,
    model::Config,
    plan::{proxied, snat},
    premises::{self, Host},
    reload::changes::{self, Change},
};

/// A configuration that can be used.
pub(super) struct Candidate {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) written: Arc<Written>,
    pub(super) config: Arc<Config>,
    pub(super) warnings: Vec<String>,
    /// What is different from what is in use.
    changes: Vec<Change>,
}

/// What can be said of a text without this host.
struct Reading {
    text: String,
    checked: Checked,
    /// What is wrong with the files that it names.
    findings: Vec<Diagnostic>,
    changes: Vec<Change>,
}

impl Reading {
    /// Takes tens of milliseconds for thousands of servers, and waits for disks.
    fn of(file: &str, text: String, before: &Written) -> Result<Self, String> {
        let checked = config::check_after(file, &text, before).map_err(|wrong| wrong.to_string())?;
        let findings = premises::files(&checked, Path::new(file), unix_time());
        let changes = changes::changes(before, &checked.written);
        Ok(Self { text, checked, findings, changes })
    }

    /// The same from a thread of its own: there are others to serve meanwhile.
    async fn aside(file: &str, text: String, before: &Arc<Written>) -> Result<Self, String> {
        let (answer, read) = oneshot::channel();
        let work = {
            let (file, text, before) = (file.to_owned(), text.clone(), Arc::clone(before));
            // Who asked may have given up.
            move || drop(answer.send(Self::of(&file, text, &before)))
        };
        match thread::Builder::new().name("read".into()).spawn(work) {
            Ok(_) => {
                read.await.unwrap_or_else(|_| Err(format!("a bug in lb-user ended the reading of {file}")))
            }
            // Where there is no thread to be had, others wait.
            Err(_) => Self::of(file, text, before),
        }
    }
}

impl Candidate {
    /// What it would bring.
    pub(super) fn report(&self) -> Reloaded {
        Reloaded {
            file: self.file.clone(),
            vips: self.config.vips.len(),
            warnings: self.warnings.clone(),
            changes: self.changes.clone(),
            ..Reloaded::default()
        }
    }
}

/// How often what this host has is looked at because sockets of VIPs were opened meanwhile.
const LOOKS: usize = 4;

impl Reloader<'_> {
    /// What the file says now, if it can be used.
    pub(super) async fn look(&self) -> Result<Candidate, String> {
        let (file, text) = self.file_text()?;
        self.judge(file, text, false).await
    }

    /// What this host has, and which of it belongs to VIPs.
    async fn host(&self, ours: Arc<l7::Report>) -> Result<(Host, Arc<l7::Report>), String> {
        let host = Host::look(self.followers.netlink, self.own_ports).await;
        Ok((host.map_err(|error| format!("{error:#}"))?, ours))
    }

    /// What of it a configuration cannot be beside. A socket that was opened for a VIP while it was looked at is no
    /// stranger. Where `known` is, the proxy is to tell of itself already, or was.
    async fn conflicts(
        &self,
        checked: &Checked,
        (mut host, mut ours): (Host, Arc<l7::Report>),
        known: Option<SocketAddr>,
    ) -> Result<Vec<Diagnostic>, String> {
        for _ in 1..LOOKS {
            let found = premises::conflicts(checked, &host, &ours.sockets, known);
            if found.iter().all(|finding| finding.severity != Severity::Error) {
                return Ok(found);
            }
            let now = self.proxy.settled().await;
            if now.sockets == ours.sockets {
                return Ok(found);
            }
            (host, ours) = self.host(now).await?;
        }
        Ok(premises::conflicts(checked, &host, &ours.sockets, known))
    }

    /// Whether it can be used; `again` if it was before.
    async fn judge(&self, file: String, text: String, again: bool) -> Result<Candidate, String> {
        // Neither needs the other, and each takes its time.
        let (reading, host) =
            tokio::join!(Reading::aside(&file, text, &self.written), self.host(self.proxy.report()));
        let Reading { text, checked, mut findings, changes } = reading?;
        snat::ports(checked.config.snat_ports, self.own_ports)?;
        let known = if again { &checked.config } else { &*self.config }.proxy.admin;
        findings.extend(self.conflicts(&checked, host?, known).await?);
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
        findings.extend(premises::unreachable(&checked, self.followers.netlink, &known).await);
        let mut warnings = lines(&checked.warnings);
        let (config, written) = (Arc::new(checked.config), Arc::new(checked.written));
        warnings.extend(lines(&findings));
        warnings.extend(
            at_next_start(&self.config, &config)
                .map(|what| format!("{file}: {what} takes effect when lb-user is started the next time")),
        );
        if self.config.proxy.workers.is_some() && config.proxy.workers.is_none() {
            let problem = "without workers in [proxy], l7-proxy keeps as many threads as it has until another one takes its place";
            warnings.push(format!("{file}: {problem}"));
        }
        Ok(Candidate { file, text, written, config, warnings, changes })
    }

    /// What was kept under a number, if it can be used.
    pub(super) async fn kept(&self, number: u32) -> Result<Candidate, String> {
        let (file, path) = (self.file_name()?, self.file.clone().unwrap_or_default());
        let candidate = self.judge(file.clone(), self.history.text(number)?, true).await?;
        if read_file(&path).is_ok_and(|now| now != self.text && now != candidate.text) {
            return Err(changed(&file));
        }
        Ok(candidate)
    }

    /// The file with a change, if it can be used then. What was changed otherwise and is not in use must not come into
    /// use by the way: so the file must be as it was read.
    pub(super) async fn edited(&self, edit: &Edit) -> Result<Candidate, String> {
        let (file, text) = self.file_text()?;
        if text != self.text {
            return Err(changed(&file));
        }
        self.judge(file, edit.apply(&text)?, false).await
    }

    /// The file as it is with a change, if it can be used then.
    pub(super) async fn edited_further(&self, edit: &Edit) -> Result<Candidate, String> {
        let (file, text) = self.file_text()?;
        self.judge(file, edit.apply(&text)?, false).await
    }
}

/// Why a file is not overwritten.
fn changed(file: &str) -> String {
    format!(
        "{file} was changed and is not in use as it is; put it into use (lbctl reload) or out of the way (lbctl discard) first"
    )
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
