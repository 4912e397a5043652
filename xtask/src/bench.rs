//! `cargo xtask bench`

use std::{ffi::OsString, fs, process::ExitCode};

use anyhow::{Context as _, Result};
use ebpf_build::{Request, Wanted, target_dir};

use crate::{
    build::{self, workspace},
    ebpf, faults, root,
    step::step,
    tools::{Consent, install},
};

/// Measure what an answer costs, in this kernel
///
/// Runs the programs under BPF_PROG_TEST_RUN (ns for each answered request and solicitation, for what is
/// suppressed and for data that passes, with 1 and with 10,000 VIPs, next to programs that do the least possible),
/// and floods a veth pair whose other end is answered by the responder or by Linux, on one CPU. Prints a table and
/// writes target/bench/bench.json. Needs root, and goes through sudo for it.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// How often everything is measured; medians count
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// What else can be measured.
#[derive(clap::Subcommand)]
enum Other {
    Failover(faults::Failover),
    Scale(faults::Scale),
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.other {
        Some(Other::Failover(arguments)) => return faults::failover(arguments),
        Some(Other::Scale(arguments)) => return faults::scale(arguments),
        None => {}
    }
    let consent = Consent::new(arguments.yes);
    step("tools", || install(&["iproute2"], consent))?;
    let request = Request::new(&workspace());
    ebpf::build(Wanted::Auto, consent, &request)?;
    // What is measured runs in the kernel: how cargo builds this part makes no difference.
    let built = step("measuring program", || {
        build::executables(&["build", "--package", "responder-tests", "--bin", "bench"])
    })?;
    let program =
        built.into_iter().find(|program| program.target == "bench").context("cargo built no bench")?;
    let out = target_dir(&workspace()).join("bench");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let objects = OsString::from(&request.out);
    let mut command = root::command(&program.path, &[("RESPONDER_BPF_DIR", &objects)])?;
    command.arg("--rounds").arg(arguments.rounds.to_string());
    command.arg("--json").arg(out.join("bench.json"));
    let status = command.status().with_context(|| format!("cannot run {}", program.path.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
