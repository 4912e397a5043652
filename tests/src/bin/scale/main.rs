//! What many VIPs and many agents cost, and how long they take. `cargo xtask bench scale` builds and runs it.

mod agents;
mod churn;
mod vips;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Value, json};

/// Measures clusters of many VIPs, and of many agents.
#[derive(Parser)]
struct Arguments {
    /// Numbers of VIPs, in a cluster of three nodes
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000,65536", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    vips: Vec<u32>,
    /// Numbers of agents at one API server
    #[arg(long, value_delimiter = ',', default_value = "3,10,50,200", value_parser = clap::value_parser!(u8).range(2..=200))]
    agents: Vec<u8>,
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// How often a node crashes, for each number
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long is looked at what the agents use, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,
    /// Where the figures go, too
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Many VIPs
    Vips,
    /// Many agents
    Agents,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = || fs::read_to_string("/proc/loadavg").map(|load| load.trim().to_owned());
    let before = load()?;
    println!("Kernel {}, load at the beginning {before}", kernel.trim());
    let window = Duration::from_secs(arguments.seconds);
    let mut found = json!({ "kernel": kernel.trim(), "load": before });
    if arguments.only != Some(Part::Agents) {
        found["vips"] = vips::measure(&arguments.vips, arguments.rounds, window)?;
    }
    if arguments.only != Some(Part::Vips) {
        found["agents"] = agents::measure(&arguments.agents, arguments.rounds, window)?;
    }
    println!("\nload at the end {}", load()?);
    match &arguments.json {
        Some(path) => fs::write(path, format!("{found:#}\n"))
            .with_context(|| format!("cannot write {}", path.display())),
        None => Ok(()),
    }
}

/// In mebibytes.
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// In per cent of one processor.
fn per_cent(used: Duration, window: Duration) -> f64 {
    used.as_secs_f64() / window.as_secs_f64() * 100.0
}

/// In milliseconds.
fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The value below which this part of all is, in per cent; 0 of none.
fn quantile(values: &[Duration], per_cent: usize) -> Duration {
    let mut values = values.to_vec();
    values.sort_unstable();
    let index = (values.len() * per_cent).div_ceil(100).saturating_sub(1);
    values.get(index).copied().unwrap_or_default()
}

/// A line of a table, and the same for programs.
fn show(what: &str, value: f64, unit: &str, goal: &str, row: &mut Value) {
    println!("  {what:<44} {value:>10.1} {unit:<6} {goal}");
    row[what] = json!({ "value": value, "unit": unit });
}
