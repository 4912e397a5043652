//! Has the running kernel's verifier look at an object.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};

/// How much of a refusal is shown.
const LAST_LINES: usize = 25;

/// Loads all programs of an object, attaching none, and returns how many instructions the verifier walked
/// through in each (at most a million are allowed); a kernel before 5.16 does not tell.
///
/// # Errors
///
/// The kernel refuses one; the error has the last lines of the verifier's log.
pub(crate) fn load(object: &Path) -> Result<BTreeMap<String, Option<u32>>> {
    let shown = object.display();
    let mut loaded = Ebpf::load_file(object).with_context(|| format!("cannot load {shown}"))?;
    let mut verified = BTreeMap::new();
    for (name, program) in loaded.programs_mut() {
        let result = if let Program::Xdp(program) = program {
            program.load()
        } else if let Program::SchedClassifier(program) = program {
            program.load()
        } else {
            bail!("{shown}: program {name} is neither of XDP nor a classifier");
        };
        result.map_err(|error| anyhow!("{shown}: the kernel refuses program {name}: {}", refusal(&error)))?;
        verified.insert(name.to_owned(), program.info()?.verified_instruction_count());
    }
    Ok(verified)
}

fn refusal(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return error.to_string();
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    format!("{io_error}; the verifier's last lines:\n{}", last.join("\n"))
}
