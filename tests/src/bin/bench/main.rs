//! What the datapath costs, measured in this machine's kernel. `cargo xtask bench` builds and runs it.

mod cost;
mod stats;
mod veth;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, geteuid},
};
use serde_json::json;

/// Measures what the datapath costs.
#[derive(Parser)]
struct Arguments {
    /// How often everything is measured; what is compared takes turns
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    /// Where the figures go as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if !geteuid().is_root() {
        bail!("measuring in the kernel needs root");
    }
    pin()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel = kernel.trim();
    println!("Kernel {kernel}, one CPU, medians of {} rounds (quartiles)\n", arguments.rounds);

    let costs = cost::measure(arguments.rounds)?;
    println!("ns for one frame, under BPF_PROG_TEST_RUN:");
    costs.iter().for_each(|row| println!("{row}"));

    let floods = veth::measure(arguments.rounds)?;
    println!("\nFlood over a veth pair, everything on one CPU:");
    floods.iter().for_each(|row| println!("{row}"));

    if let Some(path) = arguments.json {
        let costs: Vec<_> = costs.iter().map(cost::Row::json).collect();
        let floods: Vec<_> = floods.iter().map(veth::Row::json).collect();
        let all = json!({
            "kernel": kernel,
            "cpu": cpu_model(),
            "rounds": arguments.rounds,
            "test_run": costs,
            "veth": floods,
        });
        let shown = path.display();
        fs::write(&path, format!("{all:#}\n")).with_context(|| format!("cannot write {shown}"))?;
        println!("\nFigures: {shown}");
    }
    Ok(())
}

/// Stays on the last CPU that it may use: interrupts tend to be on the first.
fn pin() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = nix::sched::sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no CPU to run on")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split(':').nth(1)?.trim().to_owned())
}
