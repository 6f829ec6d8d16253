//! The program of `lb-user decap`: loaded, told what it may decapsulate, asked what it did.

use aya::{
    EbpfLoader,
    maps::{Array, LpmTrie, MapData, PerCpuArray, lpm_trie::Key},
};
use lb_common::decap::{Outcome, Rule};

use super::{
    Error,
    attach::{Program, load_one},
    kernel,
    load::{explain, take},
};

/// The program, as `cargo xtask build` put it into this file; empty in a build without BPF tools.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/decap.o"));

/// The program's name in the object, and what `bpftool prog` and other instances see.
pub const PROGRAM: &str = "decap";

/// The same for kernels that know of frames in several pieces.
pub const PROGRAM_FRAGS: &str = "decap_frags";

/// The loaded program in its parts.
pub struct Loaded {
    /// To attach and detach.
    pub program: Program,
    /// What it may decapsulate.
    pub rules: Rules,
    /// What it did.
    pub counters: Counters,
}

/// What the program may decapsulate.
pub struct Rules(LpmTrie<MapData, [u32; 5], u32>);

/// Packets by outcome.
pub struct Counters(PerCpuArray<MapData, u64>);

/// Loads the program; it decapsulates nothing before it has rules. No GUE for port 0.
///
/// # Errors
/// In one line: what is missing, and what would help.
pub fn load(gue_port: u16) -> Result<Loaded, Error> {
    if OBJECT.is_empty() {
        return Err(Error(
            "this lb-user was built without its kernel programs; build it with \"cargo xtask build\"".into(),
        ));
    }
    kernel::require_running().map_err(|unfit| Error(unfit.to_string()))?;
    let loaded = EbpfLoader::new().load(OBJECT);
    let mut ebpf = loaded.map_err(|error| explain("cannot load the kernel program", &error))?;
    let (rules, counters) = (Rules(take(&mut ebpf, "RULES")?), Counters(take(&mut ebpf, "OUTCOMES")?));
    let mut port: Array<MapData, u32> = take(&mut ebpf, "GUE_PORT")?;
    port.set(0, u32::from(gue_port), 0)?;
    let name = if load_one(&mut ebpf, PROGRAM_FRAGS).is_ok() { PROGRAM_FRAGS } else { PROGRAM };
    if name == PROGRAM {
        load_one(&mut ebpf, name)?;
    }
    Ok(Loaded { program: Program::named(name, ebpf), rules, counters })
}

impl Rules {
    /// Adds a rule.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn allow(&mut self, rule: Rule) -> Result<(), Error> {
        Ok(self.0.insert(&Key::new(rule.bits, rule.key), 1, 0)?)
    }

    /// Takes a rule out that is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forbid(&mut self, rule: Rule) -> Result<(), Error> {
        Ok(self.0.remove(&Key::new(rule.bits, rule.key))?)
    }
}

impl Counters {
    /// Packets by outcome, in the order of [`Outcome::ALL`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn outcomes(&self) -> Result<Vec<u64>, Error> {
        let packets = |outcome: &Outcome| Ok(self.0.get(&(*outcome as u32), 0)?.iter().sum());
        Outcome::ALL.iter().map(packets).collect()
    }
}
