//! Loads every kernel program and prints what the verifier made of it.
//!
//! `cargo xtask verify` builds and runs this as root. The objects are those embedded in `lb-user`, or the
//! file named as the argument.

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    EbpfLoader,
    programs::{Program, ProgramInfo},
};
use aya_obj::generated::bpf_insn;
use lb_tests::stack;

fn main() -> Result<()> {
    let objects = match std::env::args().nth(1) {
        Some(path) => vec![std::fs::read(&path).with_context(|| format!("cannot read {path}"))?],
        None => vec![lb_user::datapath::OBJECT.to_vec(), lb_user::datapath::decap::OBJECT.to_vec()],
    };
    println!(
        "{:<10} {:>12} {:>10} {:>10} {:>12}",
        "program", "verified", "instr.", "JIT bytes", "stack bytes"
    );
    objects.iter().try_for_each(|object| verify(object))
}

/// Loads the programs of one object and prints a line for each.
fn verify(object: &[u8]) -> Result<()> {
    ensure!(!object.is_empty(), "built without the kernel programs; use `cargo xtask verify`");
    let stacks = stack::of_programs(object)?;
    let mut ebpf = EbpfLoader::new().load(object).context("the object does not load")?;
    for (name, program) in ebpf.programs_mut() {
        let Program::Xdp(xdp) = program else { bail!("{name} is no XDP program") };
        xdp.load().with_context(|| format!("the verifier refuses {name}"))?;
        let info = xdp.info()?;
        let stack = *stacks.get(name).with_context(|| format!("{name} is not in the object"))?;
        ensure!(stack <= stack::LIMIT, "{name} needs {stack} bytes of stack, more than older kernels give");
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
