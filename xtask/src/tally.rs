//! Counting tests in what the test runner prints.

use std::ops::AddAssign;

/// What a test prints, at the start of a line, when this machine cannot run it.
const SKIP_MARK: &str = "SKIPPED:";

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that ran and found what they expected.
    pub(crate) passed: u64,
    /// Tests that did not.
    pub(crate) failed: u64,
    /// Tests that did not run: ignored, or said to be skipped by themselves.
    pub(crate) skipped: u64,
}

impl Tally {
    /// Counts the tests in the output of `cargo test`, line by line.
    pub(crate) fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tally = Self::default();
        let mut said_skipped = 0;
        for line in lines {
            if line.starts_with(SKIP_MARK) {
                said_skipped += 1;
            } else if let Some(result) = line.strip_prefix("test result: ") {
                tally += Self::of_result(result);
            }
        }
        // To the runner, a test that returned early has passed.
        tally.passed = tally.passed.saturating_sub(said_skipped);
        tally.skipped += said_skipped;
        tally
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn of_result(line: &str) -> Self {
        let number_before = |word: &str| {
            let words: Vec<_> = line.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
            let pair = words.windows(2).find(|pair| pair[1] == word);
            pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
        };
        Self {
            passed: number_before("passed"),
            failed: number_before("failed"),
            skipped: number_before("ignored"),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_of_several_binaries_add_up() {
        let output = "\
running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.10s

test result: FAILED. 30 passed; 4 failed; 5 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        assert_eq!(Tally::of(output.lines()), Tally { passed: 32, failed: 4, skipped: 5 });
    }

    #[test]
    fn a_test_that_says_it_is_skipped_has_not_passed() {
        let output = "\
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
SKIPPED: smoke::answers: network namespaces need root";
        assert_eq!(Tally::of(output.lines()), Tally { passed: 2, failed: 0, skipped: 1 });
    }

    #[test]
    fn skips_count_wherever_they_stand_before_the_result() {
        let output = "\
SKIPPED: one: no root
SKIPPED: two: no root
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(Tally::of(output.lines()), Tally { passed: 1, failed: 0, skipped: 2 });
    }

    #[test]
    fn other_lines_count_nothing() {
        let output = "test says SKIPPED: ... ok\nfailures:\n    test result: a name\n";
        assert_eq!(Tally::of(output.lines()), Tally::default());
    }
}
