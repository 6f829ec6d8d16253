//! A datapath in ordinary memory, for tests of those who tell it what to do.

use lb_common::{abi::Counters, verdict::REASON_COUNT};

use super::{Datapath, Error};
use crate::plan::{Desired, Operation};

/// Notes what it is told; can be told to refuse.
#[derive(Debug, Default)]
pub struct Fake {
    /// What the maps would contain.
    pub contents: Desired,
    /// How many operations were carried out.
    pub applied: usize,
    /// Refuse the operation after this many more.
    pub refuse_after: Option<usize>,
}

impl Datapath for Fake {
    fn apply(&mut self, operation: &Operation) -> Result<(), Error> {
        match &mut self.refuse_after {
            Some(0) => return Err(Error("the fake refuses".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        self.contents.note(operation.clone());
        self.applied += 1;
        Ok(())
    }

    fn server_counters(&self, server: u16) -> Result<Counters, Error> {
        Ok(Counters { packets_in: u64::from(server), ..Counters::default() })
    }

    fn reasons(&self) -> Result<Vec<u64>, Error> {
        Ok((0..u64::from(REASON_COUNT)).collect())
    }
}
