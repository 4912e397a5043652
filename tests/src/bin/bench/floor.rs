//! `floor`: what a change must not make twice as dear: the instructions that the kernel's verifier walks through in each
//! program, and the ratios of `answer`, against those in `tests/floor.json`. Ratios, so that the machine matters little,
//! and a wide margin, so that chance does not either.
//!
//! `RESPONDER_BLESS=1` writes that file anew.

use std::{collections::BTreeMap, env, fs};

use anyhow::{Context as _, Result};
use aya::{Ebpf, programs::Program};
use responder_tests::run::object;
use serde_json::{Value, json};

use crate::{answer, report::Report};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/floor.json");
/// How many times the reference is too much.
const MARGIN: f64 = 2.0;
/// Objects whose programs run on links.
const OBJECTS: [&str; 2] = ["responder", "responder-log"];
const ROUNDS: u32 = 9;

/// What the verifier walks through in each program. A kernel before 5.16 does not tell.
fn verified() -> Result<BTreeMap<String, f64>> {
    let mut found = BTreeMap::new();
    for name in OBJECTS {
        let mut loaded = Ebpf::load(&object(&format!("{name}.o"))?)?;
        for (program_name, program) in loaded.programs_mut() {
            if let Program::Xdp(program) = program {
                program.load()?;
            } else if let Program::SchedClassifier(program) = program {
                program.load()?;
            }
            if let Some(count) = program.info()?.verified_instruction_count() {
                found.insert(format!("{name}: {program_name}"), f64::from(count));
            }
        }
    }
    Ok(found)
}

fn ratios() -> Result<BTreeMap<String, f64>> {
    let rows = answer::rows(answer::SIZES[0], ROUNDS)?;
    let measured = rows.into_iter().filter(|row| !row.is_step());
    Ok(measured.map(|row| (row.what.to_owned(), row.ratio.median)).collect())
}

/// Compares with the reference.
pub(crate) fn report() -> Result<Report> {
    let mut report = Report::new("floor", format!("Against {MARGIN} × the reference of tests/floor.json"));
    let found = [("verifier", verified()?), ("ratio", ratios()?)];
    if env::var_os("RESPONDER_BLESS").is_some() {
        let rounded = |value: f64| (value * 100.0).round() / 100.0;
        let part = |found: &BTreeMap<String, f64>| -> Value {
            found.iter().map(|(what, value)| (what.clone(), json!(rounded(*value)))).collect()
        };
        let all: Value = found.iter().map(|(kind, found)| ((*kind).to_owned(), part(found))).collect();
        fs::write(FILE, format!("{all:#}\n")).with_context(|| format!("cannot write {FILE}"))?;
    }
    let text = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let reference: Value = serde_json::from_str(&text).with_context(|| FILE.to_owned())?;
    let mut table = vec![];
    for (kind, found) in found {
        for (what, value) in found {
            let Some(before) = reference[kind][&what].as_f64() else {
                report.fail(format!(
                    "{kind} of {what}: not in tests/floor.json (RESPONDER_BLESS=1 puts it there)"
                ));
                continue;
            };
            let times = value / before;
            let line = format!("{kind:<9}{what:<34}{value:>10.2}, reference {before:>10.2}: {times:.2} ×");
            if times > MARGIN {
                report.fail(line)
            } else {
                report.line(line)
            }
            table.push(json!({ "kind": kind, "what": what, "value": value, "reference": before }));
        }
    }
    report.json("rows", json!(table));
    Ok(report)
}
