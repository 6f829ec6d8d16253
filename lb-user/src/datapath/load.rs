//! From the embedded object to a verified program with its maps.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use aya::{Ebpf, EbpfLoader, maps::MapError, programs::ProgramError};
use aya_log::EbpfLogger;
use lb_common::abi::{DEFAULT_FLOW_TAGS, DEFAULT_FLOWS, WAYS};
use tracing::warn;

use super::{
    Error, OBJECT,
    attach::Program,
    events::Events,
    flows::FlowTables,
    kernel,
    maps::Maps,
    moving::{Changed, Moving},
    pins::{KEPT, Kept, Pins},
};
use crate::plan::desired::Shape;

/// A loaded program in its parts, for those who need them.
pub struct Loaded {
    /// To attach and detach.
    pub program: Program,
    /// What user space writes and the counters.
    pub maps: Maps,
    /// What user space sweeps.
    pub flows: FlowTables,
    /// What the program reports.
    pub events: Events,
    /// How large the flow tables are.
    pub shape: Shape,
    /// What is to be done right before it is attached.
    pub moving: Option<Moving>,
}

/// What the operator wants the flow tables to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Translated flows, for each address family.
    pub flows: u32,
    /// Flow tags.
    pub tags: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { flows: DEFAULT_FLOWS as u32, tags: DEFAULT_FLOW_TAGS as u32 }
    }
}

impl Sizes {
    /// Lines of claims and of tags: powers of two, with room for at least what is wanted.
    fn lines(self) -> (u32, u32) {
        let lines = |entries: u32| entries.div_ceil(WAYS as u32).clamp(2, 1 << 24).next_power_of_two();
        (lines(self.flows), lines(self.tags))
    }

    /// Whether tables of this size are what there is.
    #[must_use]
    pub fn fit(self, kept: &Kept) -> bool {
        self.lines() == (kept.flow_lines, kept.tag_lines)
    }
}

/// The tables of a former start.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Where they are.
    pub kept: &'a Kept,
    /// The seed of their hashes.
    pub seed: u64,
    /// Those that are laid out differently.
    pub changed: &'a Changed,
    /// Where its settings have `hold_until`.
    pub hold_at: usize,
}

/// Where the flow tables come from.
#[derive(Clone, Copy, Debug)]
pub enum Tables<'a> {
    /// They are made, this large.
    Made(Sizes),
    /// They are those of a former start.
    Kept(Found<'a>),
}

/// Loads the embedded program, with flow tables of these sizes.
///
/// # Errors
/// In one line: what is missing, and what would help.
pub fn load(sizes: Sizes) -> Result<Loaded, Error> {
    load_onto(Tables::Made(sizes), None)
}

/// Loads the embedded program onto flow tables, and pins its maps.
///
/// # Errors
/// As [`load`].
pub fn load_onto(tables: Tables<'_>, pins: Option<&Pins>) -> Result<Loaded, Error> {
    if OBJECT.is_empty() {
        return Err(Error(
            "this lb-user was built without its kernel program; build it with \"cargo xtask build\"".into(),
        ));
    }
    kernel::require_running().map_err(|unfit| Error(unfit.to_string()))?;
    let shape = match tables {
        Tables::Made(sizes) => {
            let (flow_lines, tag_lines) = sizes.lines();
            // Nobody outside can know it: what lies next to what in the tables depends on it.
            Shape { flow_lines, tag_lines, seed: RandomState::new().hash_one(std::process::id()) }
        }
        Tables::Kept(Found { kept, seed, .. }) => {
            Shape { flow_lines: kept.flow_lines, tag_lines: kept.tag_lines, seed }
        }
    };
    let mut loader = loader(shape);
    if let Tables::Kept(Found { kept, changed, .. }) = tables {
        for name in KEPT.into_iter().filter(|name| !changed.contains_key(name)) {
            loader.map_pin_path(name, kept.map(name));
        }
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| explain("cannot load the kernel program", &error))?;
    start_log(&mut ebpf);
    let mut program = Program::load(ebpf)?;
    if let Some(pins) = pins {
        pins.pin_maps(program.ebpf())?;
    }
    let moving = match (tables, pins) {
        (Tables::Kept(Found { kept, changed, hold_at, .. }), Some(pins)) if !changed.is_empty() => {
            Some(Moving::prepare(kept, pins, changed, hold_at)?)
        }
        _ => None,
    };
    let (maps, flows) = (Maps::take(program.ebpf())?, FlowTables::take(program.ebpf(), shape.seed)?);
    let events = Events::take(program.ebpf())?;
    Ok(Loaded { program, maps, flows, events, shape, moving })
}

/// A loader that makes the flow tables as large as wanted.
fn loader(shape: Shape) -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    let Shape { flow_lines, tag_lines, .. } = shape;
    for (claims, flows, replies) in [("CLAIMS4", "FLOWS4", "REPLIES4"), ("CLAIMS6", "FLOWS6", "REPLIES6")] {
        loader
            .map_max_entries(claims, flow_lines)
            .map_max_entries(flows, flow_lines * WAYS as u32)
            .map_max_entries(replies, 2 * flow_lines);
    }
    loader.map_max_entries("FLOW_TAGS", tag_lines);
    loader
}

/// Forwards what the program logs to the daemon's log, once a second: it only logs rare things. Doing
/// without is no reason not to start.
fn start_log(ebpf: &mut Ebpf) {
    let mut logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => return warn!("the kernel program's log is not available: {error}"),
    };
    tokio::spawn(async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            logger.flush();
        }
    });
}

/// Adds what an operator can do about the most common refusal.
pub(super) fn explain(attempt: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut next = Some(error);
    while let Some(error) = next {
        let denied = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        // EPERM; a verifier that refuses says EACCES or EINVAL.
        if denied == Some(1) {
            return Error(format!("{attempt}: permission denied; it takes root (CAP_BPF and CAP_NET_ADMIN)"));
        }
        next = error.source();
    }
    Error::new(attempt, error)
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        Self::new("the kernel refuses a change of a map", &error)
    }
}

impl From<ProgramError> for Error {
    fn from(error: ProgramError) -> Self {
        Self::new("the kernel refuses the kernel program", &error)
    }
}

/// Takes a map out of the object as the type it must have.
pub(super) fn take<M>(ebpf: &mut Ebpf, name: &str) -> Result<M, Error>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or_else(|| Error(format!("the kernel program has no map {name}")))?;
    M::try_from(map).map_err(|error| Error::new(&format!("map {name} is not what it should be"), &error))
}
