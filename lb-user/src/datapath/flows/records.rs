//! The records of translated flows, one by one: to be looked at, or to be ended.

use std::sync::atomic::Ordering::SeqCst;

use lb_common::{
    abi::{Claim, Flow, FlowStage, WAYS},
    family::Family,
};

use super::{super::Error, FlowTables, Halted, Table};

/// A translated flow, and where its record is.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// What is known of it.
    pub flow: Halted,
    pub(crate) number: usize,
    claim: Claim,
}

impl FlowTables {
    /// Hands over every translated flow that is not over, those of IPv4 first.
    ///
    /// # Errors
    /// When a part of the records cannot be looked at.
    pub fn for_each_record(&self, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.v4
            .for_each(&mut |number, claim, flow| each(Record { flow: Halted::V4(flow), number, claim }))?;
        self.v6.for_each(&mut |number, claim, flow| each(Record { flow: Halted::V6(flow), number, claim }))
    }

    /// Forgets a flow. Gives whether it was there still. Its next packet, from whichever side, is one of no known flow.
    pub fn forget(&self, record: &Record) -> bool {
        let Record { flow, number, claim } = record;
        match flow {
            Halted::V4(flow) => self.v4.forget(*number, *claim, flow, self.seed),
            Halted::V6(flow) => self.v6.forget(*number, *claim, flow, self.seed),
        }
    }
}

impl<F: Family, const RECORD: usize> Table<F, RECORD> {
    fn for_each(&self, each: &mut dyn FnMut(usize, Claim, Flow<F::Addr>)) -> Result<(), Error> {
        let mut records = self.flows.view();
        for line in 0..self.claims.len() {
            for (way, entry) in self.claims.get(line).iter().enumerate() {
                let claim = Claim(entry.load(SeqCst));
                if claim.is_empty() || matches!(claim.stage(), FlowStage::Entering | FlowStage::Over) {
                    continue;
                }
                let number = line * WAYS + way;
                let flow = records.read(number)?;
                // Of another flow by now?
                if Claim(entry.load(SeqCst)).fingerprint() == claim.fingerprint() {
                    each(number, claim, flow);
                }
            }
        }
        Ok(())
    }

    fn forget(&self, number: usize, claim: Claim, flow: &Flow<F::Addr>, seed: u64) -> bool {
        let entry = &self.claims.get(number / WAYS)[number % WAYS];
        // Its stage and time change while it lives; its fingerprint does not.
        let mut now = claim;
        for _ in 0..WAYS {
            if self.remove(number, entry, now, flow, seed) {
                return true;
            }
            now = Claim(entry.load(SeqCst));
            if now.fingerprint() != claim.fingerprint() {
                return false;
            }
        }
        false
    }
}
