//! Random faults in a cluster while a client asks for its VIPs. `cargo xtask faults` builds and runs it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use responder_tests::campaign::{Campaign, Kind};

/// Plays random faults in a cluster.
#[derive(Parser)]
struct Arguments {
    /// How many
    #[arg(long, default_value_t = 300)]
    runs: u32,
    /// Where they come from
    #[arg(long)]
    seed: u64,
    /// Only faults of this kind; may be given several times
    #[arg(long)]
    only: Vec<Kind>,
    /// The agents' lease duration in ms
    #[arg(long, default_value_t = 1000)]
    lease: u64,
    /// Where to leave what is known of runs that broke a rule
    #[arg(long)]
    keep: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { runs, seed, only, lease, keep } = Arguments::parse();
    let outcome =
        Campaign { runs, seed, only, lease: Duration::from_millis(lease), keep, spare: None }.play()?;
    println!("\n{}", outcome.table);
    let broken = outcome.violations.len();
    outcome.violations.iter().for_each(|violation| println!("VIOLATION {violation}"));
    ensure!(broken == 0, "{broken} violations; again with --seed {seed}");
    println!("{runs} runs: at no instant did two answer for one VIP");
    Ok(())
}
