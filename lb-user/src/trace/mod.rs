//! Looking into packets: what becomes of those that pass, live (`lbctl trace`), and what would become of one, and why
//! (`lbctl why`).
//!
//! ```text
//! kernel ─ EVENTS ─ datapath::events ─ stream ─ JSON lines over the admin socket ─ lbctl trace
//! what the loop has written, and the flow tables ─ offline ─ the same decision as in the kernel ─ why ─ lbctl why
//! ```
//!
//! The kernel program reports only while somebody watches; whether somebody does is part of its settings, which the
//! reconcile loop writes. One watches at a time: there is one filter and one ring buffer, and who shared them would
//! not know what he does not see.

pub mod filter;
mod names;
mod offline;
mod sighting;
mod stream;
mod why;

use std::sync::Arc;

use lb_common::abi::Mode;
use tokio::sync::{Mutex, mpsc, oneshot};

pub use self::{
    filter::Filter,
    names::{Names, ServerName},
    sighting::{Ends, Packet, Sighting, SlotSeen},
    stream::{Line, Lines, Wish},
    why::{Question as WhyQuestion, Step, Why},
};
use crate::{
    datapath::{Datapath, events::Events, flows::FlowTables},
    picture::About,
    plan::Desired,
    reconcile::Reconciler,
};

/// What the reconcile loop is asked for.
#[derive(Debug)]
pub enum Question {
    /// What it knows.
    Insight(oneshot::Sender<Arc<Insight>>),
    /// To have the kernel program report, or not, from now on; the sender is dropped when that is done.
    Watch(bool, oneshot::Sender<()>),
}

/// What the loop knows, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Insight {
    /// What it has written into the maps.
    pub written: Desired,
    /// The names for it.
    pub names: Names,
    /// Interfaces that the program is attached to, by index.
    pub attached: Vec<u32>,
}

impl Insight {
    /// What the loop knows now.
    #[must_use]
    pub fn of<D: Datapath>(state: &Reconciler<D>, about: &About) -> Self {
        Self {
            written: state.written().clone(),
            names: Names::of(state, about),
            attached: about.interfaces.iter().map(|interface| interface.index).collect(),
        }
    }

    /// How the VIP with a number is served.
    #[must_use]
    pub fn mode_of(&self, vip: u16) -> Option<Mode> {
        let v4 = self.written.vips4.values();
        let mut entries = v4.chain(self.written.vips6.values());
        entries.find(|entry| entry.id == vip).map(|entry| Mode::from_u8(entry.mode))
    }
}

/// Everything that looking into packets takes. (Questions that wait are as many as connections, which are limited.)
#[derive(Clone, Debug)]
pub struct Eyes {
    questions: mpsc::UnboundedSender<Question>,
    events: Arc<Mutex<Events>>,
    flows: Arc<FlowTables>,
}

/// Why nothing is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blind {
    /// What was asked for cannot be.
    Wrong(String),
    /// Somebody else watches.
    Busy,
    /// lb-user's own fault.
    Internal(String),
}

impl Eyes {
    /// Eyes, and the questions that the loop is to answer.
    #[must_use]
    pub fn new(events: Events, flows: Arc<FlowTables>) -> (Self, mpsc::UnboundedReceiver<Question>) {
        let (questions, inbox) = mpsc::unbounded_channel();
        (Self { questions, events: Arc::new(Mutex::new(events)), flows }, inbox)
    }

    /// What the loop knows.
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn insight(&self) -> Result<Arc<Insight>, Blind> {
        let (answer, insight) = oneshot::channel();
        let ended = || Blind::Internal("the reconcile loop has ended".into());
        self.questions.send(Question::Insight(answer)).map_err(|_| ended())?;
        insight.await.map_err(|_| ended())
    }
}
