//! Loads every kernel program and prints what the verifier made of it.
//!
//! `cargo xtask verify` builds and runs this as root. The object is the one embedded in `lb-user`, or the
//! file named as the argument.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    EbpfLoader,
    programs::{Program, ProgramInfo},
};
use aya_obj::{Object, generated::bpf_insn};

/// The kernel's limit for all frames of a call chain together.
const STACK_LIMIT: u32 = 512;

fn main() -> Result<()> {
    let object = match std::env::args().nth(1) {
        Some(path) => std::fs::read(&path).with_context(|| format!("cannot read {path}"))?,
        None => lb_user::datapath::OBJECT.to_vec(),
    };
    ensure!(!object.is_empty(), "built without the kernel program; use `cargo xtask verify`");
    let stacks = stacks(&object)?;
    let mut ebpf = EbpfLoader::new().load(&object).context("the object does not load")?;
    println!(
        "{:<10} {:>12} {:>10} {:>10} {:>12}",
        "program", "verified", "instr.", "JIT bytes", "stack bytes"
    );
    for (name, program) in ebpf.programs_mut() {
        let Program::Xdp(xdp) = program else { bail!("{name} is no XDP program") };
        xdp.load().with_context(|| format!("the verifier refuses {name}"))?;
        let info = xdp.info()?;
        let stack = stacks.get(name).copied().unwrap_or_default();
        ensure!(stack <= STACK_LIMIT, "{name} uses {stack} bytes of stack");
        println!(
            "{:<10} {:>12} {:>10} {:>10} {:>12}",
            name,
            shown(info.verified_instruction_count()),
            shown(info.size_translated().map(|bytes| bytes / size_of::<bpf_insn>() as u32)),
            jited(&info),
            stack
        );
    }
    Ok(())
}

fn jited(info: &ProgramInfo) -> String {
    match info.size_jitted() {
        0 => "off".into(),
        bytes => bytes.to_string(),
    }
}

fn shown(number: Option<u32>) -> String {
    number.map_or_else(|| "?".into(), |number| number.to_string())
}

/// Deepest use of the frame pointer in each function. Functions that a program calls are listed too; the
/// verifier itself refuses a chain of calls that needs more than the limit.
fn stacks(object: &[u8]) -> Result<BTreeMap<String, u32>> {
    let object = Object::parse(object).context("not a BPF object")?;
    Ok(object
        .functions
        .values()
        .map(|function| (function.name.clone(), stack(&function.instructions)))
        .collect())
}

fn stack(instructions: &[bpf_insn]) -> u32 {
    const FRAME_POINTER: u8 = 10;
    let mut deepest = 0;
    let mut copies = [false; 11];
    for insn in instructions {
        let (class, dst, src) = (insn.code & 7, insn.dst_reg(), insn.src_reg());
        let is_memory = class <= 3;
        let offset = match (is_memory, insn.code) {
            // Load, store: base register plus offset.
            (true, _) if (class == 1 && src == FRAME_POINTER) || (class >= 2 && dst == FRAME_POINTER) => {
                insn.off.into()
            }
            // A copy of the frame pointer, then moved down.
            (false, 0xbf) => {
                copies[dst as usize] = src == FRAME_POINTER;
                0
            }
            (false, 0x07) if copies[dst as usize] => insn.imm,
            _ => 0,
        };
        deepest = deepest.min(offset);
    }
    deepest.unsigned_abs()
}
