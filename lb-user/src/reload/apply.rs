//! A configuration comes into use: by those who follow it, one after the other, and in the file.

use std::{path::Path, sync::Arc, thread, time::Duration};

use tokio::time::timeout;
use tracing::{error, info};

use super::{Reloader, candidate::Candidate, changes, edit::Edit, history, read_file};
use crate::{
    admin::{Adoption, Denial, Reloaded, Terms},
    model::Config,
    names::{Findings, Wanted},
};

/// How long a new configuration waits for the names in it.
const FIND_NAMES: Duration = Duration::from_secs(2);

impl Reloader<'_> {
    pub(super) async fn apply(&mut self, candidate: Candidate, terms: Terms) -> Result<Reloaded, Denial> {
        let mut told = candidate.report();
        let Candidate { text, written, config, .. } = candidate;
        let placed = self.look_up(&config).await;
        let adoption = Adoption { text: text.as_str().into(), what: in_a_line(&told), terms };
        // Before anybody connects to a server whose answer would not come back.
        if let Err(error) = self.followers.lead_back(&placed).await {
            told.warnings.push(error.to_string());
        }
        let in_use = match self.handle.configure(Arc::clone(&placed), Some(adoption)).await {
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
        // Who asked does not wait for thousands of small things to be put away, if there is a thread to be had.
        drop(thread::Builder::new().name("drop".into()).spawn(|| drop(old)));
        Ok(Reloaded { applied: true, ..told })
    }

    /// A configuration with what its names stand for. New ones are waited for, for a moment: a server that was given a
    /// name instead of its address is the same server.
    async fn look_up(&mut self, config: &Arc<Config>) -> Arc<Config> {
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
    pub(super) async fn follow_names(&mut self) {
        let placed = self.config.with_addresses(&self.findings.borrow_and_update());
        if placed == self.placed {
            return;
        }
        if let Err(error) = self.followers.lead_back(&placed).await {
            error!("{error}");
        }
        match self.handle.configure(Arc::clone(&placed), None).await {
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
    pub(super) async fn go_back(&mut self, number: u32, terms: Terms) -> Result<Reloaded, Denial> {
        let candidate = self.kept(number).await?;
        self.write_and_apply(candidate, terms).await
    }

    /// Changes the file, whatever has been changed in it before, and leaves it at that. What comes out must be usable.
    pub(super) async fn stage(&self, edit: &Edit) -> Result<Reloaded, String> {
        let candidate = self.edited_further(edit).await?;
        let (file, path) = (&candidate.file, self.file.as_deref().unwrap_or(Path::new("")));
        history::write(path, &candidate.text).map_err(|error| format!("cannot write {file}: {error}"))?;
        info!("{file} was changed by command; it is not in use yet");
        Ok(candidate.report())
    }

    /// Puts the file back as it is in use. What it said is kept aside.
    pub(super) fn discard(&self) -> Result<Reloaded, String> {
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
    pub(super) async fn write_and_apply(
        &mut self,
        candidate: Candidate,
        terms: Terms,
    ) -> Result<Reloaded, Denial> {
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
