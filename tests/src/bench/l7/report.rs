//! What was measured of the proxies, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    Findings, SHARE, SHARE_OF_ABUSED,
    case::{Case, Goal},
};
use crate::bench::measure::Spread;

/// The table: medians over the rounds, and l7-proxy's share of what the other takes, with its spread over the rounds.
#[must_use]
pub fn table(findings: &Findings) -> String {
    let rival = findings.rival.as_str();
    let mut text =
        format!("{:<32}{:>10}{:>12}{:>24}{:>12}\n", "", "l7-proxy", shorten(rival), "ratio", "goal");
    let judged = rival == "haproxy";
    let (mut goals, mut met) = (0, 0);
    for case in cases(findings) {
        let [own, others] = [true, false].map(|own| Spread::of(values(findings, case, own)).median);
        let ratio = ratio(findings, case);
        let goal = case.goal().filter(|_| judged);
        let good = goal.is_none_or(|goal| match goal {
            Goal::Times(times) => ratio.median <= times,
            Goal::AtMost(most) => own <= most,
        });
        goals += usize::from(goal.is_some());
        met += usize::from(goal.is_some() && good);
        let Spread { median, least, most } = ratio;
        let _ = writeln!(
            text,
            "{:<32}{own:>10.1}{others:>12.1}{:>24}{:>12} {}",
            format!("{case}, {}", case.unit()),
            format!("{median:.2} ({least:.2} … {most:.2})"),
            match goal {
                Some(Goal::Times(times)) => format!("{times:.2}"),
                Some(Goal::AtMost(most)) => format!("{most:.0}"),
                None => "–".into(),
            },
            if good { "" } else { "!" }
        );
    }
    if judged {
        let _ = writeln!(text, "{met} of {goals} goals met; \"!\" marks the others");
    }
    if let Some(through) = findings.through {
        let (paced, abused) = (through * SHARE, through * SHARE_OF_ABUSED);
        let _ = writeln!(text, "p99 at {paced:.0} requests a second, with abuse at {abused:.0}");
    }
    let [own, others] = findings.logged.map(|share| share * 100.0);
    let _ = writeln!(text, "log lines that came for each hundred requests: {own:.1}, {others:.1}");
    text
}

/// The end of a long name.
fn shorten(name: &str) -> String {
    let skip = name.chars().count().saturating_sub(11);
    name.chars().skip(skip).collect()
}

fn cases(findings: &Findings) -> impl Iterator<Item = Case> {
    Case::ALL.into_iter().filter(|case| findings.samples.iter().any(|sample| sample.case == *case))
}

fn values(findings: &Findings, case: Case, own: bool) -> impl Iterator<Item = f64> {
    let samples = findings.samples.iter();
    samples.filter(move |sample| sample.case == case && sample.own == own).map(|sample| sample.value)
}

/// l7-proxy's number by the other's of the same round.
fn ratio(findings: &Findings, case: Case) -> Spread {
    Spread::of(
        values(findings, case, true).zip(values(findings, case, false)).map(|(own, other)| own / other),
    )
}

/// The same for programs.
#[must_use]
pub fn json(findings: &Findings) -> Value {
    let cases: Vec<_> = cases(findings)
        .map(|case| {
            let ratio = ratio(findings, case);
            let goal = case.goal().map(|goal| match goal {
                Goal::Times(times) => json!({ "times": times }),
                Goal::AtMost(most) => json!({ "at_most": most }),
            });
            json!({
                "case": case.name(),
                "unit": case.unit(),
                "l7_proxy": values(findings, case, true).collect::<Vec<_>>(),
                "rival": values(findings, case, false).collect::<Vec<_>>(),
                "ratio": { "median": ratio.median, "least": ratio.least, "most": ratio.most },
                "goal": goal,
            })
        })
        .collect();
    json!({
        "rival": findings.rival,
        "cases": cases,
        "through_per_second": findings.through,
        "logged": { "l7_proxy": findings.logged[0], "rival": findings.logged[1] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::l7::Sample;

    fn findings(own: [f64; 2], other: [f64; 2]) -> Findings {
        let sample = |own, round, value| Sample { case: Case::TlsH2, round, own, value };
        let samples =
            (0..2).flat_map(|round| [sample(true, round, own[round]), sample(false, round, other[round])]);
        Findings { samples: samples.collect(), logged: [1.0; 2], through: None, rival: "haproxy".into() }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let ratio = ratio(&findings([10.0, 30.0], [10.0, 20.0]), Case::TlsH2);
        assert_eq!((ratio.least, ratio.most), (1.0, 1.5));
    }

    #[test]
    fn a_goal_that_is_missed_is_marked() {
        assert!(table(&findings([12.0, 12.0], [10.0, 10.0])).contains("0 of 1 goals met"));
        assert!(table(&findings([11.0, 11.0], [10.0, 10.0])).contains("1 of 1 goals met"));
    }
}
