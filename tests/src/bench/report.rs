//! What was measured, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use aya::programs::ProgramInfo;
use serde_json::{Value, json};

use super::{
    goal::goal,
    measure::{Outcome, Spread},
};

/// What is said about the programs that were measured.
#[must_use]
pub fn programs(programs: &[ProgramInfo]) -> String {
    let mut text = format!("{:<16} {:>12} {:>10}\n", "program", "verified", "JIT bytes");
    for program in programs {
        let verified = program.verified_instruction_count().map_or("?".into(), |count| count.to_string());
        let _ = writeln!(text, "{:<16} {verified:>12} {:>10}", name(program), program.size_jitted());
    }
    text
}

fn name(program: &ProgramInfo) -> String {
    program.name_as_str().unwrap_or_default().into()
}

/// The table.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes.iter().map(|outcome| outcome.case.to_string().len()).max().unwrap_or_default();
    let mut text = format!(
        "{:<width$} {:>8} {:>8} {:>8} {:>6} {:>14} {:>6}  not forwarded\n",
        "case", "alone ns", "with ns", "cost ns", "U", "least … most", "goal"
    );
    for outcome in outcomes {
        let column = |numbers: fn(&super::measure::Sample) -> f64| {
            Spread::of(outcome.samples.iter().map(numbers)).median
        };
        let units = outcome.units();
        let goal = goal(&outcome.case);
        let _ = writeln!(
            text,
            "{:<width$} {:>8.1} {:>8.1} {:>8.1} {:>6.2} {:>14} {:>6} {} {}",
            outcome.case.to_string(),
            column(|sample| sample.alone),
            column(|sample| sample.tested),
            outcome.cost().median,
            units.median,
            format!("{:.2} … {:.2}", units.least, units.most),
            goal.map_or("–".into(), |goal| format!("{goal:.2}")),
            if goal.is_some_and(|goal| units.median > goal) { '!' } else { ' ' },
            reasons(outcome)
        );
    }
    text + &unit(outcomes)
}

fn reasons(outcome: &Outcome) -> String {
    let reasons = outcome.reasons.iter().map(|(reason, share)| match share * 100.0 {
        percent if percent < 1.0 => format!("{percent:.3} % {reason}"),
        percent => format!("{percent:.0} % {reason}"),
    });
    reasons.collect::<Vec<_>>().join(", ")
}

fn unit(outcomes: &[Outcome]) -> String {
    let used = Spread::of(outcomes.iter().flat_map(|outcome| outcome.units.clone())).median;
    let pushing = |sample: &super::measure::Sample| sample.pushed - sample.alone;
    let Spread { median, least, most } =
        Spread::of(outcomes.iter().flat_map(|outcome| outcome.samples.iter().map(pushing)));
    let missed = outcomes
        .iter()
        .filter(|outcome| goal(&outcome.case).is_some_and(|goal| outcome.units().median > goal))
        .count();
    let goals = outcomes.iter().filter(|outcome| goal(&outcome.case).is_some()).count();
    format!(
        "U = {used:.1} ns; pushing 20 bytes and filling them costs {median:.1} ns here ({least:.1} … {most:.1})\n\
         {} of {goals} goals met; \"!\" marks the others\n",
        goals - missed
    )
}

/// The same for programs.
#[must_use]
pub fn json(programs: &[ProgramInfo], outcomes: &[Outcome]) -> Value {
    let programs: Vec<_> = programs
        .iter()
        .map(|program| {
            json!({
                "name": name(program),
                "verified_instructions": program.verified_instruction_count(),
                "jit_bytes": program.size_jitted(),
            })
        })
        .collect();
    let cases: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let service = &outcome.case.service;
            let rounds: Vec<_> = outcome
                .samples
                .iter()
                .zip(&outcome.units)
                .map(|(sample, unit)| {
                    json!({
                        "harness_ns": sample.alone,
                        "harness_with_push_ns": sample.pushed,
                        "harness_with_program_ns": sample.tested,
                        "unit_ns": unit,
                    })
                })
                .collect();
            json!({
                "case": outcome.case.to_string(),
                "flows": service.flows,
                "vips": service.vips,
                "servers": service.servers,
                "tagged": service.tagged,
                "cost_ns": spread(outcome.cost()),
                "cost_units": spread(outcome.units()),
                "goal_units": goal(&outcome.case),
                "not_forwarded": outcome.reasons,
                "rounds": rounds,
            })
        })
        .collect();
    json!({ "programs": programs, "cases": cases })
}

fn spread(spread: Spread) -> Value {
    json!({ "median": spread.median, "least": spread.least, "most": spread.most })
}
