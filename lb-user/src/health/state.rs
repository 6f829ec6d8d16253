//! What a row of probe results says about a server. Pure: it is told the time and does no IO.
//!
//! The first result decides at once, so that a start does not take `rise` intervals. After that a server
//! changes sides only after `rise` successes or `fall` failures in a row; one result to the contrary
//! starts the count again. A result that says nothing about the server changes nothing but the reason.

use crate::{model::HealthCheck, snapshot::Health};

/// What one probe found, in words an operator understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered as expected, e.g. `connected`.
    Success(String),
    /// The server did not, e.g. `connection refused`.
    Failure(String),
    /// This host could not probe, e.g. for want of file descriptors: no server is to be blamed.
    Inconclusive(String),
}

/// A server changed sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What it was.
    pub old: Health,
    /// What it is now.
    pub new: Health,
    /// What the deciding probe found.
    pub reason: String,
}

/// Health of one server as one VIP sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    health: Health,
    since: u64,
    reason: String,
    /// Grows whenever the reason changes.
    version: u64,
    rise: u32,
    fall: u32,
    /// Results in a row that speak against `health`.
    against: u32,
}

impl State {
    /// A server nobody has probed yet. `now` is seconds since 1970-01-01 UTC, here and below.
    #[must_use]
    pub fn new(now: u64, check: &HealthCheck) -> Self {
        Self {
            health: Health::Unknown,
            since: now,
            reason: "not checked yet".into(),
            version: 0,
            rise: check.rise,
            fall: check.fall,
            against: 0,
        }
    }

    /// A server that was probed by somebody before us: its health stays until results in a row speak against it.
    #[must_use]
    pub fn resume(health: Health, since: u64, reason: String, check: &HealthCheck) -> Self {
        Self { health, since, reason, ..Self::new(since, check) }
    }

    /// Takes over the thresholds of a changed check; what is known about the server stays.
    pub fn set_check(&mut self, check: &HealthCheck) {
        self.rise = check.rise;
        self.fall = check.fall;
    }

    /// Counts a server as up because nobody asked for it to be checked.
    pub fn on_unchecked(&mut self, now: u64) -> Option<Transition> {
        let reason = "not checked: its health check is \"none\"".to_owned();
        if self.health == Health::Up {
            self.against = 0;
            self.set_reason(&reason);
            return None;
        }
        Some(self.change(now, Health::Up, reason))
    }

    /// Counts a server as down because there is nowhere to probe it.
    pub fn on_nowhere(&mut self, now: u64, why: &str) -> Option<Transition> {
        if self.health == Health::Down {
            self.against = 0;
            self.set_reason(why);
            return None;
        }
        Some(self.change(now, Health::Down, why.to_owned()))
    }

    /// Says why nothing is known of a server that nobody has probed yet.
    pub fn on_wait(&mut self, why: &str) {
        if self.health == Health::Unknown {
            self.set_reason(why);
        }
    }

    /// Takes in a probe's result; says so if it changes the server's health.
    pub fn on_result(&mut self, now: u64, outcome: &Outcome) -> Option<Transition> {
        let (verdict, why, needed) = match outcome {
            Outcome::Success(why) => (Health::Up, why, self.rise),
            Outcome::Failure(why) => (Health::Down, why, self.fall),
            Outcome::Inconclusive(why) => {
                self.set_reason(&format!("the last probe was not possible: {why}"));
                return None;
            }
        };
        if verdict == self.health {
            self.against = 0;
            self.set_reason(why);
            return None;
        }
        self.against += 1;
        if self.health != Health::Unknown && self.against < needed {
            self.set_reason(&format!("{why} ({} of {needed} before it counts as {verdict})", self.against));
            return None;
        }
        Some(self.change(now, verdict, why.clone()))
    }

