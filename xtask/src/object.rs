//! What can be told of an object without loading it.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use aya_obj::{Object, ProgramSection, generated::bpf_insn};

/// A program of an object.
#[derive(Debug)]
pub(crate) struct Program {
    /// The name of its function.
    pub(crate) name: String,
    /// The section that says what kind it is.
    pub(crate) section: String,
    /// With the functions that it calls.
    pub(crate) instructions: usize,
    /// Bytes of stack on the deepest path of calls; the kernel allows 512.
    pub(crate) stack: usize,
}

/// Reads the programs of an object, by name.
///
/// # Errors
///
/// It is not a BPF object, or a call in it leads nowhere.
pub(crate) fn programs(path: &Path) -> Result<Vec<Program>> {
    let shown = path.display();
    let content = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let mut object = Object::parse(&content).with_context(|| format!("{shown} is no BPF object"))?;
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).with_context(|| format!("cannot link the functions of {shown}"))?;
    let mut programs = Vec::new();
    for (name, program) in &object.programs {
        let function = object
            .functions
            .get(&(program.section_index, program.address))
            .with_context(|| format!("{shown}: program {name} has no code"))?;
        programs.push(Program {
            name: name.clone(),
            section: section(&program.section),
            instructions: function.instructions.len(),
            stack: stack(&function.instructions).with_context(|| format!("{shown}: program {name}"))?,
        });
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

fn section(section: &ProgramSection) -> String {
    if let ProgramSection::Xdp { frags, .. } = section {
        return if *frags { "xdp.frags" } else { "xdp" }.to_owned();
    }
    if let ProgramSection::SchedClassifier = section {
        return "classifier".to_owned();
    }
    format!("{section:?}").to_lowercase()
}

const MOV64_X: u8 = 0xbf;
const ADD64_K: u8 = 0x07;
const CALL: u8 = 0x85;
/// In the source register of a call: to a function of the same program.
const PSEUDO_CALL: u8 = 1;
/// The frame pointer.
const R10: u8 = 10;

/// The deepest stack of a linked program whose entry is its first instruction.
///
/// From the code alone, so that it is known without root; what the verifier logs as "stack depth" is the same number
/// by function.
fn stack(program: &[bpf_insn]) -> Result<usize> {
    let mut entries: Vec<usize> = calls(program).map(|(_, target)| target).collect();
    entries.push(0);
    entries.sort_unstable();
    entries.dedup();
    if let Some(outside) = entries.iter().find(|entry| **entry >= program.len()) {
        bail!("a call leads to instruction {outside} of {}", program.len());
    }
    let function_of = |at: usize| entries.partition_point(|entry| *entry <= at) - 1;
    let mut called: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, target) in calls(program) {
        called.entry(function_of(at)).or_default().push(function_of(target));
    }
    let frames: Vec<usize> = (0..entries.len())
        .map(|index| {
            let end = entries.get(index + 1).copied().unwrap_or(program.len());
            frame(&program[entries[index]..end])
        })
        .collect();
    deepest(0, &frames, &called, 0)
}

/// The kernel allows eight frames; more is a circle.
fn deepest(
    function: usize,
    frames: &[usize],
    called: &BTreeMap<usize, Vec<usize>>,
    level: usize,
) -> Result<usize> {
    if level == 8 {
        bail!("functions call each other more than 8 deep");
    }
    let mut below = 0;
    for callee in called.get(&function).into_iter().flatten() {
        below = below.max(deepest(*callee, frames, called, level + 1)?);
    }
    Ok(frames[function] + below)
}

/// Calls within the program: where, and to which instruction.
fn calls(program: &[bpf_insn]) -> impl Iterator<Item = (usize, usize)> {
    program.iter().enumerate().filter_map(|(at, instruction)| {
        let local = instruction.code == CALL && instruction.src_reg() == PSEUDO_CALL;
        let target = i64::try_from(at).ok()? + 1 + i64::from(instruction.imm);
        // A target before the program is one outside of it, too.
        local.then(|| (at, usize::try_from(target).unwrap_or(usize::MAX)))
    })
}

/// Bytes of stack that a function uses itself: the lowest address below its frame pointer.
fn frame(function: &[bpf_insn]) -> usize {
    let mut lowest = 0;
    for (at, instruction) in function.iter().enumerate() {
        let class = instruction.code & 0x07;
        let (load, store) = (class == 0x01, class == 0x02 || class == 0x03);
        if (load && instruction.src_reg() == R10) || (store && instruction.dst_reg() == R10) {
            lowest = lowest.min(i32::from(instruction.off));
        }
        // An address on the stack is made by `rX = r10; rX += -N`.
        let Some(next) = function.get(at + 1) else {
            continue;
        };
        if instruction.code == MOV64_X
            && instruction.src_reg() == R10
            && next.code == ADD64_K
            && next.dst_reg() == instruction.dst_reg()
        {
            lowest = lowest.min(next.imm);
        }
    }
    // The verifier counts slots of 8 bytes.
    usize::try_from(lowest.unsigned_abs()).unwrap_or(usize::MAX).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: u8 = 0x95;
    const STORE64: u8 = 0x7b;
    const LOAD32: u8 = 0x61;

    fn instruction(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(dst, src), off, imm }
    }

    fn call(distance: i32) -> bpf_insn {
        instruction(CALL, 0, PSEUDO_CALL, 0, distance)
    }

    #[test]
    fn own_stack() {
        let exit = instruction(EXIT, 0, 0, 0, 0);
        assert_eq!(stack(&[exit]).unwrap(), 0);
        assert_eq!(stack(&[instruction(STORE64, R10, 1, -24, 0), exit]).unwrap(), 24);
        assert_eq!(stack(&[instruction(LOAD32, 1, R10, -12, 0), exit]).unwrap(), 16);
        // Offsets from other registers are not into the stack.
        assert_eq!(stack(&[instruction(STORE64, 1, 2, -24, 0), exit]).unwrap(), 0);
        let address = [instruction(MOV64_X, 1, R10, 0, 0), instruction(ADD64_K, 1, 0, 0, -40), exit];
        assert_eq!(stack(&address).unwrap(), 40);
    }

    #[test]
    fn the_deepest_of_the_calls() {
        let exit = instruction(EXIT, 0, 0, 0, 0);
        let program = [
            instruction(STORE64, R10, 1, -8, 0),
            call(2),
            call(3),
            exit,
            // From the first call: 16 bytes.
            instruction(STORE64, R10, 1, -16, 0),
            exit,
            // From the second: 32 bytes.
            instruction(STORE64, R10, 1, -32, 0),
            exit,
        ];
        assert_eq!(stack(&program).unwrap(), 40);
    }

    #[test]
    fn wrong_calls() {
        let circle = [call(0), call(-2)];
        assert!(stack(&circle).unwrap_err().to_string().contains("8 deep"));
        assert!(stack(&[call(5)]).unwrap_err().to_string().contains("instruction 6"));
        assert!(stack(&[call(-5)]).is_err());
    }
}
