//! `cargo xtask sim`

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{build, step::step};

/// Simulate the leadership protocol with everything that can go wrong
///
/// Plays a million random schedules against the agents' own state machine and a model of the API server, of the
/// datapaths and of time, and checks that at no instant two nodes answer for one address and that clusters recover.
/// --help shows what else there is: one schedule in detail, other seeds, every state of small clusters.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// For the simulation: try --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let built = step("simulation", || {
        build::executables(&["build", "--release", "--package", "responder-sim", "--bin", "responder-sim"])
    })?;
    let program = built.into_iter().next().context("cargo built no simulation")?.path;
    let status = std::process::Command::new(&program).args(&arguments.arguments).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