    /// Whether results speak for a change, but not enough of them yet.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.against > 0
    }

    fn change(&mut self, now: u64, new: Health, reason: String) -> Transition {
        let old = std::mem::replace(&mut self.health, new);
        self.since = now;
        self.against = 0;
        self.set_reason(&reason);
        Transition { old, new, reason }
    }

    fn set_reason(&mut self, reason: &str) {
        // Most results of thousands of servers say what the one before said.
        if self.reason != reason {
            reason.clone_into(&mut self.reason);
            self.version += 1;
        }
    }

    /// Another number whenever the reason has changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the server's health is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Since when, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.since
    }

    /// The last probe's result in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rise: u32, fall: u32) -> HealthCheck {
        HealthCheck { rise, fall, ..HealthCheck::default() }
    }

    fn success() -> Outcome {
        Outcome::Success("connected".into())
    }

    fn failure() -> Outcome {
        Outcome::Failure("connection refused".into())
    }

    fn local() -> Outcome {
        Outcome::Inconclusive("too many open files".into())
    }

    /// Plays results one per second; `+` success, `-` failure, `?` no probe possible. The answer has one
    /// letter per result: health afterwards, upper case where it changed.
    fn play(rise: u32, fall: u32, results: &str) -> String {
        let mut state = State::new(0, &check(rise, fall));
        (1..)
            .zip(results.chars())
            .map(|(now, result)| {
                let outcome = match result {
                    '+' => success(),
                    '-' => failure(),
                    _ => local(),
                };
                let changed = state.on_result(now, &outcome).is_some();
                let letter = match state.health() {
                    Health::Up => 'u',
                    Health::Down => 'd',
                    Health::Unknown => '?',
                };
                if changed { letter.to_ascii_uppercase() } else { letter }
            })
            .collect()
    }

    #[test]
    fn rows_of_results() {
        for (sentence, rise, fall, results, expected) in [
            ("the first success brings a server up at once", 2, 5, "++", "Uu"),
            ("the first failure takes it down at once", 2, 5, "--", "Dd"),
            ("five failures in a row take it down", 2, 5, "+-----", "UuuuuD"),
            ("four failures and a success do not", 2, 5, "+----+----+", "Uuuuuuuuuuu"),
            ("two successes in a row bring it back", 2, 5, "-++", "DdU"),
            ("a success followed by a failure does not", 2, 5, "-+-+-", "Ddddd"),
            ("with rise and fall 1 every result decides", 1, 1, "+-+-", "UDUD"),
            ("it goes down and comes back again and again", 2, 2, "+--++--", "UuDdUuD"),
            ("trouble of this host decides nothing", 2, 5, "????", "????"),
            ("trouble of this host neither counts nor breaks the row", 2, 3, "+-?-?-", "UuuuuD"),
            ("after trouble of this host the first result still decides", 2, 5, "?-", "?D"),
        ] {
            assert_eq!(play(rise, fall, results), expected, "{sentence}");
        }
    }

    #[test]
    fn a_change_carries_its_reason_and_time() {
        let mut state = State::new(100, &check(1, 2));
        assert_eq!(
            (state.health(), state.since(), state.reason()),
            (Health::Unknown, 100, "not checked yet")
        );
        state.on_result(101, &success());
        assert_eq!((state.health(), state.since(), state.reason()), (Health::Up, 101, "connected"));

        assert_eq!(state.on_result(103, &failure()), None);
        assert_eq!(state.reason(), "connection refused (1 of 2 before it counts as down)");
        assert_eq!(state.since(), 101, "it is still up, since then");
        let expected = Transition { old: Health::Up, new: Health::Down, reason: "connection refused".into() };
        assert_eq!(state.on_result(105, &failure()), Some(expected));
        assert_eq!((state.since(), state.reason()), (105, "connection refused"));
    }

    #[test]
    fn trouble_of_this_host_shows_in_the_reason() {
        let mut state = State::new(100, &check(1, 2));
        state.on_result(101, &success());
        state.on_result(103, &local());
        assert_eq!(state.reason(), "the last probe was not possible: too many open files");
        assert_eq!((state.health(), state.since()), (Health::Up, 101));
    }

    #[test]
    fn an_unchecked_server_is_up() {
        let mut state = State::new(100, &check(2, 5));
        let change = state.on_unchecked(100).expect("it was unknown before");
        assert_eq!((change.old, change.new), (Health::Unknown, Health::Up));
        assert_eq!(state.on_unchecked(101), None, "it is up already");
    }

    #[test]
    fn a_server_is_changing_while_results_speak_against_its_health_but_not_enough() {
        let mut state = State::new(0, &check(2, 3));
        assert!(!state.is_changing(), "nothing is known");
        for (number, outcome, changing) in [
            (1, success(), false),
            (2, failure(), true),
            (3, local(), true),
            (4, failure(), true),
            (5, failure(), false),
            (6, success(), true),
            (7, failure(), false),
        ] {
            state.on_result(number, &outcome);
            assert_eq!(state.is_changing(), changing, "result {number}");
        }
    }

    #[test]
    fn a_server_without_an_address_is_down_until_it_has_one() {
        let mut state = State::new(100, &check(2, 5));
        state.on_wait("its name is being looked up");
        assert_eq!((state.health(), state.reason()), (Health::Unknown, "its name is being looked up"));
        let change = state.on_nowhere(101, "its name does not resolve").expect("it was unknown");
        assert_eq!((change.new, state.since()), (Health::Down, 101));
        assert_eq!(state.on_nowhere(102, "still not"), None);
        assert_eq!((state.reason(), state.since()), ("still not", 101));
    }

    #[test]
    fn a_changed_check_keeps_what_is_known() {
        let mut state = State::new(0, &check(2, 5));
        state.on_result(1, &success());
        state.on_result(3, &failure());
        state.set_check(&check(2, 2));
        assert_eq!((state.health(), state.since()), (Health::Up, 1));
        assert!(state.on_result(5, &failure()).is_some(), "the second failure in a row, and two suffice now");
    }
}
