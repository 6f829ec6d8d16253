//! What is served at the moment, for those who only look.

use std::sync::{Arc, PoisonError, RwLock};

use crate::model::Ready;

/// What the process is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It serves, and says that it is about to end.
    Grace,
    /// It accepts nothing new.
    Draining,
}

/// What is served at the moment, for those who only look.
#[derive(Debug)]
pub struct Current {
    ready: RwLock<Arc<Ready>>,
    phase: RwLock<Phase>,
}

impl Current {
    pub(super) fn new(ready: Ready) -> Self {
        Self { ready: RwLock::new(Arc::new(ready)), phase: RwLock::new(Phase::Serving) }
    }

    pub(super) fn set_ready(&self, ready: Ready) {
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ready);
    }

    /// What is served.
    #[must_use]
    pub fn ready(&self) -> Arc<Ready> {
        Arc::clone(&self.ready.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the process is at.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}
