//! How much stack a kernel program needs: that of its deepest chain of calls, as the kernel counts it. The
//! kernel refuses a program that needs more than [`LIMIT`], but does not tell how close others come.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context as _, Result, ensure};
use aya_obj::{Object, generated::bpf_insn};

/// Bytes that all frames of a chain of calls may have together.
pub const LIMIT: u32 = 512;

/// Each frame is rounded up to this; kernels from 6.8 on round to half of it where they compile.
const GRAIN: u32 = 32;

const FRAME_POINTER: u8 = 10;

/// Bytes of stack of each program in an object, by name.
///
/// # Errors
/// When the object cannot be read, or its functions call each other in a circle.
pub fn of_programs(object: &[u8]) -> Result<BTreeMap<String, u32>> {
    let mut object = Object::parse(object).context("not a BPF object")?;
    // Puts the functions that a program calls behind it, as they are when it is loaded.
    let sections: HashSet<_> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).context("calls that lead nowhere")?;
    let mut stacks = BTreeMap::new();
    for (name, program) in &object.programs {
        let function = object.functions.get(&program.function_key()).context("a program without code")?;
        let bytes = chain(&functions(&function.instructions), 0, 0).with_context(|| name.clone())?;
        stacks.insert(name.clone(), bytes);
    }
    Ok(stacks)
}

/// A function of a program.
#[derive(Debug, Default, PartialEq, Eq)]
struct Function {
    stack: u32,
    /// Where the functions that it calls begin.
    calls: BTreeSet<usize>,
}

/// The functions of a program, by the place where they begin; the first is the program itself.
fn functions(code: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let targets = code.iter().enumerate().filter_map(|(at, insn)| call(at, insn));
    let starts: Vec<_> = [0].into_iter().chain(targets).collect::<BTreeSet<_>>().into_iter().collect();
    let ends = starts.iter().skip(1).copied().chain([code.len()]);
    let function = |(&start, end): (&usize, usize)| {
        let calls = (start..end).filter_map(|at| call(at, &code[at])).collect();
        (start, Function { stack: frame(&code[start..end]), calls })
    };
    starts.iter().zip(ends).map(function).collect()
}

/// Where a call of a function of the same program leads.
fn call(at: usize, insn: &bpf_insn) -> Option<usize> {
    const CALL: u8 = 0x85;
    const OF_PROGRAM: u8 = 1;
    (insn.code == CALL && insn.src_reg() == OF_PROGRAM)
        .then(|| usize::try_from(at as i64 + 1 + i64::from(insn.imm)).ok())?
}

/// The deepest chain of calls that begins with the function at `start`.
fn chain(functions: &BTreeMap<usize, Function>, start: usize, depth: usize) -> Result<u32> {
    ensure!(depth < functions.len(), "functions call each other in a circle");
    let function = functions.get(&start).context("a call into a function")?;
    let mut deepest = 0;
    for called in &function.calls {
        deepest = deepest.max(chain(functions, *called, depth + 1)?);
    }
    Ok(function.stack.max(1).next_multiple_of(GRAIN) + deepest)
}

/// Deepest use of the frame pointer, or of a copy that was moved down.
fn frame(code: &[bpf_insn]) -> u32 {
    let mut deepest = 0;
    let mut copies = [false; 11];
    for insn in code {
        let (class, dst, src) = (insn.code & 7, usize::from(insn.dst_reg()), insn.src_reg());
        match (class, insn.code) {
            // Loads; stores.
            (1, _) if src == FRAME_POINTER => deepest = deepest.min(i32::from(insn.off)),
            (2 | 3, _) if dst == usize::from(FRAME_POINTER) => deepest = deepest.min(i32::from(insn.off)),
            (_, 0x07) if copies[dst] => deepest = deepest.min(insn.imm),
            _ => {}
        }
        match (class, insn.code) {
            (_, 0xbf) => copies[dst] = src == FRAME_POINTER,
            (0 | 1 | 4 | 7, _) => copies[dst] = false,
            (_, 0x85) => copies[..6].fill(false),
            _ => {}
        }
    }
    deepest.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
        let mut insn = bpf_insn { code, _bitfield_align_1: [], _bitfield_1: Default::default(), off, imm };
        insn.set_dst_reg(dst);
        insn.set_src_reg(src);
        insn
    }

    /// A program that calls two functions, one of which calls the other.
    fn code() -> Vec<bpf_insn> {
        vec![
            insn(0x7b, 10, 1, -40, 0), // *(r10 - 40) = r1
            insn(0x85, 0, 1, 0, 3),    // call 5
            insn(0x85, 0, 1, 0, 5),    // call 8
            insn(0x85, 0, 0, 0, 5),    // call of a kernel function
            insn(0x95, 0, 0, 0, 0),
            insn(0xbf, 1, 10, 0, 0),    // 5: r1 = r10
            insn(0x07, 1, 0, 0, -100),  // r1 -= 100
            insn(0x85, 0, 1, 0, 0),     // call 8
            insn(0x79, 0, 10, -8, 0),   // 8: r0 = *(r10 - 8)
            insn(0xbf, 2, 1, 0, 0),     // r2 = r1
            insn(0x07, 2, 0, 0, -4000), // r2 -= 4000, no address in the frame
            insn(0x95, 0, 0, 0, 0),
        ]
    }

    #[test]
    fn the_deepest_chain_counts_each_frame_rounded_up() {
        let functions = functions(&code());
        let frames: Vec<_> = functions.iter().map(|(start, function)| (*start, function.stack)).collect();
        assert_eq!(frames, [(0, 40), (5, 100), (8, 8)]);
        assert_eq!(chain(&functions, 0, 0).expect("no circle"), 64 + 128 + 32);
    }

    #[test]
    fn a_circle_is_refused() {
        let mut code = code();
        code[9] = insn(0x85, 0, 1, 0, -5); // call 5
        assert!(chain(&functions(&code), 0, 0).is_err());
    }
}
