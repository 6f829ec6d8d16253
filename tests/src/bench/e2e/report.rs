//! What was measured end to end, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Round, contender::Contender, load::Measured};
use crate::bench::measure::Spread;

/// A number that is measured.
struct Quantity {
    name: &'static str,
    unit: &'static str,
    of: fn(&Measured) -> f64,
}

const QUANTITIES: [Quantity; 11] = [
    Quantity { name: "connections", unit: "1/s", of: |m| m.connections.per_second },
    Quantity { name: "requests", unit: "1/s", of: |m| m.requests.per_second },
    Quantity { name: "bulk", unit: "MB/s", of: |m| m.megabytes.per_second },
    Quantity { name: "latency, p50", unit: "µs", of: |m| m.latency.p50 },
    Quantity { name: "latency, p99", unit: "µs", of: |m| m.latency.p99 },
    Quantity { name: "CPU for a connection", unit: "µs", of: |m| m.connections.busy },
    Quantity { name: "  in soft interrupts", unit: "µs", of: |m| m.connections.softirq },
    Quantity { name: "CPU for a request", unit: "µs", of: |m| m.requests.busy },
    Quantity { name: "  in soft interrupts", unit: "µs", of: |m| m.requests.softirq },
    Quantity { name: "CPU for a megabyte", unit: "µs", of: |m| m.megabytes.busy },
    Quantity { name: "  in soft interrupts", unit: "µs", of: |m| m.megabytes.softirq },
];

/// With whom this balancer is compared.
const OTHERS: [Contender; 2] = [Contender::Haproxy, Contender::Nftables];

/// The table: medians over the rounds, and this balancer's share of what the others have, with its spread over
/// the rounds.
#[must_use]
pub fn table(rounds: &[Round]) -> String {
    let mut text = format!("{:<28}", "");
    for contender in Contender::ALL {
        let _ = write!(text, "{:>12}", contender.name());
    }
    for other in OTHERS {
        let _ = write!(text, "{:>24}", format!("lb / {}", other.name()));
    }
    text.push('\n');
    for Quantity { name, unit, of } in &QUANTITIES {
        let _ = write!(text, "{:<28}", format!("{name}, {unit}"));
        for contender in Contender::ALL {
            let _ = write!(text, "{:>12.1}", Spread::of(values(rounds, contender, *of)).median);
        }
        for other in OTHERS {
            let Spread { median, least, most } = ratio(rounds, other, *of);
            let _ = write!(text, "{:>24}", format!("{median:.2} ({least:.2} … {most:.2})"));
        }
        text.push('\n');
    }
    text + &added(rounds)
}

/// What balancing adds to the way without a balancer.
fn added(rounds: &[Round]) -> String {
    let mut text = String::from("\nadded to the direct way:\n");
    for contender in Contender::ALL.into_iter().filter(|contender| *contender != Contender::Direct) {
        let more = |of| {
            let pairs = values(rounds, contender, of).zip(values(rounds, Contender::Direct, of));
            Spread::of(pairs.map(|(with, without)| with - without)).median
        };
        let _ = writeln!(
            text,
            "  {:<10} latency {:+.1} µs (p50), {:+.1} µs (p99); CPU {:+.1} µs a connection, {:+.1} µs a request",
            contender.name(),
            more(|m| m.latency.p50),
            more(|m| m.latency.p99),
            more(|m| m.connections.busy),
            more(|m| m.requests.busy),
        );
    }
    text
}

fn values(rounds: &[Round], contender: Contender, of: fn(&Measured) -> f64) -> impl Iterator<Item = f64> {
    rounds.iter().filter(move |round| round.contender == contender).map(move |round| of(&round.measured))
}

/// This balancer's number by another's of the same round.
fn ratio(rounds: &[Round], other: Contender, of: fn(&Measured) -> f64) -> Spread {
    let pairs = values(rounds, Contender::Lb, of).zip(values(rounds, other, of));
    // The kernel counts time in hundredths of a second, so that of a short run may be 0.
    Spread::of(pairs.map(|(own, others)| if others > 0.0 { own / others } else { f64::NAN }))
}

/// The same for programs.
#[must_use]
pub fn json(rounds: &[Round]) -> Value {
    let rounds: Vec<_> = rounds
        .iter()
        .map(|Round { contender, measured }| {
            let rate = |rate: super::load::Rate| {
                json!({ "per_second": rate.per_second, "cpu_us": rate.busy, "softirq_us": rate.softirq })
            };
            json!({
                "contender": contender.name(),
                "connections": rate(measured.connections),
                "requests": rate(measured.requests),
                "megabytes": rate(measured.megabytes),
                "latency_us": { "p50": measured.latency.p50, "p99": measured.latency.p99 },
            })
        })
        .collect();
    json!({ "rounds": rounds })
}
