//! What the datapath costs, measured in this machine's kernel. `cargo xtask bench` builds and runs it.

mod answer;
mod collateral;
mod flood;
mod floor;
mod live;
mod machine;
mod report;
mod stats;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use nix::unistd::geteuid;

use crate::machine::Machine;

/// Measures what the datapath costs.
#[derive(Parser)]
struct Arguments {
    /// What is measured
    #[arg(required = true)]
    names: Vec<Name>,
    /// How often everything is measured; what is compared takes turns
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    /// Where the figures go as JSON
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    Answer,
    Flood,
    Collateral,
    Floor,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if !geteuid().is_root() {
        bail!("measuring in the kernel needs root");
    }
    let (out, rounds) = (&arguments.out, arguments.rounds);
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let machine = Machine::look(rounds)?;
    println!("{}\n", machine.line());
    machine::pin()?;
    let mut code = ExitCode::SUCCESS;
    for name in arguments.names {
        let report = match name {
            Name::Answer => answer::report(rounds),
            Name::Flood => flood::report(rounds),
            Name::Collateral => collateral::report(rounds),
            Name::Floor => floor::report(),
        }?;
        report.print();
        if report.failed() {
            code = ExitCode::FAILURE;
        }
        report.write(out, &machine.json())?;
    }
    Ok(code)
}
