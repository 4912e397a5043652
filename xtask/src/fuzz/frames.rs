//! Frames in the kernel against the model.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result};
use ebpf_build::{Request, Wanted};

use super::Arguments;
use crate::{
    build::{self, workspace},
    ebpf, faults, root,
    step::step,
    tools::Consent,
};

/// Compares so many.
pub(super) fn run(count: u64, seed: u64, arguments: &Arguments) -> Result<ExitCode> {
    let request = Request::new(&workspace());
    ebpf::build(Wanted::Auto, Consent::new(arguments.yes), &request)?;
    let built = step("comparing program", || {
        build::executables(&["build", "--package", "responder-tests", "--bin", "compare"])
    })?;
    let program = built.into_iter().find(|program| program.target == "compare");
    let program = program.context("cargo built no compare")?.path;
    let objects = OsString::from(&request.out);
    let mut command = root::command(&program, &[("RESPONDER_BPF_DIR", &objects)])?;
    command.args(["--frames", &count.to_string(), "--seed", &seed.to_string()]);
    command.args(["--per-host", &arguments.per_host.to_string()]);
    faults::finish(command)
}
