//! An XDP program that passes everything. Tests use it in two places:
//!
//! * as somebody else's program, which the balancer must leave alone;
//! * at the far end of the balancer's cables: a veth end that has no program of its own is not told about
//!   frames that come out of `XDP_TX`. They lie there until another packet wakes it, or, once 256 of them
//!   have gathered, for ever. Real network cards have no such trait.
//!
//! The object file is put together here, byte by byte, because two instructions are no reason to need a
//! BPF compiler: ELF header, four sections, five section headers.

use aya::{
    Ebpf,
    programs::{Xdp, xdp::XdpMode},
};

use crate::netns::Netns;

/// Name of the program, as `ip link` and `bpftool` show it.
pub const NAME: &str = "bystander";

/// The program, attached; it goes when this is dropped.
#[derive(Debug)]
pub struct Bystander {
    _object: Ebpf,
    /// Kernel id of the program.
    pub id: u32,
}

impl Bystander {
    /// Loads the program and attaches it to a device of a namespace.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    #[must_use]
    pub fn attach(ns: &Netns, device: &str) -> Self {
        let mut object = Ebpf::load(&object_file()).expect("load the bystander's object");
        let program: &mut Xdp = object
            .program_mut(NAME)
            .and_then(|program| program.try_into().ok())
            .expect("the bystander in its object");
        program.load().expect("load the bystander");
        ns.run(|| program.attach(device, XdpMode::default())).expect("attach the bystander");
        let id = program.info().expect("facts about the bystander").id();
        Self { _object: object, id }
    }
}

/// `r0 = XDP_PASS; exit`.
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
const LICENSE: &[u8] = b"GPL\0";

/// What differs between section headers; see the ELF specification for the numbers.
#[derive(Default)]
struct Section<'a> {
    content: &'a [u8],
    kind: u32,
    flags: u64,
    link: u32,
    info: u32,
    entry: u64,
}

/// A relocatable ELF object for the BPF machine (64 bits, little endian) with [`CODE`] as section `xdp`.
fn object_file() -> Vec<u8> {
    let mut strings = Vec::from(*b"\0");
    let mut string = |text: &str| {
        let at = u32::try_from(strings.len()).expect("a short table");
        strings.extend(text.bytes().chain([0]));
        at
    };
    let names = [string("xdp"), string("license"), string(".symtab"), string(".strtab")];
    let function = string(NAME);
    let mut symbols = vec![0; 24];
    // A global function at the start of section 1, as long as the code.
    symbols.extend(function.to_le_bytes().into_iter().chain([0x12, 0]).chain(1_u16.to_le_bytes()));
    symbols.extend(0_u64.to_le_bytes().into_iter().chain((CODE.len() as u64).to_le_bytes()));

    let mut file = vec![0; 64];
    let mut headers = vec![0; 64];
    // Code is allocated and executable, the licence allocated and writable; symbols use string table 4.
    let sections = [
        Section { content: &CODE, kind: 1, flags: 6, ..Section::default() },
        Section { content: LICENSE, kind: 1, flags: 3, ..Section::default() },
        Section { content: &symbols, kind: 2, link: 4, info: 1, entry: 24, ..Section::default() },
        Section { content: &strings, kind: 3, ..Section::default() },
    ];
    for (name, section) in names.into_iter().zip(sections) {
        let Section { content, kind, flags, link, info, entry } = section;
        let (offset, size) = (file.len() as u64, content.len() as u64);
        headers.extend(name.to_le_bytes().into_iter().chain(kind.to_le_bytes()));
        headers.extend([flags, 0, offset, size].into_iter().flat_map(u64::to_le_bytes));
        headers.extend(link.to_le_bytes().into_iter().chain(info.to_le_bytes()));
        headers.extend([8, entry].into_iter().flat_map(u64::to_le_bytes));
        file.extend_from_slice(content);
        file.resize(file.len().next_multiple_of(8), 0);
    }
    let start = file.len() as u64;
    file.extend(headers);

    // Class 64 bits, little endian, version 1; type relocatable, machine 247 (BPF), version 1.
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16..24].copy_from_slice(&[1, 0, 247, 0, 1, 0, 0, 0]);
    file[40..48].copy_from_slice(&start.to_le_bytes());
    // Sizes of this header and of a section header; 5 sections, the last one holds the names.
    file[52..54].copy_from_slice(&64_u16.to_le_bytes());
    file[58..64].copy_from_slice(&[64, 0, 5, 0, 4, 0]);
    file
}
