//! What a configuration relies on outside of itself: the files that it names, and what of it is where. Pure, like all
//! of this room: who reads the files hands in what was found ([`crate::premises`]).

mod pem;
mod validity;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Checked, Diagnostic, Severity};

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A certificate with its chain and key, shown to clients.
    Certificate,
    /// Certificates that may have signed those of servers.
    Authorities,
    /// The password of a health check.
    Password,
    /// An answer in place of one with this status.
    ErrorPage(u16),
}

/// A file that is named in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Where it is, as it was written: relative paths start at the configuration file's folder.
    pub path: PathBuf,
    /// What for.
    pub role: Role,
    /// Where in the configuration.
    pub place: Spot,
    /// The VIPs it concerns, as the beginning of a message.
    pub(super) about: String,
}

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

/// Where a file begins.
const BEGIN: Spot = Spot { line: 1, column: 1 };

/// Where things stand in a configuration, in its order: mostly nobody asks, so nothing is made of it before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub(super) file: Arc<str>,
    /// Each VIP's port, or whatever says best what it listens on.
    pub(super) vips: Vec<Spot>,
    /// The address of each pool's servers.
    pub(super) servers: Vec<Vec<Spot>>,
}

impl Checked {
    /// A finding about what a VIP listens on.
    #[must_use]
    pub fn about_vip(&self, severity: Severity, vip: &str, problem: &str) -> Diagnostic {
        let at = self.config.vips.iter().position(|known| known.name == vip);
        let spot = at.and_then(|at| self.places.vips.get(at)).copied().unwrap_or(BEGIN);
        self.places.diagnostic(severity, spot, format!("VIP {vip:?}: {problem}"))
    }

    /// A finding about the file as a whole.
    #[must_use]
    pub fn about_file(&self, severity: Severity, problem: &str) -> Diagnostic {
        self.places.diagnostic(severity, BEGIN, problem.to_owned())
    }

    /// A finding about where a server is.
    #[must_use]
    pub fn about_server(&self, severity: Severity, pool: &str, server: &str, problem: &str) -> Diagnostic {
        let spot = || {
            let at = self.config.pools.iter().position(|known| known.name == pool)?;
            let servers = &self.config.pools[at].servers;
            let place = servers.iter().position(|known| known.name == server)?;
            self.places.servers.get(at)?.get(place).copied()
        };
        let problem = format!("pool {pool:?}: server {server:?}: {problem}");
        self.places.diagnostic(severity, spot().unwrap_or(BEGIN), problem)
    }
}

impl Places {
    fn diagnostic(&self, severity: Severity, spot: Spot, message: String) -> Diagnostic {
        Diagnostic { file: Arc::clone(&self.file), severity, line: spot.line, column: spot.column, message }
    }
}

/// What there is of a file: what is in it, or why it cannot be read.
pub type Content = Result<Vec<u8>, String>;

/// With less left of a certificate, in seconds, it is to be renewed: 30 days, when those who renew by themselves have.
const SOON: i64 = 30 * DAY;

const DAY: i64 = 86_400;

/// What is wrong with the files that a configuration names, given what is in them and the time, in seconds since 1970.
/// Sorted by place.
#[must_use]
pub fn judge(checked: &Checked, content: impl Fn(&Path) -> Content, now: i64) -> Vec<Diagnostic> {
    let mut known: HashMap<(&Path, bool), Vec<(Severity, String)>> = HashMap::new();
    let mut findings = Vec::new();
    for mention in &checked.files {
        let key = (mention.path.as_path(), mention.role == Role::Certificate);
        let problems = known.entry(key).or_insert_with(|| problems(mention, content(&mention.path), now));
        findings.extend(problems.iter().map(|(severity, problem)| {
            let message = format!("{}{problem}", mention.about);
            checked.places.diagnostic(*severity, mention.place, message)
        }));
    }
    findings.sort_by_key(|finding| (finding.line, finding.column));
    findings
}

/// What is wrong with one.
fn problems(mention: &Mention, content: Content, now: i64) -> Vec<(Severity, String)> {
    let what = match mention.role {
        Role::Certificate => "the certificate",
        Role::Authorities => "ca: the file",
        Role::Password => "the password file",
        Role::ErrorPage(_) => "the error page",
    };
    let shown = format!("{what} {}", mention.path.display());
    let error = |problem: String| vec![(Severity::Error, problem)];
    let bytes = match content {
        Ok(bytes) => bytes,
        Err(why) => {
            let mut problem = format!("{shown} cannot be read: {why}");
            if mention.path.is_relative() {
                problem += "; it is looked for from the folder of this configuration file on";
            }
            return error(problem);
        }
    };
    match mention.role {
        Role::Certificate => match pem::serving(&bytes) {
            Ok(certificate) => aged(&shown, &certificate, now),
            Err(why) => error(format!("{shown}: {why}")),
        },
        Role::Authorities => match pem::certificates(&bytes) {
            Ok(all) => all.iter().flat_map(|certificate| aged(&shown, certificate, now)).take(1).collect(),
            Err(why) => error(format!("{shown}: {why}")),
        },
        Role::Password => match bytes.split(|&byte| byte == b'\n').next() {
            Some(line) if !line.is_empty() && std::str::from_utf8(&bytes).is_ok() => Vec::new(),
            _ => error(format!("{shown} has no text in its first line, which is the password")),
        },
        Role::ErrorPage(_) if bytes.is_empty() => error(format!("{shown} is empty")),
        Role::ErrorPage(_) => Vec::new(),
    }
}

/// What is to be said about the age of a certificate. It is no reason to refuse: with it, most of a configuration is
/// better than nothing.
pub(crate) fn aged(shown: &str, certificate: &[u8], now: i64) -> Vec<(Severity, String)> {
    let Some((from, until)) = validity::of(certificate) else {
        return vec![(Severity::Error, format!("{shown}: a certificate in it cannot be read"))];
    };
    let days = |seconds: i64| match seconds / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let problem = if until < now {
        format!("{shown} expired {} ago and is refused by those who look; renew it", days(now - until))
    } else if from > now {
        format!("{shown} is only valid in {}; is this host's clock right?", days(from - now))
    } else if until - now < SOON {
        format!("{shown} expires in {}; renew it", days(until - now))
    } else {
        return Vec::new();
    };
    vec![(Severity::Warning, problem)]
}
