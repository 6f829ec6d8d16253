//! From the embedded object to a verified program with its maps.

use std::time::Duration;

use aya::{
    Ebpf, EbpfLoader,
    maps::MapError,
    programs::{ProgramError, Xdp},
};
use aya_log::EbpfLogger;
use tracing::warn;

use super::{Error, OBJECT, attach::Program, flows::FlowTables, kernel, maps::Maps};

/// The program's name in the object, and what `bpftool prog` and other instances see.
pub const PROGRAM: &str = "lb";

/// A loaded program in its parts, for those who need them.
pub struct Loaded {
    /// To attach and detach.
    pub program: Program,
    /// What user space writes and the counters.
    pub maps: Maps,
    /// What user space sweeps.
    pub flows: FlowTables,
}

/// Loads the embedded program, with flow tables of `flow_entries` entries for each address family.
///
/// # Errors
/// In one line: what is missing, and what would help.
pub fn load(flow_entries: u32) -> Result<Loaded, Error> {
    if OBJECT.is_empty() {
        return Err(Error(
            "this lb-user was built without its kernel program; build it with \"cargo xtask build\"".into(),
        ));
    }
    kernel::require_running().map_err(|unfit| Error(unfit.to_string()))?;
    let mut ebpf = EbpfLoader::new()
        .map_max_entries("FLOWS4", flow_entries)
        .map_max_entries("FLOWS6", flow_entries)
        .load(OBJECT)
        .map_err(|error| explain("cannot load the kernel program", &error))?;
    start_log(&mut ebpf);
    let (maps, flows) = (Maps::take(&mut ebpf)?, FlowTables::take(&mut ebpf, flow_entries)?);
    let program: &mut Xdp = ebpf
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| Error(format!("the kernel program has no XDP program {PROGRAM:?}")))?;
    program.load().map_err(|error| explain("the kernel refuses the kernel program", &error))?;
    Ok(Loaded { program: Program::new(ebpf), maps, flows })
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
