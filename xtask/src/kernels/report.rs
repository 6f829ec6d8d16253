//! What a booted kernel had to say: the lines of its init (`tests/src/bin/guest.rs`), and between them those of
//! the programs it ran. Pure.

use crate::tally::Tally;

/// How lines of the init begin.
const MARK: &str = "guest: ";

/// How the table of the program `verify` begins.
const TABLE: &str = "program ";

/// What a machine said, in its parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The kernel that ran, once the init has said so.
    pub(super) release: Option<String>,
    /// What was begun, in order.
    pub(super) jobs: Vec<Done>,
    /// Whether the init came to its end.
    pub(super) complete: bool,
    /// Everything else, mostly complaints of the init.
    pub(super) other: Vec<String>,
}

/// A program that was run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// What the job is called.
    pub(super) name: String,
    /// What the program said.
    pub(super) lines: Vec<String>,
    /// How it ended, e.g. `code 0`; `None` where it did not.
    pub(super) ended: Option<String>,
}

impl Report {
    /// Takes apart what came by the serial port.
    pub(super) fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut report = Self::default();
        for line in lines {
            let said: Option<Vec<_>> = line.strip_prefix(MARK).map(|said| said.splitn(3, ' ').collect());
            let running = report.jobs.last_mut().filter(|job| job.ended.is_none());
            match (said.as_deref(), running) {
                (Some(["runs", release]), None) => report.release = Some((*release).to_owned()),
                (Some(["begin", name]), None) => {
                    report.jobs.push(Done { name: (*name).to_owned(), ..Done::default() });
                }
                (Some(["end", name, ended]), Some(job)) if job.name == *name => {
                    job.ended = Some((*ended).to_owned());
                }
                (Some(["done"]), None) => report.complete = true,
                (_, Some(job)) => job.lines.push(line.to_owned()),
                (_, None) => report.other.push(line.to_owned()),
            }
        }
        report
    }

    /// What a job came to, if it was begun.
    pub(super) fn job(&self, name: &str) -> Option<&Done> {
        self.jobs.iter().find(|job| job.name == name)
    }
}

impl Done {
    /// Whether it ended well.
    pub(super) fn succeeded(&self) -> bool {
        self.ended.as_deref() == Some("code 0")
    }

    /// How it ended, in words.
    pub(super) fn ending(&self) -> &str {
        self.ended.as_deref().unwrap_or("no end")
    }

    /// What the program `verify` found: kernel programs, each with its verified instructions or what it says
    /// instead of them.
    pub(super) fn programs(&self) -> Vec<(&str, &str)> {
        let rows = self.lines.iter().skip_while(|line| !line.starts_with(TABLE)).skip(1);
        // The table ends with the first line that is not like a row.
        rows.map_while(|line| row(line)).collect()
    }

    /// How many tests passed, failed and were skipped.
    pub(super) fn tally(&self) -> Tally {
        Tally::of(self.lines.iter().map(String::as_str))
    }

    /// The lines that tell most about a failure: for tests, what the failed ones said; for `verify`, what follows its
    /// table; else the end.
    pub(super) fn essence(&self, most: usize) -> Vec<&str> {
        let lines: Vec<_> = self.lines.iter().map(String::as_str).collect();
        let of_tests = lines.iter().position(|line| *line == "failures:");
        let table = lines.iter().position(|line| line.starts_with(TABLE));
        let after_table = table.map(|start| start + 1 + self.programs().len());
        match of_tests.or(after_table) {
            Some(start) => lines[start..].iter().take(most).copied().collect(),
            None => lines[lines.len().saturating_sub(most)..].to_vec(),
        }
    }
}

/// A program and its verified instructions, in a row: name, verified, and three more of which the last, the
/// bytes of stack, is always a number.
fn row(line: &str) -> Option<(&str, &str)> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, verified, _, _, stack] => stack.parse::<u32>().ok().map(|_| (name, verified)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Done, Report};

    const WHOLE: &str = "\
guest: runs 6.1.0-50-cloud-amd64
guest: begin verify
program        verified     instr.  JIT bytes  stack bytes
lb               127482       5869      26797          448
lb_slow         refused          ?          ?          448
the verifier refuses lb_slow: no
guest: end verify code 1
guest: begin tests
test a ... ok
guest: end verify code 1
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
guest: end tests code 0
guest: done";

    #[test]
    fn a_whole_run_has_its_parts() {
        let report = Report::of(WHOLE.lines());
        assert_eq!(report.release.as_deref(), Some("6.1.0-50-cloud-amd64"));
        assert!(report.complete && report.other.is_empty());
        let verify = report.job("verify").unwrap();
        assert_eq!((verify.succeeded(), verify.ending()), (false, "code 1"));
        assert_eq!(verify.programs(), [("lb", "127482"), ("lb_slow", "refused")]);
        let tests = report.job("tests").unwrap();
        assert!(tests.succeeded());
        assert_eq!((tests.tally().passed, tests.lines.len()), (1, 3));
    }

    #[test]
    fn a_run_that_was_cut_is_not_complete() {
        let lines = WHOLE.lines().take(9);
        let report = Report::of(lines);
        assert!(!report.complete);
        let tests = report.job("tests").unwrap();
        assert_eq!((tests.succeeded(), tests.ending()), (false, "no end"));
    }

    #[test]
    fn what_the_init_complains_of_is_kept() {
        let report = Report::of(["noise", "guest: the kernel refuses /modules/veth.ko: no"]);
        assert_eq!(report.other.len(), 2);
        assert!(!report.complete && report.release.is_none());
    }

    #[test]
    fn the_essence_is_what_failed_tests_said_or_the_end() {
        let done = |text: &str| Done { lines: text.lines().map(str::to_owned).collect(), ..Done::default() };
        let failed =
            done("test a ... FAILED\n\nfailures:\n\n---- a stdout ----\nit is so\n\ntest result: FAILED.");
        assert_eq!(failed.essence(4), ["failures:", "", "---- a stdout ----", "it is so"]);
        let refused = done("program  verified\nlb refused - - 448\n\nlb is refused: no\nfor a reason\nmore");
        assert_eq!(refused.essence(3), ["", "lb is refused: no", "for a reason"]);
        assert_eq!(done("one\ntwo\nthree").essence(2), ["two", "three"]);
    }
}
