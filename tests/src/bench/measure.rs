//! Rounds over cases, and what comes of them.
//!
//! Every round measures every case: the harness alone, the unit, and the program, one after the other. So
//! whatever the machine does meanwhile is done to all alike. Cases whose tables do not fit into memory together
//! are measured in blocks.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use anyhow::{Context as _, Error, Result, ensure};
use lb_common::{bench::Flow, wire::tcp};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::{
    bed::Bed,
    case::{Case, Kind, Service},
    harness::{Harness, Subject},
    packets::{self, Packet, Shape},
};

/// Frames of one measurement, or as many as there are flows.
const PACKETS: u32 = 400_000;

/// Frames before each measurement.
const WARM_UP: u32 = 50_000;

/// One in this many flows may not come about.
const LOST: u64 = 1_000;

/// Flows of all tables of a block.
const BLOCK: u32 = 6_000_000;

/// What one round found of a case, in nanoseconds per packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// The harness alone.
    pub alone: f64,
    /// The harness with a program that pushes 20 bytes.
    pub pushed: f64,
    /// The harness with the program under test.
    pub tested: f64,
}

/// What all rounds found of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// Round by round.
    pub samples: Vec<Sample>,
    /// U in each round, in nanoseconds: the median over all cases of the round.
    pub units: Vec<f64>,
    /// Share of the packets that were not forwarded, by reason.
    pub reasons: BTreeMap<&'static str, f64>,
}

/// A case that could not be made ready, and why.
pub type Failure = (Case, Error);

/// The middle of some numbers, and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// As many are below as above.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of one number at least.
    ///
    /// # Panics
    /// Without a number.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let middle = numbers.len() / 2;
        let median = match numbers.len() % 2 {
            0 => (numbers[middle - 1] + numbers[middle]) / 2.0,
            _ => numbers[middle],
        };
        Self { median, least: numbers[0], most: numbers[numbers.len() - 1] }
    }
}

impl Outcome {
    fn of(case: Case) -> Self {
        Self { case, samples: Vec::new(), units: Vec::new(), reasons: BTreeMap::new() }
    }

    /// Cost of the program, in nanoseconds.
    #[must_use]
    pub fn cost(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.tested - sample.alone))
    }

    /// Cost of the program, in U of the same round.
    #[must_use]
    pub fn units(&self) -> Spread {
        let rounds = self.samples.iter().zip(&self.units);
        Spread::of(rounds.map(|(sample, unit)| (sample.tested - sample.alone) / unit))
    }
}

/// Stays on one processor.
///
/// # Errors
/// When there is no such processor.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on processor {cpu}"))
}

/// Measures cases, so many rounds; tells what it does through `progress`. Also gives the cases that could not
/// be made ready, and why.
///
/// # Errors
/// When the kernel refuses a measurement.
pub fn measure(
    object: &[u8],
    cases: &[Case],
    rounds: usize,
    mut progress: impl FnMut(&str),
) -> Result<(Vec<Outcome>, Vec<Failure>)> {
    let (mut outcomes, mut failures) = (Vec::with_capacity(cases.len()), Vec::new());
    let mut harness = None;
    let blocks = blocks(cases);
    for (number, block) in blocks.iter().enumerate() {
        let mut stands = HashMap::new();
        let mut measured = Vec::with_capacity(block.len());
        for case in block {
            if let Entry::Vacant(place) = stands.entry(case.service) {
                progress(&format!("block {} of {}: tables and flows of {case}", number + 1, blocks.len()));
                match Stand::new(object, &mut harness, case.service) {
                    Ok(stand) => place.insert(stand),
                    Err(error) => {
                        failures.push((*case, error));
                        continue;
                    }
                };
            }
            measured.push(Outcome::of(*case));
        }
        if measured.is_empty() {
            continue;
        }
        for round in 0..rounds {
            progress(&format!("block {} of {}: round {} of {rounds}", number + 1, blocks.len(), round + 1));
            let harness = harness.as_mut().expect("the first stand has made it");
            for outcome in &mut measured {
                let stand = stands.get_mut(&outcome.case.service).expect("one for every outcome");
                let (sample, reasons) =
                    stand.sample(harness, outcome.case.kind).with_context(|| outcome.case.to_string())?;
                outcome.samples.push(sample);
                outcome.reasons = reasons;
            }
            let samples = measured.iter().map(|outcome| outcome.samples[round]);
            let unit = Spread::of(samples.map(|sample| sample.pushed - sample.alone)).median;
            ensure!(unit > 0.0, "the unit was measured as {unit} ns: this machine is too busy");
            measured.iter_mut().for_each(|outcome| outcome.units.push(unit));
        }
        outcomes.extend(measured);
    }
    Ok((outcomes, failures))
}

fn blocks(cases: &[Case]) -> Vec<Vec<Case>> {
    let mut blocks: Vec<Vec<Case>> = Vec::new();
    let mut flows = 0;
    for case in cases {
        let fits = flows + case.service.flows <= BLOCK;
        match blocks.last_mut() {
            Some(block) if block.iter().any(|other| other.service == case.service) => block.push(*case),
            Some(block) if fits => {
                flows += case.service.flows;
                block.push(*case);
            }
            _ => {
                flows = case.service.flows;
                blocks.push(vec![*case]);
            }
        }
    }
    blocks
}

