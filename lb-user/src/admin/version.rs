//! Who writes may say what state they have seen (RFC 9110 §13.1.1, `If-Match`); of two who have seen the same, one is
//! first, and the other learns what has changed.
//!
//! What counts is what is in use: the text of the configuration and the operators' words (drain, weight, disabled). What is
//! counted or checked does not. The state is known by a digest of both, so it is the same after a restart; a write that
//! changes nothing leaves it as it is.

use std::{collections::VecDeque, fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};

use crate::plan::Steering;

/// Changes that are remembered, to tell them to those who come too late.
const REMEMBERED: usize = 64;

/// What is in use, in a word: the value of `ETag` without its quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// Of a configuration, known by [`of_text`], and of what operators have said.
    #[must_use]
    pub fn of(text: u64, steering: &Steering) -> Self {
        let words = format!("{:?}{:?}{:?}", steering.states(), steering.weights(), steering.disabled());
        Self(format!("{text:016x}-{:08x}", of_text(&words) >> 32))
    }

    /// In a word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a text is known by.
#[must_use]
pub fn of_text(text: &str) -> u64 {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// Under which conditions something is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Versions one of which must be in use; `None` if any will do.
    pub seen: Option<Vec<String>>,
    /// Only to say what would be different.
    pub dry_run: bool,
}

impl Terms {
    /// The same, with the value of `If-Match`: `*`, or quoted tags with commas between.
    ///
    /// # Errors
    /// When it is neither. Says what would be right.
    pub fn with_if_match(self, header: &str) -> Result<Self, String> {
        let header = header.trim();
        if header == "*" {
            return Ok(self);
        }
        let tag = |text: &str| {
            let text = text.trim();
            // A weak tag is no proof (§8.8.3.2): it fits nothing.
            let strong = text.strip_prefix("W/").map_or(text, |_| "\"\"");
            Some(strong.strip_prefix('"')?.strip_suffix('"')?.to_owned())
        };
        let tags: Option<Vec<_>> = header.split(',').map(tag).collect();
        let tags = tags.ok_or_else(|| {
            format!("If-Match is {header:?}; it must be * or the ETag of an answer, in its quotes")
        })?;
        Ok(Self { seen: Some(tags), ..self })
    }

    /// Only to say what would be different, or not.
    #[must_use]
    pub fn with_dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It cannot be.
    No(String),
    /// Something else is in use than who asked has seen.
    Changed {
        /// The version in use.
        now: Version,
        /// What has changed since, the oldest first; `None` if that is not known any more.
        since: Option<Vec<String>>,
    },
}

impl From<String> for Denial {
    fn from(why: String) -> Self {
        Self::No(why)
    }
}

impl From<&str> for Denial {
    fn from(why: &str) -> Self {
        Self::No(why.to_owned())
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No(why) => f.write_str(why),
            Self::Changed { since: Some(since), .. } if !since.is_empty() => {
                write!(f, "somebody was first; look again. Changed since: {}", since.join("; "))
            }
            Self::Changed { .. } => f.write_str("something else is in use than you have seen; look again"),
        }
    }
}

/// The configuration that is in use, and what has changed lately.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    text: Arc<str>,
    /// [`of_text`].
    known_by: u64,
    /// Version before, version after, what changed; the oldest first.
    changes: VecDeque<(Version, Version, String)>,
}

impl Ledger {
    /// Another text is in use.
    pub fn use_text(&mut self, text: Arc<str>) {
        self.known_by = of_text(&text);
        self.text = text;
    }

    /// The text in use.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        self.text.clone()
    }

    /// What is in use.
    #[must_use]
    pub fn version(&self, steering: &Steering) -> Version {
        Version::of(self.known_by, steering)
    }

    /// Refuses who has seen something else than what is in use.
    ///
    /// # Errors
    /// When the terms name other versions.
    pub fn agree(&self, terms: &Terms, steering: &Steering) -> Result<(), Denial> {
        let Some(seen) = &terms.seen else { return Ok(()) };
        let now = self.version(steering);
        if seen.contains(&now.0) {
            return Ok(());
        }
        let since = seen.iter().find_map(|seen| self.since(seen));
        Err(Denial::Changed { now, since })
    }

    /// Remembers a change; none that has changed nothing.
    pub fn note(&mut self, before: Version, after: Version, what: String) {
        if before == after {
            return;
        }
        if self.changes.len() == REMEMBERED {
            self.changes.pop_front();
        }
        self.changes.push_back((before, after, what));
    }

    /// What has changed since a version was in use for the last time.
    fn since(&self, seen: &str) -> Option<Vec<String>> {
        let first = self.changes.iter().rposition(|(before, ..)| before.0 == seen)?;
        Some(self.changes.range(first..).map(|(.., what)| what.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{health::TargetId, plan::Admin};

    fn drained(server: &str) -> Steering {
        let mut steering = Steering::default();
        steering.set_state(TargetId { vip: "web".into(), server: server.into() }, Admin::Drain);
        steering
    }

    #[test]
    fn a_version_is_of_text_and_words_and_of_nothing_else() {
        let mut ledger = Ledger::default();
        ledger.use_text("a = 1".into());
        let plain = ledger.version(&Steering::default());
        assert_eq!(plain, ledger.clone().version(&Steering::default()));
        assert_ne!(plain, ledger.version(&drained("s1")));
        assert_ne!(ledger.version(&drained("s1")), ledger.version(&drained("s2")));
        ledger.use_text("a = 2".into());
        assert_ne!(plain, ledger.version(&Steering::default()));
    }

    #[test]
    fn of_two_who_have_seen_the_same_the_second_learns_what_changed() {
        let mut ledger = Ledger::default();
        let (none, one, two) = (Steering::default(), drained("s1"), drained("s2"));
        let seen = ledger.version(&none);
        let terms = Terms::default().with_if_match(&format!("\"other\", \"{seen}\"")).unwrap();
        assert_eq!(ledger.agree(&terms, &none), Ok(()));
        ledger.note(seen.clone(), ledger.version(&one), "s1 drains".into());
        ledger.note(ledger.version(&one), ledger.version(&two), "s2 instead".into());
        ledger.note(ledger.version(&two), ledger.version(&two), "nothing".into());
        let denial = ledger.agree(&terms, &two).unwrap_err();
        let since = Some(vec!["s1 drains".to_owned(), "s2 instead".to_owned()]);
        assert_eq!(denial, Denial::Changed { now: ledger.version(&two), since });
        let unknown = Terms::default().with_if_match("\"x\"").unwrap();
        assert!(matches!(ledger.agree(&unknown, &two), Err(Denial::Changed { since: None, .. })));
        assert_eq!(ledger.agree(&Terms::default().with_if_match("*").unwrap(), &two), Ok(()));
        let weak = Terms::default().with_if_match(&format!("W/\"{}\"", ledger.version(&two))).unwrap();
        assert!(ledger.agree(&weak, &two).is_err(), "a weak tag fits nothing");
        for wrong in ["", "x", "\"x", "\"a\" \"b"] {
            assert!(Terms::default().with_if_match(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ledger = Ledger::default();
        let version = |number: usize| Version(number.to_string());
        for number in 0..1_000 {
            ledger.note(version(number), version(number + 1), number.to_string());
        }
        assert_eq!(ledger.changes.len(), REMEMBERED);
        assert_eq!(ledger.since("0"), None);
        assert_eq!(ledger.since("999"), Some(vec!["999".to_owned()]));
    }
}
