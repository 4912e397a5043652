//! A cluster for long, and what must not grow. `cargo xtask soak` builds and runs it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use responder_tests::{campaign::Kind, soak::Soak};

/// Lets a cluster run for long.
#[derive(Parser)]
struct Arguments {
    /// How long
    #[arg(long)]
    seconds: u64,
    /// Where events come from
    #[arg(long)]
    seed: u64,
    /// Services in each round, of four addresses each
    #[arg(long, default_value_t = 25)]
    services: u8,
    /// Frames of each flood
    #[arg(long, default_value_t = 100_000)]
    flood: u32,
    /// Only faults of this kind; may be given several times
    #[arg(long)]
    only: Vec<Kind>,
    /// Where to leave what is known of rounds that broke a rule
    #[arg(long)]
    keep: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { seconds, seed, services, flood, only, keep } = Arguments::parse();
    let time = Duration::from_secs(seconds);
    let soaked = Soak { time, seed, services, flood, kinds: only, keep }.play()?;
    println!("\n{}\n{}", soaked.faults.table, soaked.growth);
    let wrong = [&soaked.faults.violations[..], &soaked.grown].concat();
    wrong.iter().for_each(|sentence| println!("WRONG {sentence}"));
    ensure!(wrong.is_empty(), "{} findings; again with --seed {seed}", wrong.len());
    println!(
        "{} rounds, {} addresses came and went, {} frames of floods: no wrong answer, and nothing has grown",
        soaked.rounds, soaked.addresses, soaked.frames
    );
    Ok(())
}
