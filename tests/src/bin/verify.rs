//! Loads every kernel program and prints what the verifier made of it.
//!
//! `cargo xtask verify` builds and runs this as root. The objects are those embedded in `lb-user`, or the
//! file named as the argument. Of a program that is refused, the end of the verifier's log follows the table.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    EbpfLoader,
    programs::{Program, ProgramError, ProgramInfo},
};
use aya_obj::generated::bpf_insn;
use lb_tests::{MOST_VERIFIED, stack};
use lb_user::datapath::programs::FRAGS;

/// Lines of a verifier's log that are shown: what it says last is what it stumbled over.
const LOG_LINES: usize = 25;

fn main() -> ExitCode {
    match all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace: it would stand between the reader and the verifier's log.
            eprintln!("verify: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Loads all programs of all objects, also those after one that is refused.
fn all() -> Result<()> {
    let objects = match std::env::args().nth(1) {
        Some(path) => vec![std::fs::read(&path).with_context(|| format!("cannot read {path}"))?],
        None => vec![lb_user::datapath::OBJECT.to_vec(), lb_user::datapath::decap::OBJECT.to_vec()],
    };
    row(["program", "verified", "instr.", "JIT bytes", "stack bytes"].map(String::from));
    let mut problems = Vec::new();
    for object in &objects {
        for frags in [false, true] {
            // What no program can be blamed for, e.g. a map that the kernel does not know, is a problem as well.
            if let Err(error) = verify(object, frags, &mut problems) {
                problems.push(format!("{error:#}"));
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    println!("\n{}\n", problems.join("\n\n"));
    bail!("not as it should be: {}", problems.len());
}

/// Loads programs of one object and prints a line for each; notes what is wrong with them. Takes those for frames in
/// several pieces or the others: the kernel lets no map of stages have both.
fn verify(object: &[u8], frags: bool, problems: &mut Vec<String>) -> Result<()> {
    ensure!(!object.is_empty(), "built without the kernel programs; use `cargo xtask verify`");
    let mut ebpf = EbpfLoader::new().load(object).context("the object does not load")?;
    // In order of their names, unlike aya's.
    for (name, stack) in stack::of_programs(object)? {
        if name.ends_with(FRAGS) != frags {
            continue;
        }
        let program = ebpf.program_mut(&name).with_context(|| format!("aya knows of no program {name}"))?;
        match load(program) {
            Ok(info) => {
                let verified = info.verified_instruction_count();
                row([
                    name.clone(),
                    shown(verified),
                    shown(info.size_translated().map(|bytes| bytes / size_of::<bpf_insn>() as u32)),
                    jited(&info),
                    stack.to_string(),
                ]);
                if let Some(count) = verified.filter(|count| *count > MOST_VERIFIED) {
                    problems.push(format!(
                        "{name} costs the verifier {count} instructions, more than {MOST_VERIFIED}"
                    ));
                }
            }
            Err(error) => {
                let none = || "-".to_owned();
                row([name.clone(), "refused".to_owned(), none(), none(), stack.to_string()]);
                problems.push(format!("{name} is refused: {}", reason(error)));
            }
        }
        if stack > stack::LIMIT {
            let limit = stack::LIMIT;
            problems.push(format!("{name} needs {stack} bytes of stack, more than the {limit} there are"));
        }
    }
    Ok(())
}

/// Loads a program; gives what the kernel then knows of it.
fn load(program: &mut Program) -> Result<ProgramInfo, ProgramError> {
    match program {
        Program::Xdp(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        // None of ours is of another kind; aya would want to know more to load some of them.
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    program.info()
}

/// Prints a line of the table. xtask reads it: `xtask/src/kernels/report.rs`.
fn row([name, verified, instructions, jited, stack]: [String; 5]) {
    println!("{name:<16} {verified:>12} {instructions:>10} {jited:>10} {stack:>12}");
}

/// Why a program was refused: the kernel's error number, and how the verifier's log ends.
fn reason(error: ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            format!("{io_error}; the verifier's log ends with\n{}", tail(&verifier_log.to_string()))
        }
        error => format!("{:#}", anyhow::Error::new(error)),
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.trim_end_matches(['\0', '\n']).lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
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
