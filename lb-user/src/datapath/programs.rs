//! Names of the programs in the object.

use lb_common::verdict::Stage;

/// The program that every frame enters.
pub const ENTRY: &str = "lb";

/// The same for kernels that know of frames in several pieces.
pub const ENTRY_FRAGS: &str = "lb_frags";

/// What the names of the latter's stages end in.
pub const FRAGS: &str = "_frags";

/// The programs of the stages, each with its place in the map `STAGES`: twice its number, and one more for IPv6.
pub fn stages() -> impl Iterator<Item = (u32, String)> {
    const NAMES: [(Stage, &str); 10] = [
        (Stage::Six, "six"),
        (Stage::Walk, "walk"),
        (Stage::Open, "open"),
        (Stage::Remember, "remember"),
        (Stage::Icmp, "icmp"),
        (Stage::Fragment, "fragment"),
        (Stage::Answer, "answer"),
        (Stage::Mss, "mss"),
        (Stage::Quic, "quic"),
        (Stage::Report, "report"),
    ];
    let both = NAMES.into_iter().flat_map(|(stage, name)| [4, 6].map(|family| (stage, name, family)));
    // IPv4 has no extension headers to walk over, and needs no program beside the first.
    both.filter(|&(stage, _, family)| !matches!(stage, Stage::Six | Stage::Walk) || family == 6)
        .map(|(stage, name, family)| (2 * stage as u32 + u32::from(family == 6), format!("{name}{family}")))
}

/// The programs that are loaded together, by name: with `frags`, those for frames in several pieces.
#[must_use]
pub fn names(frags: bool) -> Vec<String> {
    let suffix = if frags { FRAGS } else { "" };
    let entry = if frags { ENTRY_FRAGS } else { ENTRY };
    let stages = stages().map(|(_, name)| format!("{name}{suffix}"));
    std::iter::once(entry.to_owned()).chain(stages).collect()
}