/// A service with its tables, its flows established.
struct Stand {
    service: Service,
    bed: Bed,
    flows: Vec<Flow>,
    /// The flows as the servers' answers have them, where those come back.
    answers: Vec<Flow>,
}

impl Stand {
    /// The first one makes the harness, which must suit the program under test.
    fn new(object: &[u8], harness: &mut Option<Harness>, service: Service) -> Result<Self> {
        let bed = Bed::new(&service)?;
        let harness = match harness {
            Some(harness) => harness,
            None => harness.insert(Harness::load(object, bed.program())?),
        };
        let flows = packets::flows(&service);
        let mut stand = Self { service, bed, flows, answers: Vec::new() };
        stand.establish(harness)?;
        Ok(stand)
    }

    /// Lets every flow begin as it would.
    fn establish(&mut self, harness: &mut Harness) -> Result<()> {
        self.course(harness, Packet::FromClient(tcp::SYN))?;
        harness.subject(Subject::Tested(self.bed.program()))?;
        let before = self.bed.reasons()?;
        if !self.service.mode.translates() {
            harness.run(self.service.flows)?;
            self.nearly_all_forwarded(&before)?;
        } else {
            self.answers = packets::answers(&harness.record()?);
            self.nearly_all_forwarded(&before)?;
            self.course(harness, Packet::FromServer(tcp::SYN | tcp::ACK))?;
            harness.run(self.service.flows)?;
        }
        self.course(harness, Packet::FromClient(tcp::ACK))?;
        harness.run(self.service.flows)?;
        self.nearly_all_forwarded(&before)
    }

    /// In a table that is half full some line is, and the flow that comes then is sent away.
    fn nearly_all_forwarded(&self, before: &BTreeMap<&'static str, u64>) -> Result<()> {
        let not: Vec<_> = self
            .bed
            .reasons()?
            .into_iter()
            .map(|(reason, count)| (reason, count - before[reason]))
            .filter(|&(_, count)| count > u64::from(self.service.flows) / LOST)
            .collect();
        ensure!(not.is_empty(), "too few flows could be established: {not:?} of {}", self.service.flows);
        Ok(())
    }

    fn course(&self, harness: &mut Harness, packet: Packet) -> Result<()> {
        let flows = if matches!(packet, Packet::FromServer(_)) { &self.answers } else { &self.flows };
        let words = packets::words(&self.service, packet, flows);
        harness.course(&Shape::new(&self.service, packet), &words)
    }

    fn sample(&mut self, harness: &mut Harness, kind: Kind) -> Result<(Sample, BTreeMap<&'static str, f64>)> {
        if kind == Kind::Fragment {
            self.course(harness, Packet::First)?;
            harness.subject(Subject::Tested(self.bed.program()))?;
            harness.run(self.service.flows)?;
        }
        if kind.is_in_flood() {
            self.bed.limit_syns(1)?;
            self.course(harness, Packet::Stranger)?;
            harness.subject(Subject::Tested(self.bed.program()))?;
            let before = self.bed.unnoted_syns()?;
            harness.run(WARM_UP)?;
            let unnoted = self.bed.unnoted_syns()? - before;
            // All but one in a tick, and what the hash takes for another flow's.
            ensure!(unnoted > u64::from(WARM_UP) * 9 / 10, "{unnoted} of {WARM_UP} SYNs were too many");
        }
        let sample = self.sample_of(harness, packets::measured(kind));
        self.bed.limit_syns(0)?;
        sample
    }

    fn sample_of(
        &self,
        harness: &mut Harness,
        packet: Packet,
    ) -> Result<(Sample, BTreeMap<&'static str, f64>)> {
        self.course(harness, packet)?;
        let packets = PACKETS.max(self.service.flows);
        let mut run = |subject| -> Result<f64> {
            harness.subject(subject)?;
            harness.run(WARM_UP)?;
            harness.run(packets)
        };
        let alone = run(Subject::Null)?;
        let pushed = run(Subject::Push)?;
        let before = self.bed.reasons()?;
        let tested = run(Subject::Tested(self.bed.program()))?;
        let share = |count| count as f64 / f64::from(packets + WARM_UP);
        let reasons = self.bed.reasons()?.into_iter();
        let reasons = reasons.map(|(reason, count)| (reason, share(count - before[reason])));
        Ok((Sample { alone, pushed, tested }, reasons.filter(|&(_, share)| share > 0.0).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case;

    #[test]
    fn spreads() {
        for (numbers, median, least, most) in [
            (&[3.0][..], 3.0, 3.0, 3.0),
            (&[5.0, 1.0, 2.0], 2.0, 1.0, 5.0),
            (&[4.0, 1.0, 2.0, 3.0], 2.5, 1.0, 4.0),
        ] {
            assert_eq!(Spread::of(numbers.iter().copied()), Spread { median, least, most });
        }
    }

    #[test]
    fn blocks_hold_every_case_once_and_not_too_many_flows() {
        let cases = case::all();
        let blocks = blocks(&cases);
        assert_eq!(blocks.concat(), cases);
        for block in blocks {
            let services: std::collections::HashSet<_> = block.iter().map(|case| case.service).collect();
            assert!(services.iter().map(|service| service.flows).sum::<u32>() <= BLOCK);
        }
    }
}
